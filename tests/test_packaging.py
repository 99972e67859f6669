"""The three lists of dependencies agree, and an installed package carries its modules and its data."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import gdrt_lite

ROOT = Path(__file__).resolve().parents[1]
SPECIAL = ("quantised", "book", "browser")
CONDA_NAMES = {"pytorch": "torch"}  # where conda-forge and PyPI differ


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads(read("pyproject.toml"))["project"]


@pytest.fixture(scope="module")
def requirements(project) -> dict[str, str]:
    """Name -> version range, of the package with its extras but for what needs a GPU or serves its authors alone."""
    extras = [lines for name, lines in project["optional-dependencies"].items() if name not in SPECIAL]
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    parsed = [Requirement(line) for line in lines if not line.startswith("gdrt-lite")]
    assert len({need.name for need in parsed}) == len(parsed), "a package is listed twice"
    return {need.name: str(need.specifier) for need in parsed}


def pins() -> dict[str, str]:
    lines = [line for line in read("constraints.txt").splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line) for line in lines), lines
    return {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines)}


def test_conda_environment_equals_pyproject(project, requirements):
    listed = yaml.safe_load(read("environment.yml"))["dependencies"]
    conda = [Requirement(line) for line in listed if isinstance(line, str)]
    found = {CONDA_NAMES.get(need.name, need.name): str(need.specifier) for need in conda}
    assert found.pop("python") == project["requires-python"]
    assert found.pop("pip") == ""
    assert found == requirements
    assert listed[-1] == {"pip": ["-e ."]}


def test_every_requirement_is_pinned_within_its_range(project, requirements):
    versions = pins()
    extras = project["optional-dependencies"]
    for line in (*extras["book"], *extras["browser"]):
        assert Requirement(line).specifier.contains(versions[Requirement(line).name]), line
    for name, specifier in requirements.items():
        assert Requirement(f"{name}{specifier}").specifier.contains(versions[name]), name


def test_pins_name_no_build_of_torch():
    assert re.fullmatch(r"[0-9.]+", pins()["torch"])  # "2.13.0+cpu" could not be met on a GPU machine


def test_third_party_imports_are_declared(requirements):
    """What the package imports is a dependency, and not merely there by luck of another one."""
    names = {"sklearn": "scikit-learn", "yaml": "pyyaml", "dateutil": "python-dateutil", "PIL": "pillow"}
    by_transformers = {"tokenizers", "safetensors", "huggingface_hub"}  # transformers cannot be without these
    imported = set()
    for path in (ROOT / "gdrt_lite").rglob("*.py"):
        imported |= set(re.findall(r"^\s*(?:import|from) ([A-Za-z_]\w*)", path.read_text(encoding="utf-8"), re.M))
    outside = imported - set(sys.stdlib_module_names) - {"gdrt_lite", "IPython"} - by_transformers
    assert {names.get(name, name) for name in outside} <= set(requirements)


def test_built_package_holds_modules_and_data(tmp_path):
    """A wheel, built without a network: then everything is read from it, and its version is that of the package."""
    pytest.importorskip("hatchling")
    source, built = tmp_path / "source", tmp_path / "built"
    for name in ("gdrt_lite", "data"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "notebooks/runtimes.json"):
        (source / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=source,
        check=True,
        capture_output=True,
    )
    shutil.rmtree(source)
    wheel = tmp_path / f"gdrt_lite-{gdrt_lite.__version__}-py3-none-any.whl"
    zipfile.ZipFile(wheel).extractall(built)
    code = (
        "import json; from gdrt_lite import data; folder = data.data_folder(); "
        "from gdrt_lite.course.notebook import runtimes; "
        "print(json.dumps([str(folder), len(data.load_movielens(500).titles), sorted(runtimes())[0]]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(built)}
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    folder, titles, number = json.loads(result.stdout)
    assert Path(folder) == built / "gdrt_lite" / "_data"
    assert (titles, number) == (500, "00")
    modules = {path.relative_to(ROOT) for path in (ROOT / "gdrt_lite").rglob("*.py")}
    assert modules == {p.relative_to(built) for p in built.rglob("*.py") if "_data" not in p.parts}
    assert (built / "gdrt_lite" / "py.typed").exists()
    (scripts,) = built.glob("*.dist-info/entry_points.txt")
    assert "gdrt-lite = gdrt_lite.__main__:main" in scripts.read_text(encoding="utf-8")


def test_an_editable_installation_copies_neither_modules_nor_data(tmp_path):
    """A copy of data/ would be out of date after the next change, and hide that the clone is gone."""
    build = "import sys, hatchling.build; print(hatchling.build.build_editable(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "_gdrt_lite.pth" in names
    assert not [name for name in names if name.startswith("gdrt_lite/")]


def test_the_citation_names_this_version_and_its_licence(project):
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["version"] == gdrt_lite.__version__
    assert citation["license"] == project["license"]
    assert citation["repository-code"] == project["urls"]["Homepage"]
    assert re.search(rf"^## (Unreleased|{re.escape(gdrt_lite.__version__)})", read("CHANGELOG.md"), re.M)


# ----------------------------------------------------------------------------------------- what CI and hooks run


def python_lines(target: str) -> list[str]:
    """The `python -m ...` commands of a target of the Makefile."""
    makefile = read("Makefile").replace("$(PYTEST)", "$(PY) -m pytest")  # how many at once is the machine's matter
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.M)
    return [line.split("-m ", 1)[1].removesuffix(" $(ARGS)") for line in recipe[1].splitlines()]


def test_the_workflow_runs_the_fast_lane_of_make_check():
    jobs = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]
    fast = [step["run"] for step in jobs["fast"]["steps"] if "run" in step]
    assert f"python -m {python_lines('check')[0]}" in fast
    assert [".ci/run"] == [step["run"] for step in jobs["full"]["steps"] if "run" in step]
    lanes = jobs["fast"]["strategy"]["matrix"]["include"]
    assert {lane["os"] for lane in lanes} == {"ubuntu-latest", "macos-latest", "windows-latest"}
    assert {lane["versions"] for lane in lanes} == {"pinned", "lowest", "newest"}


def test_the_browser_s_tests_get_what_they_would_skip_without():
    """Without Chromium, Playwright or the built book these tests are skipped, and the lane would be green for nothing."""
    recipe = re.search(r"^browser:.*\n((?:\t.*\n)+)", read("Makefile"), re.M)[1].splitlines()
    assert recipe[0].endswith('-c constraints.txt -e ".[book,browser]"')
    assert [line.split()[1] for line in recipe[1:3]] == ["scripts/chromium.py", "scripts/book.py"]
    assert "-m pytest tests/test_browser.py" in recipe[3]


def test_the_hooks_are_those_of_make_lint():
    (repository,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert len(repository["hooks"]) == len(python_lines("lint"))
    for line in python_lines("lint"):
        tool = " ".join(line.split()[: 2 if line.startswith("ruff") else 1])
        assert any(hook["entry"].startswith(f"python -m {tool}") for hook in repository["hooks"]), tool


def test_issue_forms_ask_for_the_doctor():
    forms = [path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"]
    for path in forms:
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert any("gdrt_lite doctor" in part["attributes"]["label"] for part in form["body"]), path.name
    assert forms


def test_ci_entry_point_can_be_run():
    path = ROOT / ".ci" / "run"
    assert path.stat().st_mode & stat.S_IXUSR or os.name == "nt"
    assert "set -euo pipefail" in read(".ci/run") and "make lint\nmake browser\nmake test\n" in read(".ci/run")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_explains_a_missing_or_old_python(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "constraints.txt").touch()
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    for python in ("no-such-python", str(old)):
        result = subprocess.run(["make", "setup", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode != 0
        assert "needs Python 3.11 or later" in result.stdout
        assert not (tmp_path / ".venv").exists()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["setup", "run", "test", "lab", "bench", "study", "notebooks"])
def test_make_targets_set_up_first(target):
    plan = subprocess.run(
        ["make", "--dry-run", "--always-make", target], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert plan.index("-c constraints.txt torch") < plan.index('-e ".[dev]"') < plan.index("-m gdrt_lite fetch")
