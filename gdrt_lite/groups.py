"""Groups of target tokens by relevance to the auxiliary tokens: K-means in one dimension (arXiv 2510.10978, section 3).

Group 0 is the least relevant (hard to guess without the user), group K-1 the most. Derived in notebook 04.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans

LEVELS = ("token", "item")  # of K-means; `by_openness` has the level "open"


@dataclass(frozen=True)
class TokenGroups:
    """Group assignment of every token of every title.

    Attributes:
        centers: mean relevance of each group, shape (K,), nats, ascending.
        ids: {title: group of each of its target tokens, EOS included}.
        relevance: {title: relevance of each token, nats}.
        counts: {title: how often it is a training target}; 0 for titles that never are.
        level: "token", "item" or "open".
    """

    centers: np.ndarray
    ids: Mapping[str, np.ndarray]
    relevance: Mapping[str, np.ndarray]
    counts: Mapping[str, int]
    level: str

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return len(self.centers)

    @property
    def sizes(self) -> np.ndarray:
        """Training tokens of each group, shape (K,)."""
        sizes = np.zeros(self.n_groups, dtype=np.int64)
        for title, own in self.ids.items():
            np.add.at(sizes, own, self.counts[title])
        return sizes

    def of(self, title: str) -> np.ndarray:
        """Group of each target token of a title, shape (T,), int64, EOS last.

        Raises:
            ValueError: the title was not scored.
        """
        if title not in self.ids:
            raise ValueError(f"no relevance was computed for {title!r}; score it with relevance.token_relevance first.")
        return self.ids[title]

    def shuffled(self, seed: int) -> TokenGroups:
        """Deal all tokens at random into K groups of equal size: a control without the groups' meaning and unequal sizes.

        The training tokens of the groups differ by at most those of one token of the most frequent title.
        """
        places = [(title, t) for title in sorted(self.ids) for t in range(len(self.ids[title]))]
        order = np.random.default_rng(seed).permutation(len(places))
        weight = np.array([self.counts[places[i][0]] for i in order], dtype=float)
        before = np.cumsum(weight) - weight / 2 if weight.any() else np.arange(len(order)) + 0.5
        group = np.minimum(before / max(weight.sum() or len(order), 1) * self.n_groups, self.n_groups - 1).astype(np.int64)
        ids = {title: np.empty(len(own), dtype=np.int64) for title, own in self.ids.items()}
        for i, g in zip(order, group, strict=True):
            ids[places[i][0]][places[i][1]] = g
        return TokenGroups(self.centers, ids, self.relevance, self.counts, self.level)

    def table(self) -> pd.DataFrame:
        """One row per token: title, position (t, from 0), relevance (nats), group, count (training targets)."""
        parts = [
            pd.DataFrame(
                {
                    "title": title,
                    "position": np.arange(len(ids)),
                    "relevance": self.relevance[title],
                    "group": ids,
                    "count": self.counts[title],
                }
            )
            for title, ids in self.ids.items()
        ]
        return pd.concat(parts, ignore_index=True)


def fit(
    relevance: Mapping[str, Any], targets: Iterable[str], n_groups: int = 5, level: str = "token", seed: int = 0
) -> TokenGroups:
    """K-means on the relevance of all target tokens of the training set.

    Each title is scored once, and its tokens have weight n if it is the target of n examples. Titles that are never a
    target are assigned to the nearest centre.

    Args:
        relevance: {title: relevance of each token, shape (T,), nats}, from `relevance.token_relevance`.
        targets: titles of the training targets, with repeats.
        n_groups: number of groups, K.
        level: "token", or "item" to cluster the mean relevance of each title, whose tokens then share its group.
        seed: random seed for the initial centres of K-means.

    Raises:
        ValueError: no target, a target without relevance, a relevance that is not finite, an unknown level, or n_groups
            above the number of distinct values.
    """
    if level not in LEVELS:
        raise ValueError(f"level={level!r} is unknown; choose 'token' or 'item'.")
    counts = Counter(iter(targets))  # iter: of a mapping, the titles and not their values
    if not counts:
        raise ValueError("targets is empty: there are no training tokens to group.")
    scores = {title: np.asarray(values, dtype=np.float64) for title, values in relevance.items()}
    for title in counts:
        if title not in scores:
            raise ValueError(f"target {title!r} has no relevance; score it with relevance.token_relevance first.")
    for title, values in scores.items():
        if not np.isfinite(values).all():
            raise ValueError(f"the relevance of {title!r} is not finite ({values}); check the model that scored it.")
    points = {title: values if level == "token" else values.mean(keepdims=True) for title, values in scores.items()}
    values = np.concatenate([points[title] for title in counts])
    weights = np.concatenate([np.full(len(points[title]), n) for title, n in counts.items()])
    distinct = len(np.unique(values))
    if not 1 <= n_groups <= distinct:
        raise ValueError(f"n_groups={n_groups} must be between 1 and {distinct}, the number of distinct relevance values.")
    means = KMeans(n_groups, n_init=10, random_state=seed).fit(values[:, None], sample_weight=weights)
    centers = np.sort(means.cluster_centers_[:, 0])
    ids = {}
    for title, own in points.items():
        nearest = np.abs(own[:, None] - centers).argmin(1).astype(np.int64)
        ids[title] = np.broadcast_to(nearest, scores[title].shape).copy() if level == "item" else nearest
    return TokenGroups(centers, ids, scores, {title: counts[title] for title in scores}, level)


def by_openness(legal: Mapping[str, list[np.ndarray]], targets: Iterable[str]) -> TokenGroups:
    """Two groups by the catalogue alone: 0, tokens that it leaves open, and 1, tokens that are forced by those before them.

    The relevance is that of a guess among the legal tokens: log(1 / their number), so 0 nats for a forced token.

    Args:
        legal: {title: for each token the tokens that may stand there}, from `TitleTrie.legal`.
        targets: titles of the training targets, with repeats.
    """
    counts = Counter(targets)
    guess = {title: -np.log([float(len(choices)) for choices in own]) for title, own in legal.items()}
    ids = {title: (values == 0).astype(np.int64) for title, values in guess.items()}
    values, group = (np.concatenate([own[title] for title in counts]) for own in (guess, ids))
    weights = np.concatenate([np.full(len(guess[title]), n) for title, n in counts.items()])
    mean = float(np.average(values, weights=weights * (group == 0))) if (group == 0).any() else 0.0
    return TokenGroups(np.array([mean, 0.0]), ids, guess, {title: counts[title] for title in guess}, "open")
