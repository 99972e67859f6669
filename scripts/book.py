"""Build the course as a static site from the committed, executed notebooks: _build/book/index.html.

    python scripts/book.py [--open] [--pdf]

--pdf also prints the whole book into _build/book/gdrt_lite.pdf, with the Chromium of this machine. Nothing is executed.
A warning of Sphinx, or an internal link that leads nowhere, ends the build with status 1. The pages need no server and
load nothing from elsewhere.
"""

from __future__ import annotations

import functools
import re
import shutil
import sys
import time
import webbrowser
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import chromium  # noqa: E402
import render_readme  # noqa: E402

import gdrt_lite  # noqa: E402

SOURCE, BOOK = ROOT / "_build" / "book-source", ROOT / "_build" / "book"
# What the pages show or link to.
STAGED = [
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "notebooks/*.ipynb", "docs/*.md", "docs/*.png"),
    *("docs/*/*.md", "docs/extending/*.py", "docs/accelerate/*.yaml", "data/*/README.md", "data/results/*.md"),
    *("data/results/*.png", "data/results/archive/*.md", "data/results/archive/*.png"),
    *("data/adapters/*/*.json", "data/adapters/*/*.csv"),
]
INDEX = """\
# Does an LLM recommender read the user, or only the prompt?

A course in {count} notebooks, here as they were executed. Solutions are folded. Each page says how to run it yourself.

```{{toctree}}
:caption: Course
:maxdepth: 1

{notebooks}
```

```{{toctree}}
:caption: Around it
:maxdepth: 1

About the project <README>
docs/glossary
docs/study
Its registration <data/results/registration>
The first study, archived <data/results/archive/README>
Every trial of the first study <data/results/archive/REPORT>
docs/run
docs/speed
docs/platforms
{more}docs/setup
docs/instructor/README
docs/instructor/run-sheets
docs/instructor/answers
docs/instructor/questions
docs/instructor/class-check
CONTRIBUTING
CHANGELOG
The data <data/movielens/README>
data/adapters/README
```

```{{toctree}}
:caption: The package
:maxdepth: 1

{api}
```
"""
# What a reader can move on the page without a kernel (docs/book/_static/play.js), and the cell of notebook 05 below which it
# stands: the last one whose tags or alt text hold the word, else the slider's. Without JavaScript the stored figure remains.
PLAY = {"play-weights": "interactive", "play-simplex": "simplex", "play-worlds": "world"}
STILL = (
    "```{{container}} play {name}\nWithout JavaScript, the stored figures and tables of this notebook show the same.\n```"
)
FOLDS = {"solution": ("hide-cell", "Show the solution"), "setup": ("hide-input", "Show the set-up")}


def notebook_page(path: Path) -> nbformat.NotebookNode:
    """An executed notebook as the book shows it: set-up and solutions folded, ways to run it under the title."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for tag in set(cell.metadata.get("tags", [])) & set(FOLDS):
            fold, prompt = FOLDS[tag]
            cell.metadata["tags"] = [*cell.metadata["tags"], fold]
            cell.metadata["mystnb"] = {"code_prompt_show": prompt, "code_prompt_hide": prompt.replace("Show", "Hide")}
        if cell.metadata.get("jupyter", {}).get("source_hidden") and "mystnb" not in cell.metadata:
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
    if any("interactive" in cell.metadata.get("tags", []) for cell in notebook.cells):
        add_play(notebook)
    colab = re.search(r"\]\((https://colab[^)]*)\)", render_readme.colab(path.stem))
    assert colab
    title, _, rest = notebook.cells[0].source.partition("\n")
    ways = f"[Open in Colab]({colab[1]}) · [in your own JupyterLab](../docs/setup.md) · {{download}}`notebook <{path.name}>`"
    notebook.cells[0].source = f"{title}\n\n{ways}\n{rest}"
    return notebook


def add_play(notebook: nbformat.NotebookNode) -> None:
    """Put the containers of play.js below the cells that show the same thing."""

    def shows(cell: nbformat.NotebookNode, word: str) -> bool:
        alts = [str(output.get("metadata", {}).get("image/png", {}).get("alt", "")) for output in cell.get("outputs", [])]
        return word in cell.metadata.get("tags", []) or any(word in alt for alt in alts)

    for name, word in reversed(PLAY.items()):
        (*_, place) = [k for w in ("interactive", word) for k, cell in enumerate(notebook.cells) if shows(cell, w)]
        still = nbformat.v4.new_markdown_cell(STILL.format(name=name), id=name)
        notebook.cells.insert(place + 1, still)


def api_pages() -> dict[str, str]:
    """One page for each file of the method, one for each wing: name -> its text."""
    pages = {}
    package = ROOT / "gdrt_lite"
    for name in (module for module in gdrt_lite._MODULES if module not in ("course", "system")):
        files = sorted((package / name).rglob("*.py")) if (package / name).is_dir() else [package / f"{name}.py"]
        modules = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files if file.stem != "__init__"]
        blocks = [f"## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n```" for module in modules]
        if len(modules) == 1:
            blocks = [blocks[0].partition("\n\n")[2]]
        pages[f"api/{name}"] = f"# gdrt_lite.{name}\n\n" + "\n\n".join(blocks) + "\n"
    return pages


@functools.cache
def staged(root: Path) -> frozenset[Path]:
    """The files of a repository that the book shows or links to."""
    return frozenset(path for pattern in STAGED for path in root.glob(pattern))


def stage() -> None:
    """Put the sources of the book together, in the folders that they have in the repository."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.copytree(ROOT / "docs" / "book", SOURCE, ignore=shutil.ignore_patterns("__pycache__"))
    for path in sorted(staged(ROOT)):
        place = SOURCE / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".ipynb":
            nbformat.write(notebook_page(path), place)
        elif path.suffix == ".md":
            place.write_text(page_text(path), encoding="utf-8")
        else:
            shutil.copy(path, place)
    pages = api_pages()
    titles = {
        path: nbformat.read(path, as_version=4).cells[0].source for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    }
    names = [
        f"{path.stem[:2]} · {title.split(chr(10))[0].lstrip('# ')} <notebooks/{path.stem}>" for path, title in titles.items()
    ]
    known = set(re.findall(r"docs/\w+", INDEX))
    more = [f"docs/{path.stem}\n" for path in sorted((ROOT / "docs").glob("*.md")) if f"docs/{path.stem}" not in known]
    parts = {"notebooks": "\n".join(names), "api": "\n".join(pages), "more": "".join(more), "count": len(names)}
    pages["index"] = INDEX.format(**parts)
    for name, text in pages.items():
        (SOURCE / name).parent.mkdir(exist_ok=True)
        (SOURCE / f"{name}.md").write_text(text, encoding="utf-8")


