"""The study: a declared grid of cells, run one by one, and the report on them.

The grid (see data/results/registered.yaml) is a list of blocks; the cells of a block are the product of its `vary` lists.
Cells that exist are skipped, so a study survives a kill at any moment. It can also run in parts on several machines: copy
the JSON files into one folder. A block with `chosen` takes settings from the best trial on valid users once all are done:

    chosen: {settings: [learning_rate, epochs], by: NDCG@10, like: gdrt}    # like: whose trials; default the method's own

Used in notebook 07.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from gdrt_lite import data, plots
from gdrt_lite.study import compare, protocols, report, verdicts
from gdrt_lite.study.cell import Cell, read_cells
from gdrt_lite.study.config import Config
from gdrt_lite.study.methods import methods
from gdrt_lite.study.trial import run_cell
from gdrt_lite.study.workspace import Workspace
from gdrt_lite.system import files
from gdrt_lite.system.errors import GdrtError


def main(grid: Path, results: Path | None = None, only: str = "", report_only: bool = False) -> int:
    """Run the cells of a grid that are missing, then render the report beside their folder.

    Args:
        grid: YAML file.
        results: folder of the cells; default `cells` beside the grid.
        only: run cells whose key contains this text.
        report_only: run nothing.
    """
    results = results or grid.parent / "cells"
    if not report_only:
        _run_grid(grid, results, only)
    if files.first_process():
        print(write_report(results, results.parent))
    return 0


def registered(only: str = "", report_only: bool = False) -> int:
    """Run what is missing of the registered study (data/results/registration.md), then write its verdicts.

    Args:
        only, report_only: as in `main`.
    """
    folder = data.data_folder() / "results"
    grid, results = folder / "registered.yaml", folder / "registered"
    if not report_only:
        _run_grid(grid, results, only)
    if files.first_process():
        told = verdicts.write(read_cells(results), folder)
        print(verdicts.table(told).to_markdown(index=False, disable_numparse=True))
    return 0


def _run_grid(grid: Path, results: Path, only: str) -> None:
    """Run what is missing of a grid: the trials, and then what they choose."""
    for _ in range(2):
        _run_missing([config for config in read_grid(grid, results) if only in config.key], results)


def _run_missing(configs: Sequence[Config], results: Path) -> None:
    """Check the whole plan and what is done of it, then run the rest."""
    done = {config.key for config in configs if (results / f"{config.key}.json").exists()}
    missing = [config for config in configs if config.key not in done]
    say = print if files.first_process() else lambda _: None
    say(f"{len(configs)} cells, {len(configs) - len(missing)} done")
    absent = sorted({config.data for config in missing if not data.is_here(config.data)})
    if absent:
        say(
            f"Left out, since their data is not here: {', '.join(absent)}. "
            "`python -m gdrt_lite fetch amazon` gets the Amazon sets."
        )
        missing = [config for config in missing if config.data not in absent]
    if not missing:
        return
    with files.locked(files.writable_folder(results)):
        splits = _checked_data([config for config in configs if config.data not in absent], done, results)
        for bench_of, block in itertools.groupby(missing, key=workspace_key):
            bench = Workspace(config := Config(**dict(bench_of)), splits[_data_key(config)])
            for config in block:
                if files.first_process():
                    print(config.key, flush=True)
                    files.sweep(results, config.key)
                run_cell(config, results, bench, progress=files.first_process())


def _checked_data(configs: Sequence[Config], done: Collection[str], results: Path) -> dict[tuple, data.Splits]:
    """The data of each cell, once it is known to fit the cells that are missing and to be that of those that are done."""
    splits: dict[tuple, data.Splits] = {}
    for key, own in itertools.groupby(sorted(configs, key=lambda c: str(_data_key(c))), key=_data_key):
        bench: Workspace | None = None
        for config in own:
            file = results / f"{config.key}.json"
            cell = Cell.read(file) if config.key in done else None
            if cell and not cell.fingerprint:  # of a time before fingerprints
                cell.check_source(file, config, "")
                continue
            bench = bench or Workspace(config)
            if cell:
                cell.check_source(file, config, bench.fingerprint)
            else:
                bench.check(config)
        if bench:
            splits[key] = bench.splits
    return splits


def _data_key(config: Config) -> tuple:
    return config.data, config.split, config.top_items, config.history, config.growing, *sorted(config.columns.items())


def write_report(cells_folder: Path, folder: Path) -> str:
    """Write REPORT.md, with a table for each protocol, and its figures into `folder`; return the text.

    Raises:
        GdrtError: there is no cell, or a file is not one.
    """
    cells = read_cells(cells_folder)
    if not cells:
        raise GdrtError(
            f"{cells_folder} holds no cell; name a folder that does with --results, or run some without --report."
        )
    lines = [
        "# Study",
        "",
        f"{len(cells)} cells. Rendered by `python -m gdrt_lite study --report` from `cells/` alone.",
        "",
    ]
    firsts = protocols.first_protocols(cells)
    for config, own in protocols.by_protocol(cells):
        lines += [f"## {own[0].data}, {Path(config.model).name}", "", _describe(config, own), ""]
        lines += [compare.table(own).to_markdown(index=False, disable_numparse=True), ""]
        if config == firsts[protocols.setting_name(config, own)][0]:  # the figures' names hold one setting a place
            lines += _figures(config, compare.curves(own), folder)
    for (model, _), own in protocols.by_model(cells).items():
        lines += [f"## Tried on the valid part: {own[0].data}, {Path(model).name}", ""]
        lines += [f"{len(own)} trainings, {len(own[0].users)} examples of users that neither trained nor tested.", ""]
        lines += [compare.trials(own).to_markdown(index=False), ""]
    text = "\n".join(lines)
    files.write_text(Path(folder) / "REPORT.md", text)
    return text


def read_grid(path: Path, results: Path | None = None) -> list[Config]:
    """The configurations that a grid file declares.

    Args:
        path: the file.
        results: folder of the cells, for blocks with `chosen`; such a block is empty until its trials are there.

    Raises:
        GdrtError: the file is missing or malformed, or a block has an unknown setting or a value out of range.
    """
    try:
        blocks = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise GdrtError(f"the grid {path} cannot be read ({error.strerror}); pass --grid FILE.") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise GdrtError(f"the grid {path} is malformed: {error}. Each block needs `set` and `vary`.") from error
    if not isinstance(blocks, list):
        raise GdrtError(f"the grid {path} is malformed: it must be a list of blocks with `set` and `vary`.")
    configs: list[Config] = []
    figures = functools.cache(_trial_figures)  # each trial is read once, however many blocks it chooses for
    for i, block in enumerate(blocks, 1):
        try:
            own = list(_product(block))
            if rule := block.get("chosen"):
                own = [made for config in own if (made := _chosen(config, rule, configs, results, figures)) is not None]
            configs += own
        except (TypeError, ValueError) as error:
            raise GdrtError(f"block {i} of the grid {path} is malformed: {error}") from error
    return configs


def _product(block: Any) -> Iterator[Config]:
    if not isinstance(block, dict) or not all(isinstance(block.get(part), dict) for part in ("set", "vary")):
        raise ValueError("a block needs `set`, settings with their values, and `vary`, settings with lists of values.")
    for name, values in block["vary"].items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"`vary` needs a list of values for {name!r}, and has {values!r}.")
    if unknown := sorted(set(map(str, block)) - {"set", "vary", "chosen"}):
        raise ValueError(f"a block has `set`, `vary` and `chosen` alone, and this one has {', '.join(unknown)}.")
    for values in itertools.product(*block["vary"].values()):
        yield Config.of({**block["set"], **dict(zip(block["vary"], values, strict=True))})


PLACE = ("model", "data", "split", "top_items", "history", "growing", "lora_rank", "lora_targets", "warm_start")


def _trial_figures(file: Path) -> dict[str, float]:
    """NDCG@10 and item NLL of a trial's cell."""
    cell = Cell.read(file)
    found = report.accuracy(cell) | report.likelihood(cell)
    return {name: found[name].value for name in ("NDCG@10", "NLL") if name in found}


