"""The setup cell, one text for all notebooks.

`python scripts/setup_cell.py notebooks/*.py` writes it into the cell tagged `setup`; a test compares.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

SETUP = """\
# Setup, the same in all notebooks: use the clone around it, else install the package and keep this torch.
import os, subprocess, sys, tempfile
from importlib import invalidate_caches, metadata, util
from pathlib import Path

def found() -> bool:
    return getattr(util.find_spec("gdrt_lite"), "origin", None) is not None

if Path("../gdrt_lite/__init__.py").exists() and (clone := str(Path("..").resolve())) not in sys.path:
    sys.path.insert(0, clone)
if not found():
    source = os.environ.get("GDRT_LITE_SOURCE") or "git+https://github.com/gdrt-lite/gdrt_lite"
    keep = Path(tempfile.mkdtemp(), "keep.txt")
    keep.write_text(f"torch=={metadata.version('torch')}" if util.find_spec("torch") else "")
    pip = [sys.executable, "-m", "pip", "install", "--constraint", str(keep), source]
    if (done := subprocess.run(pip, capture_output=True, text=True)).returncode:
        raise RuntimeError(f"cannot install {source}; set GDRT_LITE_SOURCE\\n{done.stdout}{done.stderr}")
    invalidate_caches()
from gdrt_lite import plots; from gdrt_lite.course import checks
from gdrt_lite.course.notebook import card, pick, say
"""

_CELL = re.compile(r'(^# %% tags=\["setup"\][^\n]*\n).*?(?=^# %%|\Z)', re.MULTILINE | re.DOTALL)


def rewrite(text: str) -> str:
    """A percent script with the common text in its setup cell. Raises ValueError unless it has one."""
    if len(_CELL.findall(text)) != 1:
        raise ValueError('want exactly one cell that starts with: # %% tags=["setup"]')
    return _CELL.sub(lambda match: f"{match.group(1)}{SETUP}\n", text)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        script = Path(name)
        script.write_text(rewrite(script.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"wrote the setup cell into {script}")
