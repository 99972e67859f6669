"""The exercises' checks: the framework, and every exercise's stub, solution and mistakes."""

from __future__ import annotations

import ast
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from nbformat import NotebookNode

from gdrt_lite.course import checks
from gdrt_lite.course.checks import Exercise, Mistake, judge
from gdrt_lite.course.checks.compare import difference

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import build_notebooks as builder  # noqa: E402

# --- the framework --------------------------------------------------------------------------------


def _double(x: float) -> float:
    return 2 * x


DOUBLE = Exercise(
    "99.1",
    "Double",
    _double,
    [(1.0,), (3.0,)],
    [Mistake("That squares.", lambda x: x**2), Mistake("That adds two.", lambda x: x + 2)],
    after="Twice as much.",
)
QUIZ = Exercise("99.2", "Which", "b", mistakes=[Mistake("a is the prior.", "a"), Mistake("c is the cost.", "c")])


def test_a_right_answer_passes_and_is_told_what_passed() -> None:
    passed, verdict = judge(DOUBLE, lambda x: x + x)
    assert passed and verdict == "[passed] 99.1 Double: Twice as much."
    assert judge(QUIZ, "b")[0]


@pytest.mark.parametrize("stub", [lambda x: None, lambda x: ..., lambda x: x + ..., None, ...])
def test_a_stub_is_not_done_yet(stub: Any) -> None:
    passed, verdict = judge(DOUBLE, stub)
    assert not passed and verdict.startswith("[not done yet] 99.1 Double")


def test_not_implemented_is_not_done_yet_and_ellipsis_neither() -> None:
    def stub(x: float) -> float:
        raise NotImplementedError

    assert judge(DOUBLE, stub)[1].startswith("[not done yet]")
    assert judge(QUIZ, ...)[1].startswith("[not done yet]")
    assert not judge(DOUBLE, lambda x: None if x > 2 else 2 * x)[1].startswith("[not done yet]")


def test_a_known_mistake_gets_its_hint_alone() -> None:
    assert judge(DOUBLE, lambda x: x * x) == (False, "[not yet] 99.1 Double: That squares.")
    assert judge(DOUBLE, lambda x: 2 + x) == (False, "[not yet] 99.1 Double: That adds two.")
    assert judge(QUIZ, "c") == (False, "[not yet] 99.2 Which: c is the cost.")


def test_an_unknown_mistake_is_shown_its_first_differing_case() -> None:
    passed, verdict = judge(DOUBLE, lambda x: 2 * x if x < 2 else 5.0)
    assert not passed and "case 2 of 2, with (3): the result is 5, expected 6" in verdict
    passed, verdict = judge(QUIZ, "z")
    assert not passed and "z is not right" in verdict and "b" not in verdict.split(), "a quiz does not give its answer away"
    assert judge(QUIZ, " B")[0]


def test_an_exception_is_told_with_type_and_line() -> None:
    def broken(x: float) -> float:
        y = x
        return y / 0

    line = broken.__code__.co_firstlineno + 2
    passed, verdict = judge(DOUBLE, broken)
    assert not passed and f"ZeroDivisionError on line {line} of your cell" in verdict


def test_check_never_raises_and_prints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.check("98.7", 1) is False
    assert "there is no exercise '98.7'" in capsys.readouterr().out
    monkeypatch.setattr(checks, "exercises", lambda notebook: [DOUBLE] if notebook == "99" else [])
    assert checks.check("99.1", sys.exit) is False and "SystemExit" in capsys.readouterr().out
    assert checks.check("99.1", 4.0) is False and "without brackets" in capsys.readouterr().out
    assert checks.check("99.1", _double) is True and "[passed]" in capsys.readouterr().out

    class Odd:
        def __eq__(self, other: object) -> bool:
            raise RuntimeError("no")

        __hash__ = None  # type: ignore[assignment]

    assert checks.check("99.1", lambda x: Odd()) is False


def test_an_answer_cannot_spoil_the_cases() -> None:
    def reference(x: list[int]) -> int:
        return len(x)

    case = [1, 2, 3]
    exercise = Exercise("99.3", "Length", reference, lambda: [(case,)], [Mistake("h", lambda x: 0)])
    assert judge(exercise, lambda x: [x.pop() for _ in range(3)])[0] is False
    assert case == [1, 2, 3] and judge(exercise, len)[0]


