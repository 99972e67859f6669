"""Sentences and tables on the study, computed from its cells, for README.md and docs/study.md (see render_readme.py)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from phenomenon import list_overlap

from gdrt_lite import metrics
from gdrt_lite.study import compare, protocols
from gdrt_lite.study.cell import Cell
from gdrt_lite.study.methods import methods

SUMMED = {"NDCG@10": "NDCG@10", "MGU@5 popularity": "MGU@5", "bias attention": "bias ratio"}
PAPER = {"NDCG@10": "+24.3%", "MGU@5": "-37.4%"}  # arXiv 2510.10978: against SFT, averages over its data sets
Found = Mapping[str, compare.BySeed]  # what `compare.metrics_by_method` returns
CONTROLS = ("balanced", "reversed", "random", "item")


def smollm2(cells: list[Cell]) -> list[Cell]:
    """The cells of SmolLM2 on MovieLens that the summary shows."""
    return next(own for where, (_, own) in protocols.first_protocols(cells).items() if where.startswith("smollm2-135m"))


def above_popularity(found: Found, method: str) -> metrics.Interval | None:
    """NDCG@10 of a method minus popularity, over the seeds of the method; None where one of them was not measured."""
    seeds = found.get(method, {})
    counted = next(iter(found.get("popularity", {0: {}}).values()))  # one measurement is compared with every seed
    return compare.difference(seeds, dict.fromkeys(seeds, counted), "NDCG@10")


def answer(cells: list[Cell]) -> str:
    """The study's answer: the phenomenon, the gate for SmolLM2, the pocket model, and the mean over data sets."""
    return "\n".join(
        f"{i}. {text}" for i, text in enumerate([_same_list(cells), _gate(cells), _pocket(cells), _mean_of(cells)], 1)
    )


def _same_list(cells: list[Cell]) -> str:
    overlap = list_overlap(smollm2(cells)).groupby("method")
    low, high, shared = overlap.top_share.min(), overlap.top_share.max(), overlap.shared.mean()
    alike = shared["sft"] > 2 * shared["item-transitions"]
    lead = (
        "Fine-tuned SmolLM2 recommends much the same to everybody" if alike else "Fine-tuned SmolLM2 tells its users apart"
    )
    return (
        f"**{lead}:** after SFT one title is in {low['sft']:.0%} to {high['sft']:.0%} of the lists and "
        f"two users share {shared['sft']:.1f} of ten titles (after GDRT {low['gdrt']:.0%} to {high['gdrt']:.0%} and "
        f"{shared['gdrt']:.1f}), while item-to-item transitions give {high['item-transitions']:.0%} and "
        f"{shared['item-transitions']:.1f}."
    )


def _gate(cells: list[Cell]) -> str:
    found = compare.metrics_by_method(smollm2(cells))
    means = _mean_ndcg(found)
    tuned = [name for name in means if methods()[name.split()[0]].trained]
    passing = [name for name in tuned if (gap := above_popularity(found, name)) and gap.low > 0]
    best = max(tuned, key=means.__getitem__)
    said = f"NDCG@10: {means[best]:.3f} for the best, `{best}`, {means['popularity']:.3f} for popularity"
    if passing:
        names = ", ".join(f"`{name}`" for name in passing)
        return f"**SmolLM2 recommends better than popularity after {names}**, of {len(tuned)} objectives ({said})."
    return (
        f"**SmolLM2 decides nothing yet:** under none of the {len(tuned)} objectives does it recommend better than "
        f"popularity ({said}), so whether GDRT improves it is an open question."
    )


def _mean_ndcg(found: Found) -> dict[str, float]:
    return {name: float(np.mean([seed["NDCG@10"].value for seed in seeds.values()])) for name, seeds in found.items()}


def _pocket(cells: list[Cell]) -> str:
    own = [cell for cell in cells if (cell.config.model, cell.config.data) == ("pocket", "movielens")]
    changes = compare.compare_to_reference(own, metrics=("NDCG@10",))
    first = changes[changes["first"]].iloc[0]
    longer = changes[(changes.prior == first.prior) & (changes.tau == first.tau) & (changes.epochs > first.epochs)]
    means = _mean_ndcg(compare.metrics_by_method(protocols.first_protocols(own)[first["where"]][1]))
    text = f"on MovieLens GDRT's NDCG@10 differs from SFT's by {_difference(first)} after {first.epochs:g} epochs"
    lead = "GDRT and the accuracy of a pocket model trained from scratch"
    if len(longer):
        last = longer.iloc[-1]
        text += f" and by {_difference(last)} after {last.epochs:g}"
        if first.difference_low > 0 >= last.difference_low:
            lead = "A pocket model trained from scratch shows a gain in accuracy that vanishes with longer training"
    return (
        f"**{lead}:** {text} (after {first.epochs:g}: SFT {means['sft']:.3f}, GDRT {means['gdrt']:.3f}, "
        f"item-to-item transitions {means['item-transitions']:.3f})."
    )


def _mean_of(cells: list[Cell]) -> str:
    firsts = protocols.first_protocols(cells)
    gaps = {where: above_popularity(compare.metrics_by_method(own), "sft") for where, (_, own) in firsts.items()}
    able = [where for where, gap in gaps.items() if gap and gap.low > 0]
    chosen = [cell for where in able for cell in firsts[where][1]]
    ndcg, mgu = (compare.mean_change(chosen, metric) for metric in ("NDCG@10", "MGU@5 popularity"))
    fairer = "makes the lists fairer" if mgu.high < 0 else "makes the lists neither clearly fairer nor less fair"
    better = (
        "more accurate" if ndcg.low > 0 else "less accurate" if ndcg.high < 0 else "neither clearly more nor less accurate"
    )
    return (
        f"**Over the {len(able)} settings in which SFT beats popularity, GDRT {fairer} and {better}:** relative to SFT, "
        f"MGU@5 changes by {mgu:+.1%} and NDCG@10 by {ndcg:+.1%}; the paper reports "
        f"{PAPER['MGU@5']} and {PAPER['NDCG@10']} on average."
    )


