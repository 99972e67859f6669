"""Fill the measured parts of README.md, CONTRIBUTING.md and docs/ from the files that measured them.

    python scripts/render_readme.py [--check]

A block stands between `<!-- NAME -->` and `<!-- /NAME -->`, and nothing in it is written by hand. `--check` writes nothing
and says which page is stale.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import answer as sentences  # noqa: E402
import draw_house  # noqa: E402
import phenomenon  # noqa: E402

from benchmarks import windows as benchmark_windows  # noqa: E402
from benchmarks.__main__ import table as benchmark_table  # noqa: E402
from gdrt_lite.course import notebook  # noqa: E402
from gdrt_lite.metrics import Interval  # noqa: E402
from gdrt_lite.study import compare, report, verdicts  # noqa: E402
from gdrt_lite.study.cell import Cell, read_cells  # noqa: E402

RESULTS = ROOT / "data" / "results"
FIGURE = ROOT / "docs" / "same_list.png"
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"

# What the learner has at the end of each notebook, and where groups of learners get stuck.
OUTCOMES = {
    "00": "two users' lists side by side, and your own swap test with its noise floor",
    "01": "feature ablation by hand, equal to captum's, with ablations that you wrote",
    "02": "a causal test of the shortcut, with the refuting result named beforehand",
    "03": "the relevance of every title token, with its variance split",
    "04": "K-means in one dimension, and a reason for your K",
    "05": "the closed-form weights, derived by you, and a world in which they help",
    "06": "a model tuned by your own loss, your own bootstrap, and an audit",
    "07": "six registered verdicts, and how a study misleads",
    "08": "the method on your own data, and its cost estimated",
    "09": "a report on two unnamed adapters, by a rule fixed beforehand",
    "90": "the whole course in 90 minutes, for a group",
}
STICKING_POINTS = {
    "00": "Survival measures change, not fit: a random list changes too. What stays when the same question is asked twice?",
    "01": 'The four meanings of "without a segment". PREFIX is undefined for the first token.',
    "02": "A rate of one carries no information: ask for the PMI of a constant. Which result would *refute* the claim?",
    "03": "Relevance belongs to the title, not to the user. Log-probabilities near zero are the *easy* tokens.",
    "04": "In one dimension K-means only cuts a line. Our groups are ordered; the labels of scikit-learn are not.",
    "05": "The +1 of the product rule in step 4. Why the weights are detached although they depend on the model.",
    "06": "A lower bias ratio and a higher item NLL can both be true.",
    "07": "Undecided is not contradicted. Users and seeds answer different questions.",
    "08": "Merge in float32. The wording of the prompt must fit the items.",
    "09": "Writing before measuring. A lower ratio is true and carries no conclusion.",
    "90": "Minutes follow the [run sheet](run-sheets.md). Learners scroll down before they vote: count raised hands first.",
}


@cache
def smollm2() -> list[Cell]:
    """The archived test cells of SmolLM2 on MovieLens, from which the phenomenon is drawn."""
    kept = read_cells(RESULTS / "archive" / "cells")
    return [
        cell
        for cell in kept
        if (cell.config.model, cell.config.data, cell.config.part) == ("smollm2-135m", "movielens", "test")
    ]


@cache
def overlap() -> pd.DataFrame:
    """How much the lists of each of these cells agree."""
    return phenomenon.list_overlap(smollm2())


def project_url() -> str:
    """The address of the repository, as pyproject.toml gives it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Homepage"]


def colab(name: str) -> str:
    """A badge that opens a notebook in Colab."""
    path = project_url().removeprefix("https://github.com/")
    return f"[![Open in Colab]({BADGE})](https://colab.research.google.com/github/{path}/blob/main/notebooks/{name}.ipynb)"


