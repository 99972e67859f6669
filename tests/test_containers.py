"""Binder and Codespaces install what pyproject.toml and constraints.txt say, by commands that the repository has."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gdrt_lite.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
POST_BUILD = ROOT / ".binder" / "postBuild"
DEV = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Stands for Python: writes down what it was asked, and runs the script that needs no installation. FAIL names what breaks.
RECORDER = """#!/bin/sh
echo "$@" >> "$LOG"
case "$*" in *"$FAIL"*) exit 1;; *editions.py*) exec "{python}" "$@";; esac
"""


def run_post_build(folder: Path, fail: str = "nothing of this name") -> tuple[int, list[str]]:
    """Run Binder's script in a bare copy of what it touches; its status, and the commands that it gave Python."""
    for name in ("scripts", "notebooks", "gdrt_lite"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.html"))
    (folder / "bin").mkdir()
    (folder / "bin" / "python").write_text(RECORDER.format(python=sys.executable), encoding="utf-8")
    (folder / "bin" / "python").chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    settings = {**os.environ, "PATH": path, "LOG": str(folder / "log"), "FAIL": fail}
    done = subprocess.run(["bash", str(POST_BUILD)], cwd=folder, env=settings, capture_output=True, text=True)
    return done.returncode, (folder / "log").read_text(encoding="utf-8").splitlines()


@pytest.mark.skipif(os.name == "nt", reason="Binder's script is for bash")
def test_binder_installs_the_pinned_package_fetches_the_model_and_makes_the_working_copy(tmp_path: Path) -> None:
    status, commands = run_post_build(tmp_path)
    assert status == 0
    assert [command.split()[1] for command in commands[:3]] == ["pip", "uv", "gdrt_lite"]
    assert "-c constraints.txt" in commands[1] and "--torch-backend cpu" in commands[1]
    (extra,) = re.findall(r"-e \.\[(\w+)\]", commands[1])
    assert extra in PROJECT["optional-dependencies"]
    assert (tmp_path / "work" / "05_dro_weights_by_hand.ipynb").exists()
    assert os.access(POST_BUILD, os.X_OK)


@pytest.mark.skipif(os.name == "nt", reason="Binder's script is for bash")
def test_binder_stops_at_the_first_command_that_fails(tmp_path: Path) -> None:
    status, commands = run_post_build(tmp_path, fail="gdrt_lite fetch")
    assert status != 0 and commands[-1] == "-m gdrt_lite fetch"


def test_binder_and_the_container_take_the_oldest_python_that_the_package_allows() -> None:
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert (ROOT / ".binder" / "runtime.txt").read_text(encoding="utf-8").strip() == f"python-{oldest}"
    assert DEV["image"].endswith(f"python:{oldest}")


def test_every_command_of_the_container_is_one_that_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in DEV["postCreateCommand"].split(" && "):
        program, *words = command.split()
        if program == "make":
            assert re.search(rf"^{words[0]}:", makefile, re.M), command
        elif words[0] == "-m":
            with pytest.raises(SystemExit) as left:
                main([words[2], "--help"])
            assert left.value.code == 0 and words[2] in capsys.readouterr().out
        else:
            assert (ROOT / words[0]).exists(), command
        if program != "make":
            assert program == ".venv/bin/python" and "VENV := .venv\n" in makefile
    opened = [Path(name) for name in DEV["customizations"]["codespaces"]["openFiles"]]
    assert all((ROOT / "notebooks" / path.name).exists() and path.parts[0] == "work" for path in opened)