def page_text(path: Path) -> str:
    """A page of the repository; what it links to and the book does not have is linked to where the project lives."""

    # Sphinx alone does not draw mermaid, whose text is plain enough to read; badges are pictures from other hosts.
    text = path.read_text(encoding="utf-8").replace("```mermaid", "```text")
    text = re.sub(r"<!-- badges -->.*?<!-- /badges -->", "", text, flags=re.S)
    text = re.sub(r"!\[([^]]*)\]\(https?:[^)]*\)", r"\1", text)

    def link(found: re.Match[str]) -> str:
        target = (path.parent / found[1]).resolve()
        if target not in staged(ROOT):
            return f"]({render_readme.project_url()}/tree/main/{target.relative_to(ROOT).as_posix()})"
        return found[0]

    return re.sub(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)", link, text)


class _Page(HTMLParser):
    """The ids of a page, and what it links to or loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids |= {name for name in (given.get("id"), given.get("name")) if name}
        if tag == "a" and given.get("href"):
            self.links.add(str(given["href"]))
        source = given.get("src") if tag in ("script", "img") else given.get("href") if tag == "link" else None
        self.loads |= {source} if source else set()


def faults(book: Path) -> list[str]:
    """Links and files of a site that lead nowhere, and what it loads from other hosts."""
    pages = {path.resolve(): _Page(path.read_text(encoding="utf-8")) for path in book.rglob("*.html")}
    found = []
    for path, page in pages.items():
        for address in sorted(page.links | page.loads):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if address in page.loads and parts.scheme != "data":
                    found.append(f"{path.relative_to(book.resolve())} loads {address}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                found.append(f"{path.relative_to(book.resolve())} -> {address}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                found.append(f"{path.relative_to(book.resolve())} -> {address}: no such place")
    return found


def pdf() -> Path:
    """Print the book as one page, with headless Chromium. Raises FileNotFoundError where there is none."""
    from sphinx.cmd.build import build_main

    if (browser := chromium.find()) is None:
        raise FileNotFoundError(f"--pdf needs one of {', '.join(chromium.NAMES)}.")
    single, printed = BOOK.with_name("book-single"), BOOK / "gdrt_lite.pdf"
    build_main(["-q", "-b", "singlehtml", "-d", f"{BOOK}-cache", str(SOURCE), str(single)])
    chromium.print_pdf(browser, single / "index.html", printed)
    return printed


def main() -> int:
    """The command line; 0 if the book is there and whole."""
    try:
        from sphinx.cmd.build import build_main
    except ImportError:
        print('the book needs Sphinx: pip install -c constraints.txt -e ".[book]"', file=sys.stderr)
        return 1
    start = time.perf_counter()
    stage()
    shutil.rmtree(BOOK, ignore_errors=True)
    failed = build_main(["-q", "-W", "--keep-going", "-b", "html", "-d", f"{BOOK}-cache", str(SOURCE), str(BOOK)])
    dead = [] if failed else faults(BOOK)
    print(*dead, sep="\n", end="\n" if dead else "")
    print(f"{BOOK.relative_to(ROOT)}/index.html: {time.perf_counter() - start:.0f} s, {len(dead)} dead links")
    if "--pdf" in sys.argv[1:] and not failed:
        print(f"{pdf().relative_to(ROOT)}: {time.perf_counter() - start:.0f} s")
    if "--open" in sys.argv[1:]:
        webbrowser.open((BOOK / "index.html").as_uri())
    return int(bool(failed or dead))


if __name__ == "__main__":
    sys.exit(main())