def _chosen(
    config: Config,
    rule: dict[str, Any],
    before: Sequence[Config],
    results: Path | None,
    figures: Callable[[Path], dict[str, float]],
) -> Config | None:
    """The configuration with the settings of the best trial of its place; None while a trial is missing.

    `by: NDCG@10` takes the highest. `by: NLL` takes the own trial whose item NLL is nearest to that of the best trial `of`.
    """
    trials = [trial for trial in before if trial.part == "valid" and _place(trial) == _place(config)]
    of = {
        name: [t for t in trials if t.method == name] for name in {rule.get("like", config.method), rule.get("of", "gdrt")}
    }
    own = of[rule.get("like", config.method)]
    if not own:
        raise ValueError(f"`chosen` finds no trial of {rule.get('like', config.method)} on valid users in an earlier block.")
    files_of = {trial.key: results / f"{trial.key}.json" for trial in trials} if results else {}
    if not files_of or not all(file.exists() for file in files_of.values()):
        return None
    known = {key: figures(file) for key, file in files_of.items()}

    def best(among: Sequence[Config]) -> Config:
        return max(among, key=lambda trial: known[trial.key]["NDCG@10"])

    if rule["by"] == "NLL":
        aim = known[best(of[rule.get("of", "gdrt")]).key]["NLL"]
        taken = min(own, key=lambda trial: abs(known[trial.key]["NLL"] - aim))
    else:
        taken = best(own)
    return dataclasses.replace(config, **{name: getattr(taken, name) for name in rule["settings"]})


