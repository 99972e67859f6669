"""Check whether this computer is ready for the course: one line per check, with a remedy where it fails.

Only the standard library is imported until a check needs more, so that missing packages can be reported.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

OK, NOTE, FAIL = "OK", "--", "FAIL"
MODEL = "smollm2-135m-instruct-q4_1"
INSTALL = 'pip install -c constraints.txt -e ".[test]"'
FETCH = "python -m gdrt_lite fetch"
_GB = 1_000_000_000
_FETCH_GB, _WORK_GB = 1.0, 0.2  # free disk needed while the model is fetched, and by runs afterwards
_LEAST_GB, _RUN_GB = 3.0, 6.0  # memory needed by lessons with the pocket model, and by `python -m gdrt_lite run`


@dataclass(frozen=True)
class Check:
    """Result of one check: `status` is "OK", "--" (a note, nothing is broken) or "FAIL" (with a remedy)."""

    name: str
    status: str
    detail: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{f'[{self.status}]':<6} {self.name:<12} {self.detail}"
        return f"{line}\n{'':<20}-> {self.remedy}" if self.remedy else line


def run_checks() -> list[Check]:
    """Run all checks in order. A check that raises is reported as FAIL, and the others still run."""
    checks: list[Check] = []
    for name, check in CHECKS.items():
        try:
            checks += [Check(name, *answer) for answer in check()]
        except Exception as error:
            reason = (str(error).strip().splitlines() or ["no message"])[0]
            checks.append(Check(name, FAIL, f"{type(error).__name__}: {reason}", f"reinstall: {INSTALL}"))
    return checks


def main(as_json: bool = False) -> int:
    """Print every check, as lines or as one JSON object that names the computer. Returns 1 if any failed, else 0."""
    checks = run_checks()
    failed = [check.name for check in checks if check.status == FAIL]
    if as_json:
        seat = {"computer": platform.node(), "system": platform.platform(), "failed": failed}
        print(json.dumps({**seat, "checks": [asdict(check) for check in checks]}, indent=1))
        return int(bool(failed))
    print(*checks, sep="\n")
    offline = any(check.name == "model" and check.status == NOTE for check in checks)
    ready = f"Ready, and the real model is fetched when it is first used, or by: {FETCH}" if offline else "Ready."
    print(f"\n{len(failed)} to repair, see the arrows." if failed else f"\n{ready}")
    return int(bool(failed))


Answers = Iterator[tuple[str, ...]]


def _python() -> Answers:
    found = f"{sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]} ({sys.executable})"
    if tuple(sys.version_info[:2]) < (3, 11):
        yield FAIL, found, "install Python 3.11 or later, delete .venv, and set up again: make setup PYTHON=python3.11"
    else:
        yield OK, found


def _packages() -> Answers:
    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(line) for line in importlib.metadata.requires("gdrt-lite") or []]
        extras = importlib.metadata.metadata("gdrt-lite").get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:
        yield FAIL, "gdrt-lite itself is not installed", f"in the repository: {INSTALL}"
        return
    good, missing = [], {}
    for need in requirements:
        required = need.marker is None or need.marker.evaluate({"extra": ""})
        wanted = f"{need.name}{need.specifier}"
        try:
            version = importlib.metadata.version(need.name)
        except importlib.metadata.PackageNotFoundError:
            if need.marker is None or required:
                yield FAIL, f"{wanted} is missing", f'pip install -c constraints.txt "{wanted}"'
            else:
                missing[need.name] = next(name for name in extras if need.marker.evaluate({"extra": name}))
            continue
        if not need.specifier.contains(version, prereleases=True):
            yield FAIL, f"{need.name} {version} is not {need.specifier}", f'pip install -c constraints.txt "{wanted}"'
        elif required:
            good.append(f"{need.name} {version}")
    if good:
        yield OK, f"{len(good)} as required: {', '.join(good[:3])} ..."
    if missing:
        names, wanted = ", ".join(sorted(missing)), ",".join(sorted(set(missing.values())))
        yield NOTE, f'of the extras, not installed: {names} (pip install -c constraints.txt -e ".[{wanted}]")'


def _adapters() -> Answers:
    from gdrt_lite.lm import adapters

    if adapters.OLD_TORCHAO:
        mend = "for other uses of peft: pip uninstall -y torchao"
        yield NOTE, f"torchao {importlib.metadata.version('torchao')} is too old for peft and is overlooked here; {mend}"
    else:
        yield OK, f"peft {importlib.metadata.version('peft')} can tune the model"


def _memory() -> Answers:
    total, available = (size / _GB for size in memory())
    found = f"{total:.1f} GB, {available:.1f} GB of it free"
    if total < _LEAST_GB:
        yield FAIL, found, f"{_LEAST_GB:.0f} GB are needed at least; use a larger computer, or Colab"
    elif available < _RUN_GB:
        yield NOTE, f"{found}: enough for the pocket model, while the real one needs {_RUN_GB:.0f} GB"
    else:
        yield OK, found


def memory(cgroup: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """Total and available memory in bytes, within the limit of the container if the folder `cgroup` holds one."""
    import psutil

    system = psutil.virtual_memory()
    total, available = system.total, system.available
    limit, used = _bytes(cgroup / "memory.max"), _bytes(cgroup / "memory.current")
    if limit is not None and limit < total:
        total, available = limit, min(available, limit - (used or 0))
    return total, available


def _bytes(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # not Linux, or no limit ("max")
        return None


def _disk() -> Answers:
    from gdrt_lite.system import assets

    cache = assets.cache_dir()
    need = _WORK_GB if assets.is_cached(MODEL) else _FETCH_GB
    free = shutil.disk_usage(cache).free / _GB
    found = f"{free:.1f} GB free at {cache}"
    if free < need:
        yield FAIL, found, f"{need:.1f} GB are needed: free some, or set GDRT_LITE_CACHE to a folder on another disk"
    else:
        yield OK, found


def _cache() -> Answers:
    from gdrt_lite.system import assets

    cache = assets.cache_dir()
    try:
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        if assets.is_cached(MODEL):
            yield NOTE, f"{cache} is read-only ({error.strerror}) and contains the model, which is enough"
        else:
            yield FAIL, f"{cache} is not writable ({error.strerror})", "set GDRT_LITE_CACHE to a writable folder"
    else:
        yield OK, f"{cache} is writable"


def _model() -> Answers:
    from gdrt_lite.system import assets

    if assets.is_cached(MODEL):
        yield OK, f"{MODEL} is in the cache"
    else:
        yield NOTE, f"not yet: {FETCH}"


def _data() -> Answers:
    from gdrt_lite import data
    from gdrt_lite.system import files
    from gdrt_lite.system.errors import GdrtError

    repair = "restore data/movielens: git checkout -- data, or reinstall gdrt_lite"
    try:
        folder = data.data_folder() / "movielens"
    except GdrtError as error:
        yield FAIL, str(error), repair
        return
    for name, fault in files.check_sums(folder).items():
        yield (FAIL, f"{folder / name} {fault}", repair) if fault else (OK, f"{name} matches its SHA-256")


def _accelerator() -> Answers:
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        yield OK, f"{properties.name}, {properties.total_memory / _GB:.0f} GB; torch {torch.__version__}"
    else:
        yield NOTE, f"no CUDA: everything runs on the CPU; torch {torch.__version__}"


def _bf16() -> Answers:
    import torch

    from gdrt_lite import lm

    if lm.has_fast_bf16(torch.device("cuda" if torch.cuda.is_available() else "cpu")):
        yield OK, "the processor has fast bfloat16, which the real model uses"
    else:
        yield NOTE, "the processor has no fast bfloat16 (AMX, AVX512-BF16): float32 is used, slower and equally accurate"


def _threads() -> Answers:
    import torch

    from gdrt_lite.system import machine

    threads, usable = torch.get_num_threads(), machine.usable_cpus()
    if threads > usable:
        yield NOTE, f"torch uses {threads} threads on {usable} usable CPUs; OMP_NUM_THREADS={usable} may be faster"
    else:
        yield OK, f"torch uses {threads} threads on {usable} usable CPUs"


_ALL = (_python, _packages, _adapters, _memory, _disk, _cache, _model, _data, _accelerator, _bf16, _threads)
CHECKS: dict[str, Callable[[], Answers]] = {check.__name__[1:]: check for check in _ALL}
