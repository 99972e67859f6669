"""Token relevance: how well a target token can be guessed from the auxiliary tokens alone (arXiv 2510.10978, Eq. 3).

    r_t = log P_theta(y_t | x_TASK, y_<t),   the history left out

It depends on the item, not on the user, so each distinct title is scored once, and the task text, which opens every one of
these prompts, is read once per batch. Derived in notebook 03, section 1.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from gdrt_lite.lm import LanguageModel, target_logprobs


def token_relevance(lm: LanguageModel, titles: Iterable[str]) -> dict[str, torch.Tensor]:
    """r of every token of every distinct title.

    Args:
        lm: the scorer, with its prompt.
        titles: target titles; repeats cost nothing.

    Returns:
        {title: float32 tensor of shape (T,), in nats, EOS last}.

    Raises:
        ValueError: there is no title.
    """
    distinct = sorted(set(titles))
    if not distinct:
        raise ValueError("titles is empty: there is nothing to score.")
    scores = target_logprobs(lm, [lm.encode((), title) for title in distinct])
    return dict(zip(distinct, scores, strict=True))
