"""The data sets that have a name, folders in the Amazon form, and the one door to all data: `open_data`.

Used in notebook 08, sections 2 and 3.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from gdrt_lite.data import loaders, tables
from gdrt_lite.data.interactions import Interactions, of_rows
from gdrt_lite.data.windows import Example, Splits, cut
from gdrt_lite.system import assets, files
from gdrt_lite.system.errors import GdrtError

TRAIN, VALID, TEST = "train_10000.csv", "valid_5000.csv", "test_5000.csv"


def data_folder() -> Path:
    """The folder of the committed data: data/ of the clone, or the copy in an installed package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "data", package / "_data"):
        if (folder / "movielens" / "SHA256SUMS").is_file():
            return folder
    raise GdrtError(f"No data/movielens beside or inside {package}; clone the repository again or reinstall gdrt_lite.")


def load_movielens(top_items: int | None = 500) -> Interactions:
    """MovieLens ml-latest-small (see data/movielens/README.md): the most rated movies, or all with None."""
    return _movies(loaders.read_movielens(data_folder() / "movielens"), "MovieLens small", top_items)


def load_movielens_100k(top_items: int | None = None) -> Interactions:
    """MovieLens-100k, fetched once into the cache because its terms do not let us ship it."""
    return _movies(loaders.read_movielens_100k(assets.movielens_100k()), "MovieLens-100k", top_items)


def _movies(rows: tuple[pd.DataFrame, loaders.Genres], name: str, top_items: int | None) -> Interactions:
    everything = of_rows(*rows, name, "movie", "watched")
    return everything if top_items is None else everything.top_items(top_items)


NAMED = {"movielens": load_movielens, "movielens-100k": load_movielens_100k}


def load_amazon(folder: str | Path, train: str = TRAIN, test: str = TEST, valid_fraction: float = 0.1) -> Splits:
    """Windows in the Amazon form: `id2name4Rec.json`, and csv files with `user_id,item_ids,timestamp`.

    Where the folder holds a `valid_5000.csv`, that is the valid part. Otherwise it is the last `valid_fraction` of the
    training windows by time (windows of one timestamp stay together). The catalogue is every title of the json file, cleaned
    as `cells.clean` does. The wording is that of `data.yaml` in the folder, or follows from the folder's name.

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

    def examples(name: str) -> list[Example]:
        rows = loaders.read_amazon_windows(folder / name, titles)
        return [Example(user, tuple(items[:-1]), items[-1], time) for user, items, time in rows]

    training, valid, held_out = examples(train), [], examples(test)
    if (folder / VALID).is_file():
        valid = examples(VALID)
    elif valid_fraction:
        training, valid = cut(training, 1 - valid_fraction)
    catalogue = sorted(set(titles.values()) - {""})
    splits = Splits(training, valid, held_out, catalogue, {}, *_amazon_name(folder))
    told = f"{splits.repeats():,} of {len(held_out):,} test windows have their target in their own history"
    out = ": a list that leaves the history out cannot hit them."
    return replace(splits, report=(told + out,) if splits.repeats() else ())


def amazon_interactions(folder: str | Path) -> Interactions:
    """The interactions behind the windows of all csv files in a folder of the Amazon form, for splits of our own choice.

    An item's time is that of the first window it is seen in; the order of the items in that window is kept. Only targets
    carry their own time (20% to 36% of the interactions of the published sets), so `split("time")` is refused.

    Raises:
        GdrtError: a file is missing or malformed (with the line).
    """
    folder = Path(folder)
    titles = loaders.read_amazon_titles(folder / "id2name4Rec.json")
    found = sorted(folder.glob("*.csv"))
    if not found:
        raise GdrtError(f"{folder} holds no csv file of windows; it needs at least one with user_id,item_ids,timestamp.")
    windows = [window for file in found for window in loaders.read_amazon_windows(file, titles)]
    windows.sort(key=lambda window: window[2])
    rows = [(user, item, time) for user, items, time in windows for item in items]
    return of_rows(pd.DataFrame(rows, columns=["user", "item", "time"]), {}, *_amazon_name(folder), dated=False)


def write_amazon(splits: Splits, folder: str | Path) -> Path:
    """Write splits in the Amazon form, which `load_amazon` reads back to the same three parts; genres have no place in it.

    Raises:
        GdrtError: the folder holds something already, or cannot be written.
    """
    folder = files.writable_folder(folder)
    if any(folder.iterdir()):
        raise GdrtError(f"{folder} is not empty; name a folder that is, since files of the same names would be lost.")
    numbers = {title: n for n, title in enumerate(splits.catalogue)}
    for name, part in ((TRAIN, splits.train), (VALID, splits.valid), (TEST, splits.test)):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(loaders.AMAZON_COLUMNS)
        writer.writerows((e.user, json.dumps([numbers[t] for t in (*e.history, e.target)]), e.time) for e in part)
        if part:
            files.write_text(folder / name, text.getvalue())
    files.write_json(folder / "id2name4Rec.json", {str(n): title for title, n in numbers.items()})
    files.write_text(folder / "data.yaml", f"noun: {json.dumps(splits.noun)}\nverb: {json.dumps(splits.verb)}\n")
    return folder


def _amazon_name(folder: Path) -> tuple[str, str, str]:
    """The name of a folder's data and the wording: of its `data.yaml`, or as its name suggests."""
    name, noted = folder.resolve().name, tables.notes(folder)
    noun, verb = tables.wording(name, ("product", "bought"))
    return f"Amazon {name}", noted.get("noun", noun), noted.get("verb", verb)


