"""Make the student's and the instructor's edition of the course, and the working copy of `make lab`, from the one source.

    python scripts/editions.py                 both editions, into _build/editions
    python scripts/editions.py 05              of this notebook
    python scripts/editions.py --work work     copy the executed notebooks to where a learner may write

The student's edition has no solutions, and no outputs. Where a later cell goes on with an answer, the package's reference
stands in for one that did not pass. The instructor's shows them, with what is expected and the mistakes that the
checks know.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import build_notebooks as builder  # noqa: E402

from gdrt_lite.course import checks  # noqa: E402
from gdrt_lite.course.checks.compare import show  # noqa: E402

CHECK = re.compile(r'checks\.check\("(\d\d\.\d+)", (\w+)')
RECORD = ".course.json"  # of a working copy: the SHA-256 of each notebook as it was put there
STAND_IN = """\
# The next cells need an answer: yours where it passes, else the course's own.
_exercise = checks.find("{id}")
{name} = {name} if checks.judge(_exercise, {name})[0] else _exercise.reference"""


def student(notebook: NotebookNode) -> NotebookNode:
    """A copy without solutions and outputs. Raises ValueError if a solution does not check exactly one answer."""
    cells = []
    for place, cell in enumerate(notebook.cells):
        cell = nbformat.from_dict(dict(cell))
        if "solution" in builder.tags(cell):
            id, name = answer_of(cell)
            if not used(name, notebook.cells[place + 1 :]):
                continue
            source = STAND_IN.format(id=id, name=name)
            cell = nbformat.v4.new_code_cell(source, id=f"stand-in-{id.replace('.', '-')}")
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        cells.append(cell)
    kernel = {name: notebook.metadata[name] for name in ("kernelspec", "language_info") if name in notebook.metadata}
    return nbformat.v4.new_notebook(cells=cells, metadata={**kernel, "gdrt_lite": {"edition": "student"}})


def instructor(notebook: NotebookNode) -> NotebookNode:
    """A copy with each solution unfolded, and below it the expected answer and the mistakes that the check knows."""
    cells = []
    for cell in notebook.cells:
        cell = nbformat.from_dict(dict(cell))
        cells.append(cell)
        if "solution" in builder.tags(cell):
            id, _ = answer_of(cell)
            cell.metadata = {"tags": builder.tags(cell)}
            cell.source = f"# Solution {id}\n{cell.source}"
            cells.append(nbformat.v4.new_markdown_cell(notes(id), id=f"notes-{id.replace('.', '-')}"))
    metadata = {**notebook.metadata, "gdrt_lite": {"edition": "instructor"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def folded(notebook: NotebookNode) -> NotebookNode:
    """A copy to write into: a folded solution shows its number and not its answer, and its verdict says whose it is.

    From the first prediction on there are no outputs, since these would show what is to be predicted; without any
    prediction, as in the workshop with its vote, there is no output at all.
    """
    cells = [nbformat.from_dict(dict(cell)) for cell in notebook.cells]
    predicted = not any(cell.source.startswith("predict(") for cell in cells)
    for cell in cells:
        predicted = predicted or cell.source.startswith("predict(")
        if solution := "solution" in builder.tags(cell):
            number, _, code = cell.source.partition("\n")  # the line that a folded cell shows
            cell.source = f'{number}\nprint("The course\'s own solution:")\n{code}'
        if cell.cell_type == "code" and (solution or predicted):
            cell.outputs, cell.execution_count = [], None
    return nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)


def answer_of(cell: NotebookNode) -> tuple[str, str]:
    """Number of the exercise and name of the answer in a solution's cell."""
    found = CHECK.findall(cell.source)
    if len(found) != 1:
        raise ValueError(f"a solution checks {len(found)} answers, and must check one: {cell.source[:60]!r}")
    return found[0]


def used(name: str, cells: list[NotebookNode]) -> bool:
    """Whether a code cell reads the name."""
    trees = (ast.walk(ast.parse(cell.source)) for cell in cells if cell.cell_type == "code")
    return any(isinstance(node, ast.Name) and node.id == name for tree in trees for node in tree)


def notes(id: str) -> str:
    """What an instructor wants to know of an exercise, in Markdown."""
    exercise = checks.find(id)
    expected = "a function; the check tries it on cases" if callable(exercise.reference) else f"`{show(exercise.reference)}`"
    lines = [f"**Expected in {id}:** {expected}. {exercise.after}".rstrip(), "", "**Mistakes that the check names:**", ""]
    return "\n".join([*lines, *(f"- {mistake.hint}" for mistake in exercise.mistakes)])


def write(folder: Path, names: list[str]) -> list[Path]:
    """Both editions of the notebooks that begin with a name, in folder/student and folder/instructor."""
    written = []
    for script in builder.sources(names):
        executed = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
        for edition in (student, instructor):
            path = folder / edition.__name__ / f"{script.stem}.ipynb"
            path.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(edition(executed), path)
            shutil.copy(script.parent / "runtimes.json", path.parent)
            written.append(path)
    return written


def work(folder: Path, course: Path = builder.NOTEBOOKS) -> list[str]:
    """Copy the executed notebooks to where a learner may write; never over something that the learner changed.

    Returns:
        Sentences about notebooks that the course has changed since they were copied, and the learner too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / RECORD
    before = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    said, now = [], {}
    for path in sorted(course.glob("[0-9][0-9]_*.ipynb")):
        text = nbformat.writes(folded(nbformat.read(path, as_version=4)))
        copy, theirs = folder / path.name, digest(text.encode())
        untouched = not copy.exists() or digest(copy.read_bytes()) == before.get(path.name)
        if untouched:
            copy.write_bytes(text.encode())
        elif before.get(path.name) != theirs:
            said.append(f"{copy.name} has changed in the course; rename your copy in {folder} to get it beside your own.")
        now[path.name] = theirs if untouched else before.get(path.name, "")
    record.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
    return said


def digest(contents: bytes) -> str:
    """SHA-256 of a file's contents, in hex."""
    return hashlib.sha256(contents).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0 if all was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="numbers or names of notebooks; all by default")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "editions", help="default: _build/editions")
    parser.add_argument("--work", type=Path, help="make or refresh a working copy in this folder, and no editions")
    options = parser.parse_args(arguments)
    if options.work:
        print("".join(f"{line}\n" for line in work(options.work)), end="")
        return 0
    try:
        print(*write(options.out, options.names), sep="\n")
    except ValueError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
