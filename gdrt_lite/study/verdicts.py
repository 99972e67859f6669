"""The verdicts of the registered study (data/results/registration.md), computed from its cells alone.

A place is a model on a data set. It takes part only when its SFT passes the gate. Per place and seed, a hypothesis compares
two methods on the same test users. The standard error adds what the seeds spread and what other users would change. The
places are averaged with equal weight, by Student's t, and the six p-values are corrected by Holm.
Used in notebook 07.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from gdrt_lite.metrics import Interval, t_interval
from gdrt_lite.study import compare
from gdrt_lite.study.cell import Cell
from gdrt_lite.study.methods import methods
from gdrt_lite.system import files

MISSING = "not measured"
ONE_SEED = (" (one seed)", " (one seed in a place)")
Found = Mapping[str, compare.BySeed]  # method -> seed -> name -> metric


@dataclass(frozen=True)
class Hypothesis:
    """One registered hypothesis: `method` minus each of `against` in `metric` has the `sign`.

    Attributes:
        relative: whether the difference is divided by the mean of SFT in the place, since scales differ between places.
    """

    id: str
    text: str
    metric: str
    method: str
    against: tuple[str, ...]
    sign: int
    relative: bool = False


HYPOTHESES = (
    Hypothesis("H1", "SFT raises the reliance on auxiliary tokens", "log bias attention", "sft", ("pre-trained",), +1),
    Hypothesis("H2", "GDRT relies less on auxiliary tokens at equal NLL", "log bias attention", "gdrt", ("sft-at-nll",), -1),
    Hypothesis("H3", "GDRT ranks better than SFT", "NDCG@10", "gdrt", ("sft",), +1, relative=True),
    Hypothesis("H4", "GDRT reads the user more than SFT", "own minus stranger", "gdrt", ("sft",), +1),
    Hypothesis("H5", "GDRT is fairer than SFT", "MGU@5 popularity", "gdrt", ("sft",), -1, relative=True),
    Hypothesis(
        "H6", "DRO and groups are why: GDRT ranks above its controls", "NDCG@10", "gdrt",
        ("balanced", "random", "forced"), +1, relative=True,
    ),
)  # fmt: skip


class Effect(NamedTuple):
    """A difference with its standard error, the degrees of freedom of it, and what it rests on."""

    value: float
    error: float
    freedom: float
    users: int
    seeds: int

    @property
    def t(self) -> float:
        """The difference in standard errors; 0 where all is equal."""
        if not self.error:
            return float(np.copysign(np.inf, self.value)) if self.value else 0.0
        return self.value / self.error

    @property
    def p(self) -> float:
        """Two-sided p-value of a difference of zero."""
        return float(2 * stats.t.sf(abs(self.t), self.freedom))

    def interval(self) -> tuple[float, float]:
        """The 95% interval."""
        half = stats.t.ppf(0.975, self.freedom) * self.error
        return self.value - half, self.value + half


def by_place(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """The test cells of each place with exact lists, by its name: the model and the data set in words."""
    found: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell.config.part == "test" and cell.config.ranking in ("exact", "legal"):
            found[f"{Path(cell.config.model).name}, {cell.data.rpartition(',')[0] or cell.data}"].append(cell)
    return dict(found)


def effect(one: compare.BySeed, other: compare.BySeed, metric: str, scale: float = 1.0) -> Effect | None:
    """One method minus another, seed by seed; None where no seed has the metric for both. `scale` divides it."""
    seeds = [seed for seed in one if seed in other and metric in one[seed] and metric in other[seed]]
    if not seeds:
        return None
    pairs = [(one[seed][metric], other[seed][metric]) for seed in seeds]
    values = np.array([a.value - b.value for a, b in pairs])
    draws = np.mean([a.draws() - b.draws() for a, b in pairs], axis=0)  # the same users for all seeds
    users = len(set(pairs[0][0].users))
    variance = float(np.var(draws, ddof=1)) + (float(np.var(values, ddof=1)) / len(seeds) if len(seeds) > 1 else 0.0)
    freedom = len(seeds) - 1 if len(seeds) > 1 else users - 1
    return Effect(values.mean() / scale, variance**0.5 / scale, freedom, users, len(seeds))


def between(found: Found, method: str, against: str, metric: str, scale: float = 1.0) -> Effect | None:
    """The effect of a method against another of the place.

    A method that depends on no seed (popularity, the pre-trained model) is compared with every seed of the other.
    """
    one, other = found.get(method, {}), found.get(against, {})
    if other and not methods()[against.partition(" ")[0]].seeded:  # without the parameters in its label
        other = dict.fromkeys(one, next(iter(other.values())))
    return effect(one, other, metric, scale)


def pooled(effects: Sequence[Effect]) -> Effect:
    """The mean over places, each with the same weight; the degrees of freedom by Satterthwaite."""
    errors = np.array([e.error for e in effects]) / len(effects)
    by = (errors**4 / [e.freedom for e in effects]).sum()
    freedom = float((errors**2).sum() ** 2 / by) if by else float(min(e.freedom for e in effects))
    value = float(np.mean([e.value for e in effects]))
    return Effect(
        value, float((errors**2).sum() ** 0.5), freedom, sum(e.users for e in effects), min(e.seeds for e in effects)
    )


def gate(found: Found) -> dict[str, Any]:
    """Whether SFT ranks above popularity and reads the user, both with a 95% interval above zero."""
    known = found.get("sft", {})
    above = between(found, "sft", "popularity", "NDCG@10")
    if above is None:
        return {"passed": False}
    name = "own minus stranger"
    zero = {seed: {name: replace(own[name], rows=0 * own[name].rows)} for seed, own in known.items() if name in own}
    reads = effect(known, zero, name)
    mean = {m: float(np.mean([own["NDCG@10"].value for own in found[m].values()])) for m in ("sft", "popularity")}
    told = {
        "ndcg_sft": mean["sft"],
        "ndcg_popularity": mean["popularity"],
        "above_popularity": [above.value, *above.interval()],
    }
    told |= {
        "own_minus_stranger": [reads.value, *reads.interval()] if reads else None,
        "seeds": above.seeds,
        "users": above.users,
    }
    return {"passed": bool(above.interval()[0] > 0 and reads and reads.interval()[0] > 0)} | told


def holm(p: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's step-down procedure, in the order given."""
    order = np.argsort(p)
    raised = np.maximum.accumulate([(len(p) - i) * p[j] for i, j in enumerate(order)])
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(raised, 1)
    return corrected.tolist()