def test_an_expected_error_must_be_raised() -> None:
    exercise = Exercise("99.4", "Root", math.sqrt, [(4.0,), (-1.0,)])
    assert judge(exercise, lambda x: math.sqrt(x))[0]
    assert "should raise ValueError" in judge(exercise, lambda x: abs(x) ** 0.5)[1]


@pytest.mark.parametrize(("reference", "cases"), [(_double, []), (3.0, [(1.0,)])])
def test_a_function_needs_cases_and_a_value_none(reference: Any, cases: list) -> None:
    with pytest.raises(ValueError, match="a function needs cases, and a value takes none"):
        Exercise("99.5", "x", reference, cases)


FRAME = pd.DataFrame({"a": [1.0, math.nan], "b": ["x", "y"]})


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        (1.0, 1.00001),
        (0.0, 1e-7),
        (math.nan, math.nan),
        (2, 2.0),
        (2.0, torch.tensor(2.0)),
        (np.float32(0.1), 0.1),
        (torch.tensor([1.0, 2.0]), [1.0, 2.0]),
        ((1, 2), [1, 2]),
        ("ab", "ab"),
        ({"a": [1.0]}, {"a": torch.tensor([1.0])}),
        ([("x", 1.0)], [["x", 1.00001]]),
        (FRAME, FRAME[["b", "a"]]),
        (pd.Series([1, 2]), pd.Series([1.0, 2.0])),
        ({"a", "b"}, {"b", "a"}),
        (torch.tensor([True]), [True]),
        ([], []),
        (torch.ones(2, dtype=torch.bfloat16), [1, 1]),
    ],
)
def test_equal_within_tolerance(expected: Any, answer: Any) -> None:
    assert difference(expected, answer) is None


@pytest.mark.parametrize(
    ("expected", "answer", "words"),
    [
        (1.0, 1.01, "is 1.01, expected 1"),
        (1.0, math.nan, "nan"),
        (0.0, 1e-4, "expected 0"),
        (torch.tensor([1.0, 2.0]), [1.0, 3.0], "the result[1] is 3, expected 2"),
        (torch.ones(2), torch.ones(2, 1), "has shape (2, 1), expected (2,)"),
        ("ab", " ab", "' ab'"),
        (True, 1, "true or false"),
        ({"a": 1}, {}, "no key 'a'"),
        ({}, {"a": 1}, "'a' too many"),
        ({"a": 1}, [1], "is a list, expected a dict"),
        (["a", "b"], ["a"], "has 1 entries, expected 2"),
        (["a", "b"], ["b", "a"], "the result[0]"),
        (pd.Series([1, 2]), pd.Series([1, 2], index=[1, 0]), "index"),
        (FRAME, FRAME.drop(columns="a"), "no key 'a'"),
        (FRAME, FRAME.assign(a=0.0), "['a'][0]"),
        (FRAME, {"a": [1]}, "is a dict, expected a DataFrame"),
        ({1}, {2}, "{2}"),
        (1.0, "1", "'1'"),
        ("b", 1.0, "1.0"),
    ],
)
def test_differences_are_found_and_named(expected: Any, answer: Any, words: str) -> None:
    assert words in (difference(expected, answer) or "")


def test_tolerance_is_relative() -> None:
    assert difference(1000.0, 1000.05) is None and difference(1000.0, 1001.0)
    assert difference(1000.0, 1001.0, tolerance=0.01) is None


# --- every exercise of the course -----------------------------------------------------------------


def found_exercises() -> list[tuple[Path, str]]:
    """Notebook and id of each exercise that the notebooks hold."""
    pairs = []
    for script in builder.sources():
        for cell in builder.read_source(script).cells:
            pairs += [(script, id) for id, _ in builder.EXERCISE.findall(cell.source)]
    return pairs


COURSE = found_exercises()
every_exercise = pytest.mark.parametrize(("script", "id"), COURSE, ids=[id for _, id in COURSE])


def exercise_cells(script: Path, id: str) -> tuple[list[NotebookNode], dict[str, NotebookNode]]:
    """The cells that an exercise may rely on (setup, imports, `needed`), and its own by their tag."""
    cells = builder.read_source(script).cells
    start = next(i for i, c in enumerate(cells) if (m := builder.EXERCISE.search(c.source)) and m[1] == id)
    before = [c for c in cells[:start] if {"setup", "imports", "needed"} & set(builder.tags(c))]
    own = {tag: cell for cell in cells[start : start + 5] for tag in builder.tags(cell)}
    return before, own


