"""Attention for small CPUs, registered with transformers under the name "grouped_cpu".

In a model with grouped keys (SmolLM2 has 9 query heads on 3 key heads) the usual code copies every key and value once per
query head. Here the query heads of a group are stacked as more rows of one matrix product instead, and the products run in
float32, whose kernels need no copy of a transposed matrix. The result is that of the "eager" implementation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

NAME = "grouped_cpu"
KEPT = 500_000  # weights of a layer that training keeps for its backward pass; where there are more, they are computed again
UNSUPPORTED = ("softcap", "s_aux", "sinks", "position_bias")  # what some models hand over that would change the weights


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """softmax(Q K^T * scaling + mask) V.

    Args:
        query: (B, H, Q, D); key: (B, G, K, D); value: (B, G, K, E), with G dividing H.
        attention_mask: added to the scores, (B, 1, Q, K), or None.
        others: what else a model hands over; ignored where the mask says it already, such as the length of a sliding window.

    Returns:
        (B, Q, H, E) in the dtype of `query`, and None in place of the attention weights.

    Raises:
        ValueError: the model's attention is more than this formula.
    """
    for name in UNSUPPORTED:
        if others.get(name) is not None:
            raise ValueError(f"{NAME!r} attention has no {name!r}; load this model with attn_implementation='eager'.")
    batch, heads, length, width = query.shape
    groups = key.shape[1]
    scale = width**-0.5 if scaling is None else scaling
    exact = torch.promote_types(query.dtype, torch.float32)  # float64 stays what it is
    rows = query.to(exact).reshape(batch, groups, heads // groups * length, width) * scale

    def attend(rows: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        scores = rows @ key.to(exact).transpose(-1, -2)  # (B, G, H/G * Q, K)
        if attention_mask is not None:
            scores = scores.view(batch, groups, heads // groups, length, -1) + attention_mask[:, None]
            scores = scores.view(batch, groups, heads // groups * length, -1)
        weights = torch.nn.functional.dropout(scores.softmax(-1), dropout, module.training)
        return weights @ value.to(exact)  # (B, G, H/G * Q, E)

    if torch.is_grad_enabled() and batch * heads * length * key.shape[2] > KEPT:
        output = checkpoint(attend, rows, key, value, use_reentrant=False)
    else:
        output = attend(rows, key, value)
    return output.view(batch, heads, length, -1).to(query.dtype).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, grouped_attention)
AttentionMaskInterface.register(NAME, eager_mask)
