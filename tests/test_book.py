"""The book folds solutions, and its builder finds links that lead nowhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import book  # noqa: E402

PAGE = """<img src="here.png"><script src="{script}"></script>
<a id="there" href="#there">a</a> <a href="other.html#part">b</a> <a href="https://elsewhere.org/x">c</a>"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site of two pages without faults."""
    (tmp_path / "index.html").write_text(PAGE.format(script="here.js"))
    (tmp_path / "other.html").write_text('<h1 id="part">x</h1>')
    for name in ("here.png", "here.js"):
        (tmp_path / name).touch()
    return tmp_path


def test_dead_links_and_what_is_loaded_from_elsewhere_are_found(site: Path) -> None:
    assert book.faults(site) == []
    (site / "other.html").write_text("<h1>x</h1>")
    assert book.faults(site) == ["index.html -> other.html#part: no such place"]
    (site / "other.html").unlink()
    assert book.faults(site) == ["index.html -> other.html#part"]
    (site / "other.html").write_text('<h1 id="part">x</h1>')
    (site / "index.html").write_text(PAGE.format(script="https://cdn.example.org/x.js"))
    assert book.faults(site) == ["index.html loads https://cdn.example.org/x.js"]


def test_solutions_and_set_up_are_folded_and_a_page_says_how_to_run_it() -> None:
    page = book.notebook_page(ROOT / "notebooks" / "05_dro_weights_by_hand.ipynb")
    by_tag = {tag: [c for c in page.cells if tag in c.metadata.get("tags", [])] for tag in ("solution", "setup")}
    assert by_tag["solution"] and all("hide-cell" in cell.metadata["tags"] for cell in by_tag["solution"])
    assert by_tag["setup"] and all("hide-input" in cell.metadata["tags"] for cell in by_tag["setup"])
    title, _, ways, *_ = page.cells[0].source.splitlines()
    assert title.startswith("# ") and "colab.research.google.com" in ways and "05_dro_weights_by_hand.ipynb" in ways


def test_what_can_be_moved_stands_below_the_stored_figure_that_shows_it() -> None:
    page = book.notebook_page(ROOT / "notebooks" / "05_dro_weights_by_hand.ipynb")
    places = {name: [k for k, cell in enumerate(page.cells) if f"play {name}\n" in cell.source] for name in book.PLAY}
    assert all(len(found) == 1 for found in places.values()), places
    tags = [cell.metadata.get("tags", []) for cell in page.cells]
    assert "interactive" in tags[places["play-weights"][0] - 1]
    other = book.notebook_page(ROOT / "notebooks" / "00_start_here.ipynb")
    assert not any("play-" in cell.source for cell in other.cells)


def test_code_that_the_course_hides_is_folded(tmp_path: Path) -> None:
    hidden = nbformat.v4.new_code_cell("1", metadata={"jupyter": {"source_hidden": True}})
    cells = [nbformat.v4.new_markdown_cell("# A\n\nb"), hidden, nbformat.v4.new_code_cell("2")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "05_x.ipynb")
    page = book.notebook_page(tmp_path / "05_x.ipynb")
    assert [cell.metadata.get("tags", []) for cell in page.cells[1:]] == [["hide-input"], []]


def test_a_page_links_to_the_project_for_what_the_book_does_not_hold(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(book, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    for name in ("docs/a.md", "docs/b.md", "secret.toml"):
        (tmp_path / name).touch()
    (tmp_path / "README.md").write_text("[a](docs/a.md#part) [d](docs) [s](secret.toml) [w](https://x.org) [h](#here)")
    monkeypatch.setattr(book.render_readme, "project_url", lambda: "https://host/p")
    text = book.page_text(tmp_path / "README.md")
    assert "[a](docs/a.md#part)" in text and "[w](https://x.org)" in text and "[h](#here)" in text
    assert "[d](https://host/p/tree/main/docs)" in text and "[s](https://host/p/tree/main/secret.toml)" in text


def test_the_contents_name_every_page_of_the_book_and_no_other(tmp_path: Path, monkeypatch) -> None:
    """Sphinx warns of both, but only where it is installed; a report that was moved would break the published book."""
    monkeypatch.setattr(book, "SOURCE", tmp_path / "source")
    book.stage()
    index = (book.SOURCE / "index.md").read_text(encoding="utf-8")
    entries = [line for part in re.findall(r"```{toctree}\n(.*?)```", index, re.S) for line in part.splitlines()]
    listed = [re.sub(r".*<(.*)>", r"\1", line) for line in entries if line and not line.startswith(":")]
    pages = [path for suffix in ("md", "ipynb") for path in book.SOURCE.rglob(f"*.{suffix}")]
    names = {path.relative_to(book.SOURCE).with_suffix("").as_posix() for path in pages}
    assert sorted(listed) == sorted(names - {"index"})


@pytest.mark.long
def test_the_whole_book_is_built_without_a_warning_or_a_dead_link() -> None:
    pytest.importorskip("myst_nb", reason='the book needs: pip install -c constraints.txt -e ".[book]"')
    assert book.main() == 0
    assert (book.BOOK / "search.html").exists() and (book.BOOK / "docs" / "glossary.html").exists()
