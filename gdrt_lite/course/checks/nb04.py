"""Checks of notebook 04."""

from __future__ import annotations

import numpy as np

from gdrt_lite.course.checks import Exercise, Mistake


# --- 04.1: one step of K-means ---
def _step(values: np.ndarray, centers: np.ndarray) -> np.ndarray:
    labels = np.abs(values[:, None] - centers).argmin(1)
    return np.array([values[labels == g].mean() if (labels == g).any() else c for g, c in enumerate(centers)])


def _medians(values: np.ndarray, centers: np.ndarray) -> np.ndarray:
    labels = np.abs(values[:, None] - centers).argmin(1)
    return np.array([np.median(values[labels == g]) if (labels == g).any() else c for g, c in enumerate(centers)])


def _empty_is_zero(values: np.ndarray, centers: np.ndarray) -> np.ndarray:
    labels = np.abs(values[:, None] - centers).argmin(1)
    return np.array([values[labels == g].mean() if (labels == g).any() else 0.0 for g in range(len(centers))])


def _empty_is_nan(values: np.ndarray, centers: np.ndarray) -> np.ndarray:
    labels = np.abs(values[:, None] - centers).argmin(1)
    return np.array([values[labels == g].mean() if (labels == g).any() else np.nan for g in range(len(centers))])


def _nearest_value(values: np.ndarray, centers: np.ndarray) -> np.ndarray:
    return values[np.abs(values[:, None] - centers).argmin(0)]


def _signed(values: np.ndarray, centers: np.ndarray) -> np.ndarray:
    labels = (values[:, None] - centers).argmin(1)
    return np.array([values[labels == g].mean() if (labels == g).any() else c for g, c in enumerate(centers)])


# --- 04.2: numbering ---
def _ordered(labels: np.ndarray, centers: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(centers))[labels]


# --- 04.3: a batch without a group ---
def _absent(groups_by_title: list[np.ndarray], counts: list[int], group: int, batch_size: int) -> float:
    without = [float(group not in set(np.asarray(ids).tolist())) for ids in groups_by_title]
    return float(np.average(without, weights=counts) ** batch_size)


def _unweighted(groups_by_title: list[np.ndarray], counts: list[int], group: int, batch_size: int) -> float:
    return _absent(groups_by_title, [1] * len(counts), group, batch_size)


def _by_tokens(groups_by_title: list[np.ndarray], counts: list[int], group: int, batch_size: int) -> float:
    hits = sum(n * int((np.asarray(ids) == group).sum()) for ids, n in zip(groups_by_title, counts))
    tokens = sum(n * len(ids) for ids, n in zip(groups_by_title, counts))
    return (1 - hits / tokens) ** batch_size


def _one_example(groups_by_title: list[np.ndarray], counts: list[int], group: int, batch_size: int) -> float:
    return _absent(groups_by_title, counts, group, 1)


VALUES = np.array([-9.0, -8.0, -5.0, -1.0, -0.5, 0.0])
TITLES = [np.array([0, 4, 4]), np.array([1, 3, 4, 4]), np.array([0, 0, 3])]

EXERCISES = [
    Exercise(
        "04.1",
        "One step of K-means",
        reference=_step,
        cases=[
            (VALUES, np.array([-9.0, -8.0])),
            (VALUES, np.array([-8.5, -4.0, -0.2])),
            (VALUES, np.array([-30.0, -6.0, -1.0])),
        ],
        mistakes=[
            Mistake("those are medians; K-means moves a centre to the mean.", _medians),
            Mistake("a centre that nobody chose became NaN: let it stay where it is.", _empty_is_nan),
            Mistake("a centre that nobody chose became 0: let it stay where it is.", _empty_is_zero),
            Mistake(
                "those are the values nearest to each centre; take the mean of all values that chose it.", _nearest_value
            ),
            Mistake("nearest means the smallest absolute difference; yours is signed.", _signed),
        ],
        after="The last case has a centre that no value chooses.",
    ),
    Exercise(
        "04.2",
        "Group 0 must be the least relevant",
        reference=_ordered,
        cases=[
            (np.array([0, 1, 2, 2, 0]), np.array([-1.0, -9.0, -4.0])),
            (np.array([3, 0, 1, 2]), np.array([-3.0, -7.0, -0.1, -5.0])),
        ],
        mistakes=[
            Mistake(
                "argsort tells which label comes first, second, ...; you need the rank of each label. They "
                "are inverse to each other.",
                lambda labels, centers: np.argsort(centers)[labels],
            ),
            Mistake(
                "the numbering is upside down: 0 is the lowest relevance.",
                lambda labels, centers: np.argsort(np.argsort(-centers))[labels],
            ),
            Mistake("the labels are still K-means' own, which are arbitrary.", lambda labels, centers: labels),
            Mistake(
                "those are the ranks of the centres; look each token's label up in them.",
                lambda labels, centers: np.argsort(np.argsort(centers)),
            ),
        ],
        after="argsort of argsort is the rank: a useful idiom, and a frequent bug when applied once.",
    ),
    Exercise(
        "04.3",
        "A batch without a group",
        reference=_absent,
        cases=[(TITLES, [5, 3, 2], 0, 4), (TITLES, [1, 1, 6], 1, 8), (TITLES, [2, 7, 1], 3, 2)],
        mistakes=[
            Mistake("titles are drawn as often as they are targets: weigh them by counts.", _unweighted),
            Mistake(
                "tokens of one title come together, not independently: ask for each title whether it holds "
                "the group at all.",
                _by_tokens,
            ),
            Mistake("that is one example; a batch has batch_size of them, all without the group.", _one_example),
            Mistake("that is the probability that the group is present.", lambda *case: 1 - _absent(*case)),
        ],
        after="Absent groups must be told to the weights: notebook 05, section 6.",
    ),
]
