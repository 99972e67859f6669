"""What a learner waits for first: import of the package, and the model from a warm cache. Each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

IMPORT = "import time; s = time.perf_counter(); import gdrt_lite; print(time.perf_counter() - s)"
LOAD = (
    "from gdrt_lite import lm; import time; s = time.perf_counter(); lm.load(device='cpu'); print(time.perf_counter() - s)"
)


def run(tiny: bool = False) -> dict:
    """Seconds, the best of three."""

    def best(code: str) -> float:
        outputs = [
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)
        ]
        return min(float(output.stdout.split()[-1]) for output in outputs)

    return {"import_s": best(IMPORT), "model_load_s": best(LOAD)}