def judge(cells: Iterable[Cell]) -> dict[str, Any]:
    """Gates and hypotheses, as data/results/verdicts.json has them.

    Returns:
        gates: per place whether it passed, with what that rests on; hypotheses: id, text, metric, verdict ("supported",
        "contradicted", "undecided" or "not tested"), effect, low, high, p, p_holm, users, seeds (the fewest of a place), and
        places: per place the effect, low, high and seeds.
    """
    places = {name: compare.metrics_by_method(own) for name, own in by_place(cells).items()}
    gates = [{"place": name} | gate(found) for name, found in places.items()]
    passed = {told["place"]: places[told["place"]] for told in gates if told["passed"]}
    rows = [_tested(hypothesis, passed) for hypothesis in HYPOTHESES]
    corrected = holm([row.get("p", 1.0) for row in rows])  # for all six, tested or not, as registered
    for row, p in zip(rows, corrected, strict=True):
        if "p" not in row:
            continue
        with_it = row["effect"] * row.pop("sign") > 0
        row |= {"p_holm": p, "verdict": "undecided" if p >= 0.05 else "supported" if with_it else "contradicted"}
    return {"gates": gates, "hypotheses": rows}


def _tested(hypothesis: Hypothesis, places: Mapping[str, Found]) -> dict[str, Any]:
    """The hypothesis over the places that have all it needs; of several comparisons, the one that speaks for it least."""
    row: dict[str, Any] = {"id": hypothesis.id, "text": hypothesis.text, "metric": hypothesis.metric}
    least: tuple[Effect, str, dict[str, Effect]] | None = None
    for other in hypothesis.against:
        effects = {}
        for place, found in places.items():
            scale = np.mean([own[hypothesis.metric].value for own in found["sft"].values()]) if hypothesis.relative else 1.0
            apart = between(found, hypothesis.method, other, hypothesis.metric, float(scale))
            if apart is not None:
                effects[place] = apart
        if not effects:
            return row | {"verdict": "not tested"}
        over = pooled(list(effects.values()))
        if least is None or hypothesis.sign * over.t < hypothesis.sign * least[0].t:
            least = over, other, effects
    assert least is not None
    over, other, where = least
    low, high = over.interval()
    row |= {"effect": over.value, "low": low, "high": high, "p": over.p, "sign": hypothesis.sign, "against": other}
    row |= {"relative": hypothesis.relative, "users": over.users, "seeds": over.seeds}
    return row | {"places": {place: [own.value, *own.interval(), own.seeds] for place, own in where.items()}}


