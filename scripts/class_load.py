"""Measure what learners on one server cost: memory and processor seconds of a notebook that several run at once.

python scripts/class_load.py 2 05        two learners run notebook 05 at the same time, one thread each
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

import nbformat
import psutil
from nbclient import NotebookClient

sys.path.insert(0, str(Path(__file__).resolve().parent))

import build_notebooks as builder  # noqa: E402


async def learner(notebook: Path, found: dict[str, float]) -> None:
    """Run one notebook in a kernel of its own; note the peak memory of the kernel in GiB, and its processor seconds."""
    folder = {"metadata": {"path": str(notebook.parent)}}
    client = NotebookClient(nbformat.read(notebook, as_version=4), timeout=3600, kernel_name="python3", resources=folder)
    work = asyncio.create_task(client.async_execute())
    while not work.done():
        pid = getattr(getattr(client.km, "provisioner", None), "pid", None)
        if pid and psutil.pid_exists(pid):
            kernel = psutil.Process(pid)
            found["GiB"] = max(found.get("GiB", 0.0), kernel.memory_info().rss / 2**30)
            found["seconds"] = sum(kernel.cpu_times()[:2])
        await asyncio.wait([work], timeout=0.5)
    await work


async def together(notebook: Path, learners: int) -> list[dict[str, float]]:
    """All learners at once."""
    found: list[dict[str, float]] = [{} for _ in range(learners)]
    await asyncio.gather(*(learner(notebook, own) for own in found))
    return found


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0 if all ran to their ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("learners", type=int)
    parser.add_argument("notebook", help="number or name")
    options = parser.parse_args(arguments)
    (script,) = builder.sources([options.notebook])
    os.environ |= {"OMP_NUM_THREADS": "1", "GDRT_PROFILE": "quick"}
    for own in asyncio.run(together(script.with_suffix(".ipynb"), options.learners)):
        print(f"{script.stem}: {own['seconds']:.0f} s of one processor, {own['GiB']:.1f} GiB at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
