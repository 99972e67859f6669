"""Fill the measured tables of README.md from the files that measured them: python scripts/render_readme.py [--check].

A block stands between `<!-- NAME -->` and `<!-- /NAME -->`; nothing in it is written by hand.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import draw_house  # noqa: E402

from benchmarks.__main__ import table as benchmark_table  # noqa: E402
from gdrt_lite import metrics  # noqa: E402
from gdrt_lite.course import notebook  # noqa: E402
from gdrt_lite.study import compare, protocols, report  # noqa: E402
from gdrt_lite.study.cell import Cell, read_cells  # noqa: E402

SUMMED = {"NDCG@10": "NDCG@10", "MGU@5 popularity": "MGU@5", "bias attention": "bias ratio"}
PAPER = {"NDCG@10": "+24.3%", "MGU@5": "-37.4%"}  # arXiv 2510.10978: against SFT, averages over its data sets


def course() -> str:
    """The notebooks: question, exercises, budget and measured minutes."""
    measured = notebook.runtimes()
    lines = ["| notebook | question | exercises | minutes, 2 cores |", "|---|---|---|---|"]
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.py")):
        text = path.read_text(encoding="utf-8")
        question = re.search(r"^# # (.*)$", text, re.M)
        exercises = len(re.findall(r"^# ### Exercise ", text, re.M))
        seconds = measured.get(path.stem[:2], {}).get("seconds")
        minutes = "-" if seconds is None else f"{seconds / 60:.1f}"
        title = question.group(1) if question else path.stem
        lines.append(f"| [{path.stem}](notebooks/{path.stem}.ipynb) | {title} | {exercises} | {minutes} |")
    return "\n".join(lines)


STICKING_POINTS = {
    "00": "A survival figure belongs to the model *and* its beam search. A list that changes is not yet a list that fits.",
    "01": 'The four meanings of "without a segment". PREFIX has no meaning for the first token.',
    "02": "A rate of one is worth nothing: let them work out the PMI of a constant. Which result would *refute* the claim?",
    "03": "Relevance belongs to the title, not to the user. Log-probabilities near zero are the *easy* tokens.",
    "04": "In one dimension K-means only cuts a line. The groups are ordered, the labels of scikit-learn are not.",
    "05": "The Lagrangian step. Why the weights are detached although they depend on the model.",
    "06": "A lower bias ratio and a costlier title can both be true.",
    "07": "Undecided is not contradicted. Users and seeds answer different questions.",
    "08": "Merge in float32. The wording must fit the items.",
}


def sheet() -> str:
    """The instructor's run sheet: minutes of each notebook, and where people get stuck."""
    lines = ["| notebook | read | solve | run | where people get stuck |", "|---|---|---|---|---|"]
    for number, found in sorted(notebook.runtimes().items()):
        read, ran = found["words"] / 200, found["seconds"] / 60
        lines.append(f"| {number} | {read:.0f} | {found['exercise_minutes']} | {ran:.1f} | {STICKING_POINTS[number]} |")
    return "\n".join(lines)


def run() -> str:
    """The table of the quick run."""
    path = ROOT / "data" / "results" / "quick.json"
    if not path.exists():
        return "Not measured yet: `make run`."
    found = json.loads(path.read_text(encoding="utf-8"))
    config, environment = found["config"], found["environment"]
    table = report.headline(pd.DataFrame(found["metrics"]).fillna(float("nan")), config["ablations"][0])
    return (
        f"{config.get('train_examples') or config['train_windows']} training examples, "
        f"{config['test_examples']} test examples, seed {config['seed']}, "
        f"{environment['cores']} cores ({environment['cpu_capability']}), "
        f"{sum(found['seconds'].values()) / 60:.1f} minutes, "
        f"{found['peak_memory_gib']:.1f} GiB of memory at most.\n\n" + table.to_markdown(index=False, disable_numparse=True)
    )


def study() -> str:
    """The main figures of the study's test cells: GDRT against SFT everywhere, then one table a model and data set."""
    cells = read_cells(ROOT / "data" / "results" / "cells")
    parts = _summary(cells)
    for config, own in protocols.first_protocols(cells).values():  # the report has every protocol
        table = compare.table(own, metrics=("NDCG@10", "NLL", "MGU@5 popularity", "bias attention"))
        parts += [
            f"**{Path(config.model).name}** on {own[0].data}: {own[0].train_examples:,} examples x "
            f"{config.epochs:g} epoch(s), "
            f"prior {config.prior}, tau {config.tau:g}, {len(own[0].users):,} test examples.",
            table.drop(columns="learning rate", errors="ignore").to_markdown(index=False, disable_numparse=True),
        ]
        found = compare.metrics_by_method(own)
        gaps = {
            name: compare.difference(found.get("gdrt", {}), found[name], "NDCG@10")
            for name in ("balanced", "reversed", "random", "item")
            if name in found
        }
        if any(gaps.values()):
            parts.append(
                "NDCG@10, gdrt minus " + "; minus ".join(f"{name} {gap:+.3f}" for name, gap in gaps.items() if gap) + "."
            )
    again = compare.reruns(cells, read_cells(ROOT / "data" / "results" / "reruns" / "cells"))
    if len(again):
        parts.append(
            f"{again.cell.nunique()} of these trainings were run again, with the same seed, on another kind of "
            f"machine ({'; '.join(again.machines.unique())}): "
            f"{again.inside.sum()} of {len(again)} figures lie in the first run's 95% interval over users; paired by user, "
            f"{((again.difference_low <= 0) & (again.difference_high >= 0)).sum()} of {len(again)} differences include zero."
        )
    return "\n\n".join(parts) or "Not measured yet: `make study`."


