"""The answer of README.md in four points, computed from the archived lists and from verdicts.json (see render_readme.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from gdrt_lite.metrics import Interval
from gdrt_lite.study.verdicts import HYPOTHESES

PAPER = {"H3": "+24.3%", "H5": "-37.4%"}  # arXiv 2510.10978, abstract: against SFT, averages over its data sets
MODELS = {"pocket": "the pocket model", "smollm2-135m": "SmolLM2"}
COUNTS = ("no", "one", "two", "three", "four", "five", "six")
SIGNS = {hypothesis.id: hypothesis.sign for hypothesis in HYPOTHESES}


def answer(overlap: pd.DataFrame, verdicts: Mapping[str, Any]) -> str:
    """The phenomenon, the gates, the verdicts, and what they say of the paper's two headline figures.

    Args:
        overlap: how much the archived lists of SmolLM2 agree, see `phenomenon.list_overlap`.
        verdicts: what verdicts.json holds.
    """
    told = [same_list(overlap), gates(verdicts["gates"]), outcome(verdicts["hypotheses"]), headline(verdicts["hypotheses"])]
    return "\n".join(f"{i}. {text}" for i, text in enumerate(told, 1))


def same_list(overlap: pd.DataFrame) -> str:
    """How much the lists of different users agree: before tuning, after SFT, after GDRT, and by counting."""
    by_method = overlap.groupby("method")
    low, high, shared = by_method.top_share.min(), by_method.top_share.max(), by_method.shared.mean()
    alike = shared["sft"] > 2 * shared["item-transitions"]
    lead = "recommends much the same to everybody" if alike else "tells users apart"

    def ends(method: str, lists: str = "", titles: str = "") -> str:
        span = f"{low[method]:.0%}" if low[method] == high[method] else f"{low[method]:.0%} to {high[method]:.0%}"
        return f"{span}{lists} and {titles}{shared[method]:.1f}"

    return (
        f"**After a short fine-tuning by SFT, SmolLM2 {lead}:** one title is in "
        f"{ends('sft', ' of the lists,', 'two users share ')} of ten titles. Before tuning it is {ends('pre-trained')}, "
        f"after GDRT {ends('gdrt')}, and for a recommender that only counts which title follows which "
        f"{ends('item-transitions')}."
    )


def gates(found: Sequence[Mapping[str, Any]]) -> str:
    """Which models recommend well enough for a verdict."""
    measured = [gate for gate in found if "above_popularity" in gate]
    passed = [
        f"{place(gate['place'])} ({gate['ndcg_sft']:.3f}, {gate['ndcg_popularity']:.3f}, "
        f"{gate['own_minus_stranger'][0]:.2f})"
        for gate in measured
        if gate["passed"]
    ]
    below = "; ".join(place(gate["place"]) for gate in measured if not gate["passed"])
    s = "" if len(passed) == 1 else "s"
    text = f"**In {COUNTS[len(passed)]} place{s}, SFT recommends well enough to be judged, that is, above best-sellers.**"
    if passed:
        text += (
            f" A place is a model on a data set: {'; '.join(passed)}. In brackets: NDCG@10 of SFT and of popularity, and "
            "how many nats likelier a user's own history makes the right title than a stranger's."
        )
    text += f" Below this gate: {below}." * bool(below)
    return text + " SmolLM2 has not been put to this test yet." * all("smollm2" not in gate["place"] for gate in found)


def outcome(hypotheses: Sequence[Mapping[str, Any]]) -> str:
    """How many of the registered hypotheses have which verdict, and which."""
    parts = []
    for verdict in ("supported", "contradicted", "undecided", "not tested"):
        texts = [f"{row['text']} ({row['id']})" for row in hypotheses if row["verdict"] == verdict]
        if texts:
            parts.append(f"**{len(texts)} {verdict}**: {', '.join(texts)}")
    seeds = [row["seeds"] for row in hypotheses if "seeds" in row]
    fewest = f" Each tested one rests on {min(seeds)} or more trainings of every method compared." if seeds else ""
    return f"Six hypotheses were registered before the test. {'. '.join(parts)}.{apart(hypotheses) or fewest}"


def apart(hypotheses: Sequence[Mapping[str, Any]]) -> str:
    """What each place shows by itself, where verdicts are of the mean over several."""
    tested = [row for row in hypotheses if len(row.get("places", {})) > 1]
    told = []
    for name in dict.fromkeys(name for row in tested for name in row["places"]):
        own = {row["id"]: row["places"][name] for row in tested if name in row["places"]}
        span = {id: sorted((SIGNS[id] * low, SIGNS[id] * high)) for id, (_, low, high, _) in own.items()}
        shows = {
            "shows": [id for id, (least, _) in span.items() if least > 0],
            "shows the opposite of": [id for id, (_, most) in span.items() if most < 0],
            "cannot tell about": [id for id, (least, most) in span.items() if least <= 0 <= most],
        }
        fewest = min(seeds for *_, seeds in own.values())
        told.append(
            f"{place(name)} ({fewest}{'+' * (fewest > 1)} training{'s' * (fewest > 1)} each) "
            + ", ".join(f"{verb} {', '.join(ids)}" for verb, ids in shows.items() if ids)
        )
    if not told:
        return ""
    return f" {', '.join(row['id'] for row in tested)} are means over places. By itself, {'; '.join(told)}."


def place(name: str) -> str:
    """A place in words: the model, and the data set without its size."""
    model, where, *_ = name.split(", ")
    return f"{MODELS.get(model, model)} on {where}"


def headline(hypotheses: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy and unfairness of GDRT against SFT, beside the paper's figures, and accuracy against the controls."""
    known = {row["id"]: row for row in hypotheses if "effect" in row}
    parts = [
        f"{name} by {_percent(known[key])} (the paper: {PAPER[key]} on average)"
        for key, name in (("H3", "NDCG@10"), ("H5", "unfairness (MGU@5)"))
        if key in known
    ]
    if not parts:
        return "**GDRT and SFT are not compared yet.**"
    text = f"**There, GDRT changes {' and '.join(parts)}, relative to SFT.**"
    if "H6" in known:
        text += (
            f" Relative to its strongest control, `{known['H6']['against']}`, it changes NDCG@10 by {_percent(known['H6'])}."
        )
    if all(known[key]["low"] <= 0 <= known[key]["high"] for key in ("H3", "H6") if key in known):
        text += " These intervals of NDCG@10 include zero, so a gain in ranking is not shown."
    return text


def _percent(row: Mapping[str, Any]) -> str:
    return f"{Interval(row['effect'], row['low'], row['high']):+.1%}"
