"""Interactions -> time-ordered sliding windows -> train, valid and test examples.

Conventions, in one place:

* An item is its title. Users are strings.
* Interactions are ordered by time within a user; equal times keep the order of the rows they came in.
* A (user, item) pair counts once, at its first time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from gdrt_lite.data import loaders
from gdrt_lite.data.windows import LOWER, SPLITS, Example, Splits, at_least, cut, split_examples, windows
from gdrt_lite.system.errors import GdrtError


@dataclass(frozen=True, repr=False, eq=False)
class Interactions:
    """A table of user (str), item (title), time (int), sorted by user and time; and the titles' genres."""

    frame: pd.DataFrame
    genres: dict[str, tuple[str, ...]] = field(default_factory=dict)
    name: str = "interactions"

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
        return Interactions(frame, self.genres, f"{self.name}, top {n}")

    def split(
        self, by: str = "new_users", history: int = 10, min_history: int = 3, seed: int = 0, growing: bool = False
    ) -> Splits:
        """Cut the windows into train, valid and test.

        Args:
            by: "new_users": 10% of the users are valid and 10% test, with all their windows (`seed` draws).
                "time": the first 80% of all windows train, the next 10% valid, the last 10% test (the
                published protocol); windows of one timestamp stay together, which shifts the cuts slightly.
                "leave_one_out": each user's last window is test and the one before valid; users with fewer
                than three windows only train.
            history: the most items in a history.
            min_history: the fewest; earlier interactions become no target.
            seed: used by "new_users" alone.
            growing: histories that grow from `min_history` to `history` and begin anew, in place of sliding ones: the same
                targets with shorter histories on average, which a model reads at a fraction of the cost (see `windows`).

        Raises:
            ValueError: an unknown `by`, a length out of range, or too few windows to fill the three parts.
        """
        if by not in SPLITS:
            raise ValueError(f"by={by!r} is no split; choose one of {', '.join(SPLITS)}.")
        at_least("min_history", min_history, 1)
        at_least("history", history, min_history)
        examples = windows(self.frame, history, min_history, growing)
        if not examples:
            raise ValueError(
                f"No user has more than min_history={min_history} items, so there is no window to learn from; bring "
                f"longer histories, keep more titles, or {LOWER}."
            )
        train, valid, test = split_examples(examples, by, seed)
        titles = self.titles
        genres = {title: self.genres[title] for title in titles if title in self.genres}
        return Splits(train, valid, test, titles, genres, f"{self.name}, {by}")

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
) -> Interactions:
    """Your own table as Interactions.

    Args:
        user, item, time: names of its columns. `item` holds titles; `time` holds numbers (whole part kept),
            dates or ISO date strings (turned into Unix seconds; UTC where they name no zone).
        genres: title -> genres, or the name of a column with "A|B" strings or lists.

    Raises:
        ValueError: an empty table, a missing column, or a row (from 0) with an empty or unreadable cell.
    """
    columns = [user, item, time, *([genres] if isinstance(genres, str) else [])]
    for column in columns:
        if column not in df.columns:
            raise ValueError(f"The table has no column {column!r}; its columns are {', '.join(map(str, df.columns))}.")
    if df.empty:
        raise ValueError("The table is empty: it needs one row per interaction of a user with an item.")
    frame = pd.DataFrame({"user": _text(df[user]), "item": _text(df[item]), "time": _seconds(df[time])})
    known: dict[str, tuple[str, ...]] = {}
    if isinstance(genres, str):
        for title, value in zip(frame["item"], df[genres]):
            known.setdefault(title, _genre_names(value))
    elif genres is not None:
        known = {str(title).strip(): _genre_names(value) for title, value in genres.items()}
    return _interactions(frame, known, name)


def _interactions(frame: pd.DataFrame, genres: dict[str, tuple[str, ...]], name: str) -> Interactions:
    """Sort by user and time (stable), and keep each pair's first interaction."""
    frame = frame[["user", "item", "time"]].astype({"user": str, "item": str, "time": "int64"})
    order = np.lexsort((frame["time"].to_numpy(), frame["user"].factorize(sort=True)[0]))
    frame = frame.iloc[order].drop_duplicates(["user", "item"]).reset_index(drop=True)
    return Interactions(frame, genres, name)


