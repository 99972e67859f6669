"""What is recorded beside every figure."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from gdrt_lite.system.machine import peak_memory_gib

CODE = """
import numpy as np
from gdrt_lite.system.machine import peak_memory_gib
print(peak_memory_gib())
ballast = np.ones(1 << 24)
print(peak_memory_gib())
del ballast
print(peak_memory_gib())
"""


def test_peak_memory_is_what_this_process_has_held_and_not_its_parent():
    of_the_parent = np.ones(1 << 26)  # half a GiB on top of what the tests have imported
    printed = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout
    before, held, after = map(float, printed.split())
    assert 0.05 < before < peak_memory_gib() - of_the_parent.nbytes / 2**31
    assert held - before == pytest.approx(1 / 8, abs=0.02)  # 1 << 24 numbers of 8 bytes
    assert after == pytest.approx(held, abs=0.01)
