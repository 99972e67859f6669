"""The offline bundle: what it takes for another platform, and that it installs where the network is shut."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import bundle  # noqa: E402


def test_another_platform_gets_what_only_it_needs() -> None:
    """pip alone evaluates the markers of the computer that it runs on."""
    found = {kind: set(bundle.closure(["gdrt-lite[notebooks]"], markers)) for kind, markers in bundle.MARKERS.items()}
    assert {"torch", "jupyterlab", "ipykernel", "numpy"} <= set.intersection(*found.values())
    assert {"pywinpty", "colorama"} <= found["windows"] and "pexpect" not in found["windows"]
    for kind in ("linux", "macos"):
        assert "pexpect" in found[kind] and not {"pywinpty", "colorama"} & found[kind]
    assert not set.union(*found.values()) & {"pytest", "bitsandbytes"}, "no extras but the one asked for"


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("unshare") is None, reason="no unshare to shut the network")
def test_the_bundle_installs_without_a_network_and_runs_the_first_notebook(tmp_path: Path) -> None:
    allowed = subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode == 0
    if not allowed:
        pytest.skip("this system does not allow a network namespace")
    folder = bundle.make(tmp_path / "made")
    seat = shutil.copytree(folder, tmp_path / "seat")
    home = {"HOME": str(tmp_path), "GDRT_LITE_CACHE": str(tmp_path / "cache"), "GDRT_PROFILE": "quick"}
    environment = {**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, **home}

    def offline(command: str) -> str:
        shut = ["unshare", "-rn", "sh", "-c", f"ip link set lo up 2>/dev/null; {command}"]
        done = subprocess.run(shut, cwd=seat, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    start = time.perf_counter()
    said = offline(f"{sys.executable} install.py")
    assert re.search(r"\[OK\] +model", said) and "Ready." in said
    print(f"{bundle.megabytes(folder):.0f} MB, installed in {time.perf_counter() - start:.0f} s")
    run = "nbconvert --to notebook --execute notebooks/00_start_here.ipynb --output done.ipynb"
    offline(f".venv/bin/python -m jupyter {run}")
