"""The exercises' checks: the framework, and every exercise's stub, solution and mistakes."""

from __future__ import annotations

import ast
import itertools
import math
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from nbformat import NotebookNode
from scipy import stats

from gdrt_lite.course import checks
from gdrt_lite.course.checks import Exercise, Mistake, judge
from gdrt_lite.course.checks.compare import difference, materialise
from gdrt_lite.objectives import Objective

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


def test_an_answer_that_prints_is_told_of_the_return() -> None:
    assert "needs a `return`" in judge(DOUBLE, lambda x: print(2 * x))[1]
    assert "needs a `return`" not in judge(DOUBLE, lambda x: ...)[1]


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


def in_other_forms(result: Any) -> list[Any]:
    """A right result as learners may write it: five forms of a number, an array, a word, a set or a dict."""
    if isinstance(result, Mapping):
        items = list(result.items())
        return [dict(reversed(items)), pd.Series(dict(items)), {k: np.float64(v) for k, v in items},
                {k: torch.tensor(v) for k, v in items}, defaultdict(int, items)]  # fmt: skip
    if isinstance(result, str):
        return [result.upper(), f"({result})", f"{result}.", f" {result}\n", f"'{result}'"]
    if isinstance(result, (set, frozenset)):
        return [set(sorted(result)), frozenset(result), set(result), result | set(), {*result}]
    if isinstance(result, tuple) and result and isinstance(result[0], torch.Tensor):
        rows = [part.detach().double() for part in result]
        return [
            rows,
            tuple(part.numpy() for part in rows),
            [part.tolist() for part in rows],
            tuple(rows),
            (part for part in rows),
        ]
    try:
        array = np.array(result.detach() if isinstance(result, torch.Tensor) else result, dtype=float)
    except (TypeError, ValueError):  # windows: pairs of a history and a title
        pairs = [(list(history), target) for history, target in result]
        return [
            pairs,
            tuple(pairs),
            [list(pair) for pair in pairs],
            (pair for pair in pairs),
            [(tuple(h), t) for h, t in pairs],
        ]
    series = [pd.Series(array)] if array.ndim == 1 and array.size else [array.astype(np.float64)]
    return [array, array.tolist(), torch.tensor(array), torch.tensor(array, dtype=torch.float32), *series]


def _kth_form(reference: Callable[..., Any], k: int) -> Callable[..., Any]:
    return lambda *case: in_other_forms(reference(*case))[k]


def _log_sum_exp(token_losses: torch.Tensor, ids: torch.Tensor, k: int, objective: str, tau: float) -> torch.Tensor:
    """Another formula of 06.2 for each objective: means of sums by matrix product, and the value of the maximum."""
    member = torch.nn.functional.one_hot(ids, k).to(token_losses).T
    mean = (member @ token_losses)[member.sum(1) > 0] / member.sum(1)[member.sum(1) > 0]
    return {
        "sft": token_losses.sum() / len(ids),
        "balanced": mean.sum() / len(mean),
        "gdrt": tau * torch.logsumexp(mean / tau, 0),
    }[objective]


def _by_tokens(token_losses: torch.Tensor, ids: torch.Tensor, k: int, objective: str, tau: float) -> torch.Tensor:
    loss, _ = Objective(objective, n_groups=k, tau=tau)(token_losses.double(), ids)
    return loss + 3.0  # a constant changes no gradient


def _no_grad(token_losses: torch.Tensor, ids: torch.Tensor, k: int, objective: str, tau: float) -> torch.Tensor:
    means = [token_losses[ids == g].mean() for g in ids.unique()]
    with torch.no_grad():
        raw = [math.exp((float(m) - 5) / tau) for m in means]
        weights = {"balanced": [1 / len(means)] * len(means), "gdrt": [r / sum(raw) for r in raw]}.get(objective, [])
    return sum(w * m for w, m in zip(weights, means)) if weights else token_losses.mean()


def _numpy_softmax(x: Any) -> np.ndarray:
    e = np.exp(np.asarray(x, float) - np.max(x))
    return e / e.sum()