def _text(column: pd.Series) -> list[str]:
    values = ["" if pd.isna(value) else str(value).strip() for value in column]
    if "" in values:
        raise ValueError(f"Column {column.name!r} is empty in row {values.index('')}; fill it or drop the row.")
    return values


def _seconds(column: pd.Series) -> np.ndarray:
    values = pd.to_numeric(column, errors="coerce") if not pd.api.types.is_datetime64_any_dtype(column) else None
    if values is None or values.isna().all():
        stamps = pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601")
        values = (stamps - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(seconds=1)
    bad = ~np.isfinite(values.to_numpy(dtype=float, na_value=np.nan))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"Column {column.name!r} holds no time in row {row}: {column.iloc[row]!r}; "
            "give numbers, dates or ISO date strings."
        )
    return values.to_numpy().astype("int64")


def _genre_names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split("|") if part.strip())
    return tuple(str(part) for part in value) if isinstance(value, Iterable) else ()


def data_folder() -> Path:
    """The folder of the committed data: data/ of the clone, or the copy in an installed package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "data", package / "_data"):
        if (folder / "movielens" / "SHA256SUMS").is_file():
            return folder
    raise GdrtError(f"No data/movielens beside or inside {package}; clone the repository again or reinstall gdrt_lite.")


def load_movielens(top_items: int | None = 500) -> Interactions:
    """MovieLens ml-latest-small (see data/movielens/README.md): the most rated movies, or all with None."""
    everything = _interactions(*loaders.read_movielens(data_folder() / "movielens"), "MovieLens small")
    return everything if top_items is None else everything.top_items(top_items)


def load_movielens_100k(top_items: int | None = None) -> Interactions:
    """MovieLens-100k, fetched once into the cache because its terms do not let us ship it."""
    from gdrt_lite.system import assets

    everything = _interactions(*loaders.read_movielens_100k(assets.movielens_100k()), "MovieLens-100k")
    return everything if top_items is None else everything.top_items(top_items)


def load_amazon(
    folder: str | Path,
    train: str = "train_10000.csv",
    test: str = "test_5000.csv",
    valid_fraction: float = 0.1,
) -> Splits:
    """Windows in the Amazon form: `id2name4Rec.json`, and csv files with `user_id,item_ids,timestamp`.

    The last `valid_fraction` of the training windows by time are the valid part (windows of one timestamp
    stay together). The catalogue is every title of the json file. Titles are as `loaders.read_amazon_titles`
    cleans them.

    Raises:
        GdrtError: a file is missing or malformed (with the line).
        ValueError: `valid_fraction` is not in [0, 1), or the windows cannot be cut so.
    """
    if not 0 <= valid_fraction < 1:
        raise ValueError(f"valid_fraction={valid_fraction!r} must be at least 0 and below 1.")
    folder = Path(folder)
    if not folder.is_dir():
        raise GdrtError(f"There is no folder {folder}; it must hold id2name4Rec.json, {train} and {test}.")
    titles = loaders.read_amazon_titles(folder / "id2name4Rec.json")
    parts = [
        [
            Example(user, tuple(items[:-1]), items[-1], time)
            for user, items, time in loaders.read_amazon_windows(folder / name, titles)
        ]
        for name in (train, test)
    ]
    training, valid = cut(parts[0], 1 - valid_fraction) if valid_fraction else (parts[0], [])
    catalogue = sorted(set(titles.values()) - {""})
    return Splits(training, valid, parts[1], catalogue, {}, f"Amazon {folder.resolve().name}")


def amazon_interactions(folder: str | Path) -> Interactions:
    """The interactions behind the windows of all csv files in a folder of the Amazon form, for splits of our own choice.

    An item's time is that of the first window it is seen in; the order of the items in that window is kept.

    Raises:
        GdrtError: a file is missing or malformed (with the line).
    """
    folder = Path(folder)
    titles = loaders.read_amazon_titles(folder / "id2name4Rec.json")
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise GdrtError(f"{folder} holds no csv file of windows; it needs at least one with user_id,item_ids,timestamp.")
    windows = [window for file in files for window in loaders.read_amazon_windows(file, titles)]
    windows.sort(key=lambda window: window[2])
    rows = [(user, item, time) for user, items, time in windows for item in items]
    return _interactions(pd.DataFrame(rows, columns=["user", "item", "time"]), {}, f"Amazon {folder.resolve().name}")
