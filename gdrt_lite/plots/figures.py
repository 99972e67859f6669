"""One function per figure, drawn from tidy tables of the other modules. Each returns a matplotlib Figure and works headless.

Every colour is paired with a hatch, marker or line style, and the palette is colour-blind safe. `title` states what the
figure shows. Display a figure in a notebook with `show`, which adds alt text, and write it to a file with `save`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from gdrt_lite.plots import canvas
from gdrt_lite.plots.canvas import save, show

__all__ = [
    "accuracy_intervals", "cooccurrence_by_segment", "differences", "faa_by_segment", "forest", "group_sizes",
    "learning_curve", "relevance_distribution", "save", "show", "token_heatmap", "training_curves",
    "unfairness_bars", "weights_over_tau",
]  # fmt: skip

SEGMENTS = ("TASK", "HISTORY", "PREFIX")
UNDERLINES = {"TASK": ":", "HISTORY": "-", "PREFIX": "--", "TARGET": "--"}


def faa_by_segment(frame: pd.DataFrame, hue: str | None = None, signed: bool = False, title: str = "") -> Figure:
    """Attribution per segment, averaged over target tokens, with 95% intervals.

    The bootstrap (seaborn's) draws users, and target tokens within users.

    Args:
        frame: table from `attribution.feature_ablation`; for several models or ablations, their tables concatenated.
        hue: column that distinguishes them; by default "model" or "ablation", if present.
        signed: mean A instead of mean |A|.
    """
    canvas.need(frame, "segment", "attribution")
    hue = hue or next((name for name in ("model", "ablation") if name in frame), None)
    known = frame.dropna(subset="attribution")
    known = known.assign(shown=known.attribution if signed else known.attribution.abs())
    figure, (ax,) = canvas.axes(title, (6.4, 3.8))
    canvas.bars(ax, known, "segment", "shown", hue, [s for s in SEGMENTS if s in set(known.segment)], canvas.unit(known))
    ax.set(xlabel="segment of the prompt", ylabel=f"mean {'A' if signed else '|A|'} (nats per target token)")
    return figure


def token_heatmap(map: pd.DataFrame, title: str = "", limit: float | None = None) -> Figure:
    """A prompt as wrapped text, with each token coloured by its attribution and underlined by its segment.

    Args:
        map: table from `attribution.token_attribution`: token, segment, attribution (nats).
        limit: nats at the ends of the colour scale, by default the map's largest; give two maps one limit to compare them.
    """
    canvas.need(map, "token", "segment", "attribution")
    size, width = 9, 96  # points; characters per line at most
    places, column, line = [], 0, 0
    for token in map.token:
        shown = "".join("\u21b5" if c == "\n" else c if c.isprintable() else "\u25af" for c in token) or "\u25af"
        if column + len(shown) > width:
            column, line = 0, line + 1
        places.append((column, line, shown))
        column += len(shown)
        if "\n" in token:
            column, line = 0, line + 1
    lines, width = places[-1][1] + 1, max(column + len(shown) for column, _, shown in places)
    character = size * 0.602 / 72  # inches: DejaVu Sans Mono is 0.602 em wide
    figure, (ax,) = canvas.axes(title, (max(6.0, width * character * 1.04 + 0.4), lines * 0.222 + 1.3))
    limit = limit or float(map.attribution.abs().max()) or 1.0
    norm, colours = mpl.colors.Normalize(-limit, limit), sns.color_palette("vlag_r", as_cmap=True)
    for (left, row, shown), segment, value in zip(places, map.segment, map.attribution, strict=True):
        colour = colours(norm(value))
        ax.add_patch(Rectangle((left, row), len(shown), 0.92, facecolor=colour, edgecolor="white", linewidth=0.6))
        ink = "white" if np.dot(colour[:3], (0.3, 0.59, 0.11)) < 0.5 else "black"
        ax.text(left, row + 0.4, shown, family="monospace", size=size, va="center", color=ink, parse_math=False)
        ends = [left + 0.15, left + len(shown) - 0.15]
        ax.plot(ends, [row + 0.86] * 2, color="black", linewidth=1.3, ls=UNDERLINES[segment])
    ax.set(xlim=(0, max(width, 5.7 / character)), ylim=(lines, 0), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    bar = figure.colorbar(mpl.cm.ScalarMappable(norm, colours), ax=ax, location="bottom", shrink=0.6, aspect=40)
    bar.set_label("attribution (nats over the whole target; positive: the token helps)")
    styles = {name: UNDERLINES[name] for name in dict.fromkeys(map.segment)}
    handles = [Line2D([], [], color="black", ls=style, label=name) for name, style in styles.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=10)
    return figure


def cooccurrence_by_segment(frame: pd.DataFrame, title: str = "") -> Figure:
    """Co-occurrence rate of each segment's tokens with target tokens, and NPMI, 0 without information (of `rates`)."""
    canvas.need(frame, "segment", "rate", "npmi")
    figure, axes = canvas.axes(title, (8.4, 3.2), columns=2)
    order = [s for s in SEGMENTS if s in set(frame.segment)]
    mean = dict(showmeans=True, meanprops=dict(marker="D", markerfacecolor="white", markeredgecolor="black", markersize=7))
    for ax, column, label in zip(axes, ("rate", "npmi"), ("rate P(s | v), a share", "NPMI, from -1 to 1"), strict=True):
        sns.boxplot(
            frame, x=column, y="segment", hue="segment", order=order, hue_order=order, palette=canvas.colours(len(order)),
            ax=ax, whis=(5, 95), showfliers=False, legend=False, **mean,
        )  # fmt: skip
        for box, hatch in zip(ax.patches, canvas.HATCHES, strict=False):
            box.set_hatch(hatch)
        ax.set(xlabel=label, ylabel="segment of s" if column == "rate" else "")
    axes[0].set_xlim(-0.03, 1.03)
    axes[1].set_yticklabels([])
    axes[1].axvline(0, color="black", linewidth=1, ls=":")
    diamond = Line2D([], [], ls="", marker="D", markerfacecolor="white", markeredgecolor="black", label="mean of the pairs")
    figure.legend(handles=[diamond], loc="outside lower right", frameon=False, fontsize=9)
    return figure


def relevance_distribution(table: pd.DataFrame, title: str = "") -> Figure:
    """Relevance of all training target tokens, coloured by group, with the mean of each group (`TokenGroups.table()`)."""
    canvas.need(table, "relevance", "group", "count")
    known = table[table["count"] > 0]
    groups = sorted(known.group.unique())
    colours = canvas.colours(len(groups))
    figure, (ax,) = canvas.axes(title, (7, 3.8))
    sns.histplot(
        known, x="relevance", weights="count", hue="group", hue_order=groups, palette=colours, bins=40,
        multiple="stack", ax=ax, legend=False, edgecolor="white", alpha=0.85,
    )  # fmt: skip
    top = ax.get_ylim()[1]
    for place, (group, part) in enumerate(known.groupby("group")):
        mean = np.average(part.relevance, weights=part["count"])
        ax.axvline(mean, ymax=0.93, color="black", linewidth=1.2, ls=canvas.LINES[place % len(canvas.LINES)])
        ax.text(mean, top * 1.01, f"g{group}", ha="center", va="bottom", color=colours[place], weight="bold")
    ax.set(xlabel="relevance, log P(token | task, prefix) (nats)", ylabel="training target tokens", ylim=(0, top * 1.08))
    return figure


def group_sizes(table: pd.DataFrame, title: str = "") -> Figure:
    """Share of each group among the training target tokens, and among those of the catalogue (`TokenGroups.table()`)."""
    canvas.need(table, "group", "count")
    parts = table.assign(catalogue=1).groupby("group")[["count", "catalogue"]].sum()
    parts = parts.rename(columns={"count": "training targets", "catalogue": "catalogue, each title once"})
    long = (100 * parts / parts.sum()).melt(ignore_index=False, var_name="counted in", value_name="share").reset_index()
    figure, (ax,) = canvas.axes(title, (6.4, 3.8))
    canvas.bars(ax, long, "group", "share", "counted in", sorted(long.group.unique()), None)
    for bars in (found for found in ax.containers if isinstance(found, BarContainer)):
        ax.bar_label(bars, fmt="%.0f", fontsize=8, padding=1)
    ax.set(xlabel="group (0: hardest to guess without the user)", ylabel="share of the tokens (%)")
    return figure


def weights_over_tau(
    losses: Sequence[float], taus: Sequence[float], prior: Sequence[float] | None = None, title: str = ""
) -> Figure:
    """Group weights Q*(g) as a function of tau: from all weight on the worst group to the prior (Eq. 5).

    Losses L(g), shape (K,), and taus are in nats; the prior P(g) is uniform by default.
    """
    import torch

    from gdrt_lite.dro import group_weights

    values = torch.as_tensor(losses, dtype=torch.float64)
    p = None if prior is None else torch.as_tensor(prior, dtype=torch.float64)
    weights = torch.stack([group_weights(values, float(tau), p) for tau in taus]).numpy()
    figure, (ax,) = canvas.axes(title, (6.4, 3.8))
    for g, (colour, marker, style) in enumerate(canvas.cues(len(values))):
        label = f"group {g}, L = {values[g].item():.2f} nats"
        ax.plot(taus, weights[:, g], color=colour, marker=marker, ls=style, markevery=max(1, len(taus) // 12), label=label)
    for share in {1 / len(values)} if p is None else set((p / p.sum()).tolist()):
        ax.axhline(share, color="grey", linewidth=1, ls=(0, (1, 1)), zorder=0)
        ax.text(1.01, share, "prior", transform=ax.get_yaxis_transform(), va="center", color="dimgrey", size=9)
    ax.set(xscale="log", xlabel="tau (nats)", ylabel="weight Q*(g)", ylim=(-0.03, 1.03))
    ax.legend(frameon=True, fontsize=9)
    return figure


def training_curves(history: pd.DataFrame, smooth: int = 1, title: str = "") -> Figure:
    """Loss and weight of each group per training step (`training.TuningResult.history`), as means over `smooth` steps."""
    canvas.need(history, "step", "loss_g0", "weight_g0")
    n_groups = sum(str(column).startswith("loss_g") for column in history)
    figure, axes = canvas.axes(title, (8.4, 3.4), columns=2)
    for ax, kind, label in zip(axes, ("loss", "weight"), ("loss L(g) (nats per token)", "weight Q(g)"), strict=True):
        for g, (colour, marker, style) in enumerate(canvas.cues(n_groups)):
            values = history[f"{kind}_g{g}"].astype(float).rolling(smooth, min_periods=1).mean()
            every = max(1, len(history) // 8)
            ax.plot(history.step, values, color=colour, marker=marker, ls=style, markevery=every, ms=5, label=f"group {g}")
        ax.set(xlabel="step (batches)", ylabel=label)
    axes[0].set_ylim(bottom=0)
    axes[1].set_ylim(-0.03, 1.03)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(n_groups, 6), frameon=False)
    return figure


def learning_curve(
    frame: pd.DataFrame, x: str, y: str, hue: str | None = None, xlabel: str = "", ylabel: str = "", title: str = ""
) -> Figure:
    """Mean of column `y` against `x`, one line per value of `hue`; error bars span the range of repeated rows (seeds).

    The axis labels are to have units; by default they are the column names.
    """
    canvas.need(frame, x, y, *([hue] if hue else []))
    figure, (ax,) = canvas.axes(title, (6.4, 3.8))
    parts = {"": frame} if hue is None else dict(list(frame.groupby(hue, sort=False)))
    for (name, part), (colour, marker, style) in zip(parts.items(), canvas.cues(len(parts)), strict=True):
        seen = part.groupby(x)[y].agg(["mean", "min", "max"])
        span = np.maximum(0, (seen["mean"] - seen["min"], seen["max"] - seen["mean"]))  # rounding may leave -1e-17
        error = span if span.any() else None  # the legend shows bars where there are any
        ax.errorbar(seen.index, seen["mean"], yerr=error, color=colour, marker=marker, ls=style, capsize=3, label=str(name))
    ax.set(xlabel=xlabel or x, ylabel=ylabel or y)
    if hue is not None:
        ax.legend(title=hue, fontsize=9)
    return figure


def accuracy_intervals(table: pd.DataFrame, metrics: Sequence[str] = ("NDCG@10", "HR@10"), title: str = "") -> Figure:
    """Estimate of each model with its 95% interval, one panel for each metric of the table of `report.comparison`."""
    canvas.need(table, "model", "metric", "estimate", "low", "high")
    return _intervals(table, metrics, ("estimate", "low", "high"), title)


def differences(
    table: pd.DataFrame, metrics: Sequence[str] = ("NDCG@10", "HR@10"), reference: str = "SFT", title: str = ""
) -> Figure:
    """Each model minus the reference, with its paired 95% interval; the marker is filled where it excludes zero.

    The table is that of `report.comparison`, and `reference` is the name on the axis label.
    """
    columns = ("difference", "difference_low", "difference_high")
    canvas.need(table, "model", "metric", *columns)
    figure = _intervals(table.dropna(subset="difference"), metrics, columns, title)
    for ax in figure.axes:
        ax.axvline(0, color="black", linewidth=1.2, ls=":", zorder=0)
        ax.set_xlabel(f"{ax.get_xlabel()} minus {reference}")
    return figure


VERDICTS = {"supported": ("#0173b2", "o"), "contradicted": ("#d55e00", "s"), "undecided": ("#777777", "D")}


def forest(table: pd.DataFrame, title: str = "") -> Figure:
    """The registered hypotheses, one a row: the effect with its 95% interval, in units of the interval's half width.

    The units differ between hypotheses (nats, percent): each row is scaled by its interval, and its figures stand beside it.
    Where a hypothesis was tested in several places, thin lines under the row show each place in the same units.

    Args:
        table: the hypotheses of `study.verdicts.judge`.
    """
    canvas.need(table, "id", "text", "verdict", "effect", "low", "high", "relative", "places")
    shown = table.dropna(subset="effect").reset_index(drop=True)
    places = list(dict.fromkeys(name for own in shown.places if len(own) > 1 for name in own))
    markers = dict(zip(places, itertools.cycle("^vPX*"), strict=False))
    if not title:
        counts = shown.verdict.value_counts()
        title = "Registered hypotheses: " + ", ".join(f"{counts.get(name, 0)} {name}" for name in VERDICTS)
    figure, (ax,) = canvas.axes(title, (11, (0.5 + 0.13 * len(places)) * len(shown) + 1.3 + 0.25 * len(places)))
    for at, row in shown.iterrows():
        colour, marker = VERDICTS[row.verdict]
        half = (row.high - row.low) / 2 or 1.0
        ax.plot([row.low / half, row.high / half], [at, at], color=colour, linewidth=2.4)
        for name, (effect, low, high, _) in row.places.items() if len(row.places) > 1 else ():
            under = at + 0.7 * (1 + places.index(name)) / (1 + len(places))
            ax.plot([low / half, high / half], [under, under], color="#555555", linewidth=1)
            ax.plot(effect / half, under, markers[name], ms=5, color="#555555")
        ax.plot(
            row.effect / half,
            at,
            marker=marker,
            ms=9,
            color=colour,
            mfc="white" if row.verdict == "undecided" else colour,
            mew=1.8,
        )
        form = "{:+.1%} [{:+.1%}, {:+.1%}]" if row.relative else "{:+.2f} [{:+.2f}, {:+.2f}]"
        told = f"{row.verdict}: " + form.format(row.effect, row.low, row.high)
        ax.annotate(told, (1.01, at), xycoords=("axes fraction", "data"), va="center", fontsize=11, color=colour)
    ax.axvline(0, color="black", linewidth=1.2, ls=":", zorder=0)
    ax.set(xlabel="effect, in half widths of its 95% interval", yticks=range(len(shown)), ylim=(len(shown) - 0.2, -0.5))
    ax.set_yticklabels([f"{row.id}  {row.text}" for row in shown.itertuples()])
    for name in places:
        ax.plot([], [], markers[name], ms=5, color="#555555", label=name)
    if places:
        ax.legend(title="each place by itself", loc="upper left", bbox_to_anchor=(0, -0.12))
    return figure


def unfairness_bars(frame: pd.DataFrame, title: str = "") -> Figure:
    """GU per group and model; above zero, a group is recommended more often than users chose it.

    The columns are model, group and gu (from `metrics.group_unfairness`).
    """
    canvas.need(frame, "model", "group", "gu")
    groups = list(dict.fromkeys(frame.group))
    figure, (ax,) = canvas.axes(title, (max(6.4, 0.7 * len(groups) + 2), 3.8))
    canvas.bars(ax, frame.assign(points=100 * frame.gu), "group", "points", "model", groups, None)
    ax.axhline(0, color="black", linewidth=1)
    ax.set(xlabel="group of titles", ylabel="GU: share recommended minus\nshare chosen (percentage points)")
    if len(groups) > 6:
        ax.tick_params(axis="x", rotation=40)
    return figure


def _intervals(table: pd.DataFrame, metrics: Sequence[str], columns: tuple[str, str, str], title: str) -> Figure:
    absent = [name for name in metrics if name not in set(table.metric)]
    if absent or not metrics:
        raise ValueError(f"metrics={list(metrics)}: choose from {', '.join(dict.fromkeys(table.metric))}.")
    models = list(dict.fromkeys(table.model[table.metric.isin(metrics)]))
    figure, axes = canvas.axes(title, (3.4 * len(metrics) + 1.4, 0.42 * len(models) + 1.7), columns=len(metrics))
    for ax, metric in zip(axes, metrics, strict=True):
        rows = table[table.metric == metric].set_index("model")
        for place, (model, (colour, marker, _)) in enumerate(zip(models, canvas.cues(len(models)), strict=True)):
            if model not in rows.index:
                continue
            middle, low, high = rows.loc[model, list(columns)].astype(float)
            hollow = columns[0] == "difference" and low <= 0 <= high
            ax.plot([low, high], [place, place], color=colour, linewidth=2)
            ax.plot(middle, place, marker=marker, ms=8, color=colour, mfc="white" if hollow else colour, mew=1.6)
        ax.set(xlabel=metric, yticks=range(len(models)), ylim=(len(models) - 0.5, -0.5))
        ax.set_yticklabels(models if ax is axes[0] else [])
    return figure