def run_until(script: Path, id: str, tag: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The answer that the check cell hands over, after the cell with this tag was run."""
    monkeypatch.chdir(script.parent)
    before, own = exercise_cells(script, id)
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in [*before, own[tag]]:
        file = f"<{script.stem} {tag}>"
        exec(compile(cell.source, file, "exec"), names)  # noqa: S102
    call = ast.parse(own["check"].source.strip().rstrip(";"), mode="eval").body
    assert isinstance(call, ast.Call) and ast.literal_eval(call.args[0]) == id
    return eval(compile(ast.Expression(call.args[1]), "<check>", "eval"), names)  # noqa: S307


@every_exercise
def test_exercise_stub_is_told_that_it_is_not_done(script: Path, id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    passed, verdict = judge(checks.find(id), run_until(script, id, "exercise", monkeypatch))
    assert not passed and verdict.startswith("[not done yet]"), verdict


@every_exercise
def test_exercise_solution_passes(
    script: Path, id: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    passed, verdict = judge(checks.find(id), run_until(script, id, "solution", monkeypatch))
    assert passed, verdict
    assert f"[passed] {id}" in capsys.readouterr().out, "the solution cell ends with its check"


@every_exercise
def test_exercise_mistakes_get_their_own_hints(script: Path, id: str) -> None:
    exercise = checks.find(id)
    heading = [m[2] for c in builder.read_source(script).cells if (m := builder.EXERCISE.search(c.source)) and m[1] == id]
    assert heading == [exercise.title]
    faults = mistake_faults(exercise)
    assert faults == []


def mistake_faults(exercise: Exercise) -> list[str]:
    """Mistakes of an exercise that pass, or are told something other than their own hint; too few of them."""
    faults = [] if len(exercise.mistakes) >= 2 else ["wants at least two mistakes"]
    for mistake in exercise.mistakes:
        passed, verdict = judge(exercise, mistake.wrong)
        if passed:
            faults.append(f"passes: {mistake.hint}")
        elif verdict != f"[not yet] {exercise.id} {exercise.title}: {mistake.hint}":
            faults.append(f"is told {verdict!r} and not {mistake.hint!r}")
        if len(mistake.hint.split()) < 3:
            faults.append(f"says too little: {mistake.hint!r}")
    return faults


def test_every_check_has_its_exercise() -> None:
    listed = [e.id for n in sorted({s.stem[:2] for s, _ in COURSE}) for e in checks.exercises(n)]
    assert sorted(listed) == sorted(id for _, id in COURSE)


def test_useless_mistakes_are_found() -> None:
    assert mistake_faults(Exercise("99.6", "t", _double, [(1.0,), (3.0,)], DOUBLE.mistakes)) == [
        "says too little: 'That squares.'"
    ]
    same = [Mistake("It is two times.", lambda x: 2 * x), Mistake("It is the sum.", lambda x: x + x + 0)]
    assert mistake_faults(Exercise("99.7", "t", _double, [(1.0,)], same)) == [
        "passes: It is two times.",
        "passes: It is the sum.",
    ]
    twins = [Mistake("It is x squared.", lambda x: x**2), Mistake("It is x itself.", lambda x: x)]
    assert len(mistake_faults(Exercise("99.8", "t", _double, [(1.0,)], twins))) == 1
    assert mistake_faults(Exercise("99.9", "t", "b", mistakes=[])) == ["wants at least two mistakes"]


def test_the_cells_that_an_exercise_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A solution that leans on a cell not tagged `needed` fails; tagged, it works."""
    script = tmp_path / "05_x.py"
    text = (
        '# %% tags=["imports"]\nimport math\n# %%{tag}\nk = 2\n# %% [markdown]\n# ### Exercise 05.1 · Half\n'
        '# %% tags=["exercise"]\nf = ...\n# %% tags=["check"]\nchecks.check("05.1", f)\n'
        "# %% [markdown]\n# hints\n"
        '# %% tags=["solution"]\nf = math.sqrt(k)\n'
    )
    script.write_text(text.format(tag=' tags=["needed"]'), encoding="utf-8")
    assert run_until(script, "05.1", "exercise", monkeypatch) is ...
    assert run_until(script, "05.1", "solution", monkeypatch) == math.sqrt(2)
    script.write_text(text.format(tag=""), encoding="utf-8")
    with pytest.raises(NameError, match="'k'"):
        run_until(script, "05.1", "solution", monkeypatch)
    assert os.getcwd() == str(tmp_path)
