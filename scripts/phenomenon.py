"""The first figure of README.md: how much the lists of different users have in common, computed from committed cells.

GDRT is left out: a workshop shows the figure before people vote on whether it helps.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from gdrt_lite.plots import canvas
from gdrt_lite.study.cell import Cell

SHOWN = {
    "popularity": "popularity, without seen titles",
    "pre-trained": "SmolLM2, pre-trained",
    "sft": "SmolLM2 after SFT",
    "item-transitions": "item-to-item transitions",
}


def list_overlap(cells: Iterable[Cell]) -> pd.DataFrame:
    """How similar the lists of each cell are.

    Returns:
        One row per cell: method, seed, top_share (share of the lists that contain the title recommended most often) and
        shared (titles that the lists of two different users have in common, mean over all such pairs).
    """
    rows = []
    for cell in cells:
        chosen = np.zeros((len(cell.lists), 1 + max(max(titles) for titles in cell.lists)))  # (lists, titles)
        for row, titles in zip(chosen, cell.lists, strict=True):
            row[titles] = 1
        users = np.asarray(cell.users)
        common = chosen @ chosen.T  # (lists, lists)
        shared = common[users[:, None] != users[None, :]].mean()
        rows.append(
            {"method": cell.config.label, "seed": cell.config.seed, "top_share": chosen.mean(0).max(), "shared": shared}
        )
    return pd.DataFrame(rows)


def draw(overlap: pd.DataFrame, path: Path) -> None:
    """Write the figure as PNG: one point per seed, one row per method."""
    means = overlap.groupby("method").shared.mean()
    times = means["sft"] / means["item-transitions"]
    title = f"After SFT, two users' lists share {times:.0f} times as many titles as with item-to-item transitions"
    figure, axes = canvas.axes(title, (8.6, 2.9), columns=2)
    labels = {
        "top_share": "lists with the commonest title (%)",
        "shared": "titles shared by two lists, of 10",
    }
    for ax, (column, label) in zip(axes, labels.items(), strict=True):
        for place, (method, (colour, marker, _)) in enumerate(zip(SHOWN, canvas.cues(len(SHOWN)), strict=True)):
            values = overlap[overlap.method == method][column] * (100 if column == "top_share" else 1)
            ax.plot(values, [place] * len(values), ls="", marker=marker, ms=9, color=colour, alpha=0.75)
            ax.hlines(place, 0, values.mean(), color=colour, linewidth=2.5, zorder=0)
        ax.grid(False, axis="y")
        ax.set(xlabel=label, yticks=range(len(SHOWN)), ylim=(len(SHOWN) - 0.5, -0.5))
        ax.set_xlim(0, 104 if column == "top_share" else 10.4)
        ax.set_yticklabels(SHOWN.values() if ax is axes[0] else [])
    figure.savefig(path, dpi=200, facecolor="white", metadata={"Software": None}, pil_kwargs={"optimize": True})
