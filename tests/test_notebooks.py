"""The committed course: pairs agree, outputs are of these sources, budgets and prose keep their rules.

Each rule is a function that lists what it finds, so that tests can also show that it finds something.
"""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from matplotlib.image import imread
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import build_notebooks as builder  # noqa: E402
import setup_cell  # noqa: E402

from gdrt_lite.course import notebook as helpers  # noqa: E402

SCRIPTS = builder.sources()
MAX_BYTES = 1_500_000
every_notebook = pytest.mark.parametrize("script", SCRIPTS, ids=[path.stem for path in SCRIPTS])

# What may hold a decimal or a percentage without being a measurement: code, formulas, links, names.
_EXEMPT = [
    r"```.*?```",
    r"`[^`\n]*`",
    r"\$\$.*?\$\$",
    r"\$[^$\n]*\$",
    r"\]\([^)]*\)",
    r"<[^>]*>",
    r"https?://\S+",
    r"(?i:exercises?)\s+\d\d\.\d+(?:(?:,| and)\s+\d\d\.\d+)*",
    r"95%\s+intervals?",  # the level, a convention
    r"arXiv[: ]\d{4}\.\d{5}",
    r"Python 3\.\d+",
    r"(?i:section)\s+\d\.\d+",
]
_MEASURED = re.compile(r"\d+[.,]\d+|\d\s?%|\d\s(?:percent|per cent)")


def measured_numbers(cell: NotebookNode) -> list[str]:
    """Decimals and percentages in a markdown cell: figures for `say` to render, since they would go stale.

    Code, maths, links, exercise numbers, arXiv ids and versions may hold them. Cells tagged `paper` quote the
    paper; cells tagged `definition` define, or work an example whose numbers were chosen. Neither states a
    measurement of ours.
    """
    if cell.cell_type != "markdown" or {"paper", "definition"} & set(builder.tags(cell)):
        return []
    text = cell.source
    for pattern in _EXEMPT:
        text = re.sub(pattern, " ", text, flags=re.DOTALL)
    return _MEASURED.findall(text)


def figure_faults(cell: NotebookNode) -> list[str]:
    """Figures among a cell's outputs without alt text, or with a background that lets the page through."""
    faults = []
    for output in cell.get("outputs", []):
        data, metadata = output.get("data", {}), output.get("metadata", {})
        if "image/png" in data:
            if len(metadata.get("image/png", {}).get("alt", "").split()) < 4:
                faults.append("an image has no alt text of at least four words")
            pixels = imread(io.BytesIO(base64.b64decode(data["image/png"])), format="png")
            if pixels.ndim == 3 and pixels.shape[2] == 4 and np.min(pixels[..., 3]) < 1:
                faults.append("an image has a transparent background")
        faults += ["an SVG or JPEG: show figures with plots.show"] * len({"image/svg+xml", "image/jpeg"} & set(data))
        for tag in re.findall(r"<img\b[^>]*>", "".join(data.get("text/html", ""))):
            if not re.search(r'\balt="[^"]+"', tag):
                faults.append("an <img> has no alt text")
    return faults


def error_outputs(notebook: NotebookNode) -> list[str]:
    """Names of the exceptions kept among the outputs."""
    return [o.ename for c in notebook.cells for o in c.get("outputs", []) if o.output_type == "error"]


def noise(notebook: NotebookNode) -> list[str]:
    """Outputs that the builder should have dropped: stderr, progress bars, widgets."""
    return [o.output_type for c in notebook.cells for o in c.get("outputs", []) if builder.is_noise(o)]


def frame_faults(notebook: NotebookNode, number: str) -> list[str]:
    """What is missing of title, setup, card, imports and recap."""
    cells, faults = notebook.cells, []
    title = cells[0].source.splitlines()[0]
    if cells[0].cell_type != "markdown" or not title.startswith("# ") or not title.endswith("?"):
        faults.append("the first cell is no title that ends in a question mark")
    tagged = {tag: [c.source for c in cells if tag in builder.tags(c)] for tag in ("setup", "card", "imports")}
    if tagged["setup"] != [setup_cell.SETUP.strip()]:
        faults.append("there is not one setup cell with the common text (python scripts/setup_cell.py)")
    if tagged["card"] != [f'card("{number}")']:
        faults.append(f'there is not one cell tagged card that holds card("{number}")')
    if len(tagged["imports"]) != 1:
        faults.append("there is not one cell tagged imports")
    if not any(c.cell_type == "markdown" and c.source.startswith("## Recap") for c in cells[-4:]):
        faults.append("none of the last four cells opens with ## Recap")
    return faults


