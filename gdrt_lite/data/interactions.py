"""Interactions -> time-ordered windows -> train, valid and test examples. Shown on a table in notebook 08, section 1.

An item is its title, and users are strings. Interactions are ordered by time within a user; equal times keep the order of
their rows, unless told otherwise. A (user, item) pair counts once, at its first time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from gdrt_lite.data import cells
from gdrt_lite.data.windows import LOWER, SPLITS, Splits, at_least, split_examples, windows

TIES = {
    "rows": "kept in the order of their rows",
    "shuffle": "shuffled by a seed",
    "session": "one session, of which no item is in the history of another",
}


@dataclass(frozen=True, repr=False, eq=False)
class Interactions:
    """A table of user (str), item (title), time (int), sorted by user and time; and the titles' genres.

    Attributes:
        noun, verb: the wording of a prompt, as in "A user has read these books".
        report: what was done to the rows, in sentences.
        ties: one of TIES, what equal times of a user mean.
        dated: whether every time is the item's own (see `amazon_interactions`).
    """

    frame: pd.DataFrame
    genres: dict[str, tuple[str, ...]] = field(default_factory=dict)
    name: str = "interactions"
    noun: str = "item"
    verb: str = "chosen"
    report: tuple[str, ...] = ()
    ties: str = "rows"
    dated: bool = True

    @property
    def titles(self) -> list[str]:
        """The distinct titles, sorted."""
        return sorted(self.frame["item"].unique())

    def top_items(self, n: int) -> Interactions:
        """Only the n titles with the most interactions (ties: by alphabet); all when there are fewer."""
        at_least("n", n, 1)
        counts = self.frame["item"].value_counts()
        kept = sorted(counts.index, key=lambda title: (-counts[title], title))[:n]
        frame = self.frame[self.frame["item"].isin(set(kept))].reset_index(drop=True)
        return replace(self, frame=frame, name=f"{self.name}, top {n}")

    def split(
        self, by: str = "new_users", history: int = 10, min_history: int = 3, seed: int = 0, growing: bool = False
    ) -> Splits:
        """Cut the windows into train, valid and test.

        "new_users" and "leave_one_out" train on the future of other users: a test window may be older than most of the
        training windows. That is usual in this field, and only "time" is free of it.

        Args:
            by: "new_users": 10% of the users are valid and 10% test, with all their windows (`seed` draws).
                "time": the first 80% of all windows train, the next 10% valid, the last 10% test (the published protocol);
                windows of one timestamp stay together, which shifts the cuts slightly.
                "leave_one_out": each user's last window is test and the one before valid; users with fewer than three
                windows only train.
            history, min_history: the most and the fewest items in a history; earlier interactions become no target.
            seed: used by "new_users" alone.
            growing: histories that grow from `min_history` to `history` and begin anew, in place of sliding ones: the same
                targets with shorter histories on average, which a model reads at a fraction of the cost (see `windows`).

        Raises:
            ValueError: an unknown `by`, a length out of range, too few windows to fill the three parts, or "time" without
                the items' own times.
        """
        if by not in SPLITS:
            raise ValueError(f"by={by!r} is no split; choose one of {', '.join(SPLITS)}.")
        if by == "time" and not self.dated:
            raise ValueError(
                f"by='time' needs the time of every item, which {self.name} does not give: training would see the test's "
                "future. Split by 'new_users', or take the 'published' windows of a folder in the Amazon form, cut by time."
            )
        at_least("min_history", min_history, 1)
        at_least("history", history, min_history)
        examples = windows(self.frame, history, min_history, self.ties == "session", growing)
        if not examples:
            raise ValueError(
                f"No user has more than min_history={min_history} items, so there is no window to learn from; bring "
                f"longer histories, keep more titles, or {LOWER}."
            )
        parts = split_examples(examples, by, seed)
        titles = self.titles
        genres = {title: self.genres[title] for title in titles if title in self.genres}
        return Splits(*parts, titles, genres, f"{self.name}, {by}", self.noun, self.verb, self.report)

    def __repr__(self) -> str:
        users, titles = self.frame["user"].nunique(), self.frame["item"].nunique()
        return f"Interactions({self.name}: {len(self.frame):,} by {users:,} users on {titles:,} titles)"


def from_frame(
    df: pd.DataFrame,
    user: str,
    item: str,
    time: str,
    genres: str | Mapping[str, Iterable[str]] | None = None,
    name: str = "frame",
    *,
    noun: str = "item",
    verb: str = "chosen",
    item_id: str | None = None,
    ties: str = "rows",
    seed: int = 0,
) -> Interactions:
    """Your own table as Interactions; their `report` says in sentences what was merged, decoded, cut and ordered how.

    Args:
        user, item, time: names of its columns. `item` holds titles; `time` holds numbers, dates or ISO date strings
            (turned into Unix seconds; UTC where they name no zone). Parts of a second order the rows and are then cut off.
        genres: title -> genres, or the name of a column with lists, or text with "|", ";" or "," between the genres.
        noun, verb: the wording of the prompt: "A user has chosen these items".
        item_id: the column of ids, where there is one: the report then counts ids that share a title.
        ties: one of TIES: what equal times of a user mean.
        seed: of the shuffled ties.

    Raises:
        ValueError: an empty table, a missing column, or a row (from 0) with an empty or unreadable cell.
    """
    for column in [user, item, time, *(name for name in (genres, item_id) if isinstance(name, str))]:
        if (found := list(df.columns).count(column)) != 1:
            fault = f"{found} columns" if found else "no column"
            raise ValueError(f"The table has {fault} {column!r}; its columns are {', '.join(map(str, df.columns))}.")
    if ties not in TIES:
        raise ValueError(f"ties={ties!r} is none of {', '.join(TIES)}.")
    if df.empty:
        raise ValueError("The table is empty: it needs one row per interaction of a user with an item.")
    titles, of_titles = cells.titles(df[item])
    seconds, exact, of_times = cells.times(df[time])
    known, of_genres = _genres(titles, df[genres] if isinstance(genres, str) else genres)
    frame = pd.DataFrame({"user": cells.text(df[user]), "item": titles, "time": seconds, "exact": exact})
    if ties == "shuffle":
        frame = frame.iloc[np.random.default_rng(seed).permutation(len(frame))]
    frame = _in_order(frame, "exact")
    tied = frame.duplicated(["user", "exact"]).groupby(frame["user"]).any()
    report = [f"{len(df):,} rows, of which {len(df) - len(frame):,} repeat a user and a title: only their first counts."]
    if item_id is not None:
        names = pd.Series(titles).groupby(cells.keys(df[item_id]).to_numpy()).first()
        shared = names[names.duplicated(keep=False)]
        report += [f"{len(shared):,} ids share {shared.nunique():,} titles, and a title is one item."] * bool(len(shared))
    report += [*of_titles, *of_times, *of_genres]
    report += [f"{tied.mean():.0%} of the users have items of one time; these are {TIES[ties]}."] * bool(tied.any())
    frame = frame[["user", "item", "time"]].reset_index(drop=True)
    return Interactions(frame, known, name, noun, verb, tuple(report), ties)


def _genres(
    titles: list[str], given: pd.Series | Mapping[str, Iterable[str]] | None
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """The genres of each title: of a column the first cell that names any."""
    if given is None:
        return {}, []
    pairs = zip(titles, given) if isinstance(given, pd.Series) else [(cells.clean(str(t)), own) for t, own in given.items()]
    read, said = cells.genres(given if isinstance(given, pd.Series) else given.values())
    known: dict[str, tuple[str, ...]] = {}
    for title, value in pairs:
        known[title] = known.get(title) or read(value)
    return known, said


def of_rows(
    frame: pd.DataFrame, genres: dict[str, tuple[str, ...]], name: str, noun: str, verb: str, **more: Any
) -> Interactions:
    """A loader's table, which needs no cleaning, as Interactions: sorted by user and time (stable), each pair's first."""
    frame = frame[["user", "item", "time"]].astype({"user": str, "item": str, "time": "int64"})
    return Interactions(_in_order(frame, "time").reset_index(drop=True), genres, name, noun, verb, **more)


def _in_order(frame: pd.DataFrame, time: str) -> pd.DataFrame:
    """The rows by user and time (stable), the first of each user and title."""
    order = np.lexsort((frame[time].to_numpy(), frame["user"].factorize(sort=True)[0]))
    return frame.iloc[order].drop_duplicates(["user", "item"])