def _summary(cells: list[Cell]) -> list[str]:
    """GDRT against SFT in per cent: a row per setting, the first of each place before the others; bold where the
    interval excludes zero."""
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
        {"gdrt against sft": "mean of these [95% within them]", **means},
        {"gdrt against sft": "the paper, mean of its data sets", **PAPER},
    ]
    tables = [
        rows.drop(columns="first").astype(object).fillna("").to_markdown(index=False, disable_numparse=True)
        for rows in (pd.concat([frame[frame["first"]], pd.DataFrame(ends)]), frame[~frame["first"]])
    ]
    n, ndcg, mgu, bias = len(frame[frame["first"]]), *(first.metric == metric for metric in SUMMED)
    count = (
        f"GDRT recommends better than SFT in {(ndcg & up).sum()} of {n} and worse in {(ndcg & down).sum()}, "
        f"more fairly in {(mgu & down).sum()}, with a lower bias "
        f"ratio in {(bias & down).sum()}. In bold: the 95% interval leaves out zero, over users and seeds, "
        "with one seed over users alone."
    )
    others = (
        ["Other settings that were tested; above stands, of each model and data set, the one with most cells:", tables[1]]
        if len(frame) > n
        else []
    )
    return [tables[0], count, *others, *_longer(changes[changes.metric == "NDCG@10"])]


def _longer(changes: pd.DataFrame) -> list[str]:
    """A sentence on each place that was trained for another time as well, all else equal."""
    pairs = changes[changes["first"]].merge(changes[~changes["first"]], on=["where", "prior", "tau"], suffixes=("", "_then"))
    return [
        f"{row.where}, {row.epochs_then:g} epochs in place of {row.epochs:g}: NDCG@10, gdrt minus sft, is "
        f"{_difference(row, '_then')} where it was {_difference(row, '')}."
        for row in pairs.itertuples()
    ]


def _difference(row: Any, suffix: str) -> str:
    ends = (getattr(row, f"difference{end}{suffix}") for end in ("", "_low", "_high"))
    return f"{metrics.Interval(*ends):+.3f}"


def _mean(interval: metrics.Interval) -> str:
    text = f"{interval.estimate:+.1%}"
    return f"{text if interval.low <= 0 <= interval.high else f'**{text}**'} [{interval.low:+.1%}, {interval.high:+.1%}]"


def benchmarks() -> str:
    """The tables of `make bench`, one a kind of machine."""
    path = ROOT / "data" / "results" / "benchmarks.json"
    if not path.exists():
        return "Not measured yet: `make bench`."
    parts = []
    for kind, found in json.loads(path.read_text(encoding="utf-8")).items():
        parts += [f"**{kind}**, matrix products at {found['matmul_gflops']:.0f} GFLOP/s:", benchmark_table(found)]
        rest = []  # a machine on which some benchmarks alone were run lacks the others
        if "startup" in found:
            start = found["startup"]
            rest.append(f"`import gdrt_lite` {start['import_s']:.3f} s, model load {start['model_load_s']:.1f} s (warm).")
        if "memory" in found:
            peaks = (
                f"{peak['8']:.1f} GiB with batches of 8 and {peak['16']:.1f} GiB with batches of 16 in {dtype}"
                for dtype, peak in found["memory"].items()
            )
            rest.append(f"Peak memory of a process that trains: {'; '.join(peaks)}.")
        parts += [" ".join(rest)] if rest else []
    return "\n\n".join(parts)


BLOCKS = {"course": course, "sheet": sheet, "run": run, "study": study, "house": draw_house.house, "benchmarks": benchmarks}


def rendered(text: str) -> str:
    """README with every block filled."""
    for name, fill in BLOCKS.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        if not re.search(pattern, text, re.S):
            raise SystemExit(f"README.md has no block {name!r}: put <!-- {name} --> and <!-- /{name} --> where it belongs.")
        text = re.sub(pattern, lambda found, fill=fill: f"{found[1]}{fill()}\n{found[2]}", text, flags=re.S)
    return text


def main(check: bool = False) -> int:
    """Write README.md, or with `check` say whether it is as it would be written."""
    path = ROOT / "README.md"
    before = path.read_text(encoding="utf-8")
    after = rendered(before)
    if check:
        if before != after:
            print("README.md is stale: run python scripts/render_readme.py")
        return int(before != after)
    path.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
