"""What a recommender without a language model does: count, and see which titles follow each other.

Shown in notebook 00, section 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy import sparse

from gdrt_lite.data import Example, Ranked


def popularity(
    train: Sequence[Example],
    catalogue: Sequence[str],
    histories: Sequence[Sequence[str]],
    k: int = 10,
    exclude_history: bool = False,
) -> list[Ranked]:
    """The most frequent targets of the training examples, the same for everybody.

    Args:
        train: training windows.
        catalogue: titles that may be recommended.
        histories: titles per user.
        k: length of each list.
        exclude_history: leave out the user's own titles.

    Returns:
        Per user k pairs (title, windows that end in it), best first, ties by title.
    """
    number = numbered(catalogue, k)
    scores = np.broadcast_to(_target_counts(train, number), (len(histories), len(catalogue)))
    return best_titles(scores, catalogue, histories, k, exclude_history)


def item_transitions(
    train: Sequence[Example],
    catalogue: Sequence[str],
    histories: Sequence[Sequence[str]],
    k: int = 10,
    exclude_history: bool = False,
    shrinkage: float = 10.0,
) -> list[Ranked]:
    """Titles that followed the history's titles in the training windows: shrunk cosine, summed over the history.

    Args:
        train, catalogue, histories, k, exclude_history: as in `popularity`.
        shrinkage: 0 or more; added to the denominator, so that rare pairs do not get a high similarity.

    Returns:
        Per user k pairs (title, similarity), best first; what no similarity reaches is filled up by popularity.
    """
    number = numbered(catalogue, k)
    if shrinkage < 0:
        raise ValueError(f"shrinkage={shrinkage} must be 0 or more.")
    pairs = [(number[h], number[e.target]) for e in train for h in e.history if h in number and e.target in number]
    row, column = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    size = len(catalogue)
    # [h, v]: windows with h in the history and v as the target. Few pairs ever meet, and only those are held.
    followed = sparse.coo_array((np.ones(len(pairs)), (row, column)), shape=(size, size)).tocsr()
    met = followed.tocoo()
    norms = np.sqrt(followed.sum(1)[met.row] * followed.sum(0)[met.col]) + shrinkage
    similarity = sparse.csr_array((met.data / norms, (met.row, met.col)), shape=(size, size))
    # Popularity breaks ties and fills up, far below any real similarity.
    counts = _target_counts(train, number)
    filling = 1e-9 * counts / max(counts.max(), 1)
    numbers = (np.array([number[t] for t in history if t in number], dtype=np.int64) for history in histories)
    scores = (similarity[own].sum(0) + filling for own in numbers)  # user by user: all at once would be dense
    return best_titles(scores, catalogue, histories, k, exclude_history)


def numbered(catalogue: Sequence[str], k: int) -> dict[str, int]:
    """Title -> its place in the catalogue, from 0.

    Raises:
        ValueError: an empty catalogue, or a list of k titles that it cannot fill.
    """
    if not len(catalogue):
        raise ValueError("the catalogue is empty: there is nothing to recommend.")
    if not 1 <= k <= len(catalogue):
        raise ValueError(f"k={k} is out of range: it must be between 1 and the {len(catalogue)} titles of the catalogue.")
    return {title: i for i, title in enumerate(catalogue)}


def _target_counts(train: Sequence[Example], number: dict[str, int]) -> np.ndarray:
    """Windows that end in each title."""
    numbers = np.array([number[e.target] for e in train if e.target in number], dtype=np.int64)
    return np.bincount(numbers, minlength=len(number)).astype(float)


def best_titles(
    scores: Iterable[np.ndarray],
    catalogue: Sequence[str],
    histories: Sequence[Sequence[str]],
    k: int,
    exclude_history: bool,
) -> list[Ranked]:
    """The k highest of each user's scores, shape (titles,), ties by title."""
    by_title = np.argsort(np.array(catalogue, dtype=object), kind="stable")
    lists = []
    for row, history in zip(scores, histories, strict=True):
        order = by_title[np.argsort(-row[by_title], kind="stable")]
        seen = set(history) if exclude_history else set()
        lists.append([(catalogue[i], float(row[i])) for i in order[: k + len(seen)] if catalogue[i] not in seen][:k])
    return lists