def badges() -> str:
    """Status of the tests, Python versions, licence, and the first notebook in Colab."""
    url = project_url()
    return "\n".join(
        [
            f"[![tests]({url}/actions/workflows/ci.yml/badge.svg)]({url}/actions/workflows/ci.yml)",
            "[![Python 3.11 or later](https://img.shields.io/badge/python-3.11%2B-blue)](#set-up)",
            "[![licence: MIT](https://img.shields.io/badge/licence-MIT-green)](LICENSE)",
            colab("00_start_here"),
        ]
    )


def figure() -> str:
    """The first figure with its caption."""
    found = overlap()
    seeds = found[found.method == "sft"].top_share
    counted = found[found.method == "item-transitions"].iloc[0]
    tests = len(smollm2()[0].users)
    alt = (
        f"After SFT, one title is in {seeds.min():.0%} to {seeds.max():.0%} of the lists; "
        f"with item-to-item transitions the most frequent title is in {counted.top_share:.0%}"
    )
    return (
        f"![{alt}](docs/same_list.png)\n\n"
        f"*SmolLM2-135M on MovieLens: lists of ten titles for {tests} test examples of held-out users. "
        "One point per training seed. Drawn from the cells in `data/results/archive/cells`.*"
    )


def answer() -> str:
    """What was found, in four sentences."""
    return sentences.answer(overlap(), json.loads((RESULTS / "verdicts.json").read_text(encoding="utf-8")))


def course() -> str:
    """The notebooks: question, what the learner will have, exercises, measured minutes, Colab."""
    measured = notebook.runtimes()
    lines = ["| notebook | question | you will have | exercises | minutes | |", "|---|---|---|---|---|---|"]
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.py")):
        text = path.read_text(encoding="utf-8")
        question = re.search(r"^# # (.*)$", text, re.M)
        exercises = len(re.findall(r"^# ### Exercise ", text, re.M))
        number = path.stem[:2]
        seconds = measured.get(number, {}).get("seconds")
        minutes = "-" if seconds is None else f"{seconds / 60:.1f}"
        link = f"[{number}](notebooks/{path.stem}.ipynb)"
        title = question.group(1) if question else path.stem
        lines.append(f"| {link} | {title} | {OUTCOMES[number]} | {exercises} | {minutes} | {colab(path.stem)} |")
    return "\n".join(lines)


def sheet() -> str:
    """The instructor's run sheet: minutes of each notebook, and where people get stuck."""
    lines = ["| notebook | read | solve | run | where people get stuck |", "|---|---|---|---|---|"]
    for number, found in sorted(notebook.runtimes().items()):
        read, ran = found["words"] / 200, found["seconds"] / 60
        lines.append(f"| {number} | {read:.0f} | {found['exercise_minutes']} | {ran:.1f} | {STICKING_POINTS[number]} |")
    return "\n".join(lines)


def run() -> str:
    """The table of the quick run."""
    path = RESULTS / "quick.json"
    if not path.exists():
        return "Not measured yet: `make run`."
    found = json.loads(path.read_text(encoding="utf-8"))
    config, environment = found["config"], found["environment"]
    table = report.headline(pd.DataFrame(found["metrics"]).fillna(float("nan")), config["ablations"][0])
    return (
        f"{config.get('train_examples') or config['train_windows']} training examples, {config['test_examples']} "
        f"test examples, seed {config['seed']}, {environment['cores']} cores ({environment['cpu_capability']}), "
        f"{sum(found['seconds'].values()) / 60:.1f} minutes, {found['peak_memory_gib']:.1f} GiB of memory at most.\n\n"
        + _markdown(table)
    )


REGISTERED = ("NDCG@10", "own minus stranger", "NDCG@10 own minus stranger", "NLL", "MGU@5 popularity", "same first title",
              "bias attention", "TASK/HISTORY attention")  # fmt: skip


