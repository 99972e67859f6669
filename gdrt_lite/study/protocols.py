"""Which cells may be compared: cells that are equal in every setting that their methods use.

Used in notebooks 00, 06 and 07.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gdrt_lite.objectives import OBJECTIVES
from gdrt_lite.study.config import BASELINES, Config
from gdrt_lite.system.errors import GdrtError

Cell = Mapping[str, Any]

FREE = ("objective", "seed", "learning_rate")  # what may differ within a protocol

GROUPING = ("k", "scorer")

WEIGHING = ("tau", "prior", "ema")

TRAINING = ("train_windows", "epochs", "batch_size", "learning_rate", "dropout", "curve_examples")

UNUSED = {"balanced": WEIGHING, "sft": GROUPING + WEIGHING, "pre-trained": GROUPING + WEIGHING + TRAINING}

UNUSED |= dict.fromkeys(BASELINES, UNUSED["pre-trained"] + ("faa_examples", "ablations"))  # no tokens to attribute

UNSEEDED = ("pre-trained", *BASELINES)  # nothing random in them

ORDER = ("pre-trained", *OBJECTIVES, *BASELINES)


def read_cells(folder: Path) -> list[dict[str, Any]]:
    """All cells of a folder, in the order of their names.

    Raises:
        GdrtError: a file is not a cell.
    """
    cells = []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            cell = json.loads(path.read_text(encoding="utf-8"))
            Config.of(cell["config"])
        except (ValueError, KeyError, TypeError) as error:
            raise GdrtError(f"{path} is no cell of this version ({error}); move it out of the folder.") from error
        cells.append(cell)
    return cells


def by_protocol(cells: Iterable[Cell]) -> list[tuple[Config, list[Cell]]]:
    """The cells measured on the test part, gathered by protocol: that with the most cells first, of two as large the larger tau.

    All settings of a protocol are equal but the objective, the seed, and the learning rate, which may be chosen for each objective.
    A cell whose objective has no use for a setting (SFT for tau) belongs to every protocol that differs from it in that alone; of
    several cells that differ in nothing else a protocol takes one.
    """
    tests = [cell for cell in cells if cell["config"]["part"] == "test"]
    # Those that use all settings come first: they make the protocols, and the others join.
    tests.sort(key=lambda cell: len(UNUSED.get(cell["config"]["objective"], ())))
    found: list[tuple[dict[str, Any], list[Cell]]] = []
    for cell in tests:
        config = {name: value for name, value in cell["config"].items() if name not in FREE}
        used = used_settings(cell)
        homes = [own for settings, own in found if all(settings[name] == used[name] for name in settings if name in used)]
        if not homes:
            homes = [[]]
            found.append((config, homes[0]))
        for own in homes:
            if used not in map(used_settings, own):
                own.append(cell)
    return sorted(((Config.of(settings), own) for settings, own in found), key=lambda pair: (-len(pair[1]), -pair[0].tau))


def first_protocols(cells: Iterable[Cell]) -> dict[str, tuple[Config, list[Cell]]]:
    """The first protocol of each setting (model and data set), in the order of `by_protocol`: what a summary shows where several settings were tested."""
    found: dict[str, tuple[Config, list[Cell]]] = {}
    for config, own in by_protocol(cells):
        found.setdefault(setting_name(config, own), (config, own))
    return found


def setting_name(config: Config, cells: Sequence[Cell]) -> str:
    """The model and the data set of a protocol, in words."""
    return f"{Path(config.model).name}, {cells[0]['data'].split(',')[0]}"


def by_model(cells: Iterable[Cell]) -> dict[tuple[str, str], list[Cell]]:
    """The cells measured on the valid part, by (model, data set)."""
    found: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell["config"]["part"] == "valid":
            found[cell["config"]["model"], cell["config"]["data"]].append(cell)
    return dict(found)


def used_settings(cell: Cell) -> dict[str, Any]:
    """The settings of a cell that its objective has a use for."""
    return {name: value for name, value in cell["config"].items() if name not in UNUSED.get(cell["config"]["objective"], ())}
