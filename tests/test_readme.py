"""README and docs: the measured parts are what the measurements say, links lead somewhere, every dependency is explained."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import answer  # noqa: E402
import phenomenon  # noqa: E402
import render_readme  # noqa: E402

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MOST_WORDS = 2000


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def test_the_pages_are_as_rendered():
    assert render_readme.main(check=True) == 0


def test_a_stale_figure_is_noticed():
    text = read("docs/speed.md")
    stale = text.replace("<!-- benchmarks -->\n", "<!-- benchmarks -->\n1000 times faster\n")
    assert stale != text and render_readme.rendered("docs/speed.md", stale) == text


def test_a_missing_block_is_named():
    with pytest.raises(SystemExit, match="docs/speed.md has no block 'benchmarks'"):
        render_readme.rendered("docs/speed.md", "# nothing")


def test_list_overlap_by_hand():
    """Three lists of two users: title 0 is in all of them; the pairs of different users share 2 and 1 titles."""
    config = SimpleNamespace(label="sft", seed=0)
    cell = SimpleNamespace(lists=[[0, 1], [1, 0], [0, 2]], users=["a", "b", "a"], config=config)
    (row,) = phenomenon.list_overlap([cell]).itertuples()
    assert row.top_share == 1 and row.shared == pytest.approx(1.5)


def test_the_answer_says_what_the_verdicts_say():
    gate = {"passed": True, "above_popularity": [0.1, 0.05, 0.15], "ndcg_sft": 0.2, "ndcg_popularity": 0.1}
    gate |= {"place": "x, y", "own_minus_stranger": [0.5, 0.4, 0.6]}
    told = answer.gates([gate, gate | {"place": "B, z", "passed": False}, {"place": "C, z", "passed": False}])
    assert told.startswith("**In one place, SFT recommends") and "x on y (0.200, 0.100, 0.50)" in told
    assert "Below this gate: B on z." in told and "SmolLM2 has not" in told
    effect = {"effect": -0.1, "low": -0.2, "high": 0.05, "seeds": 3, "against": "balanced"}
    rows = [{"id": "H3", "text": "ranks", "verdict": "undecided"} | effect]
    rows += [{"id": "H1", "text": "x", "verdict": "not tested"}]
    assert "**1 undecided**: ranks (H3). **1 not tested**: x (H1). Each tested one rests on 3" in answer.outcome(rows)
    assert "NDCG@10 by -10.0% [-20.0%, +5.0%] (the paper: +24.3% on average)" in answer.headline(rows)
    assert "a gain in ranking is not shown" in answer.headline(rows)
    assert "a gain in ranking is not shown" not in answer.headline([rows[0] | {"low": 0.01, "high": 0.2}])
    assert "not compared yet" in answer.headline(rows[1:])
    up, down = [0.2, 0.1, 0.3, 5], [-0.2, -0.3, -0.1, 1]
    h5 = {
        "id": "H5",
        "text": "fairer",
        "verdict": "undecided",
        "places": {"pocket, films": [0.1, -0.1, 0.3, 5], "B, books": down},
    }
    told = answer.outcome([rows[0] | {"places": {"pocket, films": up, "smollm2-135m, films": down}}, effect | h5])
    assert "H3, H5 are means over places" in told and "rests on" not in told
    assert "the pocket model on films (5+ trainings each) shows H3, cannot tell about H5; " in told
    assert "SmolLM2 on films (1 training each) shows the opposite of H3; " in told
    assert "B on books (1 training each) shows H5." in told, "MGU@5 falls where GDRT is fairer"


def test_readme_is_short_and_opens_with_figure_answer_and_commands():
    text = read("README.md")
    assert len(text.split()) < MOST_WORDS
    places = [
        text.index(mark) for mark in ("docs/same_list.png", "<!-- answer -->", "make run ", "make test ", "<!-- course -->")
    ]
    assert places == sorted(places)
    assert (ROOT / "docs" / "same_list.png").read_bytes().startswith(b"\x89PNG")


def test_every_dependency_is_listed_with_its_purpose():
    project = tomllib.loads(read("pyproject.toml"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    needed = {Requirement(line).name for line in lines} - {"gdrt-lite"}
    rows = re.findall(r"^\| (.*?) \| (.+?) \|$", read("README.md").split("## Dependencies")[1].split("\n## ")[0], re.M)
    explained = {name for names, purpose in rows if purpose.strip("- ") for name in re.findall(r"[\w-]+", names)}
    assert not needed - explained, "add what they are for to the table of README.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_of_the_pages_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target} does not exist"
        if anchor and file.suffix == ".ipynb":  # a figure of a slide, by words of its alternative text
            assert anchor.replace("-", " ") in file.read_text(encoding="utf-8"), target
        elif anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, target
