"""python -m benchmarks [NAME ...]: run the benchmarks, write data/results/benchmarks.json, print the table."""

from __future__ import annotations

import importlib
import json
import sys

import pandas as pd
import torch
from matplotlib.figure import Figure

from benchmarks.common import matmul_gflops
from gdrt_lite import data, lm, plots
from gdrt_lite.system import files, machine

NAMES = ("startup", "recommend", "faa", "token_relevance", "training_step", "gdrt_overhead", "memory", "growth")
ROWS = {
    "recommend": ("constrained recommendation, beam 10, 500 titles", "model.generate, prefix_allowed_tokens_fn", "a user"),
    "faa": ("FAA, 3 segments", "captum LLMAttribution, 2 segments", "an example"),
    "token_relevance": ("token relevance of 10,000 windows", "one forward an example", "a window"),
    "training_step": ("a LoRA training step", "full logits, sdpa, no length grouping", "an example"),
    "gdrt_overhead": ("a GDRT step, relevance and groups included", "our SFT step", "an example"),
}


def table(found: dict) -> str:
    """The benchmarks of one machine as a Markdown table."""
    lines = [
        "| step | peer | ours, s | peer, s | peer / ours | of the matmul roofline | ratio at the roofline |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (step, peer, unit) in ROWS.items():
        if name in found:
            row = found[name]
            ratio = 1 / row["ratio"] if name == "gdrt_overhead" else row["ratio"]
            share, bound = (f"{row['roofline']:.0%}", f"{ratio / row['roofline']:.1f}") if "roofline" in row else ("-", "-")
            lines.append(
                f"| {step} | {peer} | {row['ours_s']:.3g} {unit} | {row['peer_s']:.3g} | {ratio:.2f} | {share} | {bound} |"
            )
    return "\n".join(lines)


def growth_figure(rows: pd.DataFrame) -> Figure:
    """Seconds against size, both relative to the smallest, on logarithmic axes: in proportion is a slope of one."""
    relative = rows.assign(
        size=rows["size"] / rows.groupby("what")["size"].transform("min"),
        seconds=rows.seconds / rows.groupby("what").seconds.transform("first"),
    )
    last = relative.groupby("what").last()
    parts = [
        f"{last['size'][f'recommend: {what}']:.0f} x the {what}: {last.seconds[f'recommend: {what}']:.1f} x the seconds"
        for what in ("users", "titles")
    ]
    figure = plots.learning_curve(
        relative, "size", "seconds", "what", "size, relative to the smallest", "seconds, relative to the smallest",
        "; ".join(parts),
    )  # fmt: skip
    figure.axes[0].set(xscale="log", yscale="log")
    return figure


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all; keep the others' figures, and those of other kinds of machine."""
    folder = data.data_folder() / "results"
    path = folder / "benchmarks.json"
    machines = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    dtype = torch.bfloat16 if lm.has_fast_bf16(torch.device("cpu")) else torch.float32
    environment = machine.environment()
    kind = f"{environment['cores']} cores, {environment['cpu_capability']}, {str(dtype).removeprefix('torch.')}"
    found = machines.setdefault(kind, {})
    for name in names or NAMES:
        print(name, flush=True)
        found[name] = importlib.import_module(f"benchmarks.{name}").run()
        print({key: value for key, value in found[name].items() if key != "rows"}, flush=True)
        found |= {"environment": environment, "matmul_gflops": matmul_gflops(dtype)}
        files.write_json(path, machines)
    if "growth" in found:
        plots.save(growth_figure(pd.DataFrame(found["growth"]["rows"])), folder / "growth.png")
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
