"""A table file as Interactions: csv, tsv, json, jsonl, parquet and RecBole's .inter. Shown in notebook 08, section 1.

The columns are named by the caller, by a YAML file of the same stem beside the table, or guessed from their usual names.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from gdrt_lite.data import cells
from gdrt_lite.data.interactions import Interactions, from_frame
from gdrt_lite.system.errors import GdrtError

FORMS = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".inter")
USUAL = {  # as they read without case, blanks, underscores and RecBole's types
    "user": ("user", "userid", "username", "uid", "reviewerid", "customerid", "memberid", "visitorid", "reader"),
    "item": (
        *("title", "itemtitle", "movietitle", "producttitle", "booktitle", "gametitle", "name", "itemname", "productname"),
        *("moviename", "bookname", "item", "movie", "film", "product", "book", "game", "artist", "track", "song"),
    ),
    "time": (
        *(
            "timestamp",
            "unixreviewtime",
            "time",
            "datetime",
            "date",
            "reviewdate",
            "createdat",
            "ratedat",
            "ratingtimestamp",
        ),
        *("dateadded", "dateread", "readat", "watchedat", "purchasedat", "eventtime", "ts"),
    ),
    "genres": ("genres", "genre", "class", "categories", "category", "tags"),
    "item_id": ("itemid", "movieid", "productid", "bookid", "gameid", "parentasin", "asin", "isbn"),
}
KEYS = ("user", "item", "time", "genres", "noun", "verb", "name", "titles", "ties")
WORDS = {"movie": "watched", "film": "watched", "book": "read", "game": "played", "song": "heard", "track": "heard"}


def read_table(
    path: str | Path,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    genres: str | None = None,
    noun: str | None = None,
    verb: str | None = None,
    name: str | None = None,
    titles: str | Path | None = None,
    ties: str | None = None,
) -> Interactions:
    """Interactions from a file of one row each. A YAML file of the same stem may say what the arguments leave open.

    Args:
        path: a file in one of FORMS.
        user, item, time, genres: names of columns (RecBole's without their types); guessed from USUAL where none are given.
            time="rows" numbers the rows, for a table without times that stands in the right order.
        noun, verb: the wording of the prompt; guessed from the names of file and column, else "item" and "chosen".
        name: of the data; the file's stem.
        titles: a second table that shares its one column of ids with the first, and holds the titles (and genres). For
            `x.inter` that is `x.item`, where it is there.
        ties: as in `from_frame`.

    Raises:
        GdrtError: no such file or form, no such column (those found are named), or a cell that cannot be read (with the
            file, its column, and its line or row).
    """
    path = Path(path)
    given = dict(user=user, item=item, time=time, genres=genres, noun=noun, verb=verb, name=name, titles=titles, ties=ties)
    asked: dict[str, Any] = notes(path) | {key: value for key, value in given.items() if value is not None}
    table, beside = _records(path), path.with_suffix(".item")
    if "titles" in asked:
        table = _with_titles(table, path.parent / asked["titles"])
    elif path.suffix == ".inter" and beside.is_file():
        table = _with_titles(table, beside)
    by_row = asked.get("time") == "rows" and "rows" not in table.columns
    if by_row:
        table = table.assign(rows=range(len(table)))
    columns: dict[str, Any] = {
        role: asked.get(role) or _guess(table, role) for role in ("user", "item", "time", "genres", "item_id")
    }
    for role in ("user", "item", "time"):
        if columns[role] is None:
            raise GdrtError(f"{path} {_missing(table, role)}")
    words = wording(f"{columns['item']} {columns['item_id']} {path.stem}") or ("item", "chosen")
    try:
        found = from_frame(
            table,
            **columns,
            name=asked.get("name", path.stem),
            noun=asked.get("noun", words[0]),
            verb=asked.get("verb", words[1]),
            ties=asked.get("ties", "rows"),
        )
    except ValueError as error:
        raise GdrtError(f"{path}: {error}") from None
    if "item" not in asked and cells.looks_like_ids(found.titles):
        raise GdrtError(f"{path}: column {columns['item']!r} seems to hold ids and no titles. {_TITLES}")
    return replace(found, dated=not by_row)


def notes(path: Path) -> dict[str, str]:
    """What the YAML file beside a table says, or `data.yaml` inside a folder: {} where there is none.

    Raises:
        GdrtError: it is not a mapping of some of KEYS to text.
    """
    path = path / "data.yaml" if path.is_dir() else path.with_suffix(".yaml")
    if not path.is_file():
        return {}
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise GdrtError(f"{path} is not valid YAML ({error}).") from None
    if not isinstance(said, dict) or not all(key in KEYS and isinstance(value, str) for key, value in said.items()):
        raise GdrtError(f"{path} must give text to some of {', '.join(KEYS)}, one a line, like `item: title`.")
    return said


def wording(text: str) -> tuple[str, str] | None:
    """The noun and the verb that go with a name such as "Amazon_Books"; None where nothing is known."""
    return next(((noun, verb) for noun, verb in WORDS.items() if noun in text.lower()), None)


def _plain(column: Any) -> str:
    return "".join(letter for letter in str(column).lower() if letter.isalnum())


def _guess(table: pd.DataFrame, role: str) -> str | None:
    found = {_plain(column): column for column in reversed(table.columns)}
    return next((found[name] for name in USUAL[role] if name in found), None)


_TITLES = "A language model reads titles: name their column (item=), or a second table that holds them (titles=)."


def _missing(table: pd.DataFrame, role: str) -> str:
    found = f"(found: {', '.join(map(str, table.columns))})"
    if {"instruction", "conversations", "messages", "prompt"} & {_plain(column) for column in table.columns}:
        return f"holds prompts in which titles stand as text {found}; notebook 08, section 1, cuts them into rows first."
    if any(_plain(column).startswith("history") for column in table.columns):
        return (
            f"holds windows with their histories, no interactions {found}; notebook 08, section 1, makes rows of them first."
        )
    if role == "item":
        return f"has no column of titles that I know by its name {found}. {_TITLES}"
    if role == "time":
        return (
            f"has no column of times that I know by its name {found}. Name it (time=); where there is none, and the rows "
            "stand in the order in which they happened, take time='rows'."
        )
    return f"has no column of users that I know by its name {found}. Name it (user=)."


def _with_titles(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The table with the columns of a second one, found by the column of ids that both have."""
    other = _records(path)
    shared = [column for column in other.columns if column in table.columns]
    if len(shared) != 1:
        raise GdrtError(
            f"{path} must share exactly one column, that of the ids, and shares {shared or 'none'}; its columns are "
            f"{', '.join(map(str, other.columns))}, the first table's {', '.join(map(str, table.columns))}."
        )
    ids, keys = cells.keys(other[shared[0]]), cells.keys(table[shared[0]])
    if ids.duplicated().any():
        raise GdrtError(
            f"{path} has id {ids[ids.duplicated()].iloc[0]!r} of column {shared[0]!r} twice; keep one row an id."
        )
    rows = other.drop(columns=shared).set_index(pd.Index(ids))
    return table.assign(**{column: keys.map(rows[column]) for column in rows.columns})


def _records(path: Path) -> pd.DataFrame:
    """The cells of a file as they are written, and its lines as the index. RecBole's types leave the names of columns."""
    try:
        if path.suffix in (".csv", ".tsv", ".inter", ".item"):
            return _separated(path)
        if path.suffix in (".json", ".jsonl"):
            return _objects(path)
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
    except ImportError:
        raise GdrtError(f"{path} needs pyarrow to be read: pip install pyarrow, or write it as csv.") from None
    except UnicodeDecodeError as error:
        raise GdrtError(f"{path} is not UTF-8 text ({error}); write it again as UTF-8.") from None
    except OSError as error:
        raise GdrtError(f"{path} cannot be read ({error.strerror or error}).") from None
    except Exception as error:  # pyarrow has its own kinds
        if type(error).__module__.startswith("pyarrow"):
            raise GdrtError(f"{path} is no parquet file that can be read ({error}).") from None
        raise
    raise GdrtError(f"{path} is in no form that can be read: choose one of {', '.join(FORMS)}; a folder is for open_data.")


def _separated(path: Path) -> pd.DataFrame:
    recbole = path.suffix in (".inter", ".item")
    format: dict[str, Any] = dict(
        delimiter="," if path.suffix == ".csv" else "\t", quoting=csv.QUOTE_NONE if recbole else csv.QUOTE_MINIMAL
    )
    rows, lines = [], []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True, **format)
        try:
            header = next(reader, [])
            for row in filter(None, reader):
                if len(row) != len(header):
                    raise GdrtError(
                        f"{path}, line {reader.line_num}: {len(row)} cells under {len(header)} columns; quote or add some."
                    )
                rows.append(row)
                lines.append(reader.line_num)
        except csv.Error as error:
            raise GdrtError(f"{path}, line {reader.line_num}: {error}.") from None
    table = _table(rows, lines, header)
    if recbole:
        for column in table.columns[[str(column).endswith(":token_seq") for column in table.columns]]:
            if _plain(column.split(":")[0]) in USUAL["genres"]:
                table[column] = [cell.split() for cell in table[column]]
        table.columns = [column.split(":")[0] for column in table.columns]
    return table


def _objects(path: Path) -> pd.DataFrame:
    """One JSON object a line, or one array of objects."""
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        numbered = [(0, text)]
    else:
        numbered = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    rows, lines = [], []
    for number, line in numbered:
        where = f"{path}, line {number}" if number else str(path)
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise GdrtError(f"{where} is not valid JSON ({error}).") from None
        found = found if isinstance(found, list) else [found]
        if not all(isinstance(value, dict) for value in found):
            raise GdrtError(f'{where} must hold objects like {{"user": 1, "title": "Heat", "time": 2}}.')
        rows += found
        lines += [number] * len(found)
    header = list(dict.fromkeys(key for row in rows for key in row))
    table = _table([[row.get(key) for key in header] for row in rows], lines, header)
    return table.reset_index(drop=True) if lines and not lines[0] else table


def _table(rows: list[list[Any]], lines: Sequence[int], header: list[str]) -> pd.DataFrame:
    return pd.DataFrame(rows, index=pd.Index(lines, name="line"), columns=pd.Index(header, dtype=object), dtype=object)
