"""python -m benchmarks [--tiny] [NAME ...]: run the benchmarks, write data/results/benchmarks.json, print the table.

Without names it runs all but `windows`, which measures accuracy, takes long and writes data/results/windows.csv. With
`--tiny` it tries the code on the pocket model and a few examples, and writes nothing.
"""

from __future__ import annotations

import importlib
import json
import sys
import time

import pandas as pd
import torch

from benchmarks import growth
from benchmarks.common import DEVICE, matmul_gflops
from gdrt_lite import data, lm, plots
from gdrt_lite.system import files, machine

NAMES = (
    "startup", "train_target", "faa_users", "exact_ranking", "recommend", "gdrt_overhead", "memory", "growth",
)  # fmt: skip
ROWS = {  # step, peer, unit, aim
    "train_target": ("LoRA on q and v, r=8, growing windows", "one window a row, full logits, sdpa", "a target", "10"),
    "all_linear": ("LoRA on all linear layers, r=16", "the same", "a target", "10"),
    "faa_users": ("FAA, 3 segments, the windows of users", "captum LLMAttribution, 2 segments", "a window", "30"),
    "exact_ranking": ("exact ranking of 500 titles", "one forward a title, batches of 16", "a user", "20"),
    "recommend": (
        "beam 10 of 500 titles",
        "model.generate, prefix_allowed_tokens_fn",
        "a user",
        "10, or 70% of the roofline",
    ),
    "gdrt_overhead": ("a GDRT step, relevance and groups included", "our SFT step", "a target", "at most 1.02"),
}


def table(found: dict) -> str:
    """The benchmarks of one machine as a Markdown table. The ratio is peer / ours, for the overhead ours / peer."""
    lines = ["| step | peer | ours, s | peer, s | ratio | aim | of the matmul roofline |", "|---|---|---|---|---|---|---|"]
    known = found | {"all_linear": found.get("train_target", {}).get("all_linear")}
    for name, (step, peer, unit, aim) in ROWS.items():
        if row := known.get(name):
            lines.append(
                f"| {step} | {peer} | {row['ours_s']:.3g} {unit} | {row['peer_s']:.3g} | {row['ratio']:.2f} | {aim} "
                f"| {row['roofline']:.0%} |"
            )
    return "\n".join(lines)


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all; keep the others' figures, and those of other kinds of machine."""
    tiny = "--tiny" in names
    folder, names = data.data_folder() / "results", [name for name in names if name != "--tiny"]
    path = folder / "benchmarks.json"
    machines = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    dtype = torch.bfloat16 if lm.has_fast_bf16(DEVICE) else torch.float32
    environment = machine.environment()
    kind = f"{environment['cores']} cores, {environment['cpu_capability']}, {str(dtype).removeprefix('torch.')}"
    if DEVICE.type == "cuda":
        kind = f"{environment['accelerator']}, {str(dtype).removeprefix('torch.')}"
    found = machines.setdefault(kind, {})
    for name in names or NAMES:
        start = time.perf_counter()
        result = importlib.import_module(f"benchmarks.{name}").run(tiny)
        print(f"{name}: {time.perf_counter() - start:.0f} s", {k: v for k, v in result.items() if k != "rows"}, flush=True)
        if tiny or name == "windows":
            continue
        found |= {name: result, "environment": environment, "matmul_gflops": matmul_gflops(dtype)}
        files.write_json(path, machines)
        if name == "growth":
            plots.save(growth.figure(pd.DataFrame(result["rows"])), folder / "growth.png")
    print("" if tiny else table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