def is_here(source: str | Path | Interactions) -> bool:
    """Whether `open_data` finds the source: MovieLens always (100k is fetched), a file or folder where there is one."""
    return isinstance(source, Interactions) or source in NAMED or _path(source) is not None


def _path(source: str | Path) -> Path | None:
    homes = (Path, data_folder, assets.cache_dir)  # called in turn: a file that is at hand needs no cache
    return next((path for home in homes if str(source) and (path := home() / source).exists()), None)


def open_data(
    source: str | Path | Interactions,
    split: str = "new_users",
    top_items: int = 0,
    history: int = 5,
    columns: Mapping[str, str] | None = None,
    **options: Any,
) -> Splits:
    """Train, valid and test of any data: what `run` and `study` open.

    Args:
        source: a name in NAMED, a table file (`read_table`) or Amazon folder, as it stands or under data/; or Interactions.
        split: one of SPLITS, or "published" for the windows of an Amazon folder as they are, whatever the sizes below say.
        top_items: the most interacted titles kept; 0 keeps all.
        history: the most titles in a history. A window has three titles at least, or as many as a shorter history can hold.
        columns: what to say to `read_table`: names of columns, noun and verb. What is no table takes noun and verb alone.
        options: further arguments of `Interactions.split`.

    Raises:
        ValueError: an unknown source, or a split that it cannot have.
        GdrtError: a file that cannot be read.
    """
    wording: dict[str, Any] = {key: value for key, value in (columns or {}).items() if key in ("noun", "verb")}
    path = None if isinstance(source, Interactions) or source in NAMED else _path(source)
    if split == "published":
        if path is None or not path.is_dir():
            raise ValueError(f"split='published' needs a folder of windows in the Amazon form; {source} is none.")
        return replace(load_amazon(path), **wording)
    if path is not None:
        found = amazon_interactions(path) if path.is_dir() else tables.read_table(path, **(columns or {}))
    elif isinstance(source, Interactions):
        found = source
    elif source in NAMED:
        found = NAMED[source](top_items=None)
    else:
        raise ValueError(
            f"unknown data set {str(source)!r}; choose {', '.join(map(repr, NAMED))}, a table ({', '.join(tables.FORMS)}), "
            "or a folder in the Amazon form (id2name4Rec.json, train_10000.csv, test_5000.csv), as it stands or under data/."
        )
    kept = found.top_items(top_items) if top_items else found
    return replace(kept.split(split, history=history, min_history=min(3, history), **options), **wording)
