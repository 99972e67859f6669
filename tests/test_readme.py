"""The README's measured tables are what the measurements say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import render_readme  # noqa: E402


def test_the_readme_is_as_rendered():
    assert render_readme.main(check=True) == 0


def test_a_stale_figure_is_noticed(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    stale = text.replace("<!-- benchmarks -->\n", "<!-- benchmarks -->\n1000 times faster\n")
    assert stale != text and render_readme.rendered(stale) == render_readme.rendered(text)


def test_a_missing_block_is_named():
    with pytest.raises(SystemExit, match="no block 'course'"):
        render_readme.rendered("# nothing")
