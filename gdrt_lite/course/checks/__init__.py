"""The exercises' checks: an answer against a reference, case by case, with a hint for each known mistake.

`check("05.1", answer)` prints what it sees and never raises. The exercises of notebook NN live in
`gdrt_lite.checks.nbNN`.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gdrt_lite.course.checks.compare import difference, materialise, show

__all__ = ["Exercise", "Mistake", "check", "exercises", "find"]

Cases = Sequence[tuple[Any, ...]]


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that learners give, and what to tell them.

    Attributes:
        hint: one or two sentences: what is wrong and where to look, without the solution.
        wrong: the wrong function or value; an answer that behaves like it on every case gets the hint.
    """

    hint: str
    wrong: Any


@dataclass(frozen=True)
class Exercise:
    """One exercise: its reference, the cases that try an answer, and the mistakes known.

    Attributes:
        id: notebook and number, e.g. "05.1".
        title: as in the notebook's heading.
        reference: the right function, or the right value.
        cases: argument tuples of a function (or a function that makes them); empty for a value.
        mistakes: at least two; each must differ from the reference, and from each other, on some case.
        tolerance: relative; see `compare.difference`.
        after: a sentence printed when the answer passes: what it means.
    """

    id: str
    title: str
    reference: Any
    cases: Cases | Callable[[], Cases] = ()
    mistakes: Sequence[Mistake] = field(default=())
    tolerance: float = 1e-4
    after: str = ""

    def __post_init__(self) -> None:
        if callable(self.reference) != bool(self.cases):
            raise ValueError(f"exercise {self.id}: a function needs cases, and a value takes none")

    def inputs(self) -> list[tuple[Any, ...]]:
        """The cases; one empty case for a value."""
        made = self.cases() if callable(self.cases) else self.cases
        return [tuple(case) for case in made] or [()]


@dataclass(frozen=True)
class _Failed:
    """A call that raised: what, and on which line of the answer (None if outside of it)."""

    error: BaseException
    line: int | None

    def __str__(self) -> str:
        place = "" if self.line is None else f" on line {self.line} of your cell"
        return f"{type(self.error).__name__}{place}: {self.error}".rstrip(": ")


def exercises(notebook: str) -> list[Exercise]:
    """The exercises of a notebook, e.g. "05"; none if it has no checks. Raises what its module raises."""
    name = f"{__name__}.nb{notebook}"
    return list(importlib.import_module(name).EXERCISES) if importlib.util.find_spec(name) else []


def find(id: str) -> Exercise:
    """The exercise of that id, e.g. "05.1". Raises ValueError if there is none."""
    known = exercises(str(id).split(".")[0])
    for exercise in known:
        if exercise.id == id:
            return exercise
    raise ValueError(f"there is no exercise {id!r}; this notebook has {[e.id for e in known] or 'none'}")


def check(id: str, answer: Any) -> bool:
    """Compare an answer with an exercise's reference, print the verdict, say if it passed. Never raises."""
    try:
        passed, verdict = judge(find(id), answer)
    except Exception as error:  # a broken check must not stop the learner's notebook
        passed, verdict = False, f"[cannot check] {id}: {type(error).__name__}: {error}"
    print(verdict)
    return passed


def judge(exercise: Exercise, answer: Any) -> tuple[bool, str]:
    """Whether an answer passes, and the verdict in words."""
    name = f"{exercise.id} {exercise.title}"
    is_function = callable(exercise.reference)
    if isinstance(answer, str):
        answer = answer.strip().lower()
    if answer is None or answer is ...:
        return False, _not_done(name)
    if is_function and not callable(answer):
        return False, f"[not yet] {name}: give the function itself, without brackets; this is {show(answer)}."
    inputs = exercise.inputs()

    def outcomes(source: Any) -> list[Any]:
        return [_outcome(source if is_function else _constant(source), case) for case in inputs]

    expected, got = outcomes(exercise.reference), outcomes(answer)
    if is_function and _is_stub(got, expected):
        return False, _not_done(name)
    wrong = [_differ(e, g, exercise.tolerance) for e, g in zip(expected, got)]
    if not any(wrong):
        return True, f"[passed] {name}: {_what_passed(exercise, inputs)} {exercise.after}".rstrip()
    for mistake in exercise.mistakes:
        if not any(_differ(like, g, exercise.tolerance) for like, g in zip(outcomes(mistake.wrong), got)):
            return False, f"[not yet] {name}: {mistake.hint}"
    if not is_function:  # without what was expected: that would be the answer
        return (
            False,
            f"[not yet] {name}: {show(answer)} is not right, and no mistake that is known here. Open the hints below.",
        )
    first = next(i for i, found in enumerate(wrong) if found)
    return False, f"[not yet] {name}: case {first + 1} of {len(inputs)}, with {_arguments(inputs[first])}: {wrong[first]}."


def _outcome(function: Callable[..., Any], case: tuple[Any, ...]) -> Any:
    """The function's result on a copy of the case, or how it failed."""
    try:
        return materialise(function(*copy.deepcopy(case)))
    except (Exception, SystemExit) as error:
        own = getattr(getattr(function, "__code__", None), "co_filename", None)
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == own]
        return _Failed(error, lines[-1] if lines else None)


def _differ(expected: Any, got: Any, tolerance: float) -> str | None:
    if isinstance(got, _Failed):
        same = isinstance(expected, _Failed) and type(expected.error) is type(got.error)
        return None if same else f"it stops with {got}"
    if isinstance(expected, _Failed):
        return f"it returns {show(got)}, but should raise {type(expected.error).__name__}"
    return difference(expected, got, tolerance)


def _is_stub(got: list[Any], expected: list[Any]) -> bool:
    """Raises NotImplementedError, stumbles over a `...` left in it, or returns None or `...` everywhere."""
    for outcome in got:
        if isinstance(outcome, _Failed):
            error = outcome.error
            if isinstance(error, NotImplementedError):
                return True
            if isinstance(error, (TypeError, AttributeError)) and "ellipsis" in str(error):
                return True
    return all(outcome is None or outcome is ... for outcome in got) and any(e is not None for e in expected)


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def _not_done(name: str) -> str:
    return f"[not done yet] {name}: write your answer in the cell above, run it, then run this check again."


def _what_passed(exercise: Exercise, inputs: list[tuple[Any, ...]]) -> str:
    if not callable(exercise.reference):
        return "that is right."  # without the value: a stored notebook shows this line, the answer stays folded
    count = f"{len(inputs)} of {len(inputs)}"
    return f"{count} cases agree with the reference, the last with {_arguments(inputs[-1], 60)}."


def _arguments(case: tuple[Any, ...], width: int = 120) -> str:
    return "(" + ", ".join(repr(a) if isinstance(a, str) else show(a, width) for a in case) + ")"
