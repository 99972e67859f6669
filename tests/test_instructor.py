"""What an instructor hands out: run sheets that add up, a test with a right key, slides that stand alone."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from gdrt_lite import dro

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import build_notebooks as builder  # noqa: E402
import slides  # noqa: E402

FOLDER = ROOT / "docs" / "instructor"
SHEETS = (FOLDER / "run-sheets.md").read_text(encoding="utf-8")
LENGTHS = {"90 minutes": 90, "Half a day": 240, "A full day": 450}


class Row(NamedTuple):
    start: int  # minutes from the beginning
    minutes: int
    step: str


def rows(text: str) -> list[Row]:
    """The steps of one run sheet."""
    found = re.findall(r"^\| (\d+):(\d\d) \| (\d+) \| ([^|]*) \|", text, re.MULTILINE)
    return [Row(60 * int(hours) + int(minutes), int(length), step) for hours, minutes, length, step in found]


def sheet(name: str, text: str = SHEETS) -> list[Row]:
    return rows(re.split(r"^## ", text, flags=re.MULTILINE)[1 + list(LENGTHS).index(name)])


def faults(steps: list[Row], length: int) -> list[str]:
    """Steps that do not begin where the one before ends, and a sum that is not the length."""
    found, clock = [], 0
    for row in steps:
        if row.start != clock:
            found.append(f"{row.step} begins at {row.start} and not at {clock}")
        clock += row.minutes
    return found if clock == length else [*found, f"{clock} minutes of {length}"]


def exercise_minutes() -> dict[str, int]:
    """Minutes of each exercise, as the notebooks state them."""
    text = "\n".join(cell.source for script in builder.sources() for cell in builder.read_source(script).cells)
    minutes = [int(found[2]) for found in builder.EFFORT.findall(text)]
    return dict(zip((found[0] for found in builder.EXERCISE.findall(text)), minutes, strict=True))


@pytest.mark.parametrize("name", LENGTHS)
def test_the_minutes_of_a_run_sheet_add_up(name: str) -> None:
    assert faults(sheet(name), LENGTHS[name]) == []
    assert name == "90 minutes" or f"The length is {LENGTHS[name]} minutes" in SHEETS


def test_a_run_sheet_that_does_not_add_up_is_found() -> None:
    text = "| 0:00 | 5 | a | b | c |\n| 0:05 | 10 | a | b | c |\n"
    assert faults(rows(text), 15) == []
    assert faults(rows(text.replace("0:05", "0:06")), 15) == ["a begins at 6 and not at 5"]
    assert faults(rows(text.replace("| 10 |", "| 11 |")), 15) == ["16 minutes of 15"]


@pytest.mark.parametrize("name", LENGTHS)
def test_each_exercise_of_a_run_sheet_fits_into_its_row(name: str) -> None:
    known = exercise_minutes()
    for row in sheet(name):
        wanted = re.findall(r"\b\d\d\.\d+\b", row.step)
        assert sum(known[id] for id in wanted) <= row.minutes, row
    assert any("xercise" in row.step for row in sheet(name))


def test_the_parts_begin_where_the_notebook_of_the_workshop_says() -> None:
    (script,) = builder.sources(["90"])
    minutes = [int(n) for n in re.findall(r"^# ## .*\((\d+) minutes\)$", script.read_text("utf-8"), re.MULTILINE)]
    assert len(minutes) == 5 and sum(minutes) == 90
    begins = {part: sum(minutes[: part - 1]) for part in (2, 3, 4)}
    steps = sheet("90 minutes")
    assert begins == {part: min(row.start for row in steps if f"Part {part}" in row.step) for part in begins}
    assert [row.start for row in steps if row.step.startswith("End")] == [sum(minutes[:4])]


def test_every_long_sheet_has_breaks() -> None:
    for name in ("Half a day", "A full day"):
        pauses = [row for row in sheet(name) if row.step in ("Break", "Lunch")]
        stretches = [b.start - a.start - a.minutes for a, b in zip(pauses, pauses[1:])] + [pauses[0].start]
        assert len(pauses) >= 2 and max(stretches) <= 120, "nobody sits for more than two hours"


def test_the_key_of_the_test_is_right() -> None:
    text = (FOLDER / "questions.md").read_text(encoding="utf-8")
    key = dict(re.findall(r"(\d) ([a-d])(?=[,.])", text[text.index("**Answers:**") :]))
    questions = re.findall(r"^(\d)\. (.*?)(?=^\d\. |\*\*Answers)", text, re.MULTILINE | re.DOTALL)
    assert [number for number, _ in questions] == sorted(key) == list("12345678")
    options = {number: dict(re.findall(r"\(([a-d])\) ([^(]*)", body)) for number, body in questions}
    assert all(list(found) == list("abcd") for found in options.values())
    losses = torch.tensor([0.5, 1.2, 2.0])
    torch.testing.assert_close(dro.group_weights(losses + 1, 0.5), dro.group_weights(losses, 0.5))
    assert options["5"][key["5"]].startswith("stay the same")
    torch.testing.assert_close(dro.group_weights(losses, 1e6), torch.full((3,), 1 / 3))
    assert options["6"][key["6"]].startswith("equal weights")


def test_the_numbers_of_the_expected_answers_are_right() -> None:
    text = (FOLDER / "answers.md").read_text(encoding="utf-8")
    losses, tau = torch.tensor([0.5, 1.2, 2.0]), float(re.search(r"tau near (\S+) nats", text)[1])
    assert dro.group_weights(losses, tau)[2].item() == pytest.approx(0.5, abs=0.005)
    exponentials, weights = (losses / 0.5).exp().tolist(), dro.group_weights(losses, 0.5).tolist()
    assert ", ".join(f"{value:.3f}" for value in exponentials) in text
    assert "{:.3f}, {:.3f} and {:.3f}".format(*weights) in text


def test_what_thirty_learners_need_follows_from_what_one_needs() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| (\d\d) \| (\d+) \| ([\d.]+) \|$", text, re.MULTILINE)
    seconds, memory = ({number: float(row[place]) for number, *row in found} for place in (0, 1))
    assert f"in 05 need {30 * memory['05']:.0f} GiB" in text and f"loaded need {30 * memory['00']:.0f} GiB" in text
    assert 30 * float(re.search(r"takes 33 seconds and ([\d.]+) GiB", text)[1]) == float(
        re.search(r"workshop need (\d+) GiB", text)[1]
    )
    assert f"thirty times {seconds['00']:.0f} seconds" in text and "ten minutes on eight cores" in text
    assert 30 * seconds["00"] / 8 / 60 == pytest.approx(10, abs=0.5)


# --- slides ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", sorted(set(slides.DECKS.glob("*.md")) - {slides.DECKS / "common.md"}), ids=lambda path: path.stem
)
def test_a_deck_stands_alone_and_shows_the_verdicts(path: Path) -> None:
    deck = slides.deck(path)
    text = slides.page(deck)
    assert text.count("<section>") == len(deck) >= 15 and "@ " not in text and "{{" not in text
    assert not re.search(r'(?:src|href)="(?!data:image/png;base64,|https?://)', text), (
        "something is loaded from beside the page"
    )
    assert "<script" not in text and text.count('alt=""') == 0
    told = json.loads((ROOT / "data" / "results" / "verdicts.json").read_text(encoding="utf-8"))["hypotheses"]
    for row in told:
        cells = rf"<td[^>]*>{row['id']}</td>\s*<td[^>]*>{row['text']}</td>\s*<td[^>]*>{row['verdict']}"
        assert re.search(cells, text), row["id"]


def test_the_breaks_of_a_deck_are_those_of_its_run_sheet() -> None:
    for name, stem in (("Half a day", "half"), ("A full day", "full")):
        pauses = [f"# {row.step}: {row.minutes} minutes" for row in sheet(name) if row.step in ("Break", "Lunch")]
        shown = [slide.splitlines()[0] for slide in slides.deck(slides.DECKS / f"{stem}.md")]
        assert [title for title in shown if title.startswith(("# Break", "# Lunch"))] == pauses


def test_a_slide_or_a_figure_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "90.md"
    path.write_text("# First\n\n---\n\n@ Own minus stranger\n@ Nothing of that name\n", encoding="utf-8")
    with pytest.raises(KeyError, match="Nothing of that name"):
        slides.deck(path)
    with pytest.raises(ValueError, match="no figure whose alternative text has the words 'no-such-figure'"):
        slides.picture("../../../notebooks/90_workshop.ipynb#no-such-figure")
    first, second = (
        slides.picture(f"../../../notebooks/90_workshop.ipynb#{words}") for words in ("before-and-after-SFT", "over-tau")
    )
    assert first != second
    with pytest.raises(OSError):
        slides.picture("../../nothing.png")
