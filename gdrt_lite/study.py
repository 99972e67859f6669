"""The study: a declared grid of cells, run one by one, and tables rendered from the cells alone.

The grid (data/results/grid.yaml) is a list of blocks; a block's cells are the product of its `vary` lists. Cells that exist are
skipped, so a study survives a kill at any moment and runs in parts on several machines: copy the JSON files together.
Used in notebook 07.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from gdrt_lite import data, experiment, files, report
from gdrt_lite.errors import GdrtError
from gdrt_lite.experiment import Bench, Config
from gdrt_lite.objectives import OBJECTIVES
from gdrt_lite.windows import Splits

METRICS = (
    "NDCG@5", "NDCG@10", "HR@5", "HR@10", "NLL", "MGU@5 popularity", "MGU@10 popularity", "DGU@5 popularity",
    "DGU@10 popularity", "MGU@5 genre", "DGU@5 genre", "bias attention", "bias token", "bias delete", "bias resample",
)  # fmt: skip


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
    text = render(results)
    print(text)
    files.write_text(results.parent / "REPORT.md", text)
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


def read_cells(folder: Path) -> list[dict[str, Any]]:
    """All cells of a folder, in the order of their names.

    Raises:
        GdrtError: a file is not a cell.
    """
    cells = []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            cell = json.loads(path.read_text(encoding="utf-8"))
            Config(**{**cell["config"], "ablations": tuple(cell["config"]["ablations"])})
        except (ValueError, KeyError, TypeError) as error:
            raise GdrtError(f"{path} is no cell of this version ({error}); move it out of the folder.") from error
        cells.append(cell)
    return cells


def render(folder: Path) -> str:
    """Markdown tables of all cells: one table per protocol (equal settings but for objective and seed)."""
    protocols: dict[str, list[dict]] = defaultdict(list)
    for cell in read_cells(folder):
        protocols[json.dumps({k: v for k, v in cell["config"].items() if k not in ("objective", "seed")})].append(cell)
    lines = ["# Study", "", f"{sum(map(len, protocols.values()))} cells in {len(protocols)} protocols."]
    for protocol, cells in protocols.items():
        config = _config(json.loads(protocol))
        splits = experiment.load_splits(config)
        lines += ["", f"## {splits.name}, {Path(config.model).name}", "", _describe(config, cells), ""]
        lines += [table(cells, splits).to_markdown(index=False, disable_numparse=True)]
    return "\n".join(lines) + "\n"


def table(cells: Sequence[Mapping], splits: Splits, reference: str = "sft") -> pd.DataFrame:
    """One row per objective: each metric as mean over seeds, and the 95% interval of its difference to the reference.

    The difference is taken seed by seed on the same test examples and averaged over the seeds both have; its interval is that of
    a single bootstrap over users.
    """
    by_objective: dict[str, dict[int, dict[str, report.Measured]]] = defaultdict(dict)
    for cell in cells:
        by_objective[cell["config"]["objective"]][cell["config"]["seed"]] = report.measurements(cell, splits)
    rows = []
    order = ("pre-trained", *OBJECTIVES, *experiment.BASELINES)
    for objective in sorted(by_objective, key=order.index):
        seeds = by_objective[objective]
        row: dict[str, Any] = {"objective": objective, "seeds": len(seeds)}
        for metric in METRICS:
            values = [found[metric].value for found in seeds.values() if metric in found]
            if values:
                row[metric] = f"{np.mean(values):.3f}" + difference(seeds, by_objective.get(reference, {}), metric)
        rows.append(row)
    return pd.DataFrame(rows).fillna("-")


def difference(seeds: Mapping[int, Mapping], others: Mapping[int, Mapping], metric: str) -> str:
    """' (+0.010 [0.002, 0.018])': mean difference over the shared seeds, bootstrap 95% over users."""
    shared = [s for s in seeds if s in others and metric in seeds[s] and metric in others[s]]
    if not shared or seeds is others:
        return ""
    draws = np.mean([seeds[s][metric].draws() - others[s][metric].draws() for s in shared], axis=0)
    value = np.mean([seeds[s][metric].value - others[s][metric].value for s in shared])
    low, high = np.quantile(draws, [0.025, 0.975])
    return f" ({value:+.3f} [{low:+.3f}, {high:+.3f}])"


def _product(block: Mapping[str, Any]) -> Iterator[Config]:
    names, lists = zip(*block["vary"].items(), strict=True)
    for values in itertools.product(*lists):
        yield _config({**block["set"], **dict(zip(names, values, strict=True))})


def _config(values: Mapping[str, Any]) -> Config:
    values = dict(values)
    if "ablations" in values:
        values["ablations"] = tuple(values["ablations"])
    return Config(**values)


def _bench_key(config: Config) -> tuple[tuple[str, Any], ...]:
    """What the cells of one `Bench` share."""
    names = ["model", "data", "split", "top_items", "history", "scorer"]
    # A pocket model is made with the seed, and its relevance scorer is trained on the windows of the seed.
    names += ["seed", "train_windows"] if config.model == "pocket" else []
    values = dataclasses.asdict(config)
    return tuple((name, values[name]) for name in names)


def _describe(config: Config, cells: Sequence[Mapping]) -> str:
    example = next((c for c in cells if "nll" in c), cells[0])
    return (
        f"Split `{config.split}`, history {config.history}, {config.train_windows} training windows x {config.epochs:g} epoch(s), "
        f"batch {config.batch_size}, learning rate {config.learning_rate:g}, tau {config.tau:g}, K {config.k}, prior {config.prior}; "
        f"{len(example['users'])} {config.part} examples of {len(set(example['users']))} users, beam {config.beams}, history titles "
        f"{'not ' if config.exclude_history else ''}recommended again. In brackets: difference to SFT, 95% over users."
    )
