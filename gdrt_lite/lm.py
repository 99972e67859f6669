"""Load a causal language model, and score target tokens with it: the one scoring core of the package.

Everything that needs a probability (attribution, relevance, training, item NLL) goes through `batch_logprobs`.
Derived in notebook 01, section 2.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from gdrt_lite import assets, attention, prompts
from gdrt_lite.collation import batches_of_similar_length, collate, equal_up_to_the_target
from gdrt_lite.errors import GdrtError
from gdrt_lite.prompts import Encoded, Prompt

SMOLLM2 = "smollm2-135m"


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
    def window(self) -> int:
        """Longest prompt in tokens."""
        return getattr(self.model.config, "max_position_embeddings", 1 << 30)

    def encode(self, history: Sequence[str], target: str | None, room: int = 0) -> Encoded:
        """Tokenise one example, cut to the model's window less `room` tokens at the oldest end of the history."""
        return self.prompt.encode(self.tokenizer, history, target, max_length=self.window - room)


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
        adapter: folder of a LoRA adapter saved by `training.Run.save`.
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
        model = _with_adapter(model, adapter)
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


def target_logprobs(lm: LanguageModel, encoded: Sequence[Encoded], batch_tokens: int = 4096) -> list[torch.Tensor]:
    """log P(label | what stands before it) for every label of every prompt.

    Prompts are scored in batches of similar length, and those that are equal up to the target share a row. The result depends
    neither on their order nor on the batch size.

    Args:
        encoded: prompts, see `LanguageModel.encode`.
        batch_tokens: tokens in a batch, padding included: bounds the memory.

    Returns:
        One float32 tensor per prompt, shape (T,), in nats, in the order of `encoded`.
    """
    scores: list[torch.Tensor] = [torch.empty(0)] * len(encoded)
    lm.model.eval()
    share = shares_prefix(lm.model)
    packs = equal_up_to_the_target(encoded) if share else [[i] for i in range(len(encoded))]
    with torch.inference_mode():
        for chosen in batches_of_similar_length(encoded, packs, batch_tokens):
            batch = collate(encoded, lm.tokenizer.pad_token_id, share, chosen)
            flat = batch_logprobs(lm.model, {name: tensor.to(lm.device) for name, tensor in batch.items()}).cpu()
            order = [i for pack in chosen for i in pack]
            for i, part in zip(order, flat.split([len(encoded[i].labels) for i in order]), strict=True):
                scores[i] = part
    return scores


def batch_logprobs(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Log-probabilities of the labels of a collated batch, shape (N,), float32, differentiable."""
    past = shared_past(model, batch["prefix_ids"], len(batch["input_ids"]))
    mask = batch["attention_mask"]
    if mask.dim() == 4:  # who sees whom, given in full: transformers adds such a mask to the scores as it is
        dtype = next(model.parameters()).dtype
        mask = torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
    with only_rows(model, batch["row"], batch["column"]):
        logits = model(
            input_ids=batch["input_ids"],
            attention_mask=mask,
            position_ids=batch["position_ids"],
            past_key_values=past,
            use_cache=past is not None,
        ).logits  # (N, vocabulary)
    return -F.cross_entropy(logits.float(), batch["labels"], reduction="none")


@contextmanager
def only_rows(model: torch.nn.Module, row: torch.Tensor, column: torch.Tensor) -> Iterator[None]:
    """Within this context the model computes logits at the places (row, column) only, as a matrix (N, vocabulary).

    The vocabulary-wide output layer costs as much as several transformer layers. A hook on it, unlike a call of the
    layers one by one, keeps whatever else a model does to its logits (scaling, soft-capping).
    """
    head = getattr(model, "module", model).get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, hidden: (hidden[0][row, column],))
    try:
        yield
    finally:
        hook.remove()


def shared_past(model: torch.nn.Module, prefix_ids: torch.Tensor, batch_size: int) -> DynamicCache | None:
    """Keys and values of the opening that every row shares, computed once and viewed by each row.

    Gradients flow through it: the rows' gradients of the shared keys and values add up.
    """
    if not len(prefix_ids):
        return None
    nowhere = prefix_ids[:0]
    with only_rows(model, nowhere, nowhere):
        past = model(input_ids=prefix_ids[None], use_cache=True).past_key_values
    expanded = [
        (layer.keys.expand(batch_size, -1, -1, -1), layer.values.expand(batch_size, -1, -1, -1)) for layer in past.layers
    ]
    return DynamicCache(expanded)


def shares_prefix(model: torch.nn.Module) -> bool:
    """Whether keys and values can be shared: full attention in every layer (no sliding window, no recurrent state)."""
    config = model.config.get_text_config(decoder=True)
    kinds = getattr(config, "layer_types", None) or []
    return not getattr(config, "sliding_window", None) and all(kind == "full_attention" for kind in kinds)


def _with_adapter(model: PreTrainedModel, adapter: str | Path) -> PreTrainedModel:
    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return PeftModel.from_pretrained(model, str(adapter), autocast_adapter_dtype=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise GdrtError(f"no usable LoRA adapter in {str(adapter)!r} ({_first_line(error)}).") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
