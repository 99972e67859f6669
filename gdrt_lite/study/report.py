"""Tables of an experiment, computed from its cells alone: point estimates, intervals, and paired differences to SFT.

Every metric is a function of means over test examples (of hits, gains, or shares of list slots), so one bootstrap serves all
metrics: users are drawn with replacement, the means are recomputed, and the function is applied to them. Two models are
compared on the same draws.
Derived in notebook 06, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gdrt_lite import metrics
from gdrt_lite.data import Splits
from gdrt_lite.metrics import Interval
from gdrt_lite.study.cell import Evaluation

DRAWS = 2000


@dataclass(frozen=True)
class Metric:
    """One metric of one model.

    Attributes:
        rows: statistics per test example (per user for bias ratios), shape (n, d); the metric is a function of their means.
        users: user of each row, length n; the unit of the bootstrap.
        of_means: maps means, shape (..., d), to the metric, shape (...).
    """

    rows: np.ndarray
    users: Sequence[str]
    of_means: Callable[[np.ndarray], np.ndarray]

    @property
    def value(self) -> float:
        """The metric on all test examples."""
        return float(self.of_means(self.rows.mean(0)))

    def draws(self, seed: int = 0) -> np.ndarray:
        """The metric on `DRAWS` bootstrap samples of users."""
        return self.of_means(metrics.resampled_means(self.rows, self.users, DRAWS, seed))

    def left_out(self) -> np.ndarray:
        """The metric without one user after another, shape (users,)."""
        return self.of_means(metrics.left_out_means(self.rows, self.users))

    def interval(self) -> Interval:
        """The estimate with its 95% interval, bias-corrected and accelerated: see `metrics.bca_interval`."""
        return _bca(self.value, self.draws(), self.left_out)

    def minus(self, other: Metric) -> Interval:
        """Difference to another model on the same test examples, with its 95% interval, paired by user."""
        if list(self.users) != list(other.users):
            raise ValueError("the two models were measured on different test examples, so their figures cannot be paired.")
        with np.errstate(invalid="ignore"):  # inf - inf, if both denominators are zero
            draws = self.draws() - other.draws()
            return _bca(self.value - other.value, draws, lambda: self.left_out() - other.left_out())


def _bca(value: float, draws: np.ndarray, left_out: Callable[[], np.ndarray]) -> Interval:
    """The interval of `metrics.bca_interval`; that of the percentiles where a figure is infinite."""
    if not (np.isfinite(value) and np.isfinite(draws).all()):
        return interval(value, draws)
    return metrics.bca_interval(value, draws, left_out())


def interval(value: float, draws: np.ndarray) -> Interval:
    """An estimate with the 2.5% and 97.5% quantiles of its bootstrap draws, shape (draws,); NaN between infinite draws."""
    with np.errstate(invalid="ignore"):
        low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(value), float(low), float(high))


def cell_metrics(cell: Evaluation) -> dict[str, Metric]:
    """The metrics of a cell by name, from each family of `FAMILIES`. A baseline has no NLL and no attribution.

    Args:
        cell: the result of `trial.run_cell` or `evaluate.evaluate`.
    """
    found: dict[str, Metric] = {}
    for family in FAMILIES:
        found |= family(cell)
    return found


def accuracy(cell: Evaluation) -> dict[str, Metric]:
    """NDCG@k and HR@k."""
    found = {}
    for k in (5, 10):
        found[f"NDCG@{k}"] = mean_metric(metrics.ndcg_at_k(cell.lists, cell.targets, k), cell.users)
        found[f"HR@{k}"] = mean_metric(metrics.hit_rate_at_k(cell.lists, cell.targets, k), cell.users)
    return found


def likelihood(cell: Evaluation) -> dict[str, Metric]:
    """Item NLL, nats per title."""
    return {} if cell.nll is None else {"NLL": mean_metric(cell.nll, cell.users)}


def reading(cell: Evaluation) -> dict[str, Metric]:
    """Own minus stranger in nats and in NDCG@10, and the share of examples whose first title is the commonest one."""
    firsts = np.array([ranked[0] for ranked in cell.lists])
    numbers, first = np.unique(firsts, return_inverse=True)
    found = {"same first title": Metric(np.eye(len(numbers))[first], cell.users, lambda means: means.max(-1))}
    if cell.own_minus_stranger and cell.ndcg_minus_stranger:
        found["own minus stranger"] = mean_metric(cell.own_minus_stranger, cell.users)
        found["NDCG@10 own minus stranger"] = mean_metric(cell.ndcg_minus_stranger, cell.users)
    return found


def fairness(cell: Evaluation) -> dict[str, Metric]:
    """MGU@k and DGU@k for each grouping of the items."""
    found = {}
    for kind, names in cell.item_groups.items():
        memberships = metrics.fractional_credit(dict(enumerate(names)))
        for k in (5, 10):
            rows = metrics.share_rows(cell.lists, cell.histories, memberships, k)
            found[f"MGU@{k} {kind}"] = Metric(rows, cell.users, metrics.mgu_of_means)
            found[f"DGU@{k} {kind}"] = Metric(rows, cell.users, metrics.dgu_of_means)
    return found


def reliance(cell: Evaluation) -> dict[str, Metric]:
    """The bias ratio per ablation, see `attribution.bias_ratio`: |A| is averaged within each user first."""
    found = {}
    for ablation, table in cell.faa.items():
        rows = np.array([table["TASK"], table["PREFIX"], table["HISTORY"]], dtype=float).T
        found[f"bias {ablation}"] = Metric(rows, table["user"], _ratio)
        found[f"log bias {ablation}"] = Metric(rows, table["user"], _log_ratio)
        found[f"TASK/HISTORY {ablation}"] = Metric(rows, table["user"], _task_ratio)
    return found


FAMILIES: list[Callable[[Evaluation], dict[str, Metric]]] = [accuracy, likelihood, reading, fairness, reliance]


def warm_and_cold(cell: Evaluation, splits: Splits) -> dict[str, tuple[float, int]]:
    """NDCG@10 and number of test examples, for targets that occur in the training part (warm) and for the others (cold)."""
    warm = splits.warm()
    targets = [splits.catalogue[i] for i in cell.targets]
    gains = metrics.ndcg_at_k([[splits.catalogue[i] for i in ranked] for ranked in cell.lists], targets, 10)
    is_warm = np.array([target in warm for target in targets])
    return {
        name: (float(gains[chosen].mean()) if chosen.any() else float("nan"), int(chosen.sum()))
        for name, chosen in (("warm", is_warm), ("cold", ~is_warm))
    }


def comparison(cells: Mapping[str, Evaluation], reference: str = "sft") -> pd.DataFrame:
    """One row per model and metric: estimate, low, high, and the difference to the reference with its interval.

    Args:
        cells: evaluations by model name, all on the same test examples.
        reference: name of the model that is subtracted.
    """
    known = {name: cell_metrics(cell) for name, cell in cells.items()}
    rows = []
    for name, found in known.items():
        for metric, measured in found.items():
            row = {"model": name, "metric": metric, **measured.interval()._asdict()}
            other = known.get(reference, {}).get(metric)
            if other is not None and name != reference:
                difference = measured.minus(other)
                row |= {
                    "difference": difference.estimate,
                    "difference_low": difference.low,
                    "difference_high": difference.high,
                }
            rows.append(row)
        rows.append({"model": name, "metric": "coverage@10", "estimate": float(metrics.coverage(cells[name].lists))})
    return pd.DataFrame(rows)


def headline(table: pd.DataFrame, ablation: str = "attention") -> pd.DataFrame:
    """The table of a run: one row per model, and below it the intervals of its differences to SFT."""
    columns = {
        f"bias {ablation}": "bias ratio", "NDCG@10": "NDCG@10", "HR@10": "HR@10", "NLL": "item NLL",
        "MGU@5 popularity": "MGU@5", "DGU@5 popularity": "DGU@5", "coverage@10": "coverage",
    }  # fmt: skip
    digits = {"bias ratio": 2, "item NLL": 2, "coverage": 0}
    rows = []
    for model, part in table.groupby("model", sort=False):
        part = part.set_index("metric").reindex(columns.keys())
        rows.append({"model": model} | {c: _number(part.estimate[m], digits.get(c, 3)) for m, c in columns.items()})
        if "difference" in part and part["difference"].notna().any():
            spans = {c: _span(part.loc[m], digits.get(c, 3)) for m, c in columns.items()}
            rows.append({"model": "  minus SFT [95%]"} | spans)
    return pd.DataFrame(rows)


def mean_metric(values: Sequence[float] | np.ndarray, users: Sequence[str]) -> Metric:
    """A metric that is the plain mean of one number per test example."""
    return Metric(np.asarray(values, dtype=float)[:, None], users, lambda means: means[..., 0])


def _ratio(means: np.ndarray) -> np.ndarray:
    task, prefix, history = np.moveaxis(means, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (task + prefix) / history


def _log_ratio(means: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(_ratio(means))


def _task_ratio(means: np.ndarray) -> np.ndarray:
    return _ratio(means * [1, 0, 1])


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "-"


def _span(row: pd.Series, digits: int) -> str:
    if not np.isfinite([row.difference, row.difference_low, row.difference_high]).all():
        return "-"
    return f"{row.difference:+.{digits}f} [{row.difference_low:+.{digits}f}, {row.difference_high:+.{digits}f}]"
