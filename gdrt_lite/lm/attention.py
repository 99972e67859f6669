"""Attention by torch's fused kernel, registered with transformers under the name "fused".

In a model with grouped keys (SmolLM2 has 9 query heads on 3 key heads) transformers copies every key and value once per
query head before it calls the kernel with a mask. The kernel can read them as they are, and keeps no attention weights.
In float32 it is no slower on a CPU than in bfloat16, and rounds less.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

NAME = "fused"
UNSUPPORTED = ("softcap", "s_aux", "sinks", "position_bias")  # what some models hand over that would change the weights


def fused_attention(
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
    exact = torch.promote_types(query.dtype, torch.float32)  # float64 stays what it is
    with torch.autocast("cpu", enabled=False):  # it would bring the inputs back to 16 bits, whose gradient is slower
        output = torch.nn.functional.scaled_dot_product_attention(
            query.to(exact),
            key.to(exact),
            value.to(exact),
            None if attention_mask is None else attention_mask.to(exact),
            dropout if module.training else 0.0,
            scale=scaling,
            enable_gqa=True,
        )
    return output.to(query.dtype).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, fused_attention)
AttentionMaskInterface.register(NAME, eager_mask)
