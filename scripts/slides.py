"""Render the decks in docs/instructor/slides as self-contained HTML, and as PDF where Chromium is, into _build/slides.

A deck is Markdown with `---` between slides. A line `@ Title` stands for the slide of that title in common.md. The path of
an image may be NOTEBOOK.ipynb#some-words, the first figure with these words in its alternative text. The words
`{{verdicts}}` stand for the table of the study.
"""

from __future__ import annotations

import base64
import html
import json
import re
import sys
from pathlib import Path

from nbconvert.filters import markdown2html

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import chromium  # noqa: E402

from gdrt_lite.study import verdicts  # noqa: E402

DECKS, OUT = ROOT / "docs" / "instructor" / "slides", ROOT / "_build" / "slides"


def split(text: str) -> list[str]:
    """The slides of a text."""
    return [slide.strip() for slide in re.split(r"^---$", text, flags=re.MULTILINE)]


def deck(path: Path) -> list[str]:
    """The slides of a deck in Markdown. Raises KeyError for a title that common.md does not have."""
    common = {
        slide.splitlines()[0].lstrip("# "): slide for slide in split((DECKS / "common.md").read_text(encoding="utf-8"))
    }
    slides = []
    for slide in split(path.read_text(encoding="utf-8")):
        titles = re.findall(r"^@ (.+)$", slide, re.MULTILINE)
        slides += [common[title] for title in titles] or [slide]
    return slides


def picture(source: str) -> str:
    """A figure as a data URI. Raises ValueError if a notebook has none of that name, OSError if there is no file."""
    name, _, words = source.partition("#")
    content = (DECKS / name).read_bytes()
    if not words:
        return f"data:image/png;base64,{base64.b64encode(content).decode()}"
    for cell in json.loads(content)["cells"]:
        for data in (output.get("data", {}) for output in cell.get("outputs", [])):
            if "image/png" in data and words.replace("-", " ") in "".join(data["text/plain"]):
                return f"data:image/png;base64,{''.join(data['image/png'])}".replace("\n", "")
    raise ValueError(f"{name} shows no figure whose alternative text has the words {words!r}")


def page(slides: list[str]) -> str:
    """The slides as one HTML page that loads nothing."""
    told = json.loads((ROOT / "data" / "results" / "verdicts.json").read_text(encoding="utf-8"))
    shown = verdicts.table(told).reindex(
        columns=["", "hypothesis", "verdict", "against", "effect [95%]", "seeds"], fill_value="-"
    )
    table, style = shown.to_markdown(index=False, disable_numparse=True), (DECKS / "slides.css").read_text(encoding="utf-8")
    body = ""
    for number, slide in enumerate(slides, 1):
        text = re.sub(r'<a class="anchor-link".*?</a>', "", markdown2html(slide.replace("{{verdicts}}", table)))
        text = re.sub(r'src="([^"]+)"', lambda found: f'src="{picture(found[1])}"', text)
        body += f"<section>{text}<footer>gdrt_lite · CC BY 4.0 · {number}/{len(slides)}</footer></section>"
    title = html.escape(slides[0].splitlines()[0].lstrip("# "))
    head = f'<meta charset="utf-8"><title>{title}</title><style>{style}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def main() -> int:
    """Write every deck; 0 if all was written."""
    OUT.mkdir(parents=True, exist_ok=True)
    browser = chromium.find()
    for path in sorted(set(DECKS.glob("*.md")) - {DECKS / "common.md"}):
        slides, target = deck(path), OUT / f"{path.stem}.html"
        target.write_text(page(slides), encoding="utf-8")
        print(f"{target.relative_to(ROOT)}: {len(slides)} slides")
        if browser:
            chromium.print_pdf(browser, target, target.with_suffix(".pdf"))
    print("The PDF of each lies beside it." if browser else "No Chromium or Chrome is here; print the pages from a browser.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