def _ablated(prompt: list, segment: str, how: str, neutral: int, donor: list) -> list[int]:
    pool = itertools.cycle([ids for own, ids in donor if own == segment])
    new = {"token": lambda ids: [neutral for _ in ids], "delete": lambda ids: [], "resample": lambda ids: next(pool)}[how]
    return list(itertools.chain.from_iterable(new(ids) if own == segment else ids for own, ids in prompt))


def _token_weights(token_losses: torch.Tensor, ids: torch.Tensor, k: int, tau: float) -> list[float]:
    loss, number = token_losses.numpy(), ids.numpy()
    own = {g: loss[number == g].mean() for g in sorted(set(number.tolist()))}
    q = dict(zip(own, _numpy_softmax([m / tau for m in own.values()])))
    return [q[g] / (number == g).sum() for g in number.tolist()]


def _cluster(values: list[float], users: list[str], draws: list[list[int]]) -> np.ndarray:
    frame = pd.DataFrame({"v": values, "u": users}).groupby("u").v.agg(["sum", "count"])
    drawn = [frame.iloc[draw].sum() for draw in draws]
    return np.percentile([d["sum"] / d["count"] for d in drawn], [2.5, 97.5])


def _within(values: dict[str, list[float]]) -> float:
    frame = pd.DataFrame([(k, v) for k, own in values.items() for v in own], columns=["k", "v"])
    return (
        1 - (frame.groupby("k").v.transform("mean") - frame.v.mean()).pow(2).sum() / (frame.v - frame.v.mean()).pow(2).sum()
    )


def _counts(counts: dict[tuple[int, ...], int], title: tuple[int, ...]) -> list[float]:
    n = [sum(c for tokens, c in counts.items() if tokens[:t] == title[:t]) for t in range(len(title) + 1)]
    return [math.log(b) - math.log(a) for a, b in itertools.pairwise(n)]


def _audited(run: dict) -> set[str]:
    q = torch.tensor(run["weights"])
    if q.isnan().any():
        return {"diverged"}
    entropies = [-sum(w * math.log(w) for w in row if w) for row in q.tolist()]
    signs = {"one group has it all": np.mean(np.exp(entropies)) < 1.5, "undertrained": not run["nll"] < run["blind"]}
    signs["user not read"] = not signs["undertrained"] and not run["user"][0] > 0
    return {name for name, shown in signs.items() if shown}


def _gu(lists: list, histories: list, group_of: dict[str, str]) -> pd.Series:
    a, b = (
        pd.Series([group_of[t] for own in side for t in own]).value_counts(normalize=True) for side in (lists, histories)
    )
    return a.reindex(sorted(set(group_of.values())), fill_value=0) - b.reindex(sorted(set(group_of.values())), fill_value=0)


def _windows_of(items: list[str], history: int, least: int) -> list[tuple[list[str], str]]:
    return [(list(items[:i])[-history:], items[i]) for i in range(len(items)) if i >= least]