def _place(config: Config) -> tuple:
    return tuple(getattr(config, name) for name in PLACE)


def workspace_key(config: Config) -> tuple[tuple[str, Any], ...]:
    """What the cells of one `Workspace` share."""
    names = [*PLACE, "columns", "scorer"]
    # A pocket model is made with the seed, and its relevance scorer is trained on the windows of the seed.
    names += ["seed", "train_examples"] if config.model == "pocket" or config.scorer == "sft" else []
    names += ["epochs", "batch_size", "learning_rate"] if config.scorer == "sft" else []
    values = vars(config)
    return tuple((name, values[name]) for name in names)


def _figures(config: Config, frame: pd.DataFrame, folder: Path) -> list[str]:
    lines = []
    for metric, name in (("NDCG@10", "ndcg"), ("bias attention", "bias"), ("coverage@10", "coverage")) if len(frame) else ():
        file = f"curve-{Path(config.data).name}-{Path(config.model).name}-{name}.png"
        title = f"{metric} on the valid part after each epoch, bars over seeds"
        figure = plots.learning_curve(frame, "epoch", metric, "method", title=title)
        figure.axes[0].set_xticks(sorted(frame.epoch.unique()))
        plots.save(figure, Path(folder) / file)
        lines += [f"![{title}]({file})", ""]
    return lines


def _describe(config: Config, cells: Sequence[protocols.Cell]) -> str:
    example = next((c for c in cells if c.nll is not None), cells[0])
    rates = sorted({cell.config.learning_rate for cell in cells if methods()[cell.method].trained})
    machines = sorted({f"{c.environment['cpu_capability']} {c.dtype}" for c in cells if c.dtype})
    excluded = "not " if config.exclude_history else ""
    return (
        f"Split `{config.split}`, history {config.history}, {example.train_examples} training examples x {config.epochs:g} "
        f"epoch(s), batch {config.batch_size}, learning rate {' or '.join(f'{rate:g}' for rate in rates)}, "
        f"tau {config.tau:g}, "
        f"K {config.n_groups}, prior {config.prior}; {len(example.users)} {config.part} examples of "
        f"{len(set(example.users))} users, lists of {config.list_length}, history titles {excluded}recommended again. "
        "In brackets: difference to SFT with its 95% interval, over users, and over seeds where there are several. "
        f"Computed on {' and '.join(machines) or 'an unrecorded machine'}."
    )
