"""Peak memory of a process that does one thing: a LoRA training step of the quick profile, and one of batch 16."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from benchmarks.common import examples
from gdrt_lite import lm, machine, training
batch = int(sys.argv[1])
training.finetune(lm.load(), examples(2 * batch, history=5), "gdrt", batch_size=batch, progress=False)
print(machine.peak_memory_gib())
"""


def run() -> dict:
    """GiB, each in a process of its own."""

    def peak(batch: int) -> float:
        done = subprocess.run([sys.executable, "-c", CODE, str(batch)], capture_output=True, text=True, check=True)
        return float(done.stdout.split()[-1])

    return {"training_step_batch_8_gib": peak(8), "training_step_batch_16_gib": peak(16)}
