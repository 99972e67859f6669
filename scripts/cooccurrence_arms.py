"""Run the causal test of notebook 02 over several seeds: its cells tagged `arms`, in the sizes of the standard profile.

python scripts/cooccurrence_arms.py 5        seeds 0 to 4 into data/results/cooccurrence_arms.csv; seeds already there stay
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
os.environ["GDRT_PROFILE"] = "standard"

import pandas as pd  # noqa: E402
from build_notebooks import read_source, sources, tags  # noqa: E402

from gdrt_lite.course.notebook import pick  # noqa: E402
from gdrt_lite.system.files import write_text  # noqa: E402

WINDOWS, TEST_WINDOWS = 10_000, 700  # or all that there are
RESULT = ROOT / "data" / "results" / "cooccurrence_arms.csv"


def run(seed: int, script: Path) -> pd.DataFrame:
    """One seed, all arms: arm, seed, worth (nats per title that the right history saves), pays (nats per title), windows."""
    names: dict[str, Any] = {"pick": pick, "seeds": [seed], "n_train": WINDOWS, "n_test": TEST_WINDOWS}
    for cell in read_source(script).cells:
        if {"imports", "arms"} & set(tags(cell)):
            exec(compile(cell.source, script.name, "exec"), names)  # noqa: S102
    means = names["titles"].groupby(["arm", "seed"], sort=False)[["worth", "pays"]].mean().round(5).reset_index()
    return means.assign(windows=len(names["train"]))


def main(n_seeds: int) -> None:
    """Add the seeds that are missing, one after the other."""
    script = sources(["02"])[0]
    table = pd.read_csv(RESULT) if RESULT.exists() else pd.DataFrame(columns=["arm", "seed", "worth", "pays", "windows"])
    for seed in sorted(set(range(n_seeds)) - set(table.seed)):
        table = pd.concat([table, run(seed, script)]) if len(table) else run(seed, script)
        write_text(RESULT, table.to_csv(index=False))
        print(table.tail(3).to_string(index=False), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
