"""The picture of the package shows the imports that there are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import draw_house  # noqa: E402


@pytest.fixture
def package(tmp_path):
    """first <- second <- wing/{a, b}, and wing/b imports first as well, inside a function."""
    files = {
        "__init__.py": "",
        "first.py": "import os",
        "second.py": "from gdrt_lite import first",
        "wing/__init__.py": "",
        "wing/a.py": "from gdrt_lite.second import x",
        "wing/b.py": "from gdrt_lite.wing.a import y\ndef f():\n    import gdrt_lite.first",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_arrows_are_the_imports(package):
    assert draw_house.arrows(package) == {"first": set(), "second": {"first"}, "wing": {"first", "second"}}


def test_arrows_that_follow_from_others_are_left_out(package):
    assert draw_house.reduced(draw_house.arrows(package)) == {"first": set(), "second": {"first"}, "wing": {"second"}}


def test_the_picture_names_the_files_of_a_wing(package):
    picture = draw_house.house(package)
    assert 'wing(["<b>wing/</b><br/>a<br/>b"])' in picture and '  first["first"]' in picture
    assert [line for line in picture.splitlines() if "-->" in line] == ["  first --> second", "  second --> wing"]


def test_the_page_for_contributors_shows_the_picture():
    block = f"<!-- house -->\n{draw_house.house()}\n<!-- /house -->"
    assert block in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), "run python scripts/render_readme.py"