def registered() -> str:
    """Gates, verdicts and figures of the registered study, with what of its grid has been run."""
    own = read_cells(RESULTS / "registered")
    if not own:
        return "No cell of it has been run yet."
    told = json.loads((RESULTS / "verdicts.json").read_text(encoding="utf-8"))
    lines = []
    for gate in told["gates"]:
        if "above_popularity" not in gate:
            lines.append(f"- {gate['place']}: not past the gate, since its SFT has not been run.")
            continue
        above, reads = (Interval(*(gate[name] or [float("nan")] * 3)) for name in ("above_popularity", "own_minus_stranger"))
        passed = "past" if gate["passed"] else "not past"
        lines.append(
            f"- {gate['place']}: {passed} the gate. Exact NDCG@10 of SFT {gate['ndcg_sft']:.3f}, of popularity "
            f"{gate['ndcg_popularity']:.3f}, difference {above:+.3f}; own minus stranger {reads:+.2f} nats; "
            f"{gate['users']} users, {gate['seeds']} seed(s)."
        )
    if any(row.get("seeds") == 1 for row in told["hypotheses"]):
        lines += [
            "",
            "Where a place has one seed, its figures cover other users and not other trainings. They are provisional.",
        ]
    lines += ["", _markdown(verdicts.table(told)), ""]
    if len(apart := verdicts.places(told)):
        lines += ["These verdicts are of the mean over places, each with the same weight. The places by themselves:", ""]
        lines += [_markdown(apart), ""]
    if (RESULTS / "forest.png").exists():
        lines += ["![Effect and 95% interval of each hypothesis](../data/results/forest.png)", ""]
    for place, cells_there in verdicts.by_place(own).items():
        lines += [f"### {place}", "", verdicts.cautions(compare.metrics_by_method(cells_there)), ""]
        lines += ["Mean over seeds, and in brackets the difference to SFT with its 95% interval:", ""]
        lines += [_markdown(compare.table(cells_there, metrics=REGISTERED)), ""]
    trials = sum(cell.config.part == "valid" for cell in own)
    return "\n".join([*lines, f"{len(own)} cells: {trials} trials on valid users, and {len(own) - trials} on test users."])


AGAIN = ("NDCG@10", "MGU@5 popularity", "NLL", "own minus stranger")


def reruns() -> str:
    """Cells of the registered study that were run again on another processor, and their lists by ten beams."""
    first = {cell.config.key: cell for cell in read_cells(RESULTS / "registered")}
    again = read_cells(RESULTS / "reruns") if (RESULTS / "reruns").is_dir() else []
    if not again:
        return "No cell has been run again yet."
    exact = {cell.config.label: cell for cell in again if cell.config.ranking == "exact"}
    moved = [(first[cell.config.key], cell) for cell in exact.values()]
    beams = [(exact[cell.config.label], cell) for cell in again if cell.config.ranking == "beam"]
    kinds = " / ".join(cell.environment["cpu_capability"] for cell in moved[0])
    return "\n\n".join(
        [
            f"Seed 0 on two kinds of processor ({kinds}):",
            _side_by_side(moved, AGAIN, "same first title in both", 1),
            "The exact ranking and ten beams, on the same trained model:",
            _side_by_side(beams, AGAIN[:2], "of the ten best titles found", 10),
        ]
    )


def _side_by_side(pairs: list[tuple[Cell, Cell]], shown: Sequence[str], agree: str, k: int) -> str:
    rows = []
    for pair in pairs:
        both = [report.cell_metrics(cell) for cell in pair]
        figures = {metric: " / ".join(f"{of[metric].value:.3f}" for of in both) for metric in shown}
        rows.append({"method": pair[1].config.label, **figures, agree: f"{_agree(*pair, k):.0%}"})
    return _markdown(rows)


def _agree(one: Cell, other: Cell, k: int) -> float:
    """The share of the first cell's k first titles that are among the other's, mean over examples."""
    pairs = zip(one.lists, other.lists, strict=True)
    return sum(len(set(a[:k]) & set(b[:k])) for a, b in pairs) / (k * len(one.lists))


def _markdown(rows: list[dict[str, str]] | pd.DataFrame) -> str:
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)


