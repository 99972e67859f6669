"""Peak memory of a process that trains: LoRA steps of batch 8, as in the quick profile, and of batch 16, in both dtypes."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
import torch
from benchmarks.common import examples
from gdrt_lite import lm, training
from gdrt_lite.system import machine
batch, model = int(sys.argv[1]), lm.load(dtype=getattr(torch, sys.argv[2]), device="cpu")
training.finetune(model, examples(2 * batch, history=5), "gdrt", training.arguments(model, batch_size=batch), progress=False)
print(machine.peak_memory_gib())
"""


def run() -> dict:
    """GiB by dtype and batch size, each in a process of its own."""

    def peak(batch: int, dtype: str) -> float:
        done = subprocess.run([sys.executable, "-c", CODE, str(batch), dtype], capture_output=True, text=True, check=True)
        return float(done.stdout.split()[-1])

    return {dtype: {batch: peak(batch, dtype) for batch in (8, 16)} for dtype in ("float32", "bfloat16")}
