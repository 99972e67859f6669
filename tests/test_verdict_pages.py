"""What the notebooks promise about results: 06 and 07 say what verdicts.json says, and predictions meet their outcomes."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import build_notebooks as builder  # noqa: E402

from gdrt_lite import data, plots  # noqa: E402
from gdrt_lite.course import notebook as helpers  # noqa: E402
from gdrt_lite.study import verdicts  # noqa: E402

GATE = {"place": "a model, some data", "passed": True, "seeds": 3, "users": 60}
MEASURED = {"above_popularity": [0.1, 0.05, 0.15], "own_minus_stranger": [0.8, 0.6, 1.0]}


def row(hypothesis: verdicts.Hypothesis, verdict: str, seeds: int) -> dict[str, Any]:
    told: dict[str, Any] = {"id": hypothesis.id, "text": hypothesis.text, "metric": hypothesis.metric, "verdict": verdict}
    if verdict == "not tested":
        return told
    sign = {"supported": 1, "contradicted": -1, "undecided": 0}[verdict] * hypothesis.sign
    figures = {"effect": 0.3 * sign, "low": 0.3 * sign - 0.1, "high": 0.3 * sign + 0.1, "p": 0.01, "p_holm": 0.02}
    told |= figures | {"against": "sft", "relative": hypothesis.relative, "users": 60, "seeds": seeds}
    return told | {"places": {"x": [told["effect"], told["low"], told["high"], seeds]}}


def told(*words: str, seeds: int = 3, gates: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Verdicts of the six hypotheses, in their order."""
    rows = [row(hypothesis, word, seeds) for hypothesis, word in zip(verdicts.HYPOTHESES, words, strict=True)]
    return {"gates": [GATE | MEASURED] if gates is None else gates, "hypotheses": rows}


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the code cells of a notebook that lie between two texts, on the given verdicts; returns what they display."""

    def run(number: str, start: str, stop: str, verdict: dict[str, Any]) -> str:
        (tmp_path / "results").mkdir(exist_ok=True)
        (tmp_path / "results" / "verdicts.json").write_text(json.dumps(verdict), encoding="utf-8")
        shown: list[str] = []
        monkeypatch.setattr(data, "data_folder", lambda: tmp_path)
        monkeypatch.setattr(helpers, "_display", shown.append)
        monkeypatch.setattr(plots, "show", lambda figure, alt: shown.append(alt))
        monkeypatch.setattr("IPython.display.display", lambda *things: shown.extend(map(str, things)))
        cells = builder.read_source(builder.sources([number])[0]).cells
        names: dict[str, Any] = {"plots": plots, "say": helpers.say}
        text = [cell.source for cell in cells]
        first, last = (next(i for i, source in enumerate(text) if mark in source) for mark in (start, stop))
        chosen = [cell for cell in cells if "imports" in builder.tags(cell)] + cells[first:last]
        for cell in (cell for cell in chosen if cell.cell_type == "code"):
            exec(compile(cell.source, f"notebook {number}", "exec"), names)
        return "\n".join(shown)

    return run


@pytest.mark.parametrize(
    ("verdict", "wanted", "unwanted"),
    [
        (
            told(*["supported"] * 6),
            ["**6 supported** (H1, H2, H3, H4, H5, H6)", "1 place behind", "3 seeds", "other trainings of these places"],
            ["one seed", "not shown to be better"],
        ),
        (
            told("not tested", "undecided", "undecided", "supported", "supported", "undecided", seeds=1),
            [
                "**2 supported** (H4, H5)",
                "**1 not tested** (H1)",
                "Is it fairer (H5)? **Yes, in one training.**",
                "no other training",
                "not shown to be better",
            ],
            ["contradicted"],
        ),
        (
            told("supported", "contradicted", "contradicted", "undecided", "undecided", "contradicted"),
            ["**3 contradicted** (H2, H3, H6)", "Does GDRT rank better than SFT (H3)? **No, the opposite holds.**"],
            ["not shown to be better"],
        ),
        (
            told(*["not tested"] * 6, gates=[{"place": "a model, some data", "passed": False}]),
            ["**6 not tested**", "0 places behind", "not passed", "No place passes the gate"],
            ["supported**", "no other training"],
        ),
        (told(*["not tested"] * 6, gates=[]), ["**6 not tested**", "0 places behind", "no seeds"], ["passed"]),
    ],
    ids=["all supported", "one seed", "contradicted", "below the gate", "no cells yet"],
)
def test_the_stress_tests_report_the_verdicts_that_lie_there(
    say, verdict: dict[str, Any], wanted: list[str], unwanted: list[str]
) -> None:
    shown = say("07", 'predict("07.a"', "How to read the table", verdict)
    assert [text for text in wanted if text not in shown] == []
    assert [text for text in unwanted if text in shown] == []


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["not tested"] * 6, "than SFT does? **This study cannot tell.** Does it rank better? **This study cannot tell.**"),
        (["supported"] * 6, "than SFT does? **Yes, as far as this study reaches.**"),
        (["contradicted"] * 6, "**No, it reads the user less.** Does it rank better? **No, it ranks worse.**"),
    ],
)
def test_the_fine_tuning_notebook_gives_the_same_answer(say, words: list[str], answer: str) -> None:
    assert answer in say("06", "registered = data.data_folder()", "**What the paper reports**", told(*words))


def test_without_any_verdicts_both_say_so(say) -> None:
    empty = {"gates": [], "hypotheses": []}
    assert "No verdicts lie in" in say("06", "registered = data.data_folder()", "**What the paper reports**", empty)


def predictions(source: str) -> tuple[list[str], list[str]]:
    """The ids that the calls of `predict` and of `reveal` in a notebook's code name, in their order."""
    asked, told = [], []
    for call in (
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ):
        if call.func.id == "predict":
            asked.append(ast.literal_eval(call.args[0]))
        elif call.func.id == "reveal":
            told += [ast.literal_eval(key) for key in call.args[0].keys]
    return asked, told


@pytest.mark.parametrize("script", builder.sources(), ids=lambda script: script.stem)
def test_each_prediction_is_kept_and_revealed_once(script: Path) -> None:
    cells = builder.read_source(script).cells
    asked, told = predictions("\n".join(cell.source for cell in cells if cell.cell_type == "code"))
    assert asked == told and len(asked) <= 4
    assert all(re.fullmatch(rf"{script.stem[:2]}\.[a-d]", id) for id in asked)
    if asked:  # and no prompt has no place for an answer
        assert not [cell.source for cell in cells if cell.cell_type == "markdown" and "**Predict" in cell.source]


def test_a_prediction_without_an_outcome_is_seen() -> None:
    assert predictions('predict("05.a", "?", ...)\nreveal({"05.b": f"{x}"})') == (["05.a"], ["05.b"])
