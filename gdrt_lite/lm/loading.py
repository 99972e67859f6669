"""Load a causal language model by name: faults of a folder raise errors of one sentence. Used in notebook 01, section 1."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from gdrt_lite import prompts
from gdrt_lite.lm import adapters, attention
from gdrt_lite.lm.model import LanguageModel, has_fast_bf16
from gdrt_lite.lm.verify import verify
from gdrt_lite.prompts import Prompt
from gdrt_lite.system import assets
from gdrt_lite.system.assets import SMOLLM2
from gdrt_lite.system.errors import GdrtError, first_line


def load(
    name: str | Path = SMOLLM2,
    prompt: Prompt = prompts.DEFAULT,
    adapter: str | Path | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
) -> LanguageModel:
    """Load a causal LM: the embedded SmolLM2-135M-Instruct, a local folder, or any hub name.

    Any other model than SmolLM2 is probed first, see `verify`.

    Args:
        name: "smollm2-135m" (fetched once, see `gdrt_lite.assets`), a folder, or a name on the Hugging Face hub. The folder
            of an adapter stands for its base model with this adapter.
        prompt: wording used with this model.
        adapter: folder of a LoRA adapter saved by `training.TuningResult.save`.
        dtype: default bfloat16 where the device computes it fast (CUDA, AMX, AVX512-BF16), else float32.
        device: default CUDA when there is one, else CPU.

    Raises:
        GdrtError: the model or the adapter cannot be found or read, model and tokenizer do not fit each other, or the model
            is not a causal LM.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = dtype or (torch.bfloat16 if has_fast_bf16(device) else torch.float32)
    own = Path(name) / "adapter_config.json"
    if own.is_file() and not (Path(name) / "config.json").is_file():
        if adapter is not None:
            two = "give its base model as the name and one adapter beside it"
            raise GdrtError(f"{str(name)!r} is an adapter itself; {two}.")
        return load(_base_of(own), prompt, name, dtype, device)
    source = assets.smollm2_folder() if str(name) == SMOLLM2 else name
    tokenizer = _tokenizer(source, name)
    model = _model(source, name, dtype).to(device).eval()
    _check_fit(model, tokenizer, name)
    called = f"./{name}" if str(name) == "pocket" else str(name)  # a folder of this name is not the pocket model
    lm = LanguageModel(model, tokenizer, prompt, called)
    if str(name) != SMOLLM2:
        lm = verify(lm)
    elif device.type == "cpu" and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(attention.NAME)
    if adapter is not None:
        lm.model = adapters.with_adapter(model, adapter).to(device).eval()
    return lm


def _base_of(config: Path) -> str:
    try:
        base = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError, OSError) as error:
        raise GdrtError(f"no usable LoRA adapter in {str(config.parent)!r} ({first_line(error)}).") from error
    if not isinstance(base, str) or not base:
        unnamed = f"the adapter {str(config.parent)!r} does not name its base model"
        raise GdrtError(f"{unnamed}; load that with adapter=... beside it.")
    return base


def _tokenizer(source: str | Path, name: str | Path) -> PreTrainedTokenizerBase:
    if Path(source).is_dir() and not any(Path(source).glob("*token*")) and not any(Path(source).glob("vocab*")):
        raise GdrtError(f"the folder {str(name)!r} has no tokenizer; copy the files of the model's tokenizer into it.")
    with _readable(name, "the tokenizer of model", ""):
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)


def _model(source: str | Path, name: str | Path, dtype: torch.dtype) -> PreTrainedModel:
    asked = dict(dtype=dtype, trust_remote_code=False, output_loading_info=True)
    with _readable(name, "model", " as a causal language model; choose one that can"):
        model, found = AutoModelForCausalLM.from_pretrained(source, **asked)
    if lacking := found["missing_keys"]:
        raise GdrtError(
            f"the weights of model {str(name)!r} lack {len(lacking)} tensors, such as {min(lacking)}: it was saved without "
            "its head, or for another task."
        )
    return model


def _check_fit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str | Path) -> None:
    """Give the tokenizer an end of sequence where the model knows one; refuse a tokenizer of another model."""
    control = prompts.control_ids(tokenizer)
    ends = model.config.eos_token_id
    ends = [i for i in (ends if isinstance(ends, list) else [ends]) if i in control]
    if tokenizer.eos_token is None and (ends or tokenizer.sep_token):
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ends[0]) if ends else tokenizer.sep_token
    if tokenizer.eos_token_id is None:
        raise GdrtError(
            f"the tokenizer of model {str(name)!r} has no end-of-sequence token, without which no title ends; set eos_token "
            "in its tokenizer_config.json."
        )
    size = getattr(model.get_input_embeddings(), "num_embeddings", len(tokenizer))
    needed = {*tokenizer.get_vocab().values()} - control | {tokenizer.eos_token_id, *prompts.opening_ids(tokenizer)}
    if max(needed) >= size:
        raise GdrtError(
            f"the tokenizer of model {str(name)!r} has {len(tokenizer)} tokens and the model knows {size}; "
            "take the tokenizer that the model was trained with."
        )


@contextmanager
def _readable(name: str | Path, what: str, how: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise GdrtError(
            f"unknown model {str(name)!r}: it is neither '{SMOLLM2}', nor a folder with a saved model, nor a hub name "
            f"that can be reached from here ({first_line(error)})."
        ) from error
    except Exception as error:  # files of others, or a missing package: what is wrong with them may raise anything
        why = f"{type(error).__name__}: {first_line(error)}"
        raise GdrtError(f"{what} {str(name)!r} cannot be read{how} ({why}).") from error
