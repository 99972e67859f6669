"""A LoRA training step: ours against the published trainers' way (full-vocabulary logits, sdpa, no length grouping)."""

from __future__ import annotations

import copy

import torch
from peft import LoraConfig, get_peft_model
from peft.helpers import disable_input_dtype_casting

from benchmarks.common import compare, examples, forward_gflop, matmul_gflops
from gdrt_lite import lm
from gdrt_lite.lm import batch_logprobs
from gdrt_lite.lm.packing import collate
from gdrt_lite.prompts import Encoded

BATCH = 16


def adapted(model: torch.nn.Module, attention: str) -> torch.nn.Module:
    """A copy with LoRA r=8 on q and v, and one attention implementation."""
    model = copy.deepcopy(model)
    model.set_attn_implementation(attention)
    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, task_type="CAUSAL_LM")).train()


def our_loss(model: torch.nn.Module, rows: list[Encoded]) -> torch.Tensor:
    """Target positions only, the opening shared."""
    return -batch_logprobs(model, collate(rows, 0)).mean()


def their_loss(model: torch.nn.Module, rows: list[Encoded]) -> torch.Tensor:
    """Right padding, labels -100 outside the target, the model's own loss over the whole vocabulary."""
    width = max(map(len, rows))
    ids = torch.tensor([list(r.ids) + [0] * (width - len(r)) for r in rows])
    mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows])
    labels = torch.full_like(ids, -100)
    for i, row in enumerate(rows):
        labels[i, row.predict_at[0] + 1 : len(row)] = torch.tensor(row.labels)
    return model(input_ids=ids, attention_mask=mask, labels=labels).loss


def epoch(model: torch.nn.Module, loss: object, batches: list[list[Encoded]], autocast: bool) -> None:
    """One optimiser step a batch."""
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    for rows in batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            value = loss(model, rows)
        value.backward()
        optimiser.step()
        optimiser.zero_grad()


def gradients(model: torch.nn.Module, value: torch.Tensor) -> torch.Tensor:
    """All adapter gradients in one vector."""
    value.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def run() -> dict:
    """Ratio, relative difference of loss and gradient in float32, roofline fraction."""
    base = lm.load(device="cpu")
    rows = [base.encode(e.history, e.target) for e in examples(2 * BATCH)]
    exact = lm.load(dtype=torch.float32, device="cpu").model
    one, two = adapted(exact, "grouped_cpu"), adapted(exact, "sdpa")
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        if a.requires_grad:  # LoRA starts at zero; move off it so that every adapter has a gradient
            a.data += 0.01 * torch.randn(a.shape, generator=torch.Generator().manual_seed(1))
            b.data.copy_(a.data)
    ours, theirs = our_loss(one, rows[:4]), their_loss(two, rows[:4])
    mean_difference = abs(ours.item() - theirs.item()) / theirs.item()
    g, h = gradients(one, ours), gradients(two, theirs)
    del exact, one, two
    by_length = sorted(rows, key=len)
    grouped = [by_length[i : i + BATCH] for i in range(0, len(rows), BATCH)]
    shuffled = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
    bf16 = base.model.dtype == torch.bfloat16
    mine, peer = adapted(base.model, base.model.config._attn_implementation), adapted(base.model, "sdpa")

    def our_epoch() -> None:
        with disable_input_dtype_casting(mine):
            epoch(mine, our_loss, grouped, bf16)

    found = compare(our_epoch, lambda: epoch(peer, their_loss, shuffled[:1], False), len(rows), BATCH)
    tokens, labels = (sum(map(size, rows)) / len(rows) for size in (len, lambda r: len(r.labels)))
    gflop = 2 * forward_gflop(base, tokens, labels)  # forward, and the gradient of the activations
    return found | {
        "loss_difference_fp32": mean_difference,
        "gradient_difference_fp32": float((g - h).norm() / h.norm()),
        "roofline": gflop / found["ours_s"] / matmul_gflops(base.model.dtype),
    }
