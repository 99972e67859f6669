"""What produced a figure: versions, hardware, memory, as recorded in every cell, report and benchmark."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

import torch


def peak_memory_gib() -> float:
    """The largest memory this process has held, in GiB."""
    status = Path("/proc/self/status")
    # On Linux getrusage starts with what the parent held when it forked; this figure is the process's own.
    if own := re.search(r"^VmHWM:\s+(\d+) kB", status.read_text() if status.exists() else "", re.M):
        return int(own[1]) / 2**20
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**30
    import resource

    unit = 1 if sys.platform == "darwin" else 2**10  # ru_maxrss: bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def usable_cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment() -> dict[str, Any]:
    """Versions and hardware, as recorded beside every figure."""
    packages = ("gdrt_lite", "torch", "transformers", "peft", "accelerate", "captum", "scikit-learn", "numpy")
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
        "machine": platform.machine(),
        "cores": usable_cpus(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