def exercise_faults(notebook: NotebookNode) -> list[str]:
    """Exercises that are not: heading and effort, starter, check, hints in folds, folded solution."""
    cells, faults = notebook.cells, []
    starts = [i for i, c in enumerate(cells) if c.cell_type == "markdown" and builder.EXERCISE.search(c.source)]
    for i in starts:
        id = builder.EXERCISE.search(cells[i].source)[1]
        five = cells[i : i + 5]
        kinds = [next(iter(set(builder.tags(c)) & {"exercise", "check", "solution"}), c.cell_type) for c in five]
        if kinds != ["markdown", "exercise", "check", "markdown", "solution"]:
            faults.append(f"{id}: wants heading, exercise, check, hints, solution; has {kinds}")
            continue
        if not builder.EFFORT.search(five[0].source):
            faults.append(f"{id}: no line *Difficulty n/5 · importance n/5 · n minutes*")
        if "<details>" not in five[3].source or "<summary>" not in five[3].source:
            faults.append(f"{id}: no hint in a fold")
        if not five[4].metadata.get("jupyter", {}).get("source_hidden"):
            faults.append(f"{id}: the solution is not folded")
        if not five[4].source.startswith(f"# Solution {id}\n"):  # what a folded cell shows
            faults.append(f"{id}: the first line of the solution is not its number")
        if any(f'checks.check("{id}"' not in five[j].source for j in (2, 4)):
            faults.append(f"{id}: the check or the solution does not call checks.check of this id")
    tagged = sum(bool({"exercise", "check", "solution"} & set(builder.tags(c))) for c in cells)
    if tagged != 3 * len(starts):
        faults.append(f"{tagged} cells tagged exercise, check or solution for {len(starts)} headings")
    if len(starts) < 2:
        faults.append(f"{len(starts)} exercises; at least two are wanted")
    return faults


def over_budget(seconds: dict[str, float]) -> list[str]:
    """Notebooks (and their total) that took more than three times their budget."""
    limits = {**helpers.BUDGETS, "total": helpers.TOTAL_BUDGET}
    table = {**seconds, "total": sum(seconds.values())}
    return [f"{n}: {s:.0f} s of {limits[n]}" for n, s in table.items() if s > builder.SLACK * limits[n]]


# --- the course as it is --------------------------------------------------------------------------


def _executed(script: Path) -> NotebookNode:
    return nbformat.read(script.with_suffix(".ipynb"), as_version=4)


@every_notebook
def test_pair_agrees_and_outputs_belong_to_the_sources(script: Path) -> None:
    assert builder.stale(script) is None, f"python scripts/build_notebooks.py {script.stem[:2]}"


@every_notebook
def test_pair_is_executed_clean_and_small(script: Path) -> None:
    executed = _executed(script)
    nbformat.validate(executed)
    assert error_outputs(executed) == [] and noise(executed) == []
    ran = [c.execution_count for c in executed.cells if c.cell_type == "code" and c.source.strip()]
    assert ran == list(range(1, len(ran) + 1)), "run top to bottom in a fresh kernel"
    assert script.with_suffix(".ipynb").stat().st_size < MAX_BYTES
    assert executed.metadata.execution.timeout == builder.SLACK * helpers.BUDGETS[script.stem[:2]]
    assert executed.metadata.gdrt_lite.profile == "quick"


@every_notebook
def test_frame_exercises_and_prose(script: Path) -> None:
    source = builder.read_source(script)
    assert frame_faults(source, script.stem[:2]) == []
    assert exercise_faults(source) == []
    assert {c.source[:60]: found for c in source.cells if (found := measured_numbers(c))} == {}


