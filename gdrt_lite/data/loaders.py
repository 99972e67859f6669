"""Reads the files of each data set into plain tables of titles; `gdrt_lite.data` gives them types.

An item *is* its title, all that a language model sees of it, so two ids with one title are one item. Every problem in a
file is a `GdrtError` that names the file and, where there is one, the line.
"""

from __future__ import annotations

import ast
import csv
import json
import re
import warnings
from pathlib import Path

import pandas as pd

from gdrt_lite.data.cells import LARGEST, NO_GENRE, clean
from gdrt_lite.system import files
from gdrt_lite.system.errors import GdrtError

AMAZON_COLUMNS = ("user_id", "item_ids", "timestamp")
Genres = dict[str, tuple[str, ...]]
Row = tuple[str, list[str], int]  # user, titles (oldest first, the target last), time of the target

_ARTICLES = "The|A|An|La|Le|Les|L'|El|Los|Las|Il|Lo|I|Gli|Der|Die|Das|Un|Une|En|De|Den|Det"
_TRAILING_ARTICLE = re.compile(rf"(?P<open>^|\((?:a\.k\.a\. )?)(?P<rest>[^()]+), (?P<article>{_ARTICLES})(?=\)| \(|$)")


def natural_title(title: str) -> str:
    """A catalogue title in reading order: "Postman, The (Postino, Il)" becomes "The Postman (Il Postino)"."""

    def turn(match: re.Match[str]) -> str:
        space = "" if match["article"].endswith("'") else " "
        return f"{match['open']}{match['article']}{space}{match['rest']}"

    return _TRAILING_ARTICLE.sub(turn, " ".join(title.split()))


def read_movielens(folder: Path) -> tuple[pd.DataFrame, Genres]:
    """The committed ml-latest-small: a table of user, item (title with year), time; and the genres.

    Rows come by user, time, movie id, so equal times keep the order of the movie ids.

    Raises:
        GdrtError: a file is missing, or differs from its line in SHA256SUMS.
    """
    for name, fault in files.check_sums(folder).items():  # well under 1 MB in all, so at every load
        if fault:
            restore = "Restore the folder from the repository, e.g. `git checkout -- data/movielens`, or install again."
            raise GdrtError(f"{folder / name} {fault}. {restore}")
    movies = pd.read_csv(folder / "movies.csv.gz", dtype={"title": str, "genres": str}, keep_default_na=False)
    ratings = pd.read_csv(folder / "ratings.csv.gz", usecols=["user", "movie", "time"])
    movies["item"] = [f"{natural_title(t)} ({year})" for t, year in zip(movies["title"], movies["year"])]
    genres: Genres = {}
    for item, names in zip(movies["item"], movies["genres"]):
        genres.setdefault(item, tuple(g for g in names.split("|") if g != NO_GENRE))
    ratings["item"] = ratings["movie"].map(movies.set_index("movie")["item"])
    return ratings[["user", "item", "time"]], genres


def read_movielens_100k(folder: Path) -> tuple[pd.DataFrame, Genres]:
    """MovieLens-100k in recbole's two text files: the same kind of table as `read_movielens`.

    The one item called "unkonwn" is left out; a movie without a four-digit year keeps its title as it stands.
    """
    kwargs = {"sep": "\t", "quoting": csv.QUOTE_NONE, "keep_default_na": False, "encoding": "utf-8"}
    items = pd.read_csv(folder / "ml-100k.item", dtype=str, **kwargs)
    ratings = pd.read_csv(folder / "ml-100k.inter", dtype={"user_id:token": str, "item_id:token": str}, **kwargs)
    titles: dict[str, str] = {}
    genres: Genres = {}
    for identifier, title, year, classes in items[items.iloc[:, 1] != "unkonwn"].itertuples(index=False):
        title = natural_title(title) + (f" ({year})" if re.fullmatch(r"\d{4}", year) else "")
        titles[identifier] = title
        genres.setdefault(title, tuple(g for g in classes.split() if g != "unknown"))
    ratings = ratings.rename(columns={"user_id:token": "user", "item_id:token": "item", "timestamp:float": "time"})
    frame = ratings[["user", "item", "time"]].astype({"time": "int64"})
    return frame.assign(item=frame["item"].map(titles)).dropna(subset="item"), genres


