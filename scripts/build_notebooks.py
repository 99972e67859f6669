"""Make, execute, measure the course: notebooks/NN_name.py into NN_name.ipynb, runtimes.json, _build/*.html.

python scripts/build_notebooks.py            all
python scripts/build_notebooks.py 05 06      these
python scripts/build_notebooks.py --html     HTML alone, from the .ipynb that are there
python scripts/build_notebooks.py --check    say which .ipynb do not belong to their .py; run nothing
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gdrt_lite.course.notebook import BUDGETS, card_text, runtimes  # noqa: E402
from gdrt_lite.system.machine import usable_cpus  # noqa: E402

NOTEBOOKS = ROOT / "notebooks"
HTML = ROOT / "_build"
SLACK = 3  # a cell may take, and a notebook may record, this many times the budget
EXERCISE = re.compile(r"^### Exercise (\d\d\.\d+) · (.+)$", re.MULTILINE)
EFFORT = re.compile(r"^\*Difficulty ([1-5])/5 · importance ([1-5])/5 · (\d+) minutes\*$", re.MULTILINE)
PROGRESS_BAR = re.compile(r"\d+%\|")
WIDGET = "application/vnd.jupyter.widget-view+json"


def sources(names: list[str] | None = None, folder: Path = NOTEBOOKS) -> list[Path]:
    """The percent scripts, in order; those that begin with a name. Raises ValueError if none does."""
    found = sorted(folder.glob("[0-9][0-9]_*.py"))
    wanted = [Path(name).stem for name in names or []]
    for name in wanted:
        if not any(path.stem.startswith(name) for path in found):
            raise ValueError(f"no notebook begins with {name!r}; known: {[p.stem for p in found]}")
    return [path for path in found if not wanted or any(path.stem.startswith(name) for name in wanted)]


def read_source(script: Path) -> NotebookNode:
    """The notebook that a percent script stands for: no outputs, ids that follow from the contents."""
    notebook = jupytext.reads(script.read_text(encoding="utf-8"), fmt="py:percent")
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    return notebook


def tags(cell: NotebookNode) -> list[str]:
    """A cell's tags, sorted."""
    return sorted(cell.metadata.get("tags", []))


def outline(notebook: NotebookNode) -> list[tuple[str, str, list[str]]]:
    """What must agree between the pair: kind, source and tags of each cell."""
    return [(cell.cell_type, cell.source, tags(cell)) for cell in notebook.cells]


def source_hash(notebook: NotebookNode) -> str:
    """SHA-256 of the outline: outputs belong to the sources that it names."""
    return hashlib.sha256(json.dumps(outline(notebook)).encode()).hexdigest()


def effort(notebook: NotebookNode) -> dict[str, int]:
    """What the card says beside the run time: words to read, exercises, and their minutes."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    minutes = [int(found[2]) for found in EFFORT.findall(text)]
    exercises = len(EXERCISE.findall(text))
    return {"words": len(text.split()), "exercises": exercises, "exercise_minutes": sum(minutes)}


def clean(notebook: NotebookNode) -> None:
    """Drop what differs from run to run, or is noise: timings, stderr, progress bars, widgets' state."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = _merged([output for output in cell.outputs if not is_noise(output)])


def is_noise(output: NotebookNode) -> bool:
    if output.output_type == "stream":
        return output.name == "stderr" or bool(PROGRESS_BAR.search(output.text))
    data = output.get("data", {})
    return WIDGET in data or bool(PROGRESS_BAR.search(data.get("text/plain", "")))