@every_notebook
def test_figures_have_alt_text_and_opaque_background(script: Path) -> None:
    assert {c.source[:60]: found for c in _executed(script).cells if (found := figure_faults(c))} == {}


@every_notebook
def test_card_shows_what_was_measured(script: Path) -> None:
    number, executed = script.stem[:2], _executed(script)
    measured = helpers.runtimes(script.parent)[number]
    assert measured["seconds"] == executed.metadata.gdrt_lite.seconds
    shown = [o.data["text/markdown"] for c in executed.cells if "card" in builder.tags(c) for o in c.outputs]
    assert shown == [helpers.card_text(number, script.parent)]


def test_measured_minutes_keep_the_budgets() -> None:
    assert over_budget({path.stem[:2]: _executed(path).metadata.gdrt_lite.seconds for path in SCRIPTS}) == []


def test_the_course_has_its_exercises_once_complete() -> None:
    numbers = [path.stem[:2] for path in SCRIPTS]
    assert len(set(numbers)) == len(numbers) and set(numbers) <= set(helpers.BUDGETS)
    orphans = {p.stem for p in builder.NOTEBOOKS.glob("*.ipynb")} - {p.stem for p in SCRIPTS}
    assert orphans == set(), "an .ipynb without its .py"
    cells = [cell for path in SCRIPTS for cell in builder.read_source(path).cells]
    ids = [found[0] for cell in cells for found in builder.EXERCISE.findall(cell.source)]
    assert len(set(ids)) == len(ids)
    if set(numbers) == set(helpers.BUDGETS):
        assert len(ids) >= 25


# --- the rules find what they are for -------------------------------------------------------------

# One white pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC"


@pytest.mark.parametrize(
    "prose",
    [
        "NDCG rose to 0.123.",
        "It keeps 31% of the list",
        "about 31 % less",
        "it took 100,004 ratings",
        "ten, or 10 percent",
    ],
)
def test_a_measurement_in_prose_is_found(prose: str) -> None:
    assert measured_numbers(new_markdown_cell(prose))
    assert not measured_numbers(new_code_cell(prose))
    assert not measured_numbers(new_markdown_cell(prose, metadata={"tags": ["paper"]}))


@pytest.mark.parametrize(
    "prose",
    [
        "Use `tau=0.5`.",
        "$0.5$ and $$0.1\n+0.2$$",
        "### Exercise 05.1 · Weights",
        "see exercises 05.1 and 05.2",
        "[v](https://a.b/1.2)",
        "```\nx = 0.5\n```",
        "arXiv 2510.10978",
        "## 1. By hand",
        "top 10, in 2 steps",
    ],
)
def test_names_code_and_formulas_are_no_measurement(prose: str) -> None:
    assert not measured_numbers(new_markdown_cell(prose))


def _shown(**kept: object) -> NotebookNode:
    return new_code_cell("", outputs=[new_output("display_data", **kept)])


def test_figures_without_alt_text_are_found() -> None:
    alt = {"image/png": {"alt": "loss falls with steps"}}
    assert figure_faults(_shown(data={"image/png": PNG}, metadata=alt)) == []
    assert figure_faults(_shown(data={"image/png": PNG}))
    assert figure_faults(_shown(data={"text/html": "<img src='x'>"}))
    assert figure_faults(_shown(data={"text/html": "<img src='x' alt=\"the loss\">"})) == []
    assert figure_faults(_shown(data={"image/svg+xml": "<svg/>"}))
    from matplotlib.image import imsave

    clear = io.BytesIO()
    imsave(clear, np.zeros((2, 2, 4)), format="png")
    assert figure_faults(_shown(data={"image/png": base64.b64encode(clear.getvalue()).decode()}, metadata=alt))


