"""Shared by the figures of `gdrt_lite.plots`: axes, palette and markers, and how a figure is displayed or saved."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from gdrt_lite.system import files

HATCHES = ("", "///", "...", "xx", "\\\\\\", "oo", "++")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
DPI = 100
SHARP = 2  # a shown figure has this many pixels for each of its page's, so that a projector does not blur it


def show(figure: Figure, alt: str) -> None:
    """Display a figure in a notebook, with alt text, and close it.

    The figure is sent as HTML, the only format whose alt text JupyterLab, Colab and nbconvert all keep, and as PNG for
    viewers without HTML.

    Raises:
        ValueError: alt is empty.
    """
    if not alt.strip():
        raise ValueError('alt is empty; describe what the figure shows, e.g. alt="The loss falls with the steps".')
    from IPython.display import display

    width = round(figure.get_figwidth() * DPI)
    data = base64.b64encode(_png(figure, SHARP * DPI)).decode()
    _close(figure)
    tag = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}" width="{width}" style="max-width: 100%">'
    about = {"image/png": {"alt": alt, "width": width}}
    display({"text/html": tag, "image/png": data, "text/plain": alt}, metadata=about, raw=True)


def animation(figure: Figure, draw: Callable[[Any], object], steps: Sequence[Any], alt: str) -> None:
    """Display a folded GIF in a notebook: `draw(step)` changes the figure for each of its frames.

    It is folded, so that nothing moves on a page unless the reader opens it.
    """
    from IPython.display import display

    frames, buffer = [], io.BytesIO()
    for step in steps:
        draw(step)
        frames.append(Image.open(io.BytesIO(_png(figure))).convert("RGB").quantize(64, dither=Image.Dither.NONE))
    frames[0].save(
        buffer, format="GIF", save_all=True, append_images=frames[1:], duration=[200] * (len(frames) - 1) + [2000], loop=0
    )
    source = f"data:image/gif;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    image = f'<img alt="{html.escape(alt)}" src="{source}" style="max-width: 100%">'
    tag = f"<details><summary>Play the animation</summary>{image}</details>"
    display({"text/html": tag, "text/plain": alt}, raw=True)


def save(figure: Figure, path: str | Path) -> Path:
    """Save a figure as PNG atomically (a temporary file, then a rename), and close it."""
    path = files.write_bytes(path, _png(figure))
    _close(figure)
    return path


def bars(ax: Axes, frame: pd.DataFrame, x: str, y: str, hue: str | None, order: Sequence[Any], units: str | None) -> None:
    """Grouped bars with one colour and one hatch per hue, and a 95% bootstrap interval where a bar has several rows."""
    hues = list(dict.fromkeys(frame[hue])) if hue else order
    sns.barplot(
        frame, x=x, y=y, hue=hue or x, order=order, hue_order=hues, palette=colours(len(hues)), ax=ax,
        errorbar=("ci", 95) if units else None, units=units, n_boot=500, seed=0, capsize=0.15, edgecolor="white",
        err_kws={"color": "black", "linewidth": 1.2}, legend=False,
    )  # fmt: skip
    for container, hatch in zip(ax.containers, islice(cycle(HATCHES), len(ax.containers)), strict=True):
        for bar in container:
            bar.set_hatch(hatch)
    if hue:
        place: dict[str, Any] = dict(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)
        ax.legend(ax.containers, hues, title=hue, frameon=False, fontsize=9, **place)


def axes(title: str, size: tuple[float, float], columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Create a white figure of `size` inches with its axes side by side."""
    with sns.axes_style("whitegrid"), sns.plotting_context("notebook", font_scale=1):
        figure = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
        made = figure.subplots(1, columns, squeeze=False)[0]
    for ax in made:
        ax.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title, fontsize=12)
    return figure, list(made)


def colours(n: int) -> list[tuple[float, float, float]]:
    """A colour-blind safe palette of n colours, which repeats after ten."""
    return sns.color_palette("colorblind", n)


def cues(n: int) -> Iterator[tuple[tuple[float, float, float], str, Any]]:
    """n combinations of colour, marker and line style."""
    return zip(colours(n), islice(cycle(MARKERS), n), islice(cycle(LINES), n), strict=True)


def unit(frame: pd.DataFrame) -> str | None:
    """The column with the unit of the bootstrap: "user" if there is one, else "example", else None."""
    return next((name for name in ("user", "example") if name in frame), None)


def need(frame: pd.DataFrame, *columns: str) -> None:
    """Raise a ValueError if a column is missing or the table has no rows."""
    if missing := [name for name in columns if name not in frame]:
        raise ValueError(f"the table has no column {', '.join(missing)}; it has {', '.join(map(str, frame))}.")
    if frame.empty:
        raise ValueError("the table is empty: there is nothing to draw.")


def _png(figure: Figure, dpi: int = DPI) -> bytes:
    """The figure as PNG with a palette of 256 colours, a third of the bytes of full colour."""
    drawn, buffer = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi, facecolor="white")
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _close(figure: Figure) -> None:
    import matplotlib.pyplot as plt

    plt.close(figure)
