"""Comparison of methods over the cells of a study, computed from the files alone.

Used in notebooks 00 and 07.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gdrt_lite.metrics import Interval
from gdrt_lite.study import report
from gdrt_lite.study.cell import Cell
from gdrt_lite.study.methods import methods
from gdrt_lite.study.protocols import used_settings
from gdrt_lite.system.errors import GdrtError

BySeed = Mapping[int, Mapping[str, report.Metric]]  # seed -> name -> metric

METRICS = (
    "NDCG@5", "NDCG@10", "HR@5", "HR@10", "NLL", "MGU@5 popularity", "MGU@10 popularity", "DGU@5 popularity",
    "DGU@10 popularity", "MGU@5 genre", "DGU@5 genre", "bias attention", "bias token", "bias delete", "bias resample",
)  # fmt: skip


def metrics_by_method(cells: Iterable[Cell]) -> dict[str, dict[int, dict[str, report.Metric]]]:
    """The metrics of the cells of one protocol: label of the method (see `Config.label`) -> seed -> metric.

    Raises:
        GdrtError: a method was run twice with the same seed.
    """
    found: dict[str, dict[int, dict[str, report.Metric]]] = defaultdict(dict)
    for cell in cells:
        method, seed = cell.config.label, cell.config.seed
        if seed in found[method]:
            raise GdrtError(
                f"two cells have method {method} and seed {seed}, at two learning rates; move one out of the folder."
            )
        found[method][seed] = report.cell_metrics(cell)
    return dict(found)


def difference(one: BySeed, other: BySeed, metric: str) -> Interval | None:
    """Mean difference of two methods over the seeds that both have, with its 95% interval.

    The bootstrap draws users, the same for both methods, and also seeds where there are several. The interval therefore
    covers other users and other trainings. Returns None if no seed has the metric for both methods.

    Raises:
        GdrtError: the two were measured on different test examples.
    """
    seeds = _shared_seeds(one, other, metric)
    if not seeds:
        return None
    if len(seeds) == 1:
        return one[seeds[0]][metric].minus(other[seeds[0]][metric])
    draws = np.array([one[s][metric].draws() - other[s][metric].draws() for s in seeds])  # (seeds, draws)
    value = float(np.mean([one[s][metric].value - other[s][metric].value for s in seeds]))
    return report.interval(value, _mean_of_drawn_seeds(draws, np.random.default_rng(0)))


def relative_change(one: BySeed, other: BySeed, metric: str) -> float:
    """Relative change of a metric from one method to the other, over the seeds that both have: 0.1 means 10% higher.

    Raises:
        ValueError: no seed has the metric in both.
        GdrtError: the two were measured on different test examples.
    """
    seeds = _shared_seeds(one, other, metric)
    if not seeds:
        raise ValueError(f"no seed has {metric} for both methods, so there is nothing to compare.")
    return sum(one[s][metric].value for s in seeds) / sum(other[s][metric].value for s in seeds) - 1


def table(cells: Iterable[Cell], reference: str = "sft", metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """One row per method: each metric as its mean over seeds, and in brackets its `difference` to the reference."""
    cells = list(cells)
    found = metrics_by_method(cells)
    known = {cell.config.label: methods()[cell.method] for cell in cells}
    rates = {cell.config.label: cell.config.learning_rate for cell in cells if known[cell.config.label].trained}
    rows = []
    for method in sorted(found, key=_table_order(cells)):
        seeds, base = found[method], found.get(reference, {})
        if not known[method].seeded:  # one measurement is compared with every seed of the reference
            seeds = dict.fromkeys(base or seeds, next(iter(seeds.values())))
        row: dict[str, Any] = {"method": method, "seeds": len(found[method])}
        if len(set(rates.values())) > 1 and method in rates:
            row["learning rate"] = rates[method]
        for metric in metrics:
            values = [own[metric].value for own in seeds.values() if metric in own]
            if values:
                apart = None if method == reference else difference(seeds, base, metric)
                row[metric] = f"{np.mean(values):.3f}" + (f" ({apart:+.3f})" if apart else "")
        rows.append(row)
    return pd.DataFrame(rows).astype(object).fillna("-")


def trials(cells: Iterable[Cell]) -> pd.DataFrame:
    """Trials on the valid part, one row per cell: the settings that differ and the figures, best NDCG@10 first.

    Settings that a method does not use are shown as "-".
    """
    shown = ("NDCG@10", "NLL", "MGU@5 popularity", "bias attention")
    rows, unused = [], []
    for cell in cells:
        found = report.cell_metrics(cell)
        settings = {n: v for n, v in vars(cell.config).items() if n not in ("ablations", "part", "parameters", "columns")}
        settings["method"] = cell.config.label
        unused.append(set(settings) - set(used_settings(cell.config)))
        rows.append(settings | {metric: found[metric].value for metric in shown if metric in found})
    frame = pd.DataFrame(rows)
    columns = [c for c in frame if c in ("method", *shown) or frame[c].nunique() > 1]
    hidden = pd.DataFrame([[c in names for c in columns] for names in unused], columns=columns)
    order = frame.sort_values(["method", "NDCG@10"], ascending=[True, False]).index
    return frame[columns].round(3).astype(object).mask(hidden, "-").loc[order].reset_index(drop=True)


def curves(cells: Iterable[Cell]) -> pd.DataFrame:
    """The learning curves of cells that have one: method, seed, epoch, and the figures on the valid part."""
    cells = list(cells)
    order = _table_order(cells)
    rows = [
        {"method": cell.config.label, "seed": cell.config.seed, **row}
        for cell in sorted(cells, key=lambda cell: order(cell.config.label))
        for row in cell.curve
    ]
    return pd.DataFrame(rows)


def _mean_of_drawn_seeds(draws: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(seeds, draws) -> (draws,): in each draw, the mean over n - 1 of the n seeds, drawn with replacement.

    With n draws from n seeds, the variance of the mean would be too small by the factor (n - 1) / n.
    """
    n, columns = draws.shape
    chosen = rng.integers(n, size=(max(n - 1, 1), columns))
    return np.take_along_axis(draws, chosen, axis=0).mean(0)


def _shared_seeds(one: BySeed, other: BySeed, metric: str) -> list[int]:
    """Seeds for which both methods have the metric; raises GdrtError if their test examples differ."""
    seeds = [s for s in one if s in other and metric in one[s] and metric in other[s]]
    for s in seeds:
        if list(one[s][metric].users) != list(other[s][metric].users):
            raise GdrtError(
                f"two cells of seed {s} have {metric} on different test examples; run the older one again on the same data."
            )
    return seeds


def _table_order(cells: Iterable[Cell]) -> Callable[[str], tuple[int, str]]:
    """A sort key for labels of methods: the order of the registry, then the label."""
    place = {name: i for i, name in enumerate(methods())}
    places = {cell.config.label: place[cell.method] for cell in cells}
    return lambda label: (places[label], label)
