"""Accuracy, fairness, and the bootstrap that puts an interval on them. Knows no language model.

Derived in notebook 06, section 4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from gdrt_lite.data import Example

Item = str | int  # a title, or its number in the catalogue
Memberships = Mapping[Item, Mapping[str, float]]  # {title: {group: share}}, shares of a title sum to 1


class Interval(NamedTuple):
    """An estimate with the limits of its 95% interval."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self:.3f}"

    def __format__(self, spec: str) -> str:
        """The spec of a number, applied to all three: f"{interval:+.2f}"."""
        spec = spec or ".3f"
        return f"{self.estimate:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def rank_of(target: Item, ranked: Sequence[Item]) -> int | None:
    """Place of the target in a list, from 0; None when it is not there."""
    return ranked.index(target) if target in ranked else None


def ndcg_at_k(lists: Sequence[Sequence[Item]], targets: Sequence[Item], k: int) -> np.ndarray:
    """NDCG@k per user with one target each: 1 / log2(rank + 2), rank from 0; 0 when the target is not in the top k.

    Args:
        lists: ranked titles per user, best first.
        targets: the one right title per user.
        k: cut-off.

    Returns:
        Shape (users,).
    """
    return np.array([0.0 if r is None else 1.0 / np.log2(r + 2) for r in _ranks(lists, targets, k)])


def hit_rate_at_k(lists: Sequence[Sequence[Item]], targets: Sequence[Item], k: int) -> np.ndarray:
    """1 per user whose target is in the top k, else 0; shape (users,)."""
    return np.array([0.0 if r is None else 1.0 for r in _ranks(lists, targets, k)])


def coverage(lists: Sequence[Sequence[Item]], k: int = 10) -> int:
    """How many different titles fill all top-k lists."""
    return len({title for ranked in lists for title in ranked[:k]})


def popularity_groups(train: Sequence[Example], catalogue: Sequence[str], bins: int = 5) -> dict[str, dict[str, float]]:
    """Titles in `bins` groups of equal item count, by how often they are a training target; group "1" is the rarest.

    Raises:
        ValueError: more bins than titles.
    """
    if not 1 <= bins <= len(catalogue):
        raise ValueError(f"bins={bins} must be between 1 and the {len(catalogue)} titles of the catalogue.")
    counts = Counter(example.target for example in train)
    order = sorted(catalogue, key=lambda title: (counts[title], title))
    parts = np.array_split(np.arange(len(order)), bins)
    return {order[i]: {f"{b + 1}": 1.0} for b, part in enumerate(parts) for i in part}


def fractional_credit(groups: Mapping[Item, Sequence[str]]) -> dict[Item, dict[str, float]]:
    """What a title counts for each of its groups: one that has two genres counts half for each."""
    return {title: {group: 1.0 / len(own) for group in own} for title, own in groups.items() if own}


def share_rows(
    lists: Sequence[Sequence[Item]], histories: Sequence[Sequence[Item]], groups: Memberships, k: int
) -> np.ndarray:
    """Per user how much of each group is recommended and was chosen: the rows whose means give GU.

    Returns:
        Shape (users, 2 * groups): credit in the top-k list, then credit in the history, groups in sorted order.
    """
    if len(lists) != len(histories):
        raise ValueError(f"there are {len(lists)} lists but {len(histories)} histories; each user needs one of both.")
    if k < 1:
        raise ValueError(f"k={k} must be 1 or more.")
    names, place = _names(groups), {title: i for i, title in enumerate(groups)}
    credit = np.array([[own.get(name, 0.0) for name in names] for own in groups.values()]).reshape(len(groups), len(names))
    times = np.zeros((2, len(lists), len(groups)))  # how often a user's list, and history, holds a title
    for side, rows in enumerate(([ranked[:k] for ranked in lists], histories)):
        for u, titles in enumerate(rows):
            for title in titles:
                if title in place:
                    times[side, u, place[title]] += 1
    return np.concatenate(list(times @ credit), axis=1)


def unfairness_of_means(means: np.ndarray) -> np.ndarray:
    """GU from the means of `share_rows`: (..., 2 * groups) -> (..., groups)."""
    recommended, chosen = np.split(means, 2, axis=-1)
    return recommended / recommended.sum(-1, keepdims=True) - chosen / chosen.sum(-1, keepdims=True)


def mgu_of_means(means: np.ndarray) -> np.ndarray:
    """mean |GU| from the means of `share_rows`."""
    return np.abs(unfairness_of_means(means)).mean(-1)


def dgu_of_means(means: np.ndarray) -> np.ndarray:
    """max GU - min GU from the means of `share_rows`."""
    return np.ptp(unfairness_of_means(means), axis=-1)