def windows() -> str:
    """Accuracy of growing and sliding windows at equal targets."""
    path = RESULTS / "windows.csv"
    if not path.exists():
        return "Not measured yet: `python -m benchmarks windows`."
    table = pd.read_csv(path)
    sizes = f"{table.targets.max():,} targets, {table.epoch.max()} epochs, {table.seed.nunique()} seeds"
    link = "![NDCG@10 on valid users after each epoch, on growing and on sliding windows](../data/results/windows.png)"
    return f"Pocket model, {sizes}, {benchmark_windows.sentence(table)}.\n\n{link}"


def benchmarks() -> str:
    """The tables of `make bench`, one per kind of machine."""
    path = RESULTS / "benchmarks.json"
    if not path.exists():
        return "Not measured yet: `make bench`."
    parts = []
    for kind, found in json.loads(path.read_text(encoding="utf-8")).items():
        parts += [f"**{kind}**, matrix products at {found['matmul_gflops']:.0f} GFLOP/s:", benchmark_table(found)]
        rest = []  # a machine on which only some benchmarks were run lacks the others
        if "startup" in found:
            start = found["startup"]
            rest.append(f"`import gdrt_lite` {start['import_s']:.3f} s, model load {start['model_load_s']:.1f} s (warm).")
        if "memory" in found:
            peaks = (f"{p['8']:.1f} and {p['16']:.1f} GiB in {dtype}" for dtype, p in found["memory"].items())
            rest.append(f"Peak memory of a process that trains with 8 and 16 targets a step: {', '.join(peaks)}.")
        if "beam_10_s" in found.get("exact_ranking", {}):
            rest.append(f"Beam 10 takes {found['exact_ranking']['beam_10_s']:.2f} s a user on the same titles.")
        if "all_linear" in found.get("train_target", {}):
            minutes = 10_000 * found["train_target"]["all_linear"]["ours_s"] / 60
            rest.append(f"An epoch of 10,000 targets takes {minutes:.0f} minutes with LoRA on all linear layers.")
        parts += [" ".join(rest)] if rest else []
        if catalogue := found.get("growth", {}).get("catalogue"):
            rows = [
                {
                    "synthetic titles": f"{row['titles']:,}",
                    "trie, s": f"{row['build_s']:.2f}",
                    "its memory, GiB": f"{row['memory_gib']:.2f}",
                    "beam 10, s a user": f"{row['user_s']:.2f}",
                }
                for row in catalogue
            ]
            parts += [_markdown(rows)]
    return "\n\n".join(parts)


PAGES: dict[str, list[Callable[[], str]]] = {
    "README.md": [badges, figure, answer, course],
    "CONTRIBUTING.md": [draw_house.house],
    "docs/run.md": [run],
    "docs/study.md": [registered, reruns],
    "docs/speed.md": [benchmarks, windows],
    "docs/instructor/README.md": [sheet],
}


def rendered(page: str, text: str) -> str:
    """The text of a page with every block filled."""
    for fill in PAGES[page]:
        name = fill.__name__
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        if not re.search(pattern, text, re.S):
            raise SystemExit(f"{page} has no block {name!r}: put <!-- {name} --> and <!-- /{name} --> where it belongs.")
        text = re.sub(pattern, lambda found, fill=fill: f"{found[1]}{fill()}\n{found[2]}", text, flags=re.S)
    return text


def main(check: bool = False) -> int:
    """Write the pages and the figure, or with `check` say which pages differ from what would be written."""
    stale = []
    for page in PAGES:
        path = ROOT / page
        before = path.read_text(encoding="utf-8")
        after = rendered(page, before)
        if before != after:
            stale.append(page)
            if not check:
                path.write_text(after, encoding="utf-8")
    if check:
        for page in stale:
            print(f"{page} is stale: run python scripts/render_readme.py")
        return int(bool(stale))
    phenomenon.draw(overlap(), FIGURE)
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
