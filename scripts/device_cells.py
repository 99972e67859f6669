"""Run the study's missing cells on a machine that has nothing but Python and torch, and bring the cells back.

    python scripts/device_cells.py go MACHINE [--jobs 4] [--minutes 10] [--slices 12] [--grid FILE] [--results FOLDER]

MACHINE is a folder on this machine, or `host:folder` for ssh. `go` packs the code, the data, the model and the wheels that
the machine lacks into parts of under 64 MiB, sends those that are not there yet, and runs one slice after another. A slice
runs `--jobs` cells at a time on one device and ends after `--minutes`; the next one continues from their checkpoints. Where
no ssh leads there, `pack FOLDER` here and `slice FOLDER` there do the same, and the cells are then in FOLDER/cells.
"""

from __future__ import annotations

import argparse
import importlib.metadata as metadata
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STOP = 20  # seconds that a cell has to end once it is told to
HAS = "import importlib.metadata as m; print(*[d.name for d in m.distributions()])"


def missing(tree: Path, grid: Path, cells: Path) -> list:
    """The configurations of the grid that have no cell yet, read with the code in `tree`."""
    sys.path[:0] = [str(tree), str(tree / "site")]
    from gdrt_lite.study.grid import read_grid

    return [config for config in read_grid(grid) if not (cells / f"{config.key}.json").exists()]


def needed() -> set[str]:
    """The distributions that the package needs, theirs included, but for torch and what comes with it."""
    found, waiting = set(), ["gdrt-lite"]
    while waiting:
        for line in metadata.requires(waiting.pop()) or ():
            own = re.split(r"[^\w.-]", line)[0].lower().replace("_", "-")
            here = any(True for _ in metadata.distributions(name=own))  # what is not is for other platforms
            if here and "extra ==" not in line and own not in found | {"torch"}:
                found.add(own)
                waiting.append(own)
    return found


def pack(folder: Path, grid: Path, results: Path, wheels: list[str]) -> None:
    """Write part-000, part-001, ... and SHA256SUMS: one tar file with everything that the missing cells need."""
    configs = missing(ROOT, grid, results)
    from gdrt_lite import data
    from gdrt_lite.system import assets

    sources = {path: ROOT / path for path in ("gdrt_lite", "data/movielens")} | {"grid.yaml": grid}
    sources |= {f"data/{c.data}": data.data_folder() / c.data for c in configs if c.data not in data.NAMED}
    made = [assets.smollm2_folder()] if any(c.model == assets.SMOLLM2 for c in configs) else []
    made += [assets.movielens_100k()] if any(c.data == "movielens-100k" for c in configs) else []
    sources |= {f"cache/{path.name}": path for path in made}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        pins = [f"{name}=={metadata.version(name)}" for name in wheels]
        download = "-m pip download --quiet --no-deps --only-binary=:all: --dest".split()
        if pins:
            subprocess.run([sys.executable, *download, scratch, *pins], check=True)
        cut = "rm -f part-*; split -b 60M -d -a 3 - part- && sha256sum part-* > SHA256SUMS"
        split = subprocess.Popen(cut, shell=True, cwd=folder, stdin=subprocess.PIPE)
        with tarfile.open(fileobj=split.stdin, mode="w|") as tar:
            for name, source in (sources | {"wheels": Path(scratch)}).items():
                tar.add(source, name, filter=lambda entry: None if "__pycache__" in entry.name else entry)
    split.communicate()
    shutil.copy(__file__, folder)
    print(f"{len(configs)} cells are missing; {len(list(folder.glob('part-*')))} parts in {folder}", flush=True)


def unpack(folder: Path) -> Path:
    """The folder with the code, made of the parts where it is not that of these parts already."""
    tree, text = folder / "tree", (folder / "SHA256SUMS").read_text()
    if not (tree / "made-of").exists() or (tree / "made-of").read_text() != text:
        if subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder).returncode:
            raise SystemExit(f"a part in {folder} is missing or damaged; send it again.")
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir()
        subprocess.run("cut -c67- SHA256SUMS | xargs cat | tar x -C tree", shell=True, cwd=folder, check=True)
        for wheel in tree.glob("wheels/*.whl"):
            zipfile.ZipFile(wheel).extractall(tree / "site")
        (tree / "made-of").write_text(text)  # last, so that an unpacking that was cut off is repeated
    return tree


