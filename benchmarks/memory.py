"""Peak memory of a process that trains: LoRA steps of 8 and of 16 targets of growing windows, in both dtypes."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys, torch
from benchmarks.common import DEVICE, language_model, whole_chunks
from gdrt_lite import training
from gdrt_lite.system import machine
batch, dtype, tiny = int(sys.argv[1]), getattr(torch, sys.argv[2]), sys.argv[3] == "True"
model, some = language_model(tiny, dtype), whole_chunks(2)[: 2 * batch]
training.finetune(model, some, "gdrt", training.arguments(model, batch_size=batch), progress=False)
print(torch.cuda.max_memory_allocated() / 2**30 if DEVICE.type == "cuda" else machine.peak_memory_gib())
"""


def run(tiny: bool = False) -> dict:
    """GiB by dtype and targets a step, each in a process of its own; on a GPU that of the GPU."""

    def peak(batch: int, dtype: str) -> float:
        arguments = [sys.executable, "-c", CODE, str(batch), dtype, str(tiny)]
        return float(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split()[-1])

    dtypes = ("float32",) if tiny else ("float32", "bfloat16")
    return {dtype: {str(batch): peak(batch, dtype) for batch in (8, 16)} for dtype in dtypes}
