"""One prompt at a time through transformers' own forward: slow, and right for every causal model.

The reference of `verify`, and the way to read models and prompts that cannot share a batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from gdrt_lite.prompts import Encoded


def plain_logprobs(model: torch.nn.Module, prompt: Encoded, masks: bool = True) -> torch.Tensor:
    """log P of every label of a prompt, shape (T,), float32, in nats, differentiable.

    A masked token keeps its place in the row, so that a sliding window reaches as far as in the whole prompt.

    Args:
        model: the causal model.
        prompt: what to read.
        masks: whether the model can leave out a masked token.

    Raises:
        ValueError: the prompt has masked tokens and the model cannot leave them out.
    """
    device = next(model.parameters()).device
    more = {}
    if not all(prompt.attend):
        if not masks:
            raise ValueError(
                "ablation='attention' has no meaning for this model: a recurrent state or positions without position_ids "
                "keep a trace of masked tokens. Take 'token', 'delete' or 'resample'."
            )
        positions = torch.arange(len(prompt), device=device)[None]
        more = {"attention_mask": torch.tensor([prompt.attend], device=device), "position_ids": positions}
    logits = model(input_ids=torch.tensor([prompt.ids], device=device), use_cache=False, return_dict=True, **more).logits[0]
    labels = torch.tensor(prompt.labels, dtype=torch.long, device=device)
    return -F.cross_entropy(logits[list(prompt.predict_at)].float(), labels, reduction="none")
