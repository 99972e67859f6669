"""Run the causal test of notebook 02 over several seeds: its cells tagged `arms`, in the sizes of the standard profile.

python scripts/cooccurrence_arms.py 5                     all arms, seeds 0 to 4, into data/results/cooccurrence_arms.csv
python scripts/cooccurrence_arms.py 3 fixed nonsense      these arms, seeds 0 to 2; trainings already there stay
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import pandas as pd  # noqa: E402
from build_notebooks import read_source, sources, tags  # noqa: E402

from gdrt_lite.course.notebook import pick  # noqa: E402
from gdrt_lite.system.files import write_text  # noqa: E402

WINDOWS, TEST_WINDOWS = 10_000, 700  # or all that there are
RESULT = ROOT / "data" / "results" / "cooccurrence_arms.csv"


def run(arm: str, seed: int, script: Path) -> pd.DataFrame:
    """One training: arm, seed, worth (nats per title that the right history saves), pays (nats per title), windows."""
    names: dict[str, Any] = {"pick": pick, "live": [arm], "seeds": [seed], "n_train": WINDOWS, "n_test": TEST_WINDOWS}
    run_cells(script, names, {"imports", "arms"})
    means = names["titles"].groupby(["arm", "seed"], sort=False)[["worth", "pays"]].mean().round(5).reset_index()
    return means.assign(windows=len(names["train"]))


def run_cells(script: Path, names: dict[str, Any], wanted: set[str], first: int | None = None) -> None:
    """Run the notebook's cells that carry one of the tags, or the first few of them, in the namespace `names`."""
    cells = [cell for cell in read_source(script).cells if wanted & set(tags(cell))]
    for cell in cells[:first]:
        exec(compile(cell.source, script.name, "exec"), names)  # noqa: S102


def main(n_seeds: int, wanted: list[str]) -> None:
    """Add the trainings that are missing, seed by seed."""
    script = sources(["02"])[0]
    names: dict[str, Any] = {"pick": pick, "n_train": 10, "n_test": 10}
    run_cells(script, names, {"imports", "arms"}, first=2)  # the imports and the cell that defines the arms
    if unknown := set(wanted) - set(names["arms"]):
        raise SystemExit(f"there is no arm {', '.join(sorted(unknown))}; choose among {', '.join(names['arms'])}")
    table = pd.read_csv(RESULT) if RESULT.exists() else pd.DataFrame(columns=["arm", "seed", "worth", "pays", "windows"])
    for seed, arm in itertools.product(range(n_seeds), wanted or names["arms"]):
        if ((table.arm == arm) & (table.seed == seed)).any():
            continue
        table = pd.concat([table, run(arm, seed, script)]) if len(table) else run(arm, seed, script)
        write_text(RESULT, table.to_csv(index=False))
        print(table.tail(1).to_string(index=False, header=False), flush=True)


if __name__ == "__main__":
    os.environ["GDRT_PROFILE"] = "standard"
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, sys.argv[2:])