def test_errors_and_noise_are_found() -> None:
    failed = new_code_cell("", outputs=[new_output("error", ename="ValueError", evalue="", traceback=[])])
    kept = [new_output("stream", name="stdout", text=text) for text in ("a\n", "b\n")]
    dropped = [
        new_output("stream", name="stderr", text="a warning"),
        new_output("stream", name="stdout", text=" 50%|#### "),
        new_output("display_data", data={"text/plain": "  0%|          | 0/10"}),
        new_output("display_data", data={builder.WIDGET: {"model_id": "1"}, "text/plain": "HBox()"}),
    ]
    notebook = new_notebook(cells=[failed, new_code_cell("", outputs=[*dropped, *kept])])
    notebook.cells[1].metadata["execution"] = {"iopub.execute_input": "now"}
    assert error_outputs(notebook) == ["ValueError"] and len(noise(notebook)) == 4
    builder.clean(notebook)
    assert noise(notebook) == [] and notebook.cells[1].metadata == {}
    assert [o.text for o in notebook.cells[1].outputs] == ["a\nb\n"], "neighbouring pieces are one"


def test_a_missed_budget_is_found() -> None:
    assert over_budget({"05": 360.0, "06": 1080.0}) == []
    assert over_budget({"05": 361.0}) == ["05: 361 s of 120"]
    assert [line[:5] for line in over_budget({f"{n:02}": s for n, s in enumerate([360] * 6 + [1080, 540])})] == ["total"]


MINIMAL = """\
# %% [markdown]
# # Does it work?

# %% tags=["setup"]
{setup}
# %% tags=["card"]
card("05")

# %% tags=["imports"]
import math
{exercises}
# %% [markdown]
# ## Recap
"""
ONE_EXERCISE = """
# %% [markdown]
# ### Exercise 05.{n} · Half
#
# *Difficulty 1/5 · importance 2/5 · 3 minutes*

# %% tags=["exercise"]
half = ...

# %% tags=["check"]
checks.check("05.{n}", half)

# %% [markdown]
# <details><summary>Too large</summary>
#
# Divide.
# </details>

# %% tags=["solution"] jupyter={{"source_hidden": true}}
# Solution 05.{n}
half = 1 / 2
checks.check("05.{n}", half)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A small notebook that follows every rule."""
    path = tmp_path / "05_small.py"
    both = ONE_EXERCISE.format(n=1) + ONE_EXERCISE.format(n=2)
    path.write_text(MINIMAL.format(setup=setup_cell.SETUP, exercises=both), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("work?", "work"),
        ("import os, subprocess", "import os"),
        ('card("05")', 'card("06")'),
        ("## Recap", "## End"),
        ('tags=["imports"]', ""),
    ],
)
def test_a_broken_frame_is_found(script: Path, old: str, new: str) -> None:
    assert frame_faults(builder.read_source(script), "05") == []
    script.write_text(script.read_text("utf-8").replace(old, new), encoding="utf-8")
    assert len(frame_faults(builder.read_source(script), "05")) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("*Difficulty 1/5", "*Hard"),
        ("<details>", ""),
        ('jupyter={"source_hidden": true}', ""),
        ('tags=["check"]', ""),
        ('checks.check("05.1"', 'checks.check("05.9"'),
        ("### Exercise 05.2", "### Task"),
        ("# Solution 05.1\n", ""),
    ],
)
def test_a_broken_exercise_is_found(script: Path, old: str, new: str) -> None:
    assert exercise_faults(builder.read_source(script)) == []
    script.write_text(script.read_text("utf-8").replace(old, new), encoding="utf-8")
    assert exercise_faults(builder.read_source(script))


def test_a_pair_out_of_date_is_found(script: Path) -> None:
    assert builder.stale(script) == "is missing"
    pair = builder.read_source(script)
    pair.metadata["gdrt_lite"] = {"source_hash": builder.source_hash(pair)}

    def stale_after(change: object) -> str | None:
        copy = nbformat.from_dict(json.loads(json.dumps(pair)))
        change(copy)  # type: ignore[operator]
        nbformat.write(copy, script.with_suffix(".ipynb"))
        return builder.stale(script)

    assert stale_after(lambda nb: [cell.update(id=f"x{i}") for i, cell in enumerate(nb.cells)]) is None
    assert "kind, source or tags" in str(stale_after(lambda nb: nb.cells[0].update(source="# Other?")))
    assert "kind, source or tags" in str(stale_after(lambda nb: nb.cells[2].metadata.update(tags=[])))
    assert "kind, source or tags" in str(stale_after(lambda nb: nb.cells[0].update(cell_type="raw")))
    assert "other sources" in str(stale_after(lambda nb: nb.metadata.gdrt_lite.update(source_hash="0")))