def table(verdicts: Mapping[str, Any]) -> pd.DataFrame:
    """The hypotheses as a table for readers: percentages where the effect is relative."""
    rows = []
    for told in verdicts["hypotheses"]:
        if "effect" not in told:
            rows.append({"": told["id"], "hypothesis": told["text"], "verdict": told["verdict"]})
            continue
        apart = Interval(told["effect"], told["low"], told["high"])
        rows.append({
            "": told["id"], "hypothesis": told["text"], "measure": told["metric"],
            "verdict": told["verdict"] + ONE_SEED[len(told["places"]) > 1] * (told["seeds"] == 1),
            "against": told["against"], "effect [95%]": format(apart, "+.1%" if told["relative"] else "+.2f"),
            "p (Holm)": f"{told['p_holm']:.3f}" if told["p_holm"] >= 0.001 else "< 0.001",
            "users": str(told["users"]), "seeds": str(told["seeds"]),
        })  # fmt: skip
    return pd.DataFrame(rows).astype(object).fillna("-")


def places(verdicts: Mapping[str, Any]) -> pd.DataFrame:
    """The effect in each place, with its seeds, of the hypotheses tested in several: what the mean over places hides."""
    rows = []
    for told in verdicts["hypotheses"]:
        if len(told.get("places", {})) < 2:
            continue
        shown = {
            place: f"{format(Interval(*own), '+.1%' if told['relative'] else '+.2f')}, {seeds} seed{'s' * (seeds > 1)}"
            for place, (*own, seeds) in told["places"].items()
        }
        rows.append({"": told["id"], "measure": told["metric"], "against": told["against"]} | shown)
    return pd.DataFrame(rows).fillna("-")


def cautions(found: Found) -> str:
    """What the verdicts of a place do not show, as a list in Markdown: exploratory differences, by the registered method."""

    def minus(against: str, metric: str, form: str = "+.3f", method: str = "gdrt") -> str:
        told = between(found, method, against, metric)
        return MISSING if told is None else format(Interval(told.value, *told.interval()), form)

    name, reads, gdrt, sft = "MGU@5 popularity", "own minus stranger", found.get("gdrt", {}), found.get("sft", {})
    both = [s for s in gdrt if s in sft and name in gdrt[s] and name in sft[s]]
    logs = [np.log(gdrt[s][name].value / sft[s][name].value) for s in both]
    ratio = f"{Interval(*np.exp(t_interval(logs))):.2f}" if len(logs) > 1 else MISSING
    yardsticks = {"item-transitions": "item-to-item transitions", "sasrec": "SASRec"}
    methods_of = {label: label.partition(" ")[0] for label in found}  # without parameters
    apart = {yardsticks[known]: minus(label, "NDCG@10") for label, known in methods_of.items() if known in yardsticks}
    bullets = [
        "**H1 compares a ratio.** From the pre-trained model to SFT, item NLL changes by "
        f"{minus('pre-trained', 'NLL', '+.1f', 'sft')} nats, and own minus stranger by "
        f"{minus('pre-trained', reads, '+.2f', 'sft')} nats. So the share of the auxiliary tokens can rise while the model "
        "reads its user more.",
        "**H2 needs equal fits.** `sft-at-nll` was chosen on valid users to cost what GDRT costs. On test users the "
        f"difference in item NLL is {minus('sft-at-nll', 'NLL', '+.2f')} nats, so read the verdict of H2 only as far as "
        "this is near zero.",
        "**H4 speaks of dependence**, of how much GDRT's probabilities depend on whose history is given. Whether the right "
        f"title became more probable is another question: item NLL changes by {minus('sft', 'NLL', '+.2f')} nats against "
        f"SFT, and own minus stranger in NDCG@10 by {minus('sft', 'NDCG@10 own minus stranger')}.",
        "**H4 and H5 compare with SFT alone.** Against uniform weights on the same groups (`balanced`), own minus stranger "
        f"changes by {minus('balanced', reads, '+.2f')} nats and MGU@5 by {minus('balanced', name)}.",
        "**H5 is a difference over a mean**, so its interval can pass -100%. As a ratio, seed by seed and by Student's t "
        f"over seeds alone, MGU@5 of GDRT is {ratio} of that of SFT.",
        "**The gate is low.** In NDCG@10, GDRT differs "
        + (" and ".join(f"from {label} by {told}" for label, told in apart.items() if told != MISSING) or MISSING)
        + ".",
    ]
    told = "\n".join(f"- {bullet}" for bullet in bullets if MISSING not in bullet)
    return (
        f"What these verdicts do not show, in exploratory and uncorrected differences, GDRT minus another method:\n\n{told}"
    )


def write(cells: Iterable[Cell], folder: Path) -> dict[str, Any]:
    """Write verdicts.json and forest.png into `folder`; return the verdicts."""
    from gdrt_lite import plots

    verdicts = judge(cells)
    files.write_json(folder / "verdicts.json", verdicts, indent=1)
    if any("effect" in told for told in verdicts["hypotheses"]):
        plots.save(plots.forest(pd.DataFrame(verdicts["hypotheses"])), folder / "forest.png")
    return verdicts
