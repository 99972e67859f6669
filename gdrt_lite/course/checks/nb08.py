"""Checks of notebook 08."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gdrt_lite.course.checks import Exercise, Mistake

Windows = list[tuple[list[str], str]]


def _windows(items: Sequence[str], history: int, min_history: int) -> Windows:
    return [(list(items[max(0, i - history) : i]), items[i]) for i in range(min_history, len(items))]


def _leaking(items: Sequence[str], history: int, min_history: int) -> Windows:
    return [(list(items[max(0, i - history + 1) : i + 1]), items[i]) for i in range(min_history, len(items))]


def _without_the_last(items: Sequence[str], history: int, min_history: int) -> Windows:
    return _windows(items[:-1], history, min_history)


def _newest_first(items: Sequence[str], history: int, min_history: int) -> Windows:
    return [(past[::-1], target) for past, target in _windows(items, history, min_history)]


def _wrapping(items: Sequence[str], history: int, min_history: int) -> Windows:
    return [(list(items[i - history : i]), items[i]) for i in range(min_history, len(items))]


def _from_the_first(items: Sequence[str], history: int, min_history: int) -> Windows:
    return _windows(items, history, 0)


_LETTERS = ["a", "b", "c", "d", "e", "f"]


def _global_losses(sums: Tensor, counts: Tensor) -> Tensor:
    return sums.sum(0) / counts.sum(0).clamp(min=1)


def _mean_of_means(sums: Tensor, counts: Tensor) -> Tensor:
    return (sums / counts.clamp(min=1)).mean(0)


def _over_all_groups(sums: Tensor, counts: Tensor) -> Tensor:
    return sums.sum(0) / counts.sum()


def _per_process(sums: Tensor, counts: Tensor) -> Tensor:
    return sums.sum(1) / counts.sum(1)


def _nan_where_absent(sums: Tensor, counts: Tensor) -> Tensor:
    return sums.sum(0) / counts.sum(0)


def _merged(weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    return weight + alpha / a.shape[0] * b @ a


def _seeded(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _petaflops(windows: int, epochs: float, tokens: float, parameters: float) -> float:
    return 6 * windows * epochs * tokens * parameters / 1e15


EXERCISES = [
    Exercise(
        "08.1", "Windows of one user", reference=_windows,
        cases=[(_LETTERS, 3, 2), (_LETTERS, 2, 1), (_LETTERS[:3], 5, 1), (_LETTERS[:2], 5, 3)],
        mistakes=[
            Mistake("The target stands in its own history: the model would be shown the answer.", _leaking),
            Mistake("The last item is never a target; the range ends one too early.", _without_the_last),
            Mistake("Histories run from the oldest to the newest; yours are turned.", _newest_first),
            Mistake("Near the start i - history is negative, and a negative slice counts from the end: max(0, ...).",
                    _wrapping),
            Mistake("The first min_history items are no targets: too little is known before them.", _from_the_first),
        ],
        after="This is what Interactions.split does for every user.",
    ),
    Exercise(
        "08.2", "Group losses over several processes", reference=_global_losses,
        cases=[
            (torch.tensor([[6.0, 0.5], [1.0, 0.0]]), torch.tensor([[2.0, 5.0], [1.0, 0.0]])),
            (torch.tensor([[3.0, 1.0, 0.0], [2.0, 4.0, 0.0]]), torch.tensor([[1.0, 4.0, 0.0], [4.0, 2.0, 0.0]])),
        ],
        mistakes=[
            Mistake("A mean of means: a process with one token of the group counts as much as one with a hundred. "
                    "Add the sums, "
                    "add the counts, divide last.", _mean_of_means),
            Mistake("Divide each group by its own count, not by all tokens.", _over_all_groups),
            Mistake("One number a group is wanted; you have one a process. The processes are dimension 0.", _per_process),
            Mistake("A group that no process holds gives 0/0; let its loss be 0 (clamp the count at 1).", _nan_where_absent),
        ],
        after="Two small vectors a step are all that has to be sent.",
    ),
    Exercise(
        "08.3", "Merge an adapter by hand", reference=_merged,
        cases=[
            (_seeded((4, 3), 0), _seeded((2, 3), 1), _seeded((4, 2), 2), 16.0),
            (_seeded((3, 3), 3), _seeded((1, 3), 4), _seeded((3, 1), 5), 4.0),
        ],
        mistakes=[
            Mistake("The scale alpha / r is missing.", lambda weight, a, b, alpha: weight + b @ a),
            Mistake("The scale is turned over: alpha / r, not r / alpha.",
                    lambda weight, a, b, alpha: weight + a.shape[0] / alpha * b @ a),
            Mistake("The scale is alpha / r; you multiply by alpha alone.",
                    lambda weight, a, b, alpha: weight + alpha * b @ a),
            Mistake("That is the update alone; add it to the weight that is there.",
                    lambda weight, a, b, alpha: alpha / a.shape[0] * b @ a),
            Mistake("r is the small dimension: rows of A, columns of B.",
                    lambda weight, a, b, alpha: weight + alpha / a.shape[1] * b @ a),
        ],
        after="Merged, the adapter costs nothing at inference, and the model can no longer be switched back.",
    ),
    Exercise(
        "08.4", "What will it cost?", reference=_petaflops,
        cases=[(10_000, 10, 120, 135e6), (320, 1, 80, 1e6), (3_000, 2, 200, 3.2e9)],
        mistakes=[
            Mistake("Two operations a weight and token are the forward pass alone; "
                    "the backward pass costs twice that again.",
                    lambda w, e, t, p: _petaflops(w, e, t, p) / 3),
            Mistake("Every epoch reads all windows again.", lambda w, e, t, p: _petaflops(w, 1, t, p)),
            Mistake("Peta is ten to the fifteenth; yours is tera.", lambda w, e, t, p: 1000 * _petaflops(w, e, t, p)),
            Mistake("The model reads every token of the prompt, not one a window.",
                    lambda w, e, t, p: _petaflops(w, e, 1, p)),
        ],
        after="Divide by what your hardware really sustains, which is well below its data sheet.",
    ),
]  # fmt: skip
