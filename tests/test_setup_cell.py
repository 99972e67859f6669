"""The setup cell, run for real: in a clone, and in an empty folder of a fresh environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import build_notebooks as builder  # noqa: E402
import setup_cell  # noqa: E402

TORCH = __import__("importlib.metadata").metadata.version("torch")
REPORT = """
import gdrt_lite, torch
print("FROM", gdrt_lite.__file__)
print("TORCH", torch.__version__, torch.__file__)
print(checks.check("98.1", 1), pick(quick=1, standard=2, full=3))
"""
METADATA = "Metadata-Version: 2.1\nName: gdrt-lite\nVersion: 0.1.0\nRequires-Dist: {}\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
OURS = {"PYTHONPATH", "PYTHONHOME", "GDRT_LITE_SOURCE", "GDRT_PROFILE"}


def _wheel(folder: Path, requires: str = "torch>=2") -> Path:
    """The modules of the package in a wheel made by hand, so that no index and no build is needed."""
    path, info = folder / "gdrt_lite-0.1.0-py3-none-any.whl", "gdrt_lite-0.1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        for file in (ROOT / "gdrt_lite").rglob("*.py"):
            wheel.write(file, file.relative_to(ROOT).as_posix())
        wheel.writestr(f"{info}/METADATA", METADATA.format(requires))
        wheel.writestr(f"{info}/WHEEL", WHEEL)
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A Python that has this environment's packages (torch, pip) but no gdrt_lite: what Colab is like."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=os.name != "nt")
    python = tmp_path / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip())
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return python


def _run(python: Path | str, folder: Path, cell: str, **environment: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(parents=True, exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if k not in OURS}
    env = {**kept, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment}
    return subprocess.run([python, "-c", cell], cwd=folder, env=env, capture_output=True, text=True, timeout=300)


def test_in_an_empty_folder_it_installs_keeps_torch_and_runs_twice(fresh: Path, tmp_path: Path) -> None:
    wheel = _wheel(tmp_path)
    missing = _run(fresh, tmp_path / "work", "import gdrt_lite.course")  # an empty folder of that name has no course
    assert "ModuleNotFoundError: No module named 'gdrt_lite" in missing.stderr, "it must start without the package"
    cell = f"{setup_cell.SETUP}\n{setup_cell.SETUP}\n{REPORT}"
    for _ in range(2):  # a second kernel, too
        done = _run(fresh, tmp_path / "work", cell, GDRT_LITE_SOURCE=str(wheel))
        assert done.returncode == 0, done.stderr
        assert f"FROM {tmp_path / 'env'}" in done.stdout and "False 1" in done.stdout
        assert ("Installing" in done.stdout) == wheel.exists(), "it says that it installs, and only then"
        assert f"TORCH {TORCH} {sysconfig.get_path('purelib')}" in done.stdout
        wheel = tmp_path / "gone.whl"  # the second kernel has it already


def test_a_package_that_wants_another_torch_is_refused(fresh: Path, tmp_path: Path) -> None:
    wheel = _wheel(tmp_path, requires="torch<2")
    done = _run(fresh, tmp_path / "work", setup_cell.SETUP, GDRT_LITE_SOURCE=str(wheel))
    assert done.returncode and f"Installing {wheel}" in done.stdout
    assert "gdrt-lite 0.1.0 depends on torch<2" in done.stdout + done.stderr
    assert f"torch=={TORCH}" in done.stdout + done.stderr  # what the notebook asked pip to keep


def test_a_folder_of_the_same_name_is_not_taken_for_the_package(fresh: Path, tmp_path: Path) -> None:
    """A clone called gdrt_lite lies beside the notebook: Python would import that folder."""
    wheel = _wheel(tmp_path)
    (tmp_path / "work" / "gdrt_lite").mkdir(parents=True)
    done = _run(fresh, tmp_path / "work", f"{setup_cell.SETUP}\n{REPORT}", GDRT_LITE_SOURCE=str(wheel))
    assert done.returncode == 0, done.stderr
    assert f"FROM {tmp_path / 'env'}" in done.stdout


def test_in_a_clone_it_takes_the_clone_and_installs_nothing(fresh: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / "gdrt_lite").symlink_to(ROOT / "gdrt_lite", target_is_directory=True)
    cell = f"{setup_cell.SETUP}\n{setup_cell.SETUP}\n{REPORT}"
    done = _run(fresh, clone / "notebooks", cell, GDRT_LITE_SOURCE="/nowhere")
    assert done.returncode == 0, done.stderr
    assert f"FROM {clone}" in done.stdout


def test_the_text_is_short_and_names_the_project_as_pyproject_does() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f'"git+{project["urls"]["Homepage"]}"' in setup_cell.SETUP
    assert len(setup_cell.SETUP.splitlines()) <= 12
    assert max(len(line) for line in setup_cell.SETUP.splitlines()) <= 110


def test_it_is_written_into_the_cell_tagged_setup_alone() -> None:
    script = '# %% [markdown]\n# # Q?\n\n# %% tags=["setup"]\nformer = 1\n\n# %%\nkept = 2\n'
    once = setup_cell.rewrite(script)
    assert setup_cell.HEADER in once
    assert setup_cell.SETUP in once and "former" not in once and "kept = 2" in once and "# # Q?" in once
    assert setup_cell.rewrite(once) == once
    for broken in ("# %%\nx = 1\n", script + script):
        with pytest.raises(ValueError, match="exactly one cell"):
            setup_cell.rewrite(broken)


def test_the_executed_pair_takes_the_cell_without_being_run_again(tmp_path: Path) -> None:
    (name,) = builder.sources(["05"])
    for suffix in (".py", ".ipynb"):
        shutil.copy(name.with_suffix(suffix), tmp_path)
    script, pair = tmp_path / name.name, tmp_path / f"{name.stem}.ipynb"
    before = nbformat.read(pair, as_version=4)
    assert setup_cell.write(script).endswith("its .ipynb")
    assert builder.stale(script) is None
    after = nbformat.read(pair, as_version=4)
    outputs = [[cell.get("outputs") for cell in notebook.cells] for notebook in (before, after)]
    assert outputs[0] == outputs[1]
    (cell,) = [cell for cell in after.cells if "setup" in builder.tags(cell)]
    assert cell.source == setup_cell.SETUP.strip() and cell.metadata["jupyter"] == {"source_hidden": True}
    script.write_text(script.read_text(encoding="utf-8") + "\n# %%\n1 + 1\n", encoding="utf-8")
    assert setup_cell.write(script).endswith("so build it")  # a pair that was out of date is not passed off as in step
