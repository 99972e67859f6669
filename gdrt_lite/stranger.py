"""Own minus stranger: how many nats of a title's log-probability does a user's own history bring?

    log P(target | own history) - log P(target | a stranger's history)

Positive means that the model reads the user. Unlike an ablation it compares two prompts of the ordinary form, and what is
common to all users (the task, popularity, the wording of titles) cancels. Derived in notebook 04, section 7.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from gdrt_lite.data import Example
from gdrt_lite.lm import LanguageModel, target_logprobs


def title_logprobs(
    lm: LanguageModel,
    histories: Iterable[Sequence[str]],
    titles: Sequence[str],
    legal: Mapping[str, Sequence[np.ndarray]] | None = None,
) -> np.ndarray:
    """log P(title | history) of every title after every history, each history read once.

    Args:
        lm: the model with its prompt.
        histories: titles, oldest first, U of them.
        titles: distinct or not, V of them.
        legal: {title: for each token those that the softmax is taken over}, see `TitleTrie.legal`; default all tokens.

    Returns:
        Shape (U, V), nats a title, EOS included.
    """
    distinct = sorted(set(titles))
    column = np.searchsorted(distinct, titles)
    choices = None if legal is None else [legal[title] for title in distinct]
    rows = []
    for history in histories:
        scores = target_logprobs(lm, [lm.encode(history, title) for title in distinct], legal=choices)
        rows.append([float(score.sum()) for score in scores])
    return np.array(rows).reshape(-1, len(distinct))[:, column]


def own_minus_stranger(lm: LanguageModel, examples: Sequence[Example], strangers: int = 5, seed: int = 0) -> pd.DataFrame:
    """What each example's own history is worth against those of strangers.

    Args:
        lm: the model with its prompt.
        examples: windows of two users or more.
        strangers: histories of other users' examples that each target is scored after, drawn without repetition.
        seed: of the draw.

    Returns:
        One row per example: example (index), user, own (log P(target | own history)), stranger (mean over the strangers),
        difference (own - stranger), all in nats a title; and spread, the standard deviation over the strangers.

    Raises:
        ValueError: an example whose user has fewer than `strangers` examples of others beside it, or strangers below 1.
    """
    pairs = list(enumerate(strangers_of(examples, strangers, seed)))
    own = [lm.encode(example.history, example.target) for example in examples]
    other = [lm.encode(examples[s].history, examples[i].target) for i, drawn in pairs for s in drawn]
    scores = torch.stack([score.sum() for score in target_logprobs(lm, own + other)]).double().numpy()
    mine, theirs = scores[: len(own)], scores[len(own) :].reshape(len(own), strangers)  # (N,), (N, strangers)
    return pd.DataFrame(
        {
            "example": np.arange(len(examples)),
            "user": [example.user for example in examples],
            "own": mine,
            "stranger": theirs.mean(1),
            "difference": mine - theirs.mean(1),
            "spread": theirs.std(1),
        }
    )


def strangers_of(examples: Sequence[Example], n: int, seed: int = 0) -> list[list[int]]:
    """For each example the indices of n examples of other users, drawn at random."""
    if n < 1:
        raise ValueError(f"strangers={n} is out of range: it must be at least 1.")
    rng = np.random.default_rng(seed)
    users = np.array([example.user for example in examples])
    drawn = []
    for i, example in enumerate(examples):
        others = np.flatnonzero(users != example.user)
        if len(others) < n:
            raise ValueError(
                f"examples[{i}] has {len(others)} examples of other users, fewer than strangers={n}; add users."
            )
        drawn.append(rng.choice(others, n, replace=False).tolist())
    return drawn
