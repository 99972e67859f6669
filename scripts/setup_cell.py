"""The setup cell, one text for all notebooks.

`python scripts/setup_cell.py notebooks/*.py` writes it into the cell tagged `setup`, and into the executed pair as well. The
cell has no output and changes nothing that another cell prints, so a pair that was in step stays so without another run.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import build_notebooks as builder  # noqa: E402

# Folded: JupyterLab shows the first line, and Colab the title.
HEADER = '# %% tags=["setup"] cellView="form" jupyter={"source_hidden": true}\n'
SETUP = """\
# @title Setup: the clone around this notebook, else the installed package, else pip installs it
import os, subprocess, sys; from importlib import invalidate_caches, metadata
if os.path.exists("../gdrt_lite/__init__.py"): sys.path.insert(0, os.path.abspath(".."))
try: import gdrt_lite.course
except ImportError:  # pip keeps the torch and numpy that are there, so that nothing has to be restarted
    source = os.environ.get("GDRT_LITE_SOURCE") or "git+https://github.com/gdrt-lite/gdrt_lite"
    print(f"Installing {source} takes minutes; GDRT_LITE_SOURCE can name a wheel or a clone.", flush=True)
    kept = {f"{d.name}=={d.version}" for d in metadata.distributions() if d.name in ("torch", "numpy")}
    subprocess.run([sys.executable, "-m", "pip", "install", source, *kept], check=True)
    sys.modules.pop("gdrt_lite", None); invalidate_caches()  # a mere folder of that name may have been found
from gdrt_lite import plots; from gdrt_lite.course import checks
from gdrt_lite.course.notebook import card, pick, say
"""

_CELL = re.compile(r'^# %% tags=\["setup"\][^\n]*\n.*?(?=^# %%|\Z)', re.MULTILINE | re.DOTALL)


def rewrite(text: str) -> str:
    """A percent script with the common text in its setup cell. Raises ValueError unless it has one."""
    if len(_CELL.findall(text)) != 1:
        raise ValueError('want exactly one cell that starts with: # %% tags=["setup"]')
    return _CELL.sub(lambda _: f"{HEADER}{SETUP}\n", text)


def write(script: Path) -> str:
    """Write the cell into a script and, where the executed pair is in step, into the pair; what was written."""
    pair, in_step = script.with_suffix(".ipynb"), builder.stale(script) is None
    script.write_text(rewrite(script.read_text(encoding="utf-8")), encoding="utf-8")
    if not in_step:
        return f"wrote the setup cell into {script}; its .ipynb was out of date before, so build it"
    wanted, notebook = builder.read_source(script), nbformat.read(pair, as_version=4)
    for cell, source in zip(notebook.cells, wanted.cells, strict=True):
        if "setup" in builder.tags(cell):
            cell.source, cell.metadata, cell.id = source.source, source.metadata, source.id
    notebook.metadata["gdrt_lite"]["source_hash"] = builder.source_hash(wanted)
    nbformat.write(notebook, pair)
    return f"wrote the setup cell into {script} and its .ipynb"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(write(Path(name)))
