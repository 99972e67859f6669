"""Protocols: sets of cells that may be compared because they agree in every setting that their methods use.

Used in notebooks 00 and 07.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gdrt_lite.study.cell import Cell
from gdrt_lite.study.config import Config
from gdrt_lite.study.methods import OPTIONAL, check_method

FREE = ("method", "parameters", "seed", "learning_rate")  # what may differ within a protocol


def by_protocol(cells: Iterable[Cell]) -> list[tuple[Config, list[Cell]]]:
    """The cells measured on the test part, grouped by protocol, the largest protocol first, then by descending tau.

    Within a protocol all settings are equal except the method, its parameters, the seed, and the learning rate, which may be
    tuned per method. A cell whose method does not use a setting (SFT does not use tau) belongs to every protocol that
    differs from it in that setting alone. Of several cells that differ only in unused settings, a protocol takes one.
    """
    tests = [cell for cell in cells if cell.config.part == "test"]
    # Cells that use the most settings come first: they define the protocols, which the others join.
    tests.sort(key=lambda cell: -len(used_settings(cell.config)))
    found: list[tuple[dict[str, Any], list[Cell]]] = []
    for cell in tests:
        used = used_settings(cell.config)
        joined = [own for settings, own in found if all(settings[n] == used[n] for n in settings if n in used)]
        if not joined:
            joined = [[]]
            found.append(({n: v for n, v in _values(cell.config).items() if n not in FREE}, joined[0]))
        for own in joined:
            if all(used_settings(other.config) != used for other in own):
                own.append(cell)
    pairs = [(Config(**settings), own) for settings, own in found]
    return sorted(pairs, key=lambda pair: (-len(pair[1]), -pair[0].tau))


def first_protocols(cells: Iterable[Cell]) -> dict[str, tuple[Config, list[Cell]]]:
    """The first protocol of each model and data set, in the order of `by_protocol`, as shown in summaries."""
    found: dict[str, tuple[Config, list[Cell]]] = {}
    for config, own in by_protocol(cells):
        found.setdefault(setting_name(config, own), (config, own))
    return found


def setting_name(config: Config, cells: Sequence[Cell]) -> str:
    """The model and the data set of a protocol, in words."""
    return f"{Path(config.model).name}, {cells[0].data.split(',')[0]}"


def by_model(cells: Iterable[Cell]) -> dict[tuple[str, str], list[Cell]]:
    """The cells measured on the valid part, by (model, data set)."""
    found: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell.config.part == "valid":
            found[cell.config.model, cell.config.data].append(cell)
    return dict(found)


def used_settings(config: Config) -> dict[str, Any]:
    """The settings of a cell that change its result."""
    unused = OPTIONAL - set(check_method(config.method, config.parameters).uses)
    return {name: value for name, value in _values(config).items() if name not in unused}


def _values(config: Config) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