def _merged(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighbouring stdout pieces: where a kernel flushes is chance."""
    merged: list[NotebookNode] = []
    for output in outputs:
        if merged and output.output_type == merged[-1].output_type == "stream":
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


def execute(notebook: NotebookNode, timeout: int, folder: Path) -> float:
    """Run a notebook in place, in the quick profile and in its folder; seconds taken."""
    os.environ["GDRT_PROFILE"] = "quick"
    start = time.perf_counter()
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    return time.perf_counter() - start


def build(script: Path) -> float:
    """Make one .ipynb with outputs, and record its minutes; seconds taken. Writes nothing if a cell fails."""
    number, folder = script.stem[:2], script.parent
    notebook = read_source(script)
    timeout = SLACK * BUDGETS[number]
    try:
        seconds = round(execute(notebook, timeout, folder), 1)
    except (CellExecutionError, CellTimeoutError):
        HTML.mkdir(exist_ok=True)
        nbformat.write(notebook, HTML / f"{script.stem}.failed.ipynb")
        raise
    clean(notebook)
    record(folder, number, {"seconds": seconds, "cores": usable_cpus(), **effort(notebook)})
    for cell in notebook.cells:
        if "card" in tags(cell):  # the card was run before its minutes were known
            for output in cell.outputs:
                output.data["text/markdown"] = card_text(number, folder)
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "execution": {"timeout": timeout},  # nbmake's, per cell
            "gdrt_lite": {"source_hash": source_hash(notebook), "seconds": seconds, "profile": "quick"},
        }
    )
    nbformat.write(notebook, script.with_suffix(".ipynb"))
    return seconds


def record(folder: Path, number: str, measured: dict[str, Any]) -> None:
    """Update one notebook's entry of runtimes.json; entries measured elsewhere (a Colab T4) stay."""
    path = folder / "runtimes.json"
    table = runtimes(folder) if path.exists() else {}
    table[number] = {**table.get(number, {}), **measured}
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(dict(sorted(table.items())), indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def export_html(notebook: Path, folder: Path = HTML) -> Path:
    """An executed notebook as HTML; folds and alt texts stay (nbconvert alone drops both)."""
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter

    course = """{%- extends 'lab/index.html.j2' -%}
    {%- block input_group -%}
    {%- if cell.metadata.get('jupyter', {}).get('source_hidden') -%}
    {%- set name = 'Solution' if 'solution' in cell.metadata.get('tags', []) else 'Code' -%}
    <details><summary style="margin-left: 4em; font: 13px sans-serif">{{ name }}</summary>{{ super() }}</details>
    {%- else -%}{{ super() }}{%- endif -%}
    {%- endblock -%}
    {%- block data_png scoped -%}
    <div class="jp-RenderedImage jp-OutputArea-output">
    <img src="data:image/png;base64,{{ output.data['image/png'] }}" style="max-width: 100%"
    {%- set width = output | get_metadata('width', 'image/png') -%}
    {%- if width %} width="{{ width }}"{% endif %}
    {%- set alt = output | get_metadata('alt', 'image/png') %} alt="{{ alt | escape_html }}">
    </div>
    {%- endblock -%}"""
    loader = DictLoader({"course.html.j2": course})
    exporter = HTMLExporter(template_file="course.html.j2", extra_loaders=[loader])
    body, _ = exporter.from_filename(str(notebook))
    folder.mkdir(exist_ok=True)
    page = folder / f"{notebook.stem}.html"
    page.write_text(body, encoding="utf-8")
    return page


def stale(script: Path) -> str | None:
    """Why the .ipynb beside a script is not its executed pair, or None where it is."""
    pair = script.with_suffix(".ipynb")
    if not pair.exists():
        return "is missing"
    present, wanted = nbformat.read(pair, as_version=4), read_source(script)
    if outline(present) != outline(wanted):
        return "differs from its .py in a cell's kind, source or tags"
    if present.metadata.get("gdrt_lite", {}).get("source_hash") != source_hash(wanted):
        return "has outputs of other sources"
    return None


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0 if all went well."""
    as_it_is = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_it_is)
    parser.add_argument("names", nargs="*", help="numbers or names of notebooks; all by default")
    parser.add_argument("--html-only", "--html", action="store_true", help="export only, run nothing")
    parser.add_argument("--check", action="store_true", help="say what is out of date, run nothing")
    options = parser.parse_args(arguments)
    try:
        scripts = sources(options.names)
    except ValueError as error:
        parser.error(str(error))
    if options.check:
        found = {script: why for script in scripts if (why := stale(script))}
        for script, why in found.items():
            print(f"{script.stem}.ipynb {why}; run: python scripts/build_notebooks.py {script.stem[:2]}")
        return int(bool(found))
    failed = 0
    for script in scripts:
        try:
            if not options.html_only:
                print(f"{script.stem}: {build(script):.0f} s of {BUDGETS[script.stem[:2]]}", flush=True)
        except (CellExecutionError, CellTimeoutError) as error:
            failed += 1
            print(f"{script.stem}: FAILED; the .ipynb is left as it was\n{error}", file=sys.stderr)
        else:
            if script.with_suffix(".ipynb").exists():
                print(f"  {export_html(script.with_suffix('.ipynb')).relative_to(ROOT)}", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
