"""Helpers for the notebooks: the profile, the card with running times, predictions, and sentences with computed figures."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from gdrt_lite.study.config import PROFILES

T = TypeVar("T")

# Time budget per notebook in seconds, for the quick profile on two cores.
BUDGETS = {**{f"{n:02}": 120 for n in range(6)}, "06": 360, "07": 180, "08": 180, "09": 120, "90": 90}
TOTAL_BUDGET = 1200


def profile() -> str:
    """The profile named by GDRT_PROFILE, "quick" by default. Raises ValueError if it is unknown."""
    name = os.environ.get("GDRT_PROFILE") or "quick"
    if name not in PROFILES:
        raise ValueError(f"GDRT_PROFILE is {name!r}; unset it, or set it to one of {', '.join(PROFILES)}")
    return name


def pick(*, quick: T, standard: T, full: T) -> T:
    """Return the size for the current profile. Profiles change sizes, never code paths."""
    return {"quick": quick, "standard": standard, "full": full}[profile()]


def say(template: str, /, **values: Any) -> None:
    """Display Markdown with computed figures: `say("It is {x:.0%}.", x=0.31)`; literal braces are doubled."""
    _display(template.format(**values))


_predictions: dict[str, tuple[str, Any]] = {}  # by id: the question, and the learner's answer or `...`


def predict(id: str, question: str, answer: Any = ...) -> None:
    """Keep a prediction for `reveal`: the learner writes a number or words in place of the `...`, and runs the cell again.

    Args:
        id: notebook and letter, e.g. "00.a".
    """
    _predictions[id] = (question, answer)
    state = "*Write your answer in place of the dots, and run the cell.*" if _is_open(answer) else f"Noted: **{answer}**."
    _display(f"**Prediction {id}.** {question} {state}")


def reveal(outcomes: Mapping[str, Any]) -> None:
    """Display a table of the predictions and of what came out, e.g. `reveal({"00.a": "9 titles"})`."""
    _display(reveal_text(outcomes))


def reveal_text(outcomes: Mapping[str, Any]) -> str:
    """The table of `reveal` as Markdown; a prediction that was left open, or whose cell was not run, is shown as a dash."""
    lines = ["| | question | your prediction | what came out |", "|---|---|---|---|"]
    for id, outcome in outcomes.items():
        question, answer = _predictions.get(id, ("", ...))
        row = (id, question, "-" if _is_open(answer) else answer, outcome)
        lines.append("| " + " | ".join(str(entry).replace("|", "\\|") for entry in row) + " |")
    return "\n".join(lines)


def _is_open(answer: Any) -> bool:
    return answer is None or answer is ... or (isinstance(answer, str) and not answer.strip())


def card(number: str) -> None:
    """Display how long notebook `number`, e.g. "05", takes to read, to solve and to run."""
    _display(card_text(number))


def card_text(number: str, folder: Path | None = None) -> str:
    """The card as Markdown, from runtimes.json in `folder` (by default the current folder, or that of the clone).

    Raises:
        ValueError: there is no such notebook.
    """
    if number not in BUDGETS:
        raise ValueError(f"there is no notebook {number!r}; choose one of {', '.join(BUDGETS)}")
    measured = runtimes(folder).get(number, {})
    rows = [("Runs in, on 2 CPU cores at most", f"{_minutes(BUDGETS[number])} (its budget, quick profile)")]
    if "seconds" in measured:
        cores = f"{measured['cores']} core{'s' * (measured['cores'] != 1)}"
        rows.append((f"Runs in, measured on {cores}", _minutes(measured["seconds"])))
    else:
        rows.append(("Runs in, measured", "not measured yet"))
    t4 = measured.get("colab_t4_seconds")
    rows.append(("Runs in, on a Colab T4", "not measured yet" if t4 is None else _minutes(t4)))
    if "words" in measured:
        rows.append(("To read", _minutes(60 * measured["words"] / 200)))
        solve = f"{measured['exercises']}, about {_minutes(60 * measured['exercise_minutes'])} in all"
        rows.append(("Exercises", solve))
    rows.append(("This profile", f"`{profile()}` (`GDRT_PROFILE`: quick, standard or full)"))
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def runtimes(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """Measurements of scripts/build_notebooks.py per notebook; empty if there is no runtimes.json."""
    package = Path(__file__).parents[1]  # a clone has notebooks beside it, an installed one has them under _data
    places = [folder] if folder else [Path.cwd(), package.parent / "notebooks", package / "_data"]
    for place in places:
        if (place / "runtimes.json").is_file():
            return json.loads((place / "runtimes.json").read_text(encoding="utf-8"))
    return {}


def _minutes(seconds: float) -> str:
    if seconds < 55:
        return f"{max(5, 5 * round(seconds / 5))} seconds"
    minutes = round(seconds / 60)
    return "1 minute" if minutes == 1 else f"{minutes} minutes"


def _display(text: str) -> None:
    from IPython.display import Markdown, display

    display(Markdown(text))
