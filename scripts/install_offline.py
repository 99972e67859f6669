"""Install the course out of this folder, with no network.

    python install.py          packages into .venv here, the model into your user cache, then the doctor
    python install.py --lab    the same where it is still to do, and then JupyterLab with the notebooks

Only the standard library is used. GDRT_LITE_CACHE names another folder for the model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYTHON = HERE / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
DONE = HERE / ".venv" / ".installed"
# pip is shown nothing but the wheels of this folder, whatever its own settings say.
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(HERE / "wheels"), "PIP_CONFIG_FILE": os.devnull}


def main() -> int:
    """Install once, then run the doctor or JupyterLab; the exit status of what was run."""
    made_for = json.loads((HERE / "bundle.json").read_text(encoding="utf-8"))
    if sys.version_info[:2] != tuple(map(int, made_for["python"].split("."))):
        print(f"This folder is for Python {made_for['python']}; start it as: python{made_for['python']} install.py")
        return 1
    environment = {**{k: v for k, v in os.environ.items() if k != "PIP_CONSTRAINT"}, **OFFLINE, "HF_HUB_OFFLINE": "1"}

    def run(*arguments: str) -> int:
        return subprocess.run([str(PYTHON), "-m", *arguments], env=environment, cwd=HERE).returncode

    if not DONE.exists():
        print("Installing into .venv, a few minutes ...", flush=True)
        venv.create(HERE / ".venv", clear=True, with_pip=True)
        if run("pip", "install", "--quiet", "--disable-pip-version-check", "gdrt-lite[notebooks]"):
            print(f"The wheels do not fit this computer; they are for {made_for['platform']}.")
            return 1
        if run("gdrt_lite", "fetch"):
            return 1
        DONE.touch()
    if "--lab" in sys.argv[1:]:
        return run("jupyter", "lab", "--notebook-dir=notebooks", *[a for a in sys.argv[1:] if a != "--lab"])
    print("Start the course with: python install.py --lab", flush=True)
    return run("gdrt_lite", "doctor")


if __name__ == "__main__":
    sys.exit(main())
