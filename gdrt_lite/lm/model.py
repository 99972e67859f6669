"""Load a causal language model, or make the pocket model. Used in notebook 01, section 1."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from gdrt_lite import prompts
from gdrt_lite.lm import adapters, attention
from gdrt_lite.prompts import Encoded, Prompt
from gdrt_lite.system import assets
from gdrt_lite.system.assets import SMOLLM2
from gdrt_lite.system.errors import GdrtError


@dataclass
class LanguageModel:
    """A causal LM with the tokenizer and the prompt it is used with."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompt: Prompt
    name: str

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def context_length(self) -> int:
        """Longest prompt in tokens."""
        return getattr(self.model.config, "max_position_embeddings", 1 << 30)

    def encode(self, history: Sequence[str], target: str | None, room: int = 0) -> Encoded:
        """Tokenise one example, cut to the model's window less `room` tokens at the oldest end of the history."""
        return self.prompt.encode(self.tokenizer, history, target, max_length=self.context_length - room)


def load(
    name: str | Path = SMOLLM2,
    prompt: Prompt = prompts.DEFAULT,
    adapter: str | Path | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
) -> LanguageModel:
    """Load a causal LM: the embedded SmolLM2-135M-Instruct, a local folder, or any hub name.

    Args:
        name: "smollm2-135m" (fetched once, see `gdrt_lite.assets`), a folder, or a name on the Hugging Face hub.
        prompt: wording used with this model.
        adapter: folder of a LoRA adapter saved by `training.TuningResult.save`.
        dtype: default bfloat16 where the device computes it fast (CUDA, AMX, AVX512-BF16), else float32.
        device: default CUDA when there is one, else CPU.

    Raises:
        GdrtError: the model or the adapter cannot be found or read, or the model is not a causal LM that takes positions.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = dtype or (torch.bfloat16 if has_fast_bf16(device) else torch.float32)
    source = assets.smollm2_folder() if str(name) == SMOLLM2 else name
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
    except OSError as error:
        raise GdrtError(
            f"unknown model {str(name)!r}: it is neither '{SMOLLM2}', nor a folder with a saved model, nor a hub name "
            f"that can be reached from here ({_first_line(error)})."
        ) from error
    except ValueError as error:
        raise GdrtError(
            f"model {str(name)!r} cannot be read as a causal language model; choose one that can ({_first_line(error)})."
        ) from error
    # What rows share is read once, so a token's place in a batch is not its position. ALiBi and recurrent models go by place.
    if "position_ids" not in inspect.signature(model.forward).parameters:
        raise GdrtError(f"model {str(name)!r} takes no position_ids, which every score here needs; choose one that does.")
    # Left to itself, transformers takes "sdpa", or "eager" for a model whose attention needs more (Gemma-2, GPT-OSS).
    if device.type == "cpu" and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(attention.NAME)
    if adapter is not None:
        model = adapters.with_adapter(model, adapter)
    return LanguageModel(model.to(device).eval(), tokenizer, prompt, str(name))


def pocket(titles: Sequence[str], prompt: Prompt = prompts.DEFAULT, seed: int = 0) -> LanguageModel:
    """An untrained Llama of about 1M parameters with a BPE of its own, small enough to train in a lesson.

    Args:
        titles: the catalogue; its words make the vocabulary.
        prompt: the wording (or wordings), whose words join the vocabulary.
        seed: of the initial weights.
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
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=2048, special_tokens=["<eos>", "<pad>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<eos>", pad_token="<pad>")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation=attention.NAME,
    )
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


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
