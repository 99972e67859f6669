"""The main job: measure the untuned model, tune it by each objective, compare all with baselines, write a report."""

from __future__ import annotations

import dataclasses
import html
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gdrt_lite import metrics, plots
from gdrt_lite.data import Splits
from gdrt_lite.objectives import Objective, check_objective
from gdrt_lite.study import page, report
from gdrt_lite.study.cell import Cell
from gdrt_lite.study.config import FIRST_LOOK, PROFILES, Config
from gdrt_lite.study.methods import baseline_names
from gdrt_lite.study.trial import run_cell
from gdrt_lite.study.workspace import Workspace
from gdrt_lite.system import files, machine, processes
from gdrt_lite.system.errors import GdrtError


def run(
    objectives: Sequence[str] = ("sft", "balanced", "gdrt"),
    profile: str = "quick",
    out: str | Path = "runs/latest",
    resume: bool = False,
    progress: bool = True,
    splits: Splits | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Run the chain and write report.html, report.json, report.md and the plots into `out`.

    A quick run on the data and the model that it chooses itself is a first look: the pocket model is trained, and beside it
    the released adapters of SmolLM2 are diagnosed.

    Args:
        objectives: which of `objectives.OBJECTIVES` to tune by; "sft" is added, since every difference refers to it.
        profile: "quick", "standard" or "full": sizes, and for "full" the published learning rate and dropout.
        out: folder of the report. Each finished cell is kept in `out/cells` at once.
        resume: use the cells and checkpoints of an earlier run with the same settings. Without it these are made anew; cells
            of other settings stay where they are, and the report is of this run alone.
        progress: print what is being done, with progress bars.
        splits: your own data, for example `data.from_frame(...).split()`, in place of what `data` names.
        **settings: fields of `config.Config` that replace the profile's.

    Returns:
        The table of `report.comparison`.

    Raises:
        ValueError: an unknown profile, objective, model or data set, or a setting out of range.
        GdrtError: `out` cannot be written to, is in use, or holds what no run made or what was measured on other data.
    """
    start = time.perf_counter()
    first_look = profile == "quick" and splits is None and not {"model", "data"} & settings.keys()
    config = _config(profile, FIRST_LOOK | settings if first_look else settings)
    objectives = list(dict.fromkeys(["sft", *(name.strip() for name in objectives)]))
    for objective in objectives:
        check_objective(objective)
    Objective("gdrt", config.n_groups, config.tau)
    untuned = [] if first_look else ["pre-trained"]  # the pocket model's initial weights are random
    configs = {name: dataclasses.replace(config, method=name) for name in (*untuned, *objectives, *baseline_names())}
    out = files.writable_folder(out)
    with files.locked(files.writable_folder(out / "cells")):
        bench = Workspace(config, splits)
        for own in configs.values():
            bench.check(own)
        if files.first_process():
            _claim(out, [own.key for own in configs.values()], resume)
        processes.join()
        progress = progress and files.first_process()
        cells = _cells(configs, out / "cells", bench, resume, progress)
        table = report.comparison(cells)
        if files.first_process():
            _write_report(out, config, profile, objectives, bench, cells, table)
            adapters = _diagnosed(out, progress) if first_look else ""
            page.write(out, [adapters, page.of_run(table, cells, bench.splits, out)])
    if progress:
        print(report.headline(table, config.ablations[0]).to_string(index=False))
        print(f"{time.perf_counter() - start:.0f} s in all. Report: {out / 'report.html'}")
    return table


def _claim(out: Path, keys: Sequence[str], resume: bool) -> None:
    """Note in run.json which cells runs have made here, and clear away what this one makes anew: nothing else is deleted.

    Raises:
        GdrtError: the folder holds cells or a report that no run made.
    """
    made, cells = _made(out), out / "cells"
    found = {path.stem for path in cells.glob("*.json")}
    foreign = sorted(found - made - set(keys if resume else ()))
    if foreign:
        said = f"{len(foreign)} cell{'s' * (len(foreign) > 1)} that no run made here ({foreign[0]} is one)"
        raise GdrtError(f"{cells} holds {said}; nothing was deleted. Name another folder with --out.")
    reports = ("report.html", "report.json", "report.md", "accuracy.png", "differences.png", "faa.png", "training-*.png")
    theirs = [path.name for name in reports for path in out.glob(name)]
    if theirs and not made:
        raise GdrtError(f"{out} holds {theirs[0]}, which no run made; it was not replaced. Name another folder with --out.")
    for name in theirs:  # of a run with other settings it would stand beside the figures of this one
        (out / name).unlink()
    for name in ("run.json", "report.json", "report.md", "report.html"):
        files.sweep(out, name)
    files.write_json(out / "run.json", {"cells": sorted(made | set(keys))})
    for key in keys:
        files.sweep(cells, key)
        files.sweep(cells, f"{key}.json")
        if not resume and key in made:
            (cells / f"{key}.json").unlink(missing_ok=True)
            shutil.rmtree(cells / ".checkpoints" / key, ignore_errors=True)


def _made(out: Path) -> set[str]:
    """The keys of the cells that runs have made in a folder, as run.json there names them."""
    file = out / "run.json"
    try:
        return set(json.loads(file.read_text(encoding="utf-8"))["cells"]) if file.exists() else set()
    except (ValueError, KeyError, TypeError) as error:
        raise GdrtError(f"{file} is not the list of cells that a run keeps ({error}); name another folder.") from error


def _cells(configs: dict[str, Config], folder: Path, bench: Workspace, resume: bool, progress: bool) -> dict[str, Cell]:
    start, cells = time.perf_counter(), {}
    for name, config in configs.items():
        if progress:
            print(f"[{time.perf_counter() - start:5.0f} s] {name}", flush=True)
        cells[name] = run_cell(config, folder, bench, resume=resume, progress=progress)
    return cells


def _write_report(
    out: Path, config: Config, profile: str, objectives: list[str], bench: Workspace, cells: dict[str, Cell],
    table: pd.DataFrame,
) -> None:  # fmt: skip
    files.write_json(
        out / "report.json",
        {
            "profile": profile,
            "config": dataclasses.asdict(config),
            "objectives": objectives,
            "environment": machine.environment(),
            "seconds": {name: cell.seconds for name, cell in cells.items()},
            "peak_memory_gib": max(cell.peak_memory_gib for cell in cells.values()),
            "metrics": table.to_dict("records"),
        },
    )
    files.write_text(out / "report.md", _markdown(config, profile, table, bench, cells))
    _plots(out, cells, table)


def _diagnosed(out: Path, progress: bool) -> str:
    """The part of the page on the released adapters, or why it is missing: the run itself does not need SmolLM2."""
    try:
        return page.of_adapters(page.diagnose(progress), out)
    except GdrtError as error:
        return f"<p>The released adapters of SmolLM2 were not diagnosed: {html.escape(str(error))}</p>"


def _config(profile: str, settings: dict[str, Any]) -> Config:
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; choose one of {', '.join(PROFILES)}.")
    values: dict[str, Any] = dict(PROFILES[profile])
    if settings.get("model") == "pocket":
        # From scratch a model needs more windows and larger steps, and is cheap enough for both.
        values |= {"train_examples": 20_000, "batch_size": 64, "learning_rate": 2e-3}
    values |= settings
    return Config(**values)


def _markdown(config: Config, profile: str, table: pd.DataFrame, bench: Workspace, cells: dict[str, Cell]) -> str:
    splits = bench.splits
    lines = [
        f"# GDRT against SFT on {splits.name}",
        "",
        f"Profile `{profile}`, model `{config.model}`, split `{config.split}`, seed {config.seed}: "
        f"{config.train_examples} training examples, {config.epochs:g} epoch(s), {len(cells['sft'].users)} test examples of "
        f"{len(set(cells['sft'].users))} users, {len(splits.catalogue)} titles. "
        f"Titles of the history are {'not ' if config.exclude_history else ''}recommended again. "
        "A title's score is the sum of its unmasked token log-probabilities. "
        "Intervals: 95%, bootstrap over users (BCa), paired for the differences.",
        "",
        *(f"- {note}" for note in splits.report),
        "",
        report.headline(table, config.ablations[0]).to_markdown(index=False, disable_numparse=True),
        "",
        _floor(cells["sft"]),
        "",
        "## Warm and cold targets",
        "",
        "| model | NDCG@10 warm (examples) | NDCG@10 cold (examples) |",
        "|---|---|---|",
    ]
    for name, cell in cells.items():
        parts = report.warm_and_cold(cell, splits)
        lines.append(
            f"| {name} | " + " | ".join(f"{value:.3f} ({n})" if n else "- (0)" for value, n in parts.values()) + " |"
        )
    lines += ["", "## Wall time", "", "| cell | seconds | peak memory so far (GiB) |", "|---|---|---|"]
    lines += [f"| {name} | {cell.seconds:.0f} | {cell.peak_memory_gib:.1f} |" for name, cell in cells.items()]
    lines += [
        "",
        "## Environment",
        "",
        *(f"- {key}: {value}" for key, value in machine.environment().items()),
        "",
    ]
    return "\n".join(lines)


def _floor(cell: Cell) -> str:
    """What a fair system would show in the table, so that noise is not taken for unfairness."""
    credit = metrics.fractional_credit(dict(enumerate(cell.item_groups["popularity"])))
    floor = metrics.fair_floor(cell.histories, credit, 5)
    return (
        f"A perfectly fair system would show MGU@5 {floor.mgu.estimate:.3f} [{floor.mgu.low:.3f}, {floor.mgu.high:.3f}] and "
        f"DGU@5 {floor.dgu.estimate:.3f} [{floor.dgu.low:.3f}, {floor.dgu.high:.3f}] among these users, by chance alone."
    )


def _plots(out: Path, cells: dict[str, Cell], table: pd.DataFrame) -> None:
    plots.save(plots.accuracy_intervals(table, title="Accuracy with 95% intervals"), out / "accuracy.png")
    plots.save(plots.differences(table, title="Differences to SFT, paired by user"), out / "differences.png")
    for name, cell in cells.items():
        if cell.history:
            history = pd.DataFrame(cell.history)
            figure = plots.training_curves(history, smooth=5, title=f"Group losses and weights: {name}")
            plots.save(figure, out / f"training-{name}.png")
