"""Checks of notebook 03."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from torch import Tensor

from gdrt_lite.course.checks import Exercise, Mistake


# --- 03.1: one title ---
def _relevance(logits: Tensor, ids: list[int], first: int) -> Tensor:
    return torch.stack([logits[t - 1].log_softmax(-1)[ids[t]] for t in range(first, len(ids))])


def _unshifted(logits: Tensor, ids: list[int], first: int) -> Tensor:
    return torch.stack([logits[t].log_softmax(-1)[ids[t]] for t in range(first, len(ids))])


def _probabilities(logits: Tensor, ids: list[int], first: int) -> Tensor:
    return _relevance(logits, ids, first).exp()


def _bare_logits(logits: Tensor, ids: list[int], first: int) -> Tensor:
    return torch.stack([logits[t - 1][ids[t]] for t in range(first, len(ids))])


def _over_positions(logits: Tensor, ids: list[int], first: int) -> Tensor:
    scores = logits.log_softmax(0)
    return torch.stack([scores[t - 1][ids[t]] for t in range(first, len(ids))])


def _whole_prompt(logits: Tensor, ids: list[int], first: int) -> Tensor:
    return _relevance(logits, ids, 1)


def _logit_cases() -> list[tuple[Tensor, list[int], int]]:
    random = torch.Generator().manual_seed(3)
    return [
        (torch.randn(5, 6, generator=random), [0, 3, 2, 5, 1], 3),
        (2 * torch.randn(4, 3, generator=random), [2, 0, 1, 1], 2),
    ]


# --- 03.2: shares of variance ---
Values = dict[str, list[float]]


def _within_share(values: Values) -> float:
    tokens = np.concatenate([np.asarray(own, float) for own in values.values()])
    within = sum(((np.asarray(own) - np.mean(own)) ** 2).sum() for own in values.values())
    return float(within / ((tokens - tokens.mean()) ** 2).sum())


def _mean_of_variances(values: Values) -> float:
    tokens = np.concatenate([np.asarray(own, float) for own in values.values()])
    return float(np.mean([np.var(own) for own in values.values()]) / tokens.var())


def _within_over_between(values: Values) -> float:
    return _within_share(values) / (1 - _within_share(values))


def _absolute(values: Values) -> float:
    tokens = np.concatenate([np.asarray(own, float) for own in values.values()])
    within = sum(np.abs(np.asarray(own) - np.mean(own)).sum() for own in values.values())
    return float(within / np.abs(tokens - tokens.mean()).sum())


# --- 03.3: counting ---
Tokens = tuple[int, ...]


def _counted(counts: dict[Tokens, int], title: Tokens) -> list[float]:
    opening: Counter[Tokens] = Counter()
    for tokens, n in counts.items():
        for t in range(len(tokens) + 1):
            opening[tokens[:t]] += n
    return [float(np.log(opening[title[: t + 1]] / opening[title[:t]])) for t in range(len(title))]


def _each_once(counts: dict[Tokens, int], title: Tokens) -> list[float]:
    return _counted(dict.fromkeys(counts, 1), title)


def _without_prefix(counts: dict[Tokens, int], title: Tokens) -> list[float]:
    total = sum(counts.values())
    return [
        float(np.log(sum(n for tokens, n in counts.items() if tokens[t : t + 1] == title[t : t + 1]) / total))
        for t in range(len(title))
    ]


def _opening_alone(counts: dict[Tokens, int], title: Tokens) -> list[float]:
    return [float(x) for x in np.cumsum(_counted(counts, title))]


def _ratio(counts: dict[Tokens, int], title: Tokens) -> list[float]:
    return [float(np.exp(x)) for x in _counted(counts, title)]


SHELF = {(1, 2, 0): 6, (1, 3, 0): 2, (1, 3, 4, 0): 1, (5, 3, 0): 3}

EXERCISES = [
    Exercise(
        "03.1",
        "Relevance of one title",
        reference=_relevance,
        cases=_logit_cases,
        mistakes=[
            Mistake("row t of the logits predicts token t + 1. Token t is read from the row before it.", _unshifted),
            Mistake("these are probabilities; the relevance is their logarithm.", _probabilities),
            Mistake("logits are not yet log-probabilities: apply log_softmax over the vocabulary.", _bare_logits),
            Mistake("the softmax runs over the positions; it must run over the vocabulary (dim=-1).", _over_positions),
            Mistake("you scored the task text too; start at the title's first token.", _whole_prompt),
        ],
        after="A sum over these is log P(title | task), by the chain rule.",
    ),
    Exercise(
        "03.2",
        "How much of the variance lies within titles?",
        reference=_within_share,
        cases=[
            ({"a": [-8.0, -1.0, -0.5], "b": [-6.0, -2.0]},),
            ({"a": [-1.0, -1.0, -1.0, -1.2], "b": [-3.0, -3.5], "c": [-2.0]},),
        ],
        mistakes=[
            Mistake("that is the share between titles, one minus what is asked.", lambda v: 1 - _within_share(v)),
            Mistake(
                "a long title has more tokens and must count for more: add up squares over tokens, do not "
                "average the titles' variances.",
                _mean_of_variances,
            ),
            Mistake("that is within divided by between; divide by the total.", _within_over_between),
            Mistake("use squares: only squares split into within plus between.", _absolute),
        ],
        after="Squares around the title's mean, over squares around the grand mean.",
    ),
    Exercise(
        "03.3",
        "A scorer that only counts",
        reference=_counted,
        cases=[(SHELF, (1, 3, 4, 0)), (SHELF, (5, 3, 0)), (SHELF, (1, 2, 0))],
        mistakes=[
            Mistake("every title counted once; a title that is a target n times counts n times.", _each_once),
            Mistake("the prefix is ignored. Count only titles that begin with the tokens before this one.", _without_prefix),
            Mistake("that is log P of the whole opening; divide by the count one token shorter.", _opening_alone),
            Mistake("these are probabilities; take their logarithm.", _ratio),
        ],
        after="Where the prefix leaves one title only, the relevance is exactly 0: no user is needed.",
    ),
    Exercise(
        "03.4",
        "What a low relevance means",
        reference="c",
        mistakes=[
            Mistake(
                "a low relevance says only that the task and the prefix do not give the token away. Whether "
                "the history does was not asked: the history was left out.",
                "a",
            ),
            Mistake("rarity is one way to be hard to guess. The first token of a blockbuster is hard to guess too.", "b"),
            Mistake("a broken scorer gives low scores everywhere, the easy tokens too; look at those.", "d"),
        ],
        after="a token may be hard because it is personal, or because it is noise; weight helps only in the first case.",
    ),
]
