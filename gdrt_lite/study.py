"""The study: a declared grid of cells, run one by one.

The grid (data/results/grid.yaml) is a list of blocks; a block's cells are the product of its `vary` lists. Cells that exist are
skipped, so a study survives a kill at any moment and runs in parts on several machines: copy the JSON files together.
Used in notebook 07.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from gdrt_lite import data, evidence, experiment
from gdrt_lite.config import Config
from gdrt_lite.errors import GdrtError
from gdrt_lite.experiment import Bench


def main(grid: Path | None = None, results: Path | None = None, only: str = "", report_only: bool = False) -> int:
    """Run the cells of the grid that are missing, then render the report.

    Args:
        grid: YAML file; default data/results/grid.yaml.
        results: folder of the cells; default data/results/cells.
        only: run cells whose key contains this text.
        report_only: run nothing.
    """
    folder = data.data_folder() / "results"
    grid, results = grid or folder / "grid.yaml", results or folder / "cells"
    if not report_only:
        configs = [config for config in read_grid(grid) if only in config.key]
        missing = [config for config in configs if not (results / f"{config.key}.json").exists()]
        print(f"{len(configs)} cells, {len(configs) - len(missing)} done")
        for bench_of, block in itertools.groupby(missing, key=_bench_key):
            bench = Bench(Config(**dict(bench_of)))
            for config in block:
                print(config.key, flush=True)
                experiment.run_cell(config, results, bench)
    print(evidence.write_report(results, results.parent))
    return 0


def read_grid(path: Path) -> list[Config]:
    """The configurations that a grid file declares.

    Raises:
        GdrtError: the file is missing or malformed, or names an unknown setting.
    """
    try:
        blocks = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return [config for block in blocks for config in _product(block)]
    except OSError as error:
        raise GdrtError(f"the grid {path} cannot be read ({error.strerror}); pass --grid FILE.") from error
    except (yaml.YAMLError, TypeError, KeyError) as error:
        raise GdrtError(f"the grid {path} is malformed: {error}. Each block needs `set` and `vary`.") from error


def _product(block: Mapping[str, Any]) -> Iterator[Config]:
    names, lists = zip(*block["vary"].items(), strict=True)
    for values in itertools.product(*lists):
        yield Config.of({**block["set"], **dict(zip(names, values, strict=True))})


def _bench_key(config: Config) -> tuple[tuple[str, Any], ...]:
    """What the cells of one `Bench` share."""
    names = ["model", "data", "split", "top_items", "history", "scorer"]
    # A pocket model is made with the seed, and its relevance scorer is trained on the windows of the seed.
    names += ["seed", "train_windows"] if config.model == "pocket" else []
    values = dataclasses.asdict(config)
    return tuple((name, values[name]) for name in names)
