"""A causal language model with its tokenizer and prompt; the pocket model. Used in notebook 01, section 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from gdrt_lite import prompts
from gdrt_lite.lm import attention
from gdrt_lite.prompts import Encoded, Prompt

UNLIMITED = 1 << 30
# What configurations call the longest prompt.
CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "n_ctx")


@dataclass
class LanguageModel:
    """A causal LM with the tokenizer and the prompt it is used with.

    Attributes:
        model, tokenizer, prompt: what the name says.
        name: by which `load` finds the model.
        packed: longest prompt in tokens that may be read together with others; longer ones are read alone, by `plain`.
        masks: whether the model can leave out a masked token, as the ablation "attention" asks; recurrent models cannot.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompt: Prompt
    name: str
    packed: int = UNLIMITED
    masks: bool = True

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def context_length(self) -> int:
        """Longest prompt in tokens."""
        config = self.model.config.get_text_config(decoder=True)
        lengths = (getattr(config, name, None) for name in CONTEXT_NAMES)
        return next((length for length in lengths if isinstance(length, int) and length > 0), UNLIMITED)

    def encode(self, history: Sequence[str], target: str | None, room: int = 0) -> Encoded:
        """Tokenise one example, cut to the model's context less `room` tokens at the oldest end of the history."""
        return self.prompt.encode(self.tokenizer, history, target, max_length=self.context_length, room=room)


def pocket(titles: Sequence[str], prompt: Prompt = prompts.DEFAULT, seed: int = 0) -> LanguageModel:
    """An untrained Llama of about 1M parameters with a BPE of its own, small enough to train in a lesson.

    Args:
        titles: the catalogue; its words make the vocabulary.
        prompt: the wording (or wordings), whose words join the vocabulary.
        seed: random seed for the initial weights.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if not titles:
        raise ValueError("titles is empty: the pocket model builds its vocabulary from the catalogue.")
    wordings = getattr(prompt, "variants", (prompt,))
    corpus = [text for p in wordings for text in (p.before, p.bullet, p.after)] * 8
    corpus += [" " + title for title in titles]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special, alphabet = ["<eos>", "<pad>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2048, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(corpus, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<eos>", pad_token="<pad>")
    sizes = dict(hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4)
    ids = dict(bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=1024, tie_word_embeddings=True, **sizes, **ids,
        attn_implementation=attention.NAME,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    return LanguageModel(model.eval(), tokenizer, prompt, "pocket")


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 matrix products are faster than float32 ones here (CUDA from Ampere on, AMX, AVX512-BF16)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, probe, bool)() for probe in probes)


@contextmanager
def in_float32(model: torch.nn.Module, most: float = float("inf")) -> Iterator[None]:
    """Convert the 16-bit weights of a model to float32 within this context, unless they are more than `most` numbers.

    In bfloat16 a matrix product is rounded to 8 bits, and differently for other shapes. Of 20 users' lists under SmolLM2, 12
    changed between batches of 1 and of 16, and scores by up to a nat. In float32 no list changed, and scores by 1e-4.
    """
    narrow = [(p, p.data) for p in (*model.parameters(), *model.buffers()) if p.dtype in (torch.bfloat16, torch.float16)]
    narrow = narrow if sum(numbers.numel() for _, numbers in narrow) <= most else []
    try:
        for weight, numbers in narrow:
            weight.data = numbers.float()
        yield
    finally:
        for weight, numbers in narrow:
            weight.data = numbers
