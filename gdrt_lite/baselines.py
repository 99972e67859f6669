"""What a recommender without a language model does: count, and compare items by who chose them. Notebook 00, section 5."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from gdrt_lite.data import Example

Ranked = list[tuple[str, float]]


def popularity(
    train: Sequence[Example],
    catalogue: Sequence[str],
    histories: Sequence[Sequence[str]],
    k: int = 10,
    exclude_history: bool = False,
) -> list[Ranked]:
    """The most chosen titles, the same for everybody.

    Args:
        train: training windows; each user's distinct items count once.
        catalogue: titles that may be recommended.
        histories: titles per user.
        k: length of each list.
        exclude_history: leave out the user's own titles.

    Returns:
        Per user k pairs (title, users who chose it), best first, ties by title.
    """
    counts = np.asarray(_user_items(train, catalogue).sum(0)).ravel()
    scores = np.broadcast_to(counts.astype(float), (len(histories), len(catalogue)))
    return _best(scores, catalogue, histories, k, exclude_history)


def item_knn(
    train: Sequence[Example],
    catalogue: Sequence[str],
    histories: Sequence[Sequence[str]],
    k: int = 10,
    exclude_history: bool = False,
    shrinkage: float = 10.0,
) -> list[Ranked]:
    """Titles similar to those of the history: shrunk cosine of the sets of users, summed over the history.

    Args:
        train, catalogue, histories, k, exclude_history: as in `popularity`.
        shrinkage: added to the denominator, so that two titles with one user in common do not count as twins.

    Returns:
        Per user k pairs (title, similarity), best first; what no similarity reaches is filled up by popularity.
    """
    users = _user_items(train, catalogue)
    counts = np.asarray(users.sum(0)).ravel()
    together = (users.T @ users).toarray()
    similarity = together / (np.sqrt(np.outer(counts, counts)) + shrinkage)
    np.fill_diagonal(similarity, 0.0)
    number = {title: i for i, title in enumerate(catalogue)}
    scores = np.stack([similarity[[number[t] for t in history if t in number]].sum(0) for history in histories])
    # Popularity breaks ties and fills up, far below any real similarity.
    scores = scores + 1e-9 * counts / max(counts.max(initial=0), 1)
    return _best(scores, catalogue, histories, k, exclude_history)


def _user_items(train: Sequence[Example], catalogue: Sequence[str]) -> sparse.csr_matrix:
    """1 where a user (row) chose a title (column)."""
    if not len(catalogue):
        raise ValueError("the catalogue is empty: there is nothing to recommend.")
    number = {title: i for i, title in enumerate(catalogue)}
    rows = {user: i for i, user in enumerate(dict.fromkeys(e.user for e in train))}
    pairs = {(rows[e.user], number[t]) for e in train for t in (*e.history, e.target) if t in number}
    row, column = zip(*pairs, strict=True) if pairs else ((), ())
    return sparse.csr_matrix((np.ones(len(pairs)), (row, column)), shape=(max(len(rows), 1), len(catalogue)))


def _best(
    scores: np.ndarray, catalogue: Sequence[str], histories: Sequence[Sequence[str]], k: int, exclude_history: bool
) -> list[Ranked]:
    if not 1 <= k <= len(catalogue):
        raise ValueError(f"k={k} is out of range: it must be between 1 and the {len(catalogue)} titles of the catalogue.")
    by_title = np.argsort(np.array(catalogue, dtype=object), kind="stable")
    lists = []
    for row, history in zip(scores, histories, strict=True):
        order = by_title[np.argsort(-row[by_title], kind="stable")]
        seen = set(history) if exclude_history else set()
        lists.append([(catalogue[i], float(row[i])) for i in order[: k + len(seen)] if catalogue[i] not in seen][:k])
    return lists