# A right answer by another formula for every function exercise; those of the pencil and the choices need none.
OTHER_FORMULA: dict[str, Callable[..., Any]] = {
    "00.1": lambda before, after: np.isin(before, after).mean(),
    "00.3": lambda times: np.mean(np.concatenate([np.diff(own) for own in times]) < 60),
    "00.4": lambda ranked, target: sum(1 / math.log2(place + 1) for place, t in enumerate(ranked, 1) if t == target),
    "00.5": lambda train: pd.Series([(t, e.target) for e in train for t in e.history]).value_counts().to_dict(),
    "01.1": lambda logits, labels, first: -torch.nn.functional.cross_entropy(
        logits[first - 1 : first - 1 + len(labels)].double(), labels, reduction="none"),
    "01.2": _ablated,
    "01.3": lambda frame: (lambda m: m[["TASK", "PREFIX"]].sum() / m["HISTORY"])(
        frame.dropna().assign(a=frame.attribution.abs()).pivot_table(index="user", columns="segment", values="a").mean()),
    "02.1": lambda seen, s, v: np.mean([s in words for words, target in seen if v in target]),
    "02.2": lambda seen, s, v: np.log(np.mean([s in w and v in t for w, t in seen]))
    - np.log(np.mean([s in w for w, _ in seen])) - np.log(np.mean([v in t for _, t in seen])),
    "03.1": lambda logits, ids, first: [
        float(logits[t][i] - logits[t].logsumexp(0)) for t, i in enumerate(ids[first:], first - 1)],
    "03.2": _within,
    "03.3": _counts,
    "04.1": lambda values, centers: [
        np.mean(own) if len(own := values[[abs(v - np.array(centers)).argmin() == g for v in values]]) else c
        for g, c in enumerate(centers)],
    "04.2": lambda labels, centers: [int((centers < centers[label]).sum()) for label in labels],
    "04.3": lambda titles, counts, g, b: (sum(c for ids, c in zip(titles, counts) if g not in ids) / sum(counts)) ** b,
    "05.2": lambda losses, tau, prior, q: (
        torch.autograd.grad((q.requires_grad_() * losses).sum() - tau * (q * (q / prior).log()).sum(), q)[0],
        tau * (torch.logsumexp(losses / tau + prior.log(), 0) - 1),
        torch.softmax(losses / tau + prior.log(), 0)),
    "05.3": lambda losses, tau, prior: _numpy_softmax(losses.numpy().astype(float) / tau + np.log(prior.numpy())),
    "05.4": _token_weights,
    "06.2": _log_sum_exp,
    "06.3": _cluster,
    "06.4": _gu,
    "06.5": lambda weights: 2 ** -sum(w * math.log2(w) for w in weights.tolist() if w > 0),
    "07.2": lambda values: stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values)),
    "07.3": lambda windows, n: [(windows[(i + 1) % n if i < n else i][0], t) for i, (_, t) in enumerate(windows)],
    "07.4": lambda low, high, claim: "Undecided" if low <= 0 <= high else
    "Supported" if (claim == "lower") == (high < 0) else "Contradicted",
    "07.5": _audited,
    "08.1": _windows_of,
    "08.2": lambda sums, counts: [s / n if n else 0.0 for s, n in zip(sums.sum(0).tolist(), counts.sum(0).tolist())],
    "08.3": lambda weight, a, b, alpha: weight.numpy() + alpha / len(a) * np.einsum("ir,rj->ij", b.numpy(), a.numpy()),
    "08.4": lambda windows, epochs, tokens, n: 2 * 3 * windows * epochs * tokens * n * 1e-15,
    "09.2": lambda e: {(False, False): "Neither", (True, False): "a", (False, True): "b"}.get(
        (e["A over popularity"][0] > 0, e["B over popularity"][0] > 0),
        "undecided" if e["B minus A"][0] * e["B minus A"][1] <= 0 else "B" if e["B minus A"][0] > 0 else "A"),
    "90.1": _ablated,
}  # fmt: skip
FUNCTIONS = [id for _, id in COURSE if callable(checks.find(id).reference)]


@pytest.mark.parametrize("id", FUNCTIONS)
def test_right_answers_pass_in_other_forms_and_by_another_formula(id: str) -> None:
    exercise = checks.find(id)
    answers = [OTHER_FORMULA[id]]
    if exercise.gradient is None:
        answers += [_kth_form(exercise.reference, k) for k in range(5)]
    else:
        answers += [
            _by_tokens,
            _no_grad,
            lambda *case: exercise.reference(*case).reshape(1),
            lambda *case: exercise.reference(*case).double(),
        ]
    assert [verdict for answer in answers for passed, verdict in [judge(exercise, answer)] if not passed] == []


@pytest.mark.parametrize("id", [id for _, id in COURSE if isinstance(checks.find(id).reference, (str, float, list))])
def test_right_values_pass_in_other_forms(id: str) -> None:
    exercise = checks.find(id)
    if exercise.view is not materialise and not isinstance(exercise.reference, list):
        pytest.skip("any text or outcome is looked at as a whole")
    assert [form for form in in_other_forms(exercise.reference) if not judge(exercise, form)[0]] == []


