"""The student's edition gives nothing away and runs; the instructor's holds everything; a working copy is never lost."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import build_notebooks as builder  # noqa: E402
import editions  # noqa: E402

from gdrt_lite.course import checks  # noqa: E402

every_notebook = pytest.mark.parametrize("script", builder.sources(), ids=[path.stem for path in builder.sources()])


def executed(script: Path) -> nbformat.NotebookNode:
    return nbformat.read(script.with_suffix(".ipynb"), as_version=4)


def solutions(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if "solution" in builder.tags(cell)]


def lines(cell: nbformat.NotebookNode) -> set[str]:
    return {line.strip() for line in cell.source.splitlines() if line.strip()}


@every_notebook
def test_no_line_of_a_solution_is_left_for_the_student(script: Path) -> None:
    notebook = executed(script)
    public = set().union(*(lines(cell) for cell in notebook.cells if cell not in solutions(notebook)))
    secret = {line for cell in solutions(notebook) for line in lines(cell) - public if not line.startswith("checks.check(")}
    assert secret
    made = editions.student(notebook)
    nbformat.validate(made)
    text = nbformat.writes(made)  # sources, metadata and outputs alike
    kept = set().union(*(lines(cell) for cell in made.cells))
    # A short line may be a part of a longer one that everybody sees.
    assert [line for line in secret if line in kept or (len(line) > 20 and json.dumps(line)[1:-1] in text)] == []
    assert "[passed]" not in text and not solutions(made)
    assert not [cell for cell in made.cells if cell.get("outputs")]
    for cell in notebook.cells:  # and all that is no solution is there
        assert "solution" in builder.tags(cell) or cell.source in [kept.source for kept in made.cells]


@every_notebook
def test_the_instructor_has_every_solution_in_sight_and_what_is_expected(script: Path) -> None:
    notebook = executed(script)
    made = editions.instructor(notebook)
    nbformat.validate(made)
    known = checks.exercises(script.stem[:2])
    answered = [editions.answer_of(cell)[0] for cell in solutions(made)]
    assert sorted(answered) == [exercise.id for exercise in known]
    for id, cell, own in zip(answered, solutions(made), solutions(notebook), strict=True):
        exercise = checks.find(id)
        assert own.source in cell.source and "jupyter" not in cell.metadata
        note = made.cells[made.cells.index(cell) + 1].source
        assert exercise.id in note and exercise.after in note
        assert all(mistake.hint in note for mistake in exercise.mistakes)


@pytest.mark.slow
def test_the_student_s_notebook_runs_to_its_end_and_nothing_passes_by_itself(tmp_path: Path) -> None:
    (script,) = builder.sources(["05"])
    notebook = editions.student(executed(script))
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    builder.execute(notebook, timeout=300, folder=builder.NOTEBOOKS)
    printed = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))
    assert "[passed]" not in printed
    assert len(re.findall(r"\[(?:not yet|to do)\]|05\.\d", printed)) >= len(checks.exercises("05"))


def test_a_solution_that_checks_no_answer_or_two_is_refused() -> None:
    for source in ("x = 1", 'checks.check("05.1", a)\nchecks.check("05.2", b)'):
        with pytest.raises(ValueError, match="must check one"):
            editions.answer_of(nbformat.v4.new_code_cell(source))


def test_a_folded_solution_of_a_working_copy_shows_neither_the_answer_nor_a_verdict() -> None:
    """JupyterLab shows the first line of a folded cell, and the verdict on our answer stands below the learner's own."""
    (script,) = builder.sources(["05"])
    made = editions.folded(executed(script))
    nbformat.validate(made)
    assert len(solutions(made)) == len(solutions(executed(script)))
    for cell, own in zip(solutions(made), solutions(executed(script)), strict=True):
        assert re.fullmatch(r"# Solution 05\.\d", cell.source.splitlines()[0])
        assert (
            cell.source.endswith(own.source.partition("\n")[2])
            and cell.metadata["jupyter"]["source_hidden"]
            and not cell.outputs
        )
    first = next(place for place, cell in enumerate(made.cells) if cell.source.startswith("predict("))
    assert any(cell.get("outputs") for cell in made.cells[:first]), "the card is there to be read"
    assert not any(cell.get("outputs") for cell in made.cells[first:]), "an output shows what is to be predicted"
    (workshop,) = builder.sources(["90"])
    assert not any(cell.get("outputs") for cell in editions.folded(executed(workshop)).cells), "an output shows the verdicts"
    said = solutions(made)[0].source
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(said, {"checks": checks})
    assert printed.getvalue().startswith("The course's own solution:\n[passed] 05.1")
    others = [cell.source for cell in executed(script).cells if "solution" not in builder.tags(cell)]
    assert [cell.source for cell in made.cells if "solution" not in builder.tags(cell)] == others


def test_a_working_copy_follows_the_course_until_its_learner_writes_into_it(tmp_path: Path) -> None:
    course, mine = tmp_path / "course", tmp_path / "work"
    course.mkdir()
    source, copy = course / "05_x.ipynb", mine / "05_x.ipynb"

    def says(text: str) -> bool:
        return copy.exists() and text in copy.read_text()

    def teach(text: str) -> None:
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text, id="a")]), source)

    teach("first")
    assert editions.work(mine, course) == [] and says("first")
    teach("second")
    assert editions.work(mine, course) == [] and says("second")
    copy.write_text("my answer")
    assert editions.work(mine, course) == [] and copy.read_text() == "my answer"
    teach("third")
    for _ in range(2):
        (said,) = editions.work(mine, course)
        assert "05_x.ipynb has changed in the course" in said and copy.read_text() == "my answer"
    copy.rename(mine / "mine.ipynb")
    assert editions.work(mine, course) == [] and says("third")
    copy.unlink()
    assert editions.work(mine, course) == [] and says("third"), "what was deleted comes back"