def read_amazon_titles(path: Path) -> dict[str, str]:
    """id -> title of `id2name4Rec.json`, as `cells.clean` writes it; empty ones stay ""."""
    try:
        names = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise GdrtError(f"{path} is missing: the Amazon form needs id2name4Rec.json beside its csv files.") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise GdrtError(f"{path} is not valid JSON ({error}); it must map ids to titles.") from None
    if not isinstance(names, dict) or not all(isinstance(title, str) for title in names.values()):
        raise GdrtError(f'{path} must be one JSON object that maps ids to titles, like {{"1": "HP 12C"}}.')
    for identifier, title in names.items():
        if any("\ud800" <= letter <= "\udfff" for letter in title):
            raise GdrtError(f"{path}: the title of id {identifier!r} is no valid Unicode; write the file again as UTF-8.")
    return {identifier: clean(title) for identifier, title in names.items()}


def read_amazon_windows(path: Path, titles: dict[str, str]) -> list[Row]:
    """The windows of one csv (`user_id,item_ids,timestamp`; the last id is the target), in the file's order.

    Items whose title is empty are left out of the histories. Windows with such a target, or without any history, are skipped
    with a warning that counts them.

    Raises:
        GdrtError: no file, a column missing, a list or timestamp that cannot be parsed, an id without a title
            (each with its line), or no window left.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or []
            if missing := [name for name in AMAZON_COLUMNS if name not in names]:
                wanted = f"its first line must name {','.join(AMAZON_COLUMNS)}, and names {','.join(names) or 'nothing'}"
                raise GdrtError(f"{path} has no column {missing[0]!r}: {wanted}.")
            rows = [_parse_window(row, titles, f"{path}, line {reader.line_num}") for row in reader]
    except FileNotFoundError:
        raise GdrtError(f"{path} is missing: name the csv of windows that the folder does hold.") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise GdrtError(f"{path} is not a UTF-8 csv file ({error}).") from None
    windows = [row for row in rows if row]
    if not windows:
        raise GdrtError(f"{path} holds no window with a history and a target: every list needs at least two ids.")
    if skipped := len(rows) - len(windows):
        warnings.warn(f"{path.name}: skipped {skipped} windows without a history or without a titled target.", stacklevel=2)
    return windows


def _parse_window(row: dict[str, str], titles: dict[str, str], where: str) -> Row | None:
    text = row["item_ids"] or ""
    try:
        ids = _parse_list(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise GdrtError(f"{where}: item_ids is not a list of ids like [12, 7, 31] but {text[:60]!r}.") from None
    try:
        time = int(row["timestamp"])
    except (TypeError, ValueError):
        time = LARGEST
    if abs(time) >= LARGEST:
        raise GdrtError(f"{where}: timestamp is not a whole number but {row['timestamp']!r}.")
    user = (row["user_id"] or "").strip()
    if not user:
        raise GdrtError(f"{where}: user_id is empty.")
    if unknown := [identifier for identifier in ids if str(identifier) not in titles]:
        raise GdrtError(f"{where}: id {unknown[0]} has no title in id2name4Rec.json.")
    named = [titles[str(identifier)] for identifier in ids]
    history = [title for title in named[:-1] if title]
    return (user, [*history, named[-1]], time) if history and named[-1] else None


def _parse_list(text: str) -> list:
    try:
        ids = json.loads(text)
    except json.JSONDecodeError:  # Python's own notation: ['a', 'b'] or (1, 2)
        ids = ast.literal_eval(text)
    if not isinstance(ids, (list, tuple)):
        raise ValueError("not a list")
    return list(ids)
