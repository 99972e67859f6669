"""Each notebook alone in an empty folder of an environment like Colab's: no clone, no package, but torch and an old torchao.

Nothing is downloaded: the environment borrows this one's packages, and the setup cell installs the wheel that is built here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import build_notebooks as builder  # noqa: E402

QUICK = ("00", "05")  # always; the others take minutes each
CASES = [
    pytest.param(script, marks=[pytest.mark.slow if script.stem[:2] in QUICK else pytest.mark.long, pytest.mark.model])
    for script in builder.sources()
]
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=1800, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[1])
"""
INSTALLED = """
import json
from importlib import metadata
print(json.dumps({d.name: [d.version, str(d.locate_file(""))] for d in reversed(list(metadata.distributions()))}))
"""
OURS = {"PYTHONPATH", "PYTHONHOME", "GDRT_LITE_SOURCE", "JUPYTER_PATH"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it is published, with its data."""
    pytest.importorskip("hatchling", reason="the wheel is built by hatchling, of the extra `test`")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def colab(tmp_path: Path) -> Path:
    """A Python with this environment's packages and the torchao that Colab preinstalls, but without gdrt_lite."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=os.name != "nt")
    python = tmp_path / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip())
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    (site / "torchao").mkdir()
    (site / "torchao" / "__init__.py").touch()
    (site / "torchao-0.10.0.dist-info").mkdir()
    about = "Metadata-Version: 2.1\nName: torchao\nVersion: 0.10.0\n"
    (site / "torchao-0.10.0.dist-info" / "METADATA").write_text(about, encoding="utf-8")
    return python


def ask(python: Path, folder: Path, code: str, *arguments: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in OURS}
    env = {**kept, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "GDRT_PROFILE": "quick", **environment}
    done = subprocess.run([python, "-c", code, *arguments], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("script", CASES, ids=lambda script: script.stem[:2])
def test_it_installs_the_package_runs_twice_and_replaces_nothing(
    script: Path, colab: Path, wheel: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "content"
    folder.mkdir()
    alone = folder / f"{script.stem}.ipynb"
    shutil.copy(script.with_suffix(".ipynb"), alone)
    before = json.loads(ask(colab, folder, INSTALLED))
    assert before["torchao"][0] == "0.10.0" and str(tmp_path) not in before["torch"][1]
    before.pop("gdrt-lite", None)  # an editable one's record is borrowed too, without its modules
    for source in (str(wheel), "nowhere.whl"):  # the second time there is nothing left to install
        ask(colab, folder, EXECUTE, alone.name, GDRT_LITE_SOURCE=source)
        after = json.loads(ask(colab, folder, INSTALLED))
        assert str(tmp_path / "env") in after.pop("gdrt-lite")[1]
        assert after == before
    notebook = nbformat.read(alone, as_version=4)
    (card,) = [cell for cell in notebook.cells if "card" in builder.tags(cell)]
    assert "Exercises" in card.outputs[0].data["text/markdown"], "the card finds the minutes in the wheel"
    assert not [cell for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "error"]
