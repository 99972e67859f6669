"""The exercises' checks: an answer against a reference, case by case, with a hint for each known mistake.

`check("05.1", answer)` prints what it sees and never raises. The exercises of notebook NN live in
`gdrt_lite.checks.nbNN`.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import itertools
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from gdrt_lite.course.checks.compare import difference, materialise, show

__all__ = ["Exercise", "Mistake", "check", "exercises", "find", "yours"]

Cases = Sequence[tuple[Any, ...]]
_MUTABLE = (pd.DataFrame, pd.Series, np.ndarray, torch.Tensor, list, dict, set)
_AROUND_A_WORD = " \t\n().:;,*\"'`"  # "(c)" and "c." mean c


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
        gradient: number of the argument, a tensor, by which the result is differentiated; the gradient is compared then,
            and not the value, since training follows the gradient alone.
        view: what of an answer is compared, where many answers are right: for example the verdict on a world.
    """

    id: str
    title: str
    reference: Any
    cases: Cases | Callable[[], Cases] = ()
    mistakes: Sequence[Mistake] = field(default=())
    tolerance: float = 1e-4
    after: str = "that is right."
    gradient: int | None = None
    view: Callable[[Any], Any] = materialise

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


_learners: dict[str, Any] = {}  # the answers that have passed, for `yours`


def check(id: str, answer: Any, *, ours: bool = False) -> bool:
    """Compare an answer with an exercise's reference, print the verdict, say if it passed. Never raises.

    An answer that passes is kept for `yours`, unless it is ours: that of a solution cell.
    """
    try:
        passed, verdict = judge(find(id), answer)
        if passed and not ours:
            _learners[id] = answer
    except Exception as error:  # a broken check must not stop the learner's notebook
        passed, verdict = False, f"[cannot check] {id}: {type(error).__name__}: {error}"
    print(verdict)
    return passed


def yours(id: str) -> Any:
    """The learner's answer to an exercise if one has passed its check, else the reference; says which."""
    done = id in _learners
    whose = (
        f"your last answer to exercise {id} that passed"
        if done
        else f"our answer to exercise {id}, since yours is not done yet"
    )
    print(f"Going on with {whose}.")
    return _learners[id] if done else find(id).reference


def judge(exercise: Exercise, answer: Any) -> tuple[bool, str]:
    """Whether an answer passes, and the verdict in words."""
    name = f"{exercise.id} {exercise.title}"
    is_function = callable(exercise.reference)
    if answer is None or answer is ...:
        return False, _not_done(name)
    if is_function and not callable(answer):
        return False, f"[not yet] {name}: give the function itself, without brackets; this is {show(answer)}."
    inputs = exercise.inputs()

    def outcomes(source: Any, given: Cases) -> list[Any]:
        return [_outcome(source if is_function else lambda: source, case, exercise) for case in given]

    given = _copies(inputs)
    expected, got = outcomes(exercise.reference, _copies(inputs)), outcomes(answer, given)
    if is_function and _is_stub(got, expected):
        return False, _not_done(name) + " A function whose last line prints needs a `return`." * all(g is None for g in got)
    wrong = [_differ(e, g, exercise.tolerance) for e, g in zip(expected, got)]
    if not any(wrong) and (changed := _changed(inputs, given)):
        told = f"right, but it changes the {changed} that it is given, and later cells use that again. Work on a copy."
        return False, f"[not yet] {name}: {told}"
    if not any(wrong):
        return True, f"[passed] {name}: {exercise.after}"
    for mistake in exercise.mistakes:
        if not any(_differ(like, g, exercise.tolerance) for like, g in zip(outcomes(mistake.wrong, _copies(inputs)), got)):
            return False, f"[not yet] {name}: {mistake.hint}"
    if not is_function:  # without what was expected: that would be the answer
        told = f"{show(answer)} is not right, and no mistake that is known here. Open the hints below."
        return False, f"[not yet] {name}: {told}"
    first = next(i for i, found in enumerate(wrong) if found)
    return False, f"[not yet] {name}: case {first + 1} of {len(inputs)}, with {_arguments(inputs[first])}: {wrong[first]}."


def _outcome(function: Callable[..., Any], case: tuple[Any, ...], exercise: Exercise) -> Any:
    """The function's result on a case (a word without case and punctuation), or how it failed."""
    try:
        if exercise.gradient is None:
            result = exercise.view(function(*case))
            return result.strip(_AROUND_A_WORD).lower() if isinstance(result, str) else result
        leaf = case[exercise.gradient].requires_grad_()
        value = function(*case)
        return value if value is None or value is ... else _gradient(value, leaf)
    except (Exception, SystemExit) as error:
        own = getattr(getattr(function, "__code__", None), "co_filename", None)
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == own]
        return _Failed(error, lines[-1] if lines else None)


def _copies(cases: Cases) -> Cases:
    """Each argument copied on its own: two equal ones must not become one object."""
    return [tuple(copy.deepcopy(argument) for argument in case) for case in cases]


def _changed(inputs: Cases, given: Cases) -> str | None:
    """The kind of the first argument that the calls changed; None if they changed none."""
    for before, after in zip(itertools.chain(*inputs), itertools.chain(*given)):
        if isinstance(before, _MUTABLE) and difference(before, after, 0.0):
            return type(before).__name__
    return None


class NoGradientError(TypeError):
    """A loss that cannot be trained with."""


def _gradient(value: Any, leaf: Any) -> Any:
    if not getattr(value, "requires_grad", False):
        raise NoGradientError("the result carries no gradient; return a tensor made from the losses, without .item()")
    return torch.autograd.grad(value, leaf, allow_unused=True, materialize_grads=True)[0]


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


def _not_done(name: str) -> str:
    return f"[not done yet] {name}: write your answer in the cell above, run it, then run this check again."


def _arguments(case: tuple[Any, ...]) -> str:
    return "(" + ", ".join(repr(a) if isinstance(a, str) else show(a, 500) for a in case) + ")"