def test_a_right_answer_that_changes_what_it_is_given_does_not_pass() -> None:
    """A later cell calls the learner's function on the notebook's own tables."""
    exercise = checks.find("01.3")

    def spoils(frame: pd.DataFrame) -> float:
        value = exercise.reference(frame)
        frame["attribution"] = frame["attribution"].abs()
        return value

    passed, said = judge(exercise, spoils)
    assert not passed and "changes the DataFrame that it is given" in said
    assert judge(exercise, exercise.reference)[0]


def test_a_change_is_seen_in_every_case_and_one_that_must_raise_does_no_harm() -> None:
    def total(values: np.ndarray) -> float:
        if not len(values):
            raise ValueError("no values")
        return float(values.sum())

    def spoils(values: np.ndarray) -> float:
        value = total(values)
        values[values < 0] = 0
        return value

    empty, cases = np.array([]), [(np.array([1.0, 2.0]),), (np.array([-1.0, 2.0]),)]
    exercise = Exercise("99.1", "Total", total, [(empty,), *cases])
    assert judge(exercise, total)[0]
    passed, said = judge(exercise, spoils)
    assert not passed and "changes the ndarray" in said and cases[1][0][0] == -1


def test_weights_by_pencil_are_read_with_two_digits() -> None:
    exercise = checks.find("05.1")
    assert judge(exercise, [0.04, 0.16, 0.80])[0] and not judge(exercise, [0.05, 0.16, 0.79])[0]
    for mistake in exercise.mistakes:
        assert mistake.hint in judge(exercise, np.round(mistake.wrong, 2))[1]


def _attached(token_losses: torch.Tensor, ids: torch.Tensor, k: int, objective: str, tau: float) -> torch.Tensor:
    means = torch.stack([token_losses[ids == g].mean() for g in ids.unique()])
    return {"sft": token_losses.mean(), "balanced": means.mean(), "gdrt": (torch.softmax(means / tau, 0) * means).sum()}[
        objective
    ]


def _strictly(low: float, high: float, claim: str) -> str:
    return "undecided" if low < 0 < high else OTHER_FORMULA["07.4"](low or 1e-9, high or -1e-9, claim)


def _losses(logits: torch.Tensor, labels: torch.Tensor, first: int, reduction: str) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits[first - 1 : first - 1 + len(labels)], labels, reduction=reduction)


def _gathered(logits: torch.Tensor, labels: torch.Tensor, first: int, dim: int) -> torch.Tensor:
    return logits.log_softmax(dim)[first - 1 : first - 1 + len(labels)].gather(1, labels[:, None])


def _zipping(prompt: list, segment: str, how: str, neutral: int, donor: list) -> list[int]:
    read: list[int] = []
    for (own, ids), (_, theirs) in zip(prompt, donor):
        read += ids if own != segment else {"token": [neutral] * len(ids), "delete": [], "resample": theirs}[how]
    return read


def _resampling(put: Callable[..., list[int]], whole: bool = False) -> Callable[..., list[int]]:
    """An ablation that puts `put(place, our tokens, the donor's titles)` there; whole: places count all pieces."""

    def answer(prompt: list, segment: str, how: str, neutral: int, donor: list) -> list[int]:
        titles, read, place = [ids for own, ids in donor if own == segment], [], 0
        for own, ids in prompt:
            if own != segment or how == "token":
                read += ids if own != segment else [neutral] * len(ids)
            elif how == "resample":
                read += put(place, ids, titles)
            place += whole or own == segment
        return read

    return answer


def _a(frame: pd.DataFrame, segment: str, mean: Callable[..., float] = np.nanmean) -> float:
    """Mean over users of each user's mean |A| of a segment."""
    own = frame[frame.segment == segment]
    return float(np.mean([mean(own[own.user == user].attribution.abs().to_numpy()) for user in own.user.unique()]))


