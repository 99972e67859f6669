"""Read the doctors' answers of a class, one file a seat, and say which seats need a hand.

    python -m gdrt_lite doctor --json > SEAT.json      at each seat, into a folder that the instructor can read
    python scripts/class_check.py FOLDER               at the instructor's

The status is 1 if a seat needs a hand, so that a script can wait for it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

READY, LATER, REPAIR = "ready", "ready, without the model", "to repair"


def seat(path: Path) -> tuple[str, str, str]:
    """One file as (seat, state, what to do); a file that is no answer of the doctor is said to be none."""
    try:
        answer: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
        failed = [check for check in answer["checks"] if check["status"] == "FAIL"]
        notes = {check["name"]: check["detail"] for check in answer["checks"] if check["status"] == "--"}
    except (ValueError, KeyError, TypeError):
        return path.stem, REPAIR, "this is no answer of the doctor: run `python -m gdrt_lite doctor --json` there again"
    if failed:
        return path.stem, REPAIR, "; ".join(f"{check['name']}: {check['remedy']}" for check in failed)
    return path.stem, LATER if "model" in notes else READY, notes.get("model", "")


def table(seats: list[tuple[str, str, str]]) -> str:
    """Counts, and then one line for each seat, those to repair first."""
    order = [REPAIR, LATER, READY]
    counts = ", ".join(f"{sum(state == each for _, state, _ in seats)} {each}" for each in order)
    width = max(len(name) for name, _, _ in seats)
    seats = sorted(seats, key=lambda found: (order.index(found[1]), found[0]))
    lines = [f"{name:<{width}}  {state:<{len(LATER)}}  {do}".rstrip() for name, state, do in seats]
    return "\n".join([f"{len(seats)} seats: {counts}", *lines])


def main(arguments: list[str]) -> int:
    """The command line; 0 if no seat needs a repair, 2 if there is nothing to read."""
    files = sorted(Path(arguments[0]).glob("*.json")) if len(arguments) == 1 else []
    if not files:
        print("name a folder that holds one SEAT.json for each seat: python scripts/class_check.py FOLDER", file=sys.stderr)
        return 2
    seats = [seat(path) for path in files]
    print(table(seats))
    return int(any(state == REPAIR for _, state, _ in seats))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