def tables(cells: list[Cell], reruns: list[Cell]) -> str:
    """GDRT against SFT everywhere, then one table per model and data set, then the reruns on another machine."""
    parts = _summary(cells)
    for config, own in protocols.first_protocols(cells).values():  # the report has every protocol
        table = compare.table(own, metrics=("NDCG@10", "NLL", "MGU@5 popularity", "bias attention"))
        parts += [
            f"**{Path(config.model).name}** on {own[0].data}: {own[0].train_examples:,} examples x {config.epochs:g} "
            f"epoch(s), prior {config.prior}, tau {config.tau:g}, {len(own[0].users):,} test examples.",
            table.drop(columns="learning rate", errors="ignore").to_markdown(index=False, disable_numparse=True),
        ]
        found = compare.metrics_by_method(own)
        gaps = {
            name: compare.difference(found.get("gdrt", {}), found[name], "NDCG@10") for name in CONTROLS if name in found
        }
        if any(gaps.values()):
            parts.append(
                "NDCG@10, gdrt minus " + "; minus ".join(f"{name} {gap:+.3f}" for name, gap in gaps.items() if gap) + "."
            )
    again = compare.reruns(cells, reruns)
    if len(again):
        both_signs = (again.difference_low <= 0) & (again.difference_high >= 0)
        parts.append(
            f"{again.cell.nunique()} of these trainings were run again, with the same seed, on another kind of machine "
            f"({'; '.join(again.machines.unique())}): {again.inside.sum()} of {len(again)} figures lie in the first "
            f"run's 95% interval over users; paired by user, {both_signs.sum()} of {len(again)} differences include zero."
        )
    return "\n\n".join(parts) or "Not measured yet: `make study`."


def _summary(cells: list[Cell]) -> list[str]:
    """GDRT against SFT in per cent, one row per setting, the first of each model and data set before the others."""
    changes = compare.compare_to_reference(cells, metrics=tuple(SUMMED))
    if changes.empty:
        return []
    up, down = changes.difference_low > 0, changes.difference_high < 0
    percent = changes.relative.map("{:+.1%}".format)
    texts = {name: changes[name].map("{:g}".format) for name in ("tau", "epochs", "seeds")}
    shown = changes.assign(shown=percent.where(~(up | down), "**" + percent + "**"), **texts)
    setting = ["first", "where", "prior", "tau", "epochs", "seeds"]
    frame = shown.pivot(index=setting, columns="metric", values="shown").loc[:, list(SUMMED)].fillna("-")
    frame = (
        frame.reindex(dict.fromkeys(shown[setting].itertuples(index=False, name=None))).rename(columns=SUMMED).reset_index()
    )
    frame = frame.rename(columns={"where": "gdrt against sft"})
    first = changes[changes["first"]]
    means = {name: _mean(compare.mean_change(cells, metric)) for metric, name in SUMMED.items()}
    ends = [
        {"gdrt against sft": "mean of these [95% CI within them]", **means},
        {"gdrt against sft": "the paper, mean of its data sets", **PAPER},
    ]
    both = [
        rows.drop(columns="first").astype(object).fillna("").to_markdown(index=False, disable_numparse=True)
        for rows in (pd.concat([frame[frame["first"]], pd.DataFrame(ends)]), frame[~frame["first"]])
    ]
    n, ndcg, mgu, bias = len(frame[frame["first"]]), *(first.metric == metric for metric in SUMMED)
    count = (
        f"GDRT recommends better than SFT in {(ndcg & up).sum()} of {n} and worse in {(ndcg & down).sum()}, more fairly in "
        f"{(mgu & down).sum()}, with a lower bias ratio in {(bias & down).sum()}. In bold: the 95% interval excludes zero, "
        "over users and seeds, or over users alone where there is one seed."
    )
    others = (
        ["Other settings that were tested; the table above shows, per model and data set, the one with most cells:", both[1]]
        if len(frame) > n
        else []
    )
    return [both[0], count, *others, *_longer(changes[changes.metric == "NDCG@10"])]


def _longer(changes: pd.DataFrame) -> list[str]:
    """One sentence per setting that was trained for another number of epochs as well, all else equal."""
    pairs = changes[changes["first"]].merge(changes[~changes["first"]], on=["where", "prior", "tau"], suffixes=("", "_then"))
    return [
        f"{row.where}, {row.epochs_then:g} epochs in place of {row.epochs:g}: NDCG@10, gdrt minus sft, is "
        f"{_difference(row, '_then')} where it was {_difference(row)}."
        for row in pairs.itertuples()
    ]


def _difference(row: Any, suffix: str = "") -> str:
    ends = (getattr(row, f"difference{end}{suffix}") for end in ("", "_low", "_high"))
    return f"{metrics.Interval(*ends):+.3f}"


def _mean(interval: metrics.Interval) -> str:
    text = f"{interval:+.1%}"
    estimate, ends = text.split(" ", 1)
    return text if interval.low <= 0 <= interval.high else f"**{estimate}** {ends}"
