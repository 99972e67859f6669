"""A table file as Interactions: csv, tsv, jsonl, parquet and RecBole's .inter. Shown in notebook 08, section 1.

The columns are named by the caller, by a YAML file of the same stem beside the table, or guessed from their usual names.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from gdrt_lite.data import cells
from gdrt_lite.data.interactions import Interactions, from_frame
from gdrt_lite.system.errors import GdrtError

SEPARATED = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".item": "\t"}
FORMS = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".inter")
KEYS = ("user", "item", "time", "genres", "noun", "verb", "name", "titles", "ties")
USUAL = {  # as they read without case, blanks and underscores
    "user": "user userid username uid reviewerid customerid memberid visitorid reader",
    "item": "title itemtitle movietitle producttitle booktitle gametitle name itemname productname moviename bookname item "
    "movie film product book game artist track song",
    "time": "timestamp unixreviewtime time datetime date reviewdate createdat ratedat dateadded dateread readat ts",
    "genres": "genres genre class categories category tags",
    "item_id": "itemid movieid productid bookid gameid parentasin asin isbn",
}
WORDS = {"movie": "watched", "film": "watched", "book": "read", "game": "played", "song": "heard", "track": "heard"}
_TITLES = "A language model reads titles: name their column (item=), or a second table that holds them (titles=)."
_HINTS = {
    "user": "Name it (user=). Prompts and ready windows must become rows first, as notebook 08, section 1, shows.",
    "item": _TITLES,
    "time": "Name it (time=), or take time='rows' where the rows stand in the order in which they happened. Prompts and "
    "ready windows must become rows first, as notebook 08, section 1, shows.",
}


def read_table(path: str | Path, **said: str | None) -> Interactions:
    """Interactions from a file of one row each. A YAML file of the same stem may say what the arguments leave open.

    Args:
        path: a file in one of FORMS (json: one object a line, too).
        said: any of KEYS. user, item, time, genres: names of columns (RecBole's without their types), else guessed from
            USUAL; time="rows" numbers the rows. noun, verb: the wording of the prompt, else guessed from the names of file
            and column. name: of the data, else the file's stem. titles: a second table that shares one column, that of the
            ids, with the first and holds the titles (for x.inter that is x.item, if it exists). ties: as in `from_frame`.

    Raises:
        GdrtError: no such file or form, no such column (those found are named), or a cell that cannot be read (with the
            file, its column, and its line or row).
    """
    path = Path(path)
    asked = _checked(path, notes(path) | {key: value for key, value in said.items() if value is not None})
    table, beside = _records(path), path.with_suffix(".item")
    if "titles" in asked or (path.suffix == ".inter" and beside.is_file()):
        table = _with_titles(table, path.parent / asked.get("titles", beside))
    numbered = asked.get("time") == "rows" and "rows" not in table.columns
    if numbered:
        table = table.assign(rows=range(len(table)))
    columns: dict[str, Any] = {role: asked.get(role) or _guess(table, role) for role in USUAL}
    for role, hint in _HINTS.items():
        if columns[role] is None:
            found = ", ".join(map(str, table.columns))
            raise GdrtError(f"{path} has no column for {role!r} under a name that I know (found: {found}). {hint}")
    noun, verb = wording(f"{columns['item']} {columns['item_id']} {path.stem}", ("item", "chosen"))
    words: dict[str, Any] = {"name": path.stem, "noun": noun, "verb": verb}
    words |= {key: value for key, value in asked.items() if key not in (*USUAL, "titles")}
    try:
        interactions = from_frame(table, **columns, **words)
    except ValueError as error:
        raise GdrtError(f"{path}: {error}") from None
    if "item" not in asked and cells.looks_like_ids(interactions.titles):
        raise GdrtError(f"{path}: column {columns['item']!r} seems to hold ids and no titles. {_TITLES}")
    if numbered:  # which needs no word on numbers that are no Unix seconds
        report = [sentence for sentence in interactions.report if "'rows'" not in sentence]
        return replace(interactions, dated=False, report=(*report, "The order of the rows stands for their times."))
    return interactions


def notes(path: Path) -> dict[str, str]:
    """What the YAML file beside a table says, or `data.yaml` inside a folder: {} where there is none.

    Raises:
        GdrtError: it is not a mapping of some of KEYS to text.
    """
    path = path / "data.yaml" if path.is_dir() else path.with_suffix(".yaml")
    if not path.is_file():
        return {}
    try:
        return _checked(path, yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise GdrtError(f"{path} is not valid YAML ({error}).") from None


def _checked(path: Path, said: Any) -> dict[str, str]:
    if not isinstance(said, dict) or not all(key in KEYS and isinstance(value, str) for key, value in said.items()):
        known = f"only {', '.join(KEYS)} can be said of a table"
        raise GdrtError(f"{path}: {known}, and in text, as in `item: title`; found {said}.")
    return said


def wording(text: str, otherwise: tuple[str, str]) -> tuple[str, str]:
    """The noun and the verb that go with a name such as "Amazon_Books"."""
    return next(((noun, verb) for noun, verb in WORDS.items() if noun in text.lower()), otherwise)


def _guess(table: pd.DataFrame, role: str) -> str | None:
    found = {"".join(filter(str.isalnum, str(column).lower())): column for column in reversed(table.columns)}
    return next((found[name] for name in USUAL[role].split() if name in found), None)


def _with_titles(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The table with the columns of a second one, found by the column of ids that both have."""
    other = _records(path)
    shared = [column for column in other.columns if column in table.columns]
    if len(shared) != 1:
        only = "must share exactly one column, that of the ids, with the first table"
        raise GdrtError(f"{path} {only}; shared: {shared or 'none'}.")
    ids, keys = cells.keys(other[shared[0]]), cells.keys(table[shared[0]])
    if len(twice := ids[ids.duplicated()]):
        raise GdrtError(f"{path} has id {twice.iloc[0]!r} of column {shared[0]!r} twice; keep one row an id.")
    rows = other.drop(columns=shared).set_index(pd.Index(ids))
    return table.assign(**{column: keys.map(rows[column]) for column in rows.columns})


def _records(path: Path) -> pd.DataFrame:
    """The cells of a file as they are written, and its lines as the index. RecBole's types leave the names of columns."""
    if path.suffix not in (*FORMS, ".item"):
        forms = f"choose one of {', '.join(FORMS)}; a folder is for open_data"
        raise GdrtError(f"{path} is in no form that can be read: {forms}.")
    lines, rows = [0], []
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        for line, row in _rows(path):
            lines.append(line)
            rows.append(row)
    except (OSError, ValueError, ImportError, RecursionError, csv.Error) as error:  # of JSON, Unicode and parquet as well
        place = f"after line {lines[-1]}" if lines[-1] else "from its beginning"
        raise GdrtError(f"{path} cannot be read {place}: {error}") from None
    if not rows:
        raise GdrtError(f"{path} holds no row: it needs one for each interaction of a user with an item.")
    table = pd.DataFrame(rows, index=pd.Index(lines[1:], name="line"), dtype=object)
    for column in table.columns[[str(column).endswith(":token_seq") for column in table.columns]]:
        if _guess(table[[column]].rename(columns=_untyped), "genres"):
            table[column] = [cell.split() for cell in table[column]]
    return table.rename(columns=_untyped)


def _untyped(column: str) -> str:
    return column.removesuffix(":token").removesuffix(":token_seq").removesuffix(":float")


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row with its line."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix in SEPARATED:
            quoting: Any = csv.QUOTE_NONE if path.suffix in (".inter", ".item") else csv.QUOTE_MINIMAL
            reader = csv.DictReader(file, delimiter=SEPARATED[path.suffix], quoting=quoting, strict=True)
            names = list(reader.fieldnames or [])
            if len(set(names)) != len(names):
                raise ValueError(f"its first line names a column twice: {', '.join(names)}")
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError("the next row has more or fewer cells than the first line names; quote the text")
                yield reader.line_num, row
            return
        for number, line in enumerate(file, 1):
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    prompts = "for prompts with titles in their text see notebook 08, section 1"
                    raise ValueError(f"each line must be an object; {prompts}")
                yield number, row
