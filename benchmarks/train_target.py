"""A LoRA training target: growing windows as one tree, against one window a row, full-vocabulary logits and sdpa."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.helpers import disable_input_dtype_casting

from benchmarks.common import DEVICE, compare, distinct_tokens, language_model, roofline, whole_chunks
from gdrt_lite import lm
from gdrt_lite.lm import batch_logprobs
from gdrt_lite.lm.packing import collate
from gdrt_lite.prompts import Encoded

LORA: dict[str, dict[str, Any]] = {
    "q_v_r8": dict(r=8, lora_alpha=16),
    "all_linear_r16": dict(r=16, lora_alpha=32, target_modules="all-linear"),
}
Loss = Callable[[torch.nn.Module, list[Encoded]], torch.Tensor]


def adapted(base: torch.nn.Module, lora: dict[str, Any], attention: str) -> torch.nn.Module:
    """A copy with LoRA, and one attention implementation. The adapter starts at zero, so it is moved off zero."""
    model = copy.deepcopy(base)
    model.set_attn_implementation(attention)
    model = get_peft_model(model, LoraConfig(**lora, lora_dropout=0.0, task_type="CAUSAL_LM")).train()
    draw = torch.Generator().manual_seed(1)
    for parameter in (p for p in model.parameters() if p.requires_grad):
        parameter.data.copy_(0.01 * torch.randn(parameter.shape, generator=draw))
    return model


def our_loss(model: torch.nn.Module, rows: list[Encoded]) -> torch.Tensor:
    """Every token of the chunk once, logits at the target positions only."""
    return -batch_logprobs(model, {name: tensor.to(DEVICE) for name, tensor in collate(rows).items()}).mean()


def their_loss(model: torch.nn.Module, rows: list[Encoded]) -> torch.Tensor:
    """Right padding, labels -100 outside the target, the model's own loss over the whole vocabulary."""
    width = max(map(len, rows))
    ids = torch.tensor([list(r.ids) + [0] * (width - len(r)) for r in rows])
    mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows])
    labels = torch.full_like(ids, -100)
    for i, row in enumerate(rows):
        labels[i, row.predict_at[0] + 1 : len(row)] = torch.tensor(row.labels)
    return model(input_ids=ids.to(DEVICE), attention_mask=mask.to(DEVICE), labels=labels.to(DEVICE)).loss


def step(model: torch.nn.Module, loss: Loss, rows: list[Encoded], autocast: bool = False) -> None:
    """One optimiser step."""
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=autocast):
        value = loss(model, rows)
    value.backward()
    optimiser.step()
    optimiser.zero_grad()


def differences(model: lm.LanguageModel, lora: dict[str, Any], rows: list[Encoded]) -> dict[str, float]:
    """Relative differences of the loss and of all adapter gradients between the two ways, in float32."""
    values, gradients = [], []
    for loss, attention in ((our_loss, model.model.config._attn_implementation), (their_loss, "sdpa")):
        tuned = adapted(model.model, lora, attention)
        value = loss(tuned, rows)
        value.backward()
        values.append(value.item())
        gradients.append(torch.cat([p.grad.flatten() for p in tuned.parameters() if p.requires_grad]))
    return {
        "loss_difference_fp32": abs(values[0] - values[1]) / values[1],
        "gradient_difference_fp32": float((gradients[0] - gradients[1]).norm() / gradients[1].norm()),
    }


def run(tiny: bool = False) -> dict:
    """For LoRA on q and v with r=8, and as `all_linear` on all linear layers with r=16: ratio, differences, roofline."""
    base, exact = language_model(tiny), language_model(tiny, torch.float32)
    rows = [base.encode(e.history, e.target) for e in whole_chunks(1 if tiny else 2)]
    autocast, found = base.model.dtype == torch.bfloat16, {}
    for name, lora in LORA.items():
        mine = adapted(base.model, lora, base.model.config._attn_implementation)
        theirs = adapted(base.model, lora, "sdpa")

        def ours(chosen: list[Encoded], mine: torch.nn.Module = mine) -> None:
            with disable_input_dtype_casting(mine):
                step(mine, our_loss, chosen, autocast)

        row = compare(ours, lambda some, theirs=theirs: step(theirs, their_loss, some), rows, rows[2::4], 2)
        tokens, labels = distinct_tokens(rows) / len(rows), sum(len(r.labels) for r in rows) / len(rows)
        row["roofline"] = roofline(base, tokens, labels, row["ours_s"], passes=2)
        found[name] = row | differences(exact, lora, rows[:4])
    return found["q_v_r8"] | {"all_linear": found["all_linear_r16"]}