def group_unfairness(
    lists: Sequence[Sequence[Item]], histories: Sequence[Sequence[Item]], groups: Memberships, k: int
) -> pd.Series:
    """GU(g): share of group g in the top-k lists minus its share in the users' histories.

    Args:
        lists: ranked titles per user.
        histories: titles per user.
        groups: {title: {group: share}}; titles without a group count on neither side.
        k: cut-off.

    Returns:
        Indexed by group; positive: recommended more than it was chosen. Sums to 0.

    Raises:
        ValueError: lists and histories differ in length, k is below 1, or one side holds no title with a group.
    """
    rows = share_rows(lists, histories, groups, k)
    for side, credit in zip(("lists", "histories"), np.split(rows, 2, axis=1), strict=True):
        if not credit.any():
            raise ValueError(f"no title in the {side} belongs to a group, so there are no shares to compare.")
    means = rows.mean(0)
    return pd.Series(unfairness_of_means(means), index=_names(groups), name="GU")


def mgu(lists: Sequence[Sequence[Item]], histories: Sequence[Sequence[Item]], groups: Memberships, k: int) -> float:
    """MGU@k = mean over groups of |GU|: 0 is fair."""
    return float(group_unfairness(lists, histories, groups, k).abs().mean())


def dgu(lists: Sequence[Sequence[Item]], histories: Sequence[Sequence[Item]], groups: Memberships, k: int) -> float:
    """DGU@k = max GU - min GU: 0 is fair."""
    return float(np.ptp(group_unfairness(lists, histories, groups, k)))


def resampled_means(rows: np.ndarray, users: Sequence[str], draws: int = 2000, seed: int = 0) -> np.ndarray:
    """Means of the rows over bootstrap samples of users (all rows of a drawn user come along), shape (draws, d).

    The same seed and users draw the same samples, which makes a comparison of two models paired.
    """
    if not len(rows):
        raise ValueError("there is nothing to resample: rows is empty.")
    if len(rows) != len(users):
        raise ValueError(f"there are {len(rows)} rows but {len(users)} users; each row needs its user.")
    names, index = np.unique(np.asarray(users, dtype=str), return_inverse=True)
    sums = np.zeros((len(names), rows.shape[1]))
    np.add.at(sums, index, rows)
    sizes = np.bincount(index, minlength=len(names))
    times = _drawn(len(names), draws, seed)
    return (times @ sums) / (times @ sizes)[:, None]


@lru_cache(maxsize=8)
def _drawn(n: int, draws: int, seed: int) -> np.ndarray:
    """How often each of n users is in each bootstrap sample, shape (draws, n); kept, since every metric of a table asks for it."""
    times = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws).astype(float)
    times.flags.writeable = False
    return times


def bootstrap(values: Sequence[float], clusters: Sequence[str] | None = None, n: int = 2000, seed: int = 0) -> Interval:
    """Mean with its 95% percentile bootstrap interval.

    Args:
        values: one number a row.
        clusters: user of each row; users are drawn, with all their rows. None: each row is its own user.
        n: bootstrap samples.
        seed: of the draws.
    """
    rows = np.asarray(values, dtype=float)[:, None]
    clusters = [str(i) for i in range(len(rows))] if clusters is None else clusters
    means = resampled_means(rows, clusters, n, seed)[:, 0]
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(rows.mean()), float(low), float(high))


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], clusters: Sequence[str] | None = None, n: int = 2000, seed: int = 0
) -> Interval:
    """Mean of a - b, measured on the same examples, with its 95% interval; the other arguments as in `bootstrap`.

    Raises:
        ValueError: a and b differ in length.
    """
    if len(a) != len(b):
        raise ValueError(f"a ({len(a)} values) and b ({len(b)}) must be measured on the same users.")
    return bootstrap(np.asarray(a, dtype=float) - np.asarray(b, dtype=float), clusters, n, seed)


def t_interval(values: Sequence[float]) -> Interval:
    """Mean of independent repetitions, such as seeds, with its 95% interval by Student's t: a bootstrap of so few is too narrow.

    Derived in notebook 07, section 3.

    Raises:
        ValueError: fewer than two values.
    """
    x = np.asarray(values, dtype=float)
    if len(x) < 2:
        raise ValueError(f"{len(x)} value(s) have no spread; repeat the measurement, for example with other seeds.")
    half = stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return Interval(float(x.mean()), float(x.mean() - half), float(x.mean() + half))


def _ranks(lists: Sequence[Sequence[Item]], targets: Sequence[Item], k: int) -> list[int | None]:
    if len(lists) != len(targets):
        raise ValueError(f"there are {len(lists)} lists but {len(targets)} targets; each user needs one of both.")
    if k < 1:
        raise ValueError(f"k={k} must be 1 or more.")
    return [rank_of(target, list(ranked[:k])) for ranked, target in zip(lists, targets, strict=True)]


def _names(groups: Memberships) -> list[str]:
    return sorted({name for own in groups.values() for name in own})