@pytest.mark.parametrize(
    ("id", "answer", "right", "words"),
    [
        ("01.1", lambda *case: _losses(*case, reduction="none"), False, "the sign is turned"),
        ("01.1", lambda *case: _losses(*case, reduction="mean"), False, "one mean loss"),
        ("01.1", lambda *case: -_losses(*case, reduction="mean"), False, "the mean over the title"),
        ("01.1", lambda *case: -_losses(*case, reduction="sum"), False, "the sum over the title"),
        ("01.1", lambda *case: _gathered(*case, dim=-1), False, "shape (T, 1)"),
        ("01.1", lambda *case: _gathered(*case, dim=0)[:, 0], False, "dim 0 of the logits"),
        ("01.2", _zipping, False, "zip(prompt, donor) stops with the shorter, whatever"),
        ("01.2", _resampling(lambda place, ids, titles: titles[place % len(titles)]), True, ""),
        ("01.2", _resampling(lambda place, ids, titles: titles[place % len(titles)], whole=True), False, "all pieces"),
        ("01.2", _resampling(lambda place, ids, titles: titles[place % len(titles)][: len(ids)]), False, "cuts a donor's"),
        ("01.2", _resampling(lambda place, ids, titles: (titles + [ids] * 9)[place]), False, "ours stays"),
        ("01.2", _resampling(lambda place, ids, titles: titles[place]), False, "IndexError"),
        ("01.2", _resampling(lambda place, ids, titles: [] if place else sum(titles, [])), False, "at the first place"),
        ("01.3", lambda f: (_a(f, "TASK") + _a(f, "PREFIX")) / _a(f, "HISTORY"), True, ""),
        ("01.3", lambda f: _a(f, "TASK") + _a(f, "PREFIX") / _a(f, "HISTORY"), False, "without brackets"),
        ("01.3", lambda f: (_a(f, "TASK", np.mean) + _a(f, "PREFIX", np.mean)) / _a(f, "HISTORY"), False, "np.mean passes"),
        ("01.3", lambda f: (_a(f, "TASK", np.sum) + _a(f, "PREFIX", np.nansum)) / _a(f, "HISTORY", np.sum), False, "sums"),
        ("01.5", 1.78, False, "of the per cent"),
        ("01.5", 4.93, False, "a rise by"),
        ("01.5", 9, False, "one decimal"),
        ("06.2", _attached, False, "detach them"),
        ("06.2", _log_sum_exp, True, ""),
        ("06.2", lambda *case: _log_sum_exp(*case).item(), False, "without .item()"),
        ("00.1", lambda before, after: len(set(before) & set(after)) / 4, False, "four is the length"),
        ("02.1", lambda seen, s, v: np.mean([s in w for w, t in seen if t[0] == v] or [0]), False, "first word"),
        ("06.4", _gu, True, ""),
        ("06.1", "(b)", True, ""),
        ("06.1", "b.", True, ""),
        ("07.4", OTHER_FORMULA["07.4"], True, ""),
        ("07.4", _strictly, False, "exactly at zero"),
    ],
)  # fmt: skip
def test_answers_that_a_reader_tried(id: str, answer: Any, right: bool, words: str) -> None:
    passed, verdict = judge(checks.find(id), answer)
    assert passed is right and words in verdict, verdict


def test_a_notebook_goes_on_with_the_learners_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checks, "exercises", lambda notebook: [DOUBLE])
    monkeypatch.setattr(checks, "_learners", {})
    assert checks.yours("99.1") is _double and "since yours is not done yet" in capsys.readouterr().out
    own, wrong, ours = (lambda x: x + x), (lambda x: x + 2), (lambda x: 2 * x)
    checks.check("99.1", wrong)
    checks.check("99.1", ours, ours=True)  # a solution cell
    assert checks.yours("99.1") is _double
    checks.check("99.1", own)
    checks.check("99.1", ours, ours=True)
    assert checks.yours("99.1") is own and "your last answer" in capsys.readouterr().out


def test_in_most_exercises_something_is_built_or_decided() -> None:
    built = [id for id in FUNCTIONS if id not in ("00.1", "06.5", "08.4")]  # these complete a formula
    decided = ["05.5", "07.1", "09.1", "09.3"]
    assert len(built) + len(decided) >= 15 and set(decided) <= {id for _, id in COURSE}


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
