"""Memory and hours of a model with 3 billion weights, worked out for docs/platforms.md; nothing of it is run.

Measured are the tokens of an example, how memory grows with the batch, and which share of a matrix product's speed a
training step reaches (data/results/benchmarks.json, SmolLM2 on a CPU). Memory is scaled to the larger model by layers times
width.
"""

from __future__ import annotations

import json
from pathlib import Path

from gdrt_lite import data, lm
from gdrt_lite.study.config import PROFILES, Config

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS, LAYERS, WIDTH = 3.2e9, 28, 3072  # Llama 3.2 3B
SMALL = 30 * 576  # layers times width of SmolLM2-135M, in which memory was measured
PEAK = {"A100 80 GB": 312e12, "H100 80 GB": 989e12}  # bfloat16 operations a second, data sheets
DEVICES = {"one GPU": 1, "eight GPUs": 8, "two nodes of eight": 16}
BEGIN, END = "<!-- table: scripts/platforms.py -->\n", "<!-- end -->"


def mean_tokens(model: lm.LanguageModel, history: int) -> float:
    """Tokens of a training example."""
    train = data.load_movielens(500).split("new_users", history=history).train
    rows = [
        model.encode(e.history, e.target) for e in data.sample([e for e in train if len(e.history) == history], 200, seed=0)
    ]
    return sum(map(len, rows)) / len(rows)


def table() -> str:
    """A Markdown table of the `full` profile, device by device."""
    machines = json.loads((ROOT / "data/results/benchmarks.json").read_text()).values()
    measured = next(found for found in machines if "train_target" in found and "bfloat16" in found.get("memory", {}))
    config, model = Config(**PROFILES["full"]), lm.load(device="cpu")
    long, short = mean_tokens(model, config.history), mean_tokens(model, 5)
    memory = measured["memory"]["bfloat16"]
    # GiB per example of the large model: what eight more examples added to the small one.
    example = (memory["16"] - memory["8"]) / 8 * (long / short) * (LAYERS * WIDTH / SMALL)
    operations = 4 * WEIGHTS * long * config.train_examples * config.epochs  # LoRA: forward, and the activations' gradient
    lines = [
        "| devices | examples each in a step | memory each, GiB | " + " | ".join(f"hours, {gpu}" for gpu in PEAK) + " |"
    ]
    lines.append("|---|---|---|" + "---|" * len(PEAK))
    for name, count in DEVICES.items():
        each = config.batch_size // count
        hours = [operations / (peak * measured["train_target"]["roofline"] * count) / 3600 for peak in PEAK.values()]
        memory_each = WEIGHTS * 2 / 2**30 + each * example
        lines.append(f"| {name} | {each} | {memory_each:.0f} | " + " | ".join(f"{hour:.2f}" for hour in hours) + " |")
    return "\n".join(
        [*lines, "", f"{long:.0f} tokens an example, {operations / 1e15:.0f} peta-operations in all. Not run.", ""]
    )


if __name__ == "__main__":
    page = ROOT / "docs/platforms.md"
    before, rest = page.read_text().split(BEGIN)
    page.write_text(before + BEGIN + "\n" + table() + "\n" + END + rest.split(END)[1])
