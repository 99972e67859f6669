"""A cell: one method on one data set with one model and seed, with all that was measured, as one JSON file.

Every table and interval of a study is computed from cells. Derived in notebook 06, section 4.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gdrt_lite.study.config import Config
from gdrt_lite.system import files
from gdrt_lite.system.errors import GdrtError

SCHEMA = 2  # version of the JSON form; 1 called `train_examples` `train_windows`


@dataclass
class Evaluation:
    """What a model recommends and predicts on the test examples, example by example.

    Attributes:
        data: what was measured on, in words.
        item_groups: for each kind ("popularity", "genre") the groups of each title, in the order of the catalogue.
        users: user of each example.
        targets: number of the target in the catalogue, per example.
        histories, lists: numbers of the history's and of the recommended titles, per example.
        nll: item NLL per example, nats per title; None for a recommender without a language model.
        own_minus_stranger: log P(target | own history) less its mean after strangers' histories, nats, per example.
        ndcg_minus_stranger: the same difference in NDCG@10. Both are known where the whole catalogue was scored.
        faa: per ablation a table of mean |A| by user and segment, nats per target token.
        dtype: number format of the weights.
    """

    data: str
    item_groups: dict[str, list[list[str]]]
    users: list[str]
    targets: list[int]
    histories: list[list[int]]
    lists: list[list[int]]
    nll: list[float] | None = None
    own_minus_stranger: list[float] | None = None
    ndcg_minus_stranger: list[float] | None = None
    faa: dict[str, dict[str, list]] = field(default_factory=dict)
    dtype: str = ""


@dataclass
class Cell(Evaluation):
    """An evaluation with what produced it.

    Attributes:
        config: the settings.
        environment: versions and hardware.
        train_examples: how many there were: fewer than asked for where the data has fewer.
        history: the log of the training, column by column; empty for what is not trained.
        curve: figures on valid examples after each epoch.
        training_seconds, seconds: wall time of the training, and of the whole cell.
        peak_memory_gib: peak memory of the process so far, GiB.
        processes: how many shared the work.
        fingerprint: of the data's examples, see `workspace.Workspace.fingerprint`; "" in the cells that recorded none.
    """

    config: Config = field(default_factory=Config)
    environment: dict[str, Any] = field(default_factory=dict)
    train_examples: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    training_seconds: float = 0.0
    seconds: float = 0.0
    peak_memory_gib: float = 0.0
    processes: int = 1
    fingerprint: str = ""

    @property
    def method(self) -> str:
        """The name of the method."""
        return self.config.method

    def write(self, path: Path) -> None:
        """Write the JSON file, whole or not at all.

        Raises:
            ValueError: its parts do not fit together, or a number is not finite.
        """
        self._check()
        files.write_json(path, {"schema": SCHEMA, **dataclasses.asdict(self)}, indent=None)

    @classmethod
    def read(cls, path: Path) -> Cell:
        """Read a JSON file of any schema so far.

        Raises:
            GdrtError: the file is not a cell, or is cut short.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            cell = cls(**_upgraded(values))
            cell._check()
            return cell
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            said = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else error
            raise GdrtError(f"{path} is no cell that this version can read ({said}); move it out of the folder.") from error

    def check_source(self, path: Path, config: Config, fingerprint: str) -> None:
        """See that this cell, read from `path`, is the one of `config` on the data that has the fingerprint.

        Raises:
            GdrtError: it is another cell, or was measured on other data.
        """
        if self.config.key != config.key:
            raise GdrtError(f"{path} holds the cell {self.config.key}; move it out of the folder, or give it its name back.")
        if self.fingerprint and self.fingerprint != fingerprint:
            raise GdrtError(
                f"{path} was measured on other data: {config.data} has changed since. Bring the old data back, name another "
                "folder, or move the cell out of this one."
            )

    def _check(self) -> None:
        titles = len(self.item_groups["popularity"])
        columns: dict[str, list | None] = {
            "targets": self.targets,
            "histories": self.histories,
            "lists": self.lists,
            "nll": self.nll,
            "own_minus_stranger": self.own_minus_stranger,
            "ndcg_minus_stranger": self.ndcg_minus_stranger,
        }
        for name, column in columns.items():
            if column is not None and len(column) != len(self.users):
                raise ValueError(f"{name} has {len(column)} entries for {len(self.users)} examples")
        numbers = {*self.targets, *itertools.chain(*self.histories, *self.lists)}
        if not all(isinstance(number, int) and 0 <= number < titles for number in numbers):
            raise ValueError(f"a title has a number outside of the catalogue of {titles}")
        if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in self.nll or ()):
            raise ValueError("the item NLL of an example is no finite number")


def _upgraded(values: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(values)
    schema = values.pop("schema", 1)
    if schema > SCHEMA:
        raise ValueError(f"its schema is {schema}, and {SCHEMA} is the newest known; update gdrt_lite")
    if schema == 1:
        values["train_examples"] = values.pop("train_windows")
    return values | {"config": Config.of(values["config"])}


def read_cells(folder: Path) -> list[Cell]:
    """All cells of a folder, in the order of their names.

    Raises:
        GdrtError: a file is not a cell.
    """
    return [Cell.read(path) for path in sorted(Path(folder).glob("*.json"))]