def test_cell_ids_follow_from_the_contents(script: Path) -> None:
    before = [cell.id for cell in builder.read_source(script).cells]
    script.write_text("# %% [markdown]\n# # First?\n\n" + script.read_text("utf-8"), encoding="utf-8")
    after = [cell.id for cell in builder.read_source(script).cells]
    assert len(set(after)) == len(after)
    assert after[1:] == before, "a cell put in front renames no other"


def test_an_unknown_notebook_is_named(script: Path) -> None:
    assert builder.sources(["05"], script.parent) == [script]
    with pytest.raises(ValueError, match="no notebook begins with '99'"):
        builder.sources(["99"], script.parent)


def test_profiles_and_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GDRT_PROFILE", raising=False)
    assert helpers.pick(quick=1, standard=2, full=3) == 1
    monkeypatch.setenv("GDRT_PROFILE", "full")
    assert helpers.pick(quick=1, standard=2, full=3) == 3
    monkeypatch.setenv("GDRT_PROFILE", "fast")
    with pytest.raises(ValueError, match="GDRT_PROFILE is 'fast'.*quick, standard, full"):
        helpers.profile()
    monkeypatch.setenv("GDRT_PROFILE", "quick")
    assert "not measured yet" in helpers.card_text("05", tmp_path)
    builder.record(tmp_path, "05", {"seconds": 100.0, "cores": 2, "words": 400, "exercises": 3, "exercise_minutes": 25})
    text = helpers.card_text("05", tmp_path)
    assert "measured on 2 cores | 2 minutes" in text and "3, about 25 minutes" in text and "T4 | not measured" in text
    with pytest.raises(ValueError, match="no notebook '42'"):
        helpers.card_text("42", tmp_path)


def test_predictions_stand_beside_their_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(helpers, "_display", shown.append)
    monkeypatch.setattr(helpers, "_predictions", {})
    helpers.predict("00.a", "How many titles?", 7)
    helpers.predict("00.b", "Which is larger, |A| or A?", "the first | both")
    helpers.predict("00.c", "How often?", 0)  # zero is an answer
    assert "Noted: **7**" in shown[0] and "in place of the dots" not in "".join(shown)
    for left_open in (..., None, " "):
        helpers.predict("00.d", "Left open?", left_open)
        assert "in place of the dots" in shown.pop()
    helpers.reveal({"00.a": 9, "00.b": "A", "00.c": 0.5, "00.d": "yes", "00.e": "the cell was not run"})
    rows = [row.split(" | ") for row in shown[-1].splitlines()[2:]]
    assert [row[-2] for row in rows] == ["7", "the first \\| both", "0", "-", "-"]
    assert [row[-1] for row in rows] == ["9 |", "A |", "0.5 |", "yes |", "the cell was not run |"]
    assert rows[1][1] == "Which is larger, \\|A\\| or A?"
    helpers.predict("00.a", "How many titles?", 8)  # a cell that is run again replaces its prediction
    assert "| 8 | 9 |" in helpers.reveal_text({"00.a": 9})


def test_html_folds_hidden_code_under_its_own_name(tmp_path: Path) -> None:
    cells = [
        new_code_cell("answer = 1", metadata={"tags": ["solution"], "jupyter": {"source_hidden": True}}),
        new_code_cell("wording = 2", metadata={"jupyter": {"source_hidden": True}}),
        new_code_cell("open_code = 3"),
    ]
    path = tmp_path / "00_small.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    text = builder.export_html(path, tmp_path).read_text(encoding="utf-8")
    folds = re.findall(r"<details><summary[^>]*>(\w+)</summary>(.*?)</details>", text, re.DOTALL)
    assert [name for name, _ in folds] == ["Solution", "Code"]
    assert "answer" in folds[0][1] and "wording" in folds[1][1]
    assert "open_code" in text and "open_code" not in folds[0][1] + folds[1][1]
