"""One experiment: a model under one objective, tuned, measured on the test part, and kept as one JSON file (a cell).

`run` and `study` are lists of cells; every table and interval is computed from the cells by `gdrt_lite.report`.
Derived in notebook 06, section 4.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gdrt_lite import attribution, baselines, data, decoding, groups, lm, metrics, training
from gdrt_lite.data import Example, Splits
from gdrt_lite.study import report
from gdrt_lite.study.config import BASELINES, PRIORS, Config
from gdrt_lite.study.workspace import Workspace
from gdrt_lite.system import files, machine
from gdrt_lite.training import learning_curve


def run_cell(
    config: Config, folder: Path, bench: Workspace | None = None, resume: bool = True, progress: bool = True
) -> dict:
    """Run one cell, or read it when its file exists; a killed training goes on from its last checkpoint.

    Args:
        config: what to run.
        folder: where `<key>.json` is kept, and `<key>/` with the tuned model.
        bench: shared parts, for several cells of one data set and model.
        resume: use what an earlier call left.
        progress: show progress bars.

    Returns:
        The cell: config, environment, train_windows, seconds, peak_memory_gib, and the figures of `evaluate`.
    """
    folder = Path(folder)
    file = folder / f"{config.key}.json"
    if resume and file.exists():
        return json.loads(file.read_text(encoding="utf-8"))
    start = time.perf_counter()
    bench = bench or Workspace(config)
    train, test = bench.train(config), bench.test(config)
    cell: dict[str, Any] = {"config": dataclasses.asdict(config), "environment": machine.environment()}
    cell["train_windows"] = len(train)  # fewer than asked for where the data has fewer
    if config.objective in BASELINES:
        cell["train_windows"] = len(bench.splits.train)  # counting is cheap: they count all there are
        cell |= _measure_baseline(config, bench, test)
    elif config.objective == "pre-trained":
        cell |= evaluate(bench.base, test, bench.splits, config, progress)
    else:
        learning = _learning_curve(config, bench)
        run = _tune(config, bench, train, folder, resume, progress, learning)
        cell |= evaluate(run.lm, test, bench.splits, config, progress)
        cell["training_seconds"] = run.seconds
        cell["history"] = learning_curve.downsample(run.history.drop(columns="epoch")).round(7).to_dict("list")
        cell["curve"] = [row for callback in learning for row in callback.rows]
        run.save(folder / config.key)
    cell["seconds"] = time.perf_counter() - start
    cell["peak_memory_gib"] = machine.peak_memory_gib()
    files.write_json(file, cell, indent=None)
    shutil.rmtree(_checkpoints(folder, config), ignore_errors=True)
    return cell


def evaluate(
    model: lm.LanguageModel, test: Sequence[Example], splits: Splits, config: Config, progress: bool = False
) -> dict[str, Any]:
    """Lists, ranks, item NLL and attribution of a model on the test examples, example by example.

    Returns:
        data: what was measured on; item_groups: for each kind, the groups of each title; users; targets, histories and lists as
        catalogue numbers; nll in nats per title; faa: per ablation and user the mean |A| of each segment; dtype of the weights.
    """
    lists = decoding.recommend(
        model, [e.history for e in test], splits.catalogue, k=config.beams, exclude_history=config.exclude_history,
        progress=progress,
    )  # fmt: skip
    scores = lm.target_logprobs(model, [model.encode(e.history, e.target) for e in test])
    explained = data.sample(test, config.faa_examples, seed=0)
    faa = {}
    for ablation in config.ablations:
        frame = attribution.feature_ablation(model, explained, ablation, progress=progress)
        faa[ablation] = attribution.mean_abs_per_user(frame).round(6).reset_index().to_dict("list")
    return _lists_as_numbers([[title for title, _ in ranked] for ranked in lists], test, splits) | {
        "nll": [round(-float(score.sum()), 5) for score in scores],
        "faa": faa,
        "dtype": str(model.model.dtype).removeprefix("torch."),
    }


def _checkpoints(folder: Path, config: Config) -> Path:
    return folder / ".checkpoints" / config.key


def _learning_curve(config: Config, bench: Workspace) -> list[learning_curve.LearningCurve]:
    """A callback that measures on the valid part; none when no curve is asked for."""
    if not config.curve_examples:
        return []
    valid = data.sample(bench.splits.valid, config.curve_examples, seed=0)
    small = dataclasses.replace(config, ablations=("attention",), faa_examples=min(50, config.curve_examples))

    def figures(model: lm.LanguageModel) -> dict[str, float]:
        found = evaluate(model, valid, bench.splits, small)
        known = report.cell_metrics(found)
        values = {metric: known[metric].value for metric in ("NDCG@10", "NLL", "bias attention")}
        return values | {"coverage@10": report.coverage(found)}

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
    lora = None
    if config.dropout:
        from peft import LoraConfig

        lora = LoraConfig(r=8, lora_alpha=16, lora_dropout=config.dropout, task_type="CAUSAL_LM")
    return training.finetune(
        bench.base, train, config.objective, tau=config.tau, groups=fitted, prior=group_prior(config, fitted), ema=config.ema or None,
        epochs=config.epochs, batch_size=config.batch_size, learning_rate=config.learning_rate, lora=lora,
        seed=config.seed, output=_checkpoints(folder, config), resume=resume, progress=progress, callbacks=callbacks,
    )  # fmt: skip


def group_prior(config: Config, fitted: groups.TokenGroups) -> list[float] | None:
    """P(g) as the configuration names it, one of `PRIORS`; None is uniform. A group without a training token has none.

    Raises:
        ValueError: an unknown prior.
    """
    if config.prior not in PRIORS:
        raise ValueError(f"unknown prior {config.prior!r}; choose one of {', '.join(PRIORS)}.")
    if config.prior == "uniform":
        return None
    table = fitted.table()
    count = table.groupby("group")["count"].sum().reindex(range(fitted.k), fill_value=0)
    weight = count.astype(float)
    if config.prior == "relevance":
        total = (table.relevance * table["count"]).groupby(table.group).sum().reindex(range(fitted.k), fill_value=0.0)
        weight = np.exp(total / count / config.tau).fillna(0.0)  # 0 / 0 where no token is
    return (weight / weight.sum()).tolist()


def _measure_baseline(config: Config, bench: Workspace, test: list[Example]) -> dict[str, Any]:
    recommend = baselines.popularity if config.objective == "popularity" else baselines.item_transitions
    lists = recommend(
        bench.splits.train, bench.splits.catalogue, [e.history for e in test], k=config.beams,
        exclude_history=config.exclude_history,
    )  # fmt: skip
    return _lists_as_numbers([[title for title, _ in ranked] for ranked in lists], test, bench.splits)


def _lists_as_numbers(lists: list[list[str]], test: Sequence[Example], splits: Splits) -> dict[str, Any]:
    number = {title: i for i, title in enumerate(splits.catalogue)}
    bins = metrics.popularity_groups(splits.train, splits.catalogue)
    item_groups = {"popularity": [list(bins[title]) for title in splits.catalogue]}
    if splits.genres:
        item_groups["genre"] = [list(splits.genres.get(title, ())) for title in splits.catalogue]
    return {
        "data": splits.name,
        "item_groups": item_groups,
        "users": [e.user for e in test],
        "targets": [number[e.target] for e in test],
        "histories": [[number[title] for title in e.history] for e in test],
        "lists": [[number[title] for title in ranked] for ranked in lists],
    }
