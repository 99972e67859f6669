"""The main job: measure the untuned model, tune it by each objective, compare all with baselines, write a report."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gdrt_lite import plots
from gdrt_lite.data import Splits
from gdrt_lite.objectives import Objective, check_objective
from gdrt_lite.study import report
from gdrt_lite.study.cell import Cell
from gdrt_lite.study.config import PROFILES, Config
from gdrt_lite.study.methods import baseline_names
from gdrt_lite.study.trial import run_cell
from gdrt_lite.study.workspace import Workspace
from gdrt_lite.system import files, machine


def run(
    objectives: Sequence[str] = ("sft", "balanced", "gdrt"),
    profile: str = "quick",
    out: str | Path = "runs/latest",
    resume: bool = False,
    progress: bool = True,
    splits: Splits | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Run the chain and write report.json, report.md and the plots into `out`.

    Args:
        objectives: which of `objectives.OBJECTIVES` to tune by; "sft" is added, since every difference refers to it.
        profile: "quick", "standard" or "full": sizes, and for "full" the published learning rate and dropout.
        out: folder of the report. Each finished cell is kept in `out/cells` at once.
        resume: use the cells and checkpoints of an earlier run with the same settings.
        progress: print what is being done, with progress bars.
        splits: your own data, for example `data.from_frame(...).split()`, in place of what `data` names.
        **settings: fields of `config.Config` that replace the profile's.

    Returns:
        The table of `report.comparison`.

    Raises:
        ValueError: an unknown profile, objective, model or data set, or a setting out of range.
        GdrtError: `out` cannot be written to.
    """
    config = _config(profile, settings)
    objectives = list(dict.fromkeys(["sft", *(name.strip() for name in objectives)]))
    for objective in objectives:
        check_objective(objective)
    Objective("gdrt", config.n_groups, config.tau)
    out = files.writable_folder(out)
    if not resume:
        shutil.rmtree(out / "cells", ignore_errors=True)
    start = time.perf_counter()
    bench = Workspace(config, splits)
    cells = {}
    for name in ("pre-trained", *objectives, *baseline_names()):
        if progress:
            print(f"[{time.perf_counter() - start:5.0f} s] {name}", flush=True)
        cells[name] = run_cell(
            dataclasses.replace(config, method=name), out / "cells", bench, resume=resume, progress=progress
        )
    table = report.comparison(cells)
    seconds = {name: cell.seconds for name, cell in cells.items()}
    files.write_json(
        out / "report.json",
        {
            "profile": profile,
            "config": dataclasses.asdict(config),
            "objectives": objectives,
            "environment": machine.environment(),
            "seconds": seconds,
            "peak_memory_gib": max(cell.peak_memory_gib for cell in cells.values()),
            "metrics": table.to_dict("records"),
        },
    )
    text = _markdown(config, profile, table, bench, cells)
    files.write_text(out / "report.md", text)
    _plots(out, cells, table)
    if progress:
        print(report.headline(table, config.ablations[0]).to_string(index=False))
        print(f"{sum(seconds.values()):.0f} s in all. Report: {out / 'report.md'}")
    return table


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
        "Intervals: 95%, bootstrap over users, paired for the differences.",
        "",
        report.headline(table, config.ablations[0]).to_markdown(index=False, disable_numparse=True),
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


def _plots(out: Path, cells: dict[str, Cell], table: pd.DataFrame) -> None:
    plots.save(plots.accuracy_intervals(table, title="Accuracy with 95% intervals"), out / "accuracy.png")
    plots.save(plots.differences(table, title="Differences to SFT, paired by user"), out / "differences.png")
    for name, cell in cells.items():
        if cell.history:
            history = pd.DataFrame(cell.history)
            figure = plots.training_curves(history, smooth=5, title=f"Group losses and weights: {name}")
            plots.save(figure, out / f"training-{name}.png")
