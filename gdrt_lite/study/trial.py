"""Run one cell: tune where the method is trained, measure, and keep the result. Derived in notebook 06, section 4."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gdrt_lite import data, groups, lm, metrics, training
from gdrt_lite.data import Example
from gdrt_lite.objectives import Objective
from gdrt_lite.study import report
from gdrt_lite.study.cell import Cell, Evaluation
from gdrt_lite.study.config import Config
from gdrt_lite.study.evaluate import as_numbers, evaluate
from gdrt_lite.study.methods import check_method
from gdrt_lite.study.workspace import Workspace, lora_config
from gdrt_lite.system import files, machine, processes
from gdrt_lite.training import learning_curve


def run_cell(
    config: Config, folder: Path, bench: Workspace | None = None, *, resume: bool = True, progress: bool = True
) -> Cell:
    """Run one cell, or read it when its file exists; a killed training continues from its last checkpoint.

    Several processes of one launch share the training and the measuring; the first writes the files.

    Args:
        config: what to run.
        folder: where `<key>.json` is kept, and `<key>/` with the tuned model.
        bench: shared parts, for several cells of one data set and model.
        resume: use what an earlier call left.
        progress: show progress bars.

    Raises:
        GdrtError: the file is of another cell or other data, another run left the checkpoints, or the disk is full.
        ValueError: the data cannot serve the cell.
    """
    folder = Path(folder)
    file = folder / f"{config.key}.json"
    start = time.perf_counter()
    bench = bench or Workspace(config)
    if resume and file.exists():
        cell = Cell.read(file)
        cell.check_source(file, config, bench.fingerprint)
    else:
        with files.full_disk_said(folder):
            cell = _measured(config, folder, bench, resume, progress)
        cell.seconds, cell.peak_memory_gib = time.perf_counter() - start, machine.peak_memory_gib()
        if files.first_process():
            cell.write(file)
    if files.first_process():
        shutil.rmtree(_checkpoints(folder, config), ignore_errors=True)
    processes.join()
    return cell


def _measured(config: Config, folder: Path, bench: Workspace, resume: bool, progress: bool) -> Cell:
    bench.check(config)
    method, test = check_method(config.method, config.parameters), bench.test(config)
    extra: dict[str, Any] = {"train_examples": len(bench.splits.train)}  # what is not trained counts all there are
    if method.recommend:
        own = {**method.parameters, **config.parameters}
        histories = [example.history for example in test]
        lists = method.recommend(bench.splits, histories, config.list_length, config.exclude_history, config.seed, own)
        found = Evaluation(**as_numbers(lists, test, bench.splits))
    else:
        train = bench.train(config)
        extra["train_examples"] = len(train)
        model = bench.base
        if method.trained:
            curves = _learning_curve(config, bench)
            tuned = _tune(config, bench, train, folder, resume, progress, curves)
            model = tuned.lm
            extra["training_seconds"] = tuned.seconds
            extra["history"] = learning_curve.downsample(tuned.history.drop(columns="epoch")).round(7).to_dict("list")
            extra["curve"] = [row for curve in curves for row in curve.rows]
            tuned.save(folder / config.key)
        with processes.sharing():
            found = evaluate(model, test, bench.splits, config, progress)
    extra |= dict(config=config, environment=machine.environment(), fingerprint=bench.fingerprint)
    return Cell(**vars(found), processes=processes.join(), **extra)


def group_prior(config: Config, fitted: groups.TokenGroups) -> list[float] | None:
    """P(g) as the configuration names it, see `config.PRIORS`; None is uniform. A group without a training token gets 0."""
    if config.prior == "uniform":
        return None
    weight = fitted.sizes.astype(float)
    if config.prior == "relevance":
        table = fitted.table()
        total = np.bincount(table.group, table.relevance * table["count"], minlength=fitted.n_groups)
        weight = np.exp(total / weight.clip(min=1) / config.tau) * (weight > 0)
    return (weight / weight.sum()).tolist()


def _checkpoints(folder: Path, config: Config) -> Path:
    return folder / ".checkpoints" / config.key


def _learning_curve(config: Config, bench: Workspace) -> list[learning_curve.LearningCurve]:
    """A callback that measures on the valid part; none when no curve is asked for."""
    if not config.curve_examples:
        return []
    valid = data.sample(bench.splits.valid, config.curve_examples, seed=0)
    small = dataclasses.replace(config, ablations=("attention",), faa_examples=min(50, config.curve_examples))

    def figures(model: lm.LanguageModel) -> dict[str, float]:
        with processes.sharing():
            found = evaluate(model, valid, bench.splits, small)
        known = report.cell_metrics(found)
        values = {metric: known[metric].value for metric in ("NDCG@10", "NLL", "bias attention")}
        return values | {"coverage@10": metrics.coverage(found.lists)}

    return [learning_curve.LearningCurve(bench.base, figures)]


def _tune(
    config: Config,
    bench: Workspace,
    train: list[Example],
    folder: Path,
    resume: bool,
    progress: bool,
    callbacks: Sequence[learning_curve.LearningCurve],
) -> training.TuningResult:
    fitted = bench.groups(config, train)
    objective = Objective(
        config.method, config.n_groups, config.tau, group_prior(config, fitted), config.ema or None, config.parameters
    )
    args = training.arguments(
        bench.base, epochs=config.epochs, batch_size=config.batch_size, learning_rate=config.learning_rate,
        seed=config.seed, output=_checkpoints(folder, config),
    )  # fmt: skip
    return training.finetune(
        bench.base, train, objective, args, groups=fitted, lora=lora_config(config), start=bench.start,
        catalogue=bench.splits.catalogue, resume=resume, progress=progress, callbacks=callbacks,
    )  # fmt: skip
