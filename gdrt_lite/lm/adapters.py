"""LoRA on any causal language model: which layers it adapts, on which copy, and what a saved adapter consists of.

A model may be tuned more than once. The adapters of the earlier trainings are merged into its weights, and a saved adapter
keeps them in its folder `earlier`, so that the base and this folder together are the whole model.
Used by `training.finetune` and `lm.load`. Shown in notebook 08, section 6.
"""

from __future__ import annotations

import copy
import json
import math
import re
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.import_utils import is_torchao_available
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from gdrt_lite.system.errors import GdrtError, first_line

WEIGHTS = "adapter_model.safetensors"
BASE = "base.json"  # file in a saved adapter: one number of each weight of its base
EARLIER = "earlier"  # folder in a saved adapter: the adapters that were merged before it
ORIGIN = "origin"  # attribute of a tuned model: these numbers, and those adapters
QUERY_OR_VALUE = re.compile(r"(^|_)(q|v|kv|qkv|query|value)(_|$|lin)|wqkv|c_attn|att_proj")
# Initialisations of LoRA. The second kind takes a part out of the frozen weights, and peft does so again on loading.
KEEPS_THE_BASE, CHANGES_THE_BASE = (True, False, "gaussian", "orthogonal"), ("olora", "pissa")


def overlook_old_torchao() -> str | None:
    """Let peft answer that there is no torchao where it is older than peft takes; peft's complaint if so, else None.

    Colab preinstalls torchao 0.10.0, and peft then refuses to adapt any layer, although none is one of torchao's. peft
    remembers its first answer, so one that is given while torchao is out of sight holds, and nothing else changes.
    """
    try:
        is_torchao_available()
    except ImportError as complaint:
        modules: dict[str, Any] = sys.modules  # None in it stands for a module that is not there
        before = modules.get("torchao")
        modules["torchao"] = None
        try:
            is_torchao_available()
        finally:
            del modules["torchao"]
            if before:
                modules["torchao"] = before
        return str(complaint)
    return None


OLD_TORCHAO = overlook_old_torchao()


def trainable_copy(
    model: PreTrainedModel | PeftModel, lora: LoraConfig | None, seed: int, start: PeftModel | None = None
) -> PeftModel:
    """The model with a fresh LoRA adapter; adapters that it has already are merged first. `model` itself stays as it is.

    Args:
        model: what to tune; its weights stay frozen, and are shared in memory where nothing can change them.
        lora: default r=8, alpha=16. Without `target_modules` it adapts the layers of `default_targets`.
        seed: of the adapter's initial weights.
        start: a tuned copy of the same model, whose adapter gives the initial weights instead.

    Raises:
        ValueError: an initialisation that changes the frozen weights, or a model that cannot be trained.
        GdrtError: an earlier adapter that cannot be merged.
    """
    if model.dtype == torch.float16 and model.device.type == "cpu":
        raise ValueError("float16 cannot be trained on a CPU; load the model with dtype=torch.float32 or torch.bfloat16.")
    lora = copy.deepcopy(lora) if lora else LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, task_type="CAUSAL_LM")
    if lora.init_lora_weights not in (*KEEPS_THE_BASE, *CHANGES_THE_BASE):
        known = ", ".join(map(repr, (*KEEPS_THE_BASE, *CHANGES_THE_BASE)))
        raise ValueError(
            f"init_lora_weights={lora.init_lora_weights!r} needs data or draws numbers again on loading, and what is saved "
            f"would not be what was learnt; take one of {known}."
        )
    base, earlier = getattr(model, ORIGIN, None) or (some_weights(model), [])
    if isinstance(model, PeftModel):
        earlier = [*earlier, (model.peft_config[model.active_adapter], _state(model))]
        model = merge(copy.deepcopy(model))
    if not lora.target_modules and not lora.target_parameters:
        lora.target_modules = default_targets(model)
    # What stays frozen is shared, not copied: deepcopy takes what its memo holds for an object.
    shared = lora.bias == "none" and lora.init_lora_weights in KEEPS_THE_BASE
    frozen = model.parameters() if shared else ()
    model = copy.deepcopy(model, {id(p): torch.nn.Parameter(p.data, requires_grad=False) for p in frozen})
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        tuned = get_peft_model(model, lora)
    if start is not None:
        if lora_summary(start) != lora_summary(tuned):
            raise ValueError("the adapter to start from has another rank or other layers; train it with the same `lora`.")
        set_peft_model_state_dict(tuned, _state(start))
    setattr(tuned, ORIGIN, (base, earlier))
    return tuned


