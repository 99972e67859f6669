"""Reads the cells of a table's columns: names, titles, times, genres. Each reader says in sentences what it did.

A cell that cannot be read is a ValueError that names the column and the row: its line in a file whose index is called
"line", else its place from 0.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd

NO_GENRE = "(no genres listed)"
_ID = re.compile(r"[\d.\-]+|B0[0-9A-Z]{8}|[0-9a-fA-F]{8,}(-[0-9a-fA-F]+)*")  # a number, an ASIN, a hexadecimal key
LARGEST = 2**62


def clean(title: str) -> str:
    """HTML entities decoded (those that were encoded twice as well), Unicode composed (NFC), white space folded."""
    while (decoded := html.unescape(title)) != title:
        title = decoded
    return " ".join(unicodedata.normalize("NFC", title).split())


def text(column: pd.Series) -> list[str]:
    """The cells as stripped text; whole floats lose their ".0".

    Raises:
        ValueError: a cell is empty, holds a list or a mapping, or is no valid Unicode.
    """
    return [_one(column, row, value) for row, value in enumerate(column)]


def _one(column: pd.Series, row: int, value: Any) -> str:
    if not pd.api.types.is_scalar(value):
        remedy = "; a cell takes one value: df.explode makes rows of a list."
        raise _fault(column, row, f"is a {type(value).__name__}", remedy)
    word = "" if pd.isna(value) else str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
    if not word:
        raise _fault(column, row, "is empty", "; fill it or drop the row.")
    if any("\ud800" <= letter <= "\udfff" for letter in word):
        raise _fault(column, row, "is no valid Unicode", "; write the text again as UTF-8.")
    return word


def titles(column: pd.Series) -> tuple[list[str], list[str]]:
    """The cells as titles, cleaned as `clean` does, and what there is to say about them; errors as for `text`."""
    written, said = text(column), []
    cleaned = {title: clean(title) for title in dict.fromkeys(written)}
    blank = next((row for row, title in enumerate(written) if not cleaned[title]), None)
    if blank is not None:
        raise _fault(column, blank, "is blank once its entities are decoded", "; give the item a name.")
    if changed := sum(old != new for old, new in cleaned.items()):
        merged = len(cleaned) - len(set(cleaned.values()))
        said += [f"{changed:,} titles had HTML entities, doubled spaces or decomposed letters; {merged:,} became another's."]
    if looks_like_ids(cleaned.values()):
        said += [f"Column {column.name!r} seems to hold ids like {written[0]!r}, of which a language model reads nothing."]
    return [cleaned[title] for title in written], said


def keys(column: pd.Series) -> pd.Series:
    """Ids as text, so that those of two tables can be compared; never refused, since nobody reads them."""
    return pd.Series([str(value) for value in column], column.index, dtype=object, name=column.name)


def looks_like_ids(values: Iterable[str]) -> bool:
    """Whether nine in ten are numbers or keys."""
    found = [bool(_ID.fullmatch(value)) for value in values]
    return sum(found) >= 0.9 * len(found)


def times(column: pd.Series) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Whole seconds (int64), the exact values to sort by, and what there is to say about them.

    Numbers are taken as they are, dates and ISO date strings as Unix seconds (UTC where they name no zone).

    Raises:
        ValueError: a cell is no number and no date, or beyond 64 bits.
    """
    odd = (isinstance(value, complex) or not pd.api.types.is_scalar(value) for value in column)
    nested = next((row for row, value in enumerate(odd) if value), None)
    if nested is not None:
        raise _fault(column, nested, "holds no time", f": a {type(column.iloc[nested]).__name__}; give one cell one time.")
    numbers = None if pd.api.types.is_datetime64_any_dtype(column) else pd.to_numeric(column, errors="coerce")
    if numbers is None or numbers.isna().all():
        stamps = pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601")
        _refuse(column, stamps.isna().to_numpy())
        exact = stamps.dt.tz_localize(None).to_numpy().astype("datetime64[us]").astype("int64")
        return exact // 1_000_000, exact, _below_seconds(exact % 1_000_000 != 0)
    values = numbers.to_numpy(dtype=float, na_value=np.nan)
    _refuse(column, ~(np.abs(values) < LARGEST))  # NaN is not smaller
    if pd.api.types.is_integer_dtype(numbers):
        values = numbers.to_numpy().astype("int64")  # exact above 2**53
    said = _below_seconds(values % 1 != 0)
    if values.max() < 1e8:
        years = values.min() >= 1000 and values.max() <= 2100
        what = "years" if years else f"no Unix seconds (the largest is {values.max():g})"
        said.append(f"Column {column.name!r} holds {what}: only their order counts. Are they times, not ratings or weights?")
    return np.floor(values).astype("int64"), values, said


def _below_seconds(fractions: np.ndarray) -> list[str]:
    n = fractions.sum()
    return [f"{n:,} times have parts of a second; they order the rows and are then cut off."] if n else []


def _refuse(column: pd.Series, bad: np.ndarray) -> None:
    if bad.any():
        row = int(bad.argmax())
        raise _fault(column, row, "holds no time", f": {column.iloc[row]!r}; give numbers, dates or ISO date strings.")


def genres(values: Iterable[Any]) -> tuple[Callable[[Any], tuple[str, ...]], list[str]]:
    """How to read a cell of genres, decided once for all: lists as they are, text at "|", else ";", else ","."""
    written = [value for value in values if isinstance(value, str)]
    mark = next((mark for mark in "|;," if any(mark in value for value in written)), None)

    def read(value: Any) -> tuple[str, ...]:
        if isinstance(value, str):
            value = value.strip()
            value = value[1:-1] if value.startswith("[") and value.endswith("]") else value  # a list written as text
            parts = value.split(mark) if mark else [value]
        else:
            parts = [str(part) for part in value] if isinstance(value, Iterable) else []
        names = (part.strip(" \t\r\n'\"") for part in parts)
        return tuple(dict.fromkeys(name for name in names if name and name != NO_GENRE))

    return read, [f"Genres are cut at {mark!r}."] if mark else []


def _fault(column: pd.Series, row: int, what: str, remedy: str) -> ValueError:
    place = f"line {column.index[row]}" if column.index.name == "line" else f"row {row}"
    return ValueError(f"Column {column.name!r} {what} in {place}{remedy}")