def run_slice(folder: Path, jobs: int, minutes: float) -> None:
    """Run missing cells, `jobs` at a time, until the time is up."""
    end, tree, done = time.monotonic() + 60 * minutes - STOP, unpack(folder), folder / "cells"
    done.mkdir(exist_ok=True)
    own_paths = {"PYTHONPATH": f"{tree}:{tree / 'site'}", "GDRT_LITE_CACHE": str(tree / "cache"), "HF_HUB_OFFLINE": "1"}
    environment = os.environ | own_paths | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}

    def run(key: str) -> str:
        own, left, cell = folder / "work" / key, int(end - time.monotonic()), done / f"{key}.json"
        if left < 1:
            return "waiting"
        own.mkdir(parents=True, exist_ok=True)
        command = ["timeout", f"--kill-after={STOP}", str(left), sys.executable, "-m", "gdrt_lite", "study"]
        with (own / "log").open("a") as log:  # `timeout` ends a cell as Ctrl-C does: its checkpoints stay
            command += ["--only", key, "--grid", str(tree / "grid.yaml"), "--results", "cells"]
            status = subprocess.run(command, stdout=log, stderr=log, env=environment, cwd=own).returncode
        if (own / "cells" / cell.name).exists():
            os.replace(own / "cells" / cell.name, cell)
            return "done"
        return "stopped" if status in (124, 137) else f"failed, see work/{key}/log"

    with ThreadPoolExecutor(jobs) as pool:
        outcomes = Counter(pool.map(run, [config.key for config in missing(tree, tree / "grid.yaml", done)]))
    print("slice:", ", ".join(f"{n} {outcome}" for outcome, n in sorted(outcomes.items())) or "nothing to do", flush=True)


def go(place: str, grid: Path, results: Path, jobs: int, minutes: float, slices: int) -> None:
    """Pack, send, run slices and bring the cells back, until none is missing."""
    host, _, there = place.rpartition(":")
    python = "python3" if host else shlex.quote(sys.executable)

    def on_machine(command: str, stdin: io.BufferedReader | None = None) -> bytes:
        command = f"mkdir -p {shlex.quote(there)} && cd {shlex.quote(there)} && {command}"
        shell = ["ssh", host, command] if host else ["bash", "-c", command]
        return subprocess.run(shell, stdin=stdin, stdout=subprocess.PIPE, check=True).stdout

    has = {name.lower().replace("_", "-") for name in on_machine(f"{python} -c {shlex.quote(HAS)}").decode().split()}
    with tempfile.TemporaryDirectory() as scratch:
        pack(Path(scratch), grid, results, sorted(needed() - has))
        known = on_machine("sha256sum part-* 2>/dev/null || true").decode().splitlines()
        sums = (Path(scratch) / "SHA256SUMS").read_text().splitlines()
        for name in [line.split()[1] for line in sums if line not in known] + ["SHA256SUMS", Path(__file__).name]:
            with (Path(scratch) / name).open("rb") as stream:
                on_machine(f"cat > {name}", stream)
    for _ in range(slices):
        print(on_machine(f"{python} device_cells.py slice . --jobs {jobs} --minutes {minutes}").decode(), end="", flush=True)
        tarfile.open(fileobj=io.BytesIO(on_machine("tar c -C cells ."))).extractall(results, filter="data")
        if not missing(ROOT, grid, results):
            return


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=("go", "pack", "slice"))
    parser.add_argument("place", help="a folder, or for go also host:folder")
    for name, default in (("jobs", 4), ("minutes", 10.0), ("slices", 12)):
        parser.add_argument(f"--{name}", type=type(default), default=default)
    for name, default in (("grid", "registered.yaml"), ("results", "registered")):
        parser.add_argument(f"--{name}", type=Path, default=ROOT / "data/results" / default)
    parser.add_argument("--wheels", nargs="*", default=[], help="for pack: distributions that the machine lacks")
    given = parser.parse_args()
    if given.verb == "slice":
        run_slice(Path(given.place).resolve(), given.jobs, given.minutes)
    elif given.verb == "pack":
        pack(Path(given.place), given.grid, given.results, given.wheels)
    else:
        go(given.place, given.grid, given.results, given.jobs, given.minutes, given.slices)