def some_weights(model: PreTrainedModel) -> dict[str, float]:
    """The middle number of each weight, which tells one base model from another in whatever number format."""
    weights = ((name, p.detach().flatten()) for name, p in model.named_parameters() if p.is_floating_point())
    return {name: float(flat[len(flat) // 2]) for name, flat in weights if len(flat)}


def default_targets(model: PreTrainedModel) -> list[str] | str:
    """Names of the layers that LoRA adapts: peft's choice, else query and value of the attention, else all linear layers."""
    known = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(model.config.model_type)
    if known:
        return known
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear | Conv1D)}
    by_last = {name.rpartition(".")[2]: name for name in linear}
    found = sorted(last for last in by_last if QUERY_OR_VALUE.search(last.lower()))
    every = [name for name, _ in model.named_modules() if name.rpartition(".")[2] in found]
    if found and linear.issuperset(every):
        return found
    return sorted(linear.intersection(every)) or "all-linear"


def lora_summary(model: torch.nn.Module) -> dict[str, Any] | None:
    """What a result records of the adapter; None for a model without one."""
    if not isinstance(model, PeftModel):
        return None
    config = model.peft_config[model.active_adapter]
    targets = config.target_modules or []
    targets = [targets] if isinstance(targets, str) else sorted(targets)
    return dict(r=config.r, alpha=config.lora_alpha, dropout=config.lora_dropout, target_modules=targets)


def merge(model: PeftModel) -> PreTrainedModel:
    """The base model with the adapter added to its weights. The base inside `model` is changed.

    A weight that several layers share, such as tied embeddings, is copied for the layer with the adapter: added to the
    shared one, the adapter would act in the other layers too.

    Raises:
        GdrtError: the merged model does not compute what the model with its adapter does.
    """
    ids = torch.arange(1, 9, device=model.device)[None]
    with torch.no_grad():
        model.eval()
        before = model(input_ids=ids, use_cache=False).logits
        uses = Counter(p.data_ptr() for _, p in model.named_parameters(remove_duplicate=False))
        for module in model.modules():
            base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else None
            weight = getattr(base, "weight", None)
            if base is not None and isinstance(weight, torch.nn.Parameter) and uses[weight.data_ptr()] > 1:
                base.weight = torch.nn.Parameter(weight.detach().clone(), weight.requires_grad)
                model.config.tie_word_embeddings = False
        merged = model.merge_and_unload()
        after = merged(input_ids=ids, use_cache=False).logits
    tolerance = 1e-3 if before.dtype in (torch.float32, torch.float64) else 0.3  # in standard deviations of a logit
    if not (after - before).abs().max() <= tolerance * before.std():
        raise GdrtError("the adapter of this model cannot be merged into its weights, so it cannot be tuned a second time.")
    return merged


def save_adapter(model: PeftModel, base: str, folder: Path) -> None:
    """Write an adapter as safetensors, and those merged before it beside; `base` is the name to load the model by."""
    model.peft_config[model.active_adapter].base_model_name_or_path = base
    model.save_pretrained(folder, save_embedding_layers=False)  # asking for them would ask the hub
    weights, earlier = getattr(model, ORIGIN)
    (folder / BASE).write_text(json.dumps(weights) + "\n", encoding="utf-8")
    for number, (config, state) in enumerate(earlier):
        place = folder / EARLIER / str(number)
        place.mkdir(parents=True)
        config.base_model_name_or_path = base
        config.save_pretrained(place)
        save_file(state, place / WEIGHTS)


def with_adapter(model: PreTrainedModel, folder: str | Path) -> PeftModel:
    """The model with the adapter of a folder, after those that were merged before it.

    Raises:
        GdrtError: no adapter, an adapter of a kind that adds tokens, or one made for another model.
    """
    folder, base = Path(folder), some_weights(model)
    _check_base(base, folder)
    earlier = []
    for place in sorted((folder / EARLIER).glob("[0-9]*"), key=lambda path: int(path.name)):
        tuned = _with_one(model, place)
        earlier.append((tuned.peft_config[tuned.active_adapter], _state(tuned)))
        model = merge(tuned)
    tuned = _with_one(model, folder)
    setattr(tuned, ORIGIN, (base, earlier))
    return tuned


def _unusable(folder: Path, why: str) -> GdrtError:
    return GdrtError(f"no usable LoRA adapter in {str(folder)!r} ({why}).")


def _check_base(ours: dict[str, float], folder: Path) -> None:
    """Refuse an adapter whose folder says that it was learnt on other weights; folders of other programs say nothing."""
    try:
        file = folder / BASE
        theirs = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else ours
        # bfloat16 rounds to 1/256; a model in 8 or 4 bits shows only its other weights.
        differ = [name for name in ours if name in theirs and not math.isclose(ours[name], theirs[name], rel_tol=5e-3)]
    except (OSError, ValueError, TypeError) as error:
        raise _unusable(folder, f"{BASE} cannot be read: {error}") from error
    if differ:
        raise _unusable(folder, f"it was made for another model, of which {len(differ)} weights differ, such as {differ[0]}")


def _with_one(model: PreTrainedModel, folder: Path) -> PeftModel:
    if not (folder / "adapter_config.json").is_file() or not (folder / WEIGHTS).is_file():
        raise _unusable(folder, f"it needs the files adapter_config.json and {WEIGHTS}")
    try:
        config = PeftConfig.from_pretrained(str(folder))
        if config.is_prompt_learning:
            kind = config.peft_type.value
            raise ValueError(f"{kind} puts tokens of its own into the prompt; use an adapter of the weights")
        with safe_open(folder / WEIGHTS, "pt") as file:
            saved = set(file.keys())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tuned = PeftModel.from_pretrained(model, str(folder), autocast_adapter_dtype=False)
    except Exception as error:  # a damaged file may raise anything in peft, tokenizers or safetensors
        raise _unusable(folder, first_line(error)) from error
    # peft loads what fits and warns at most.
    missing = set(_state(tuned)) - saved
    surplus = {key for key in saved - set(_state(tuned)) if not re.search("embed|lm_head|wte", key)}
    if missing or surplus:
        word, keys = ("lacks", missing) if missing else ("has in excess", surplus)
        why = f"it was made for another model: it {word} {len(keys)} tensors, such as {min(keys)}"
        raise _unusable(folder, why)
    return tuned


def _state(model: PeftModel) -> dict[str, torch.Tensor]:
    """The adapter's tensors by their names in a saved file."""
    state = get_peft_model_state_dict(model, adapter_name=model.active_adapter, save_embedding_layers=False)
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
