"""Time-ordered windows, and their split into train, valid and test. The public entry point is `gdrt_lite.data`.

Every interaction with at least `min_history` earlier ones of its user is a window. It is the target, and the last earlier
items, `history` at most, are its history, oldest first.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

import numpy as np
import pandas as pd

SPLITS = ("new_users", "time", "leave_one_out")
HELD_OUT = 0.1  # the share of users (new_users) or windows (time) in each of valid and test
LOWER = "lower min_history (in a Config: a history below 3)"
Ranked = list[tuple[str, float]]  # a recommended list: titles with their scores, best first
Parts = tuple[list["Example"], list["Example"], list["Example"]]


@dataclass(frozen=True)
class Example:
    """One window: the titles a user took, oldest first, and the one taken next (at `time`)."""

    user: str
    history: tuple[str, ...]
    target: str
    time: int


@dataclass(frozen=True, repr=False)
class Splits:
    """Train, valid and test windows; the titles that may be recommended (sorted, unique); their genres.

    `noun` and `verb` are the wording of a prompt ("A user has read these books"); `report` says how the data was read.
    """

    train: list[Example]
    valid: list[Example]
    test: list[Example]
    catalogue: list[str]
    genres: dict[str, tuple[str, ...]]
    name: str
    noun: str = "item"
    verb: str = "chosen"
    report: tuple[str, ...] = field(default=(), compare=False)

    def repeats(self, part: str = "test") -> int:
        """Examples of a part whose target stands in its own history: with `exclude_history` no list can hit them."""
        return sum(example.target in example.history for example in getattr(self, part))

    def warm(self) -> set[str]:
        """Titles that occur in the training windows, as target or in a history; any other target is cold."""
        return {title for example in self.train for title in (*example.history, example.target)}

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(getattr(self, part)):,} {part}" for part in ("train", "valid", "test"))
        return f"Splits({self.name}: {sizes}; {len(self.catalogue):,} titles)"


def windows(
    frame: pd.DataFrame, history: int, min_history: int, sessions: bool = False, growing: bool = False
) -> list[Example]:
    """Every window of a table sorted by user and time, in that order.

    A *sliding* window holds the last `history` items before its target. *Growing* windows come in chunks: the history grows
    from `min_history` to `history` items, all from one first item on. A chunk then begins anew with the last `min_history`
    items. Both have the same targets. The histories of a chunk begin alike, so a model reads them once (see `lm.packing`):

        sliding, at most 4:  abc>d  abcd>e  bcde>f  cdef>g        growing:  abc>d  abcd>e  cde>f  cdef>g

    With `sessions`, items of one time are one session: a history holds only what is earlier than its target.
    """
    examples = []
    rows = zip(frame["user"].tolist(), frame["item"].tolist(), frame["time"].tolist())
    for user, group in groupby(rows, key=lambda row: row[0]):
        _, items, times = zip(*group)
        for i in range(min_history, len(items)):
            end = bisect_left(times, times[i]) if sessions else i
            length = min_history + (i - min_history) % (history - min_history + 1) if growing else history
            if end >= min_history:
                examples.append(Example(user, items[max(0, end - length) : end], items[i], times[i]))
    return examples


def split_examples(examples: list[Example], by: str, seed: int) -> Parts:
    """Train, valid and test by one of SPLITS (described at `Interactions.split`)."""
    if by == "new_users":
        return _by_user(examples, seed)
    if by == "leave_one_out":
        return _leave_one_out(examples)
    earlier, test = cut(examples, 1 - HELD_OUT)
    return *cut(earlier, (1 - 2 * HELD_OUT) / (1 - HELD_OUT)), test


def _by_user(examples: list[Example], seed: int) -> Parts:
    users = sorted({example.user for example in examples})
    if len(users) < 3:
        raise ValueError(
            f"by='new_users' needs three users with a window and has {len(users)}; bring more, split by 'time', or {LOWER}."
        )
    size = max(1, round(HELD_OUT * len(users)))
    order = np.random.default_rng(seed).permutation(len(users))
    valid, test = ({users[i] for i in order[start : start + size]} for start in (size, 0))
    parts: Parts = ([], [], [])
    for example in examples:
        parts[1 if example.user in valid else 2 if example.user in test else 0].append(example)
    return parts


def cut(examples: list[Example], share: float) -> tuple[list[Example], list[Example]]:
    """The first `share` of the windows by time, and the rest; equal times go to the rest together."""
    ordered = sorted(examples, key=attrgetter("time"))
    times = [example.time for example in ordered]
    at = bisect_left(times, times[min(round(share * len(times)), len(times) - 1)])
    if at == 0:
        raise ValueError(
            "The windows cannot be cut by time: too few of them, or too many with one timestamp; split by 'new_users' or "
            "'leave_one_out', or hold nothing back for validation."
        )
    return ordered[:at], ordered[at:]


def _leave_one_out(examples: list[Example]) -> Parts:
    parts: Parts = ([], [], [])
    for _, group in groupby(examples, key=attrgetter("user")):
        own = list(group)
        at = len(own) - 2 if len(own) >= 3 else len(own)
        for part, some in zip(parts, (own[:at], own[at : at + 1], own[at + 1 :])):
            part += some
    if not parts[2]:
        raise ValueError(
            f"by='leave_one_out' needs a user with three windows and has none; bring longer histories, or {LOWER}."
        )
    return parts


def chunks_of(examples: Sequence[Example]) -> list[list[int]]:
    """Examples, by their index, of one user whose histories begin with the same item: chunks of growing windows."""
    found: dict[tuple, list[int]] = {}
    for i, example in enumerate(examples):
        found.setdefault((example.user, example.history[:1]), []).append(i)
    return list(found.values())


def sample(examples: Sequence[Example], n: int, seed: int = 0, whole_chunks: bool = False) -> list[Example]:
    """n examples, taken from the users in turn so that no busy user dominates; all when there are fewer.

    Users and each user's examples come in an order drawn by `seed`, so a larger n extends a smaller one. With `whole_chunks`
    a user hands over a chunk of growing windows at a time (see `chunks_of`), so that they can be read together.
    """
    at_least("n", n, 1)
    rng = np.random.default_rng(seed)
    units = chunks_of(examples) if whole_chunks else [[i] for i in range(len(examples))]
    waiting: dict[str, list[list[int]]] = defaultdict(list)
    for unit in rng.permutation(len(units)):
        waiting[examples[units[unit][0]].user].append(units[unit])
    users = sorted(waiting)
    turn = [waiting[users[i]] for i in rng.permutation(len(users))]
    chosen: list[int] = []
    while turn and len(chosen) < n:
        for own in turn:
            chosen += own.pop() if len(chosen) < n else []
        turn = [own for own in turn if own]
    return [examples[i] for i in chosen[:n]]


def at_least(name: str, value: int, least: int) -> None:
    """Raise a ValueError that names the argument when it is not a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name}={value!r} must be a whole number, at least {least}.")
