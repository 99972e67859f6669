"""Figures: what they draw, that nobody needs colour or a screen to read them, and that alt text survives."""

from __future__ import annotations

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from gdrt_lite import dro, groups, plots
from gdrt_lite.plots import canvas, figures

TITLE = "What the figure finds"


def faa() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        (model, f"u{u}", t, segment, np.nan if (segment, t) == ("PREFIX", 0) else rng.normal(1, 2))
        for model in ("sft", "gdrt")
        for u in range(3)
        for t in range(4)
        for segment in figures.SEGMENTS
    ]
    return pd.DataFrame(rows, columns=["model", "user", "position", "segment", "attribution"])


def heat_map(repeats: int = 1) -> pd.DataFrame:
    tokens = ["The", " user", " saw", ":\n", "Alien", " $", "5$", "\n", "Next", "?"] * repeats
    segments = ["TASK"] * 4 + ["HISTORY"] * 3 + ["TASK"] * 3
    return pd.DataFrame({"token": tokens, "segment": segments * repeats, "attribution": np.linspace(-1, 2, len(tokens))})


def pairs() -> pd.DataFrame:
    return pd.DataFrame(
        {"segment": np.repeat(figures.SEGMENTS, 4), "rate": np.linspace(0, 1, 12), "npmi": np.linspace(-1, 1, 12)}
    )


def token_table() -> pd.DataFrame:
    relevance = {f"t{i}": torch.tensor([-float(i), -0.1]) for i in range(1, 7)}
    return groups.fit(relevance, ["t1", "t1", "t3", "t4"], n_groups=2).table()


def history() -> pd.DataFrame:
    steps = np.arange(1, 9)
    columns = {f"loss_g{g}": 3.0 / steps + g for g in range(3)} | {f"weight_g{g}": np.full(8, 1 / 3) for g in range(3)}
    frame = pd.DataFrame({"step": steps} | columns)
    frame.loc[2, "loss_g1"] = np.nan  # absent in that batch
    return frame


def curve() -> pd.DataFrame:
    return pd.DataFrame(
        [(n, o, s, 0.1 + s * 0.01 * (o == "sft")) for n in (10, 20) for o in ("sft", "gdrt") for s in range(3)],
        columns=["windows", "objective", "seed", "ndcg"],
    )


def comparison() -> pd.DataFrame:
    rows = []
    for metric in ("NDCG@10", "HR@10"):
        rows.append({"model": "sft", "metric": metric, "estimate": 0.1, "low": 0.05, "high": 0.2})
        for model, low, high in (("gdrt", 0.01, 0.05), ("balanced", -0.03, 0.04)):
            difference = {"difference": (low + high) / 2, "difference_low": low, "difference_high": high}
            rows.append({"model": model, "metric": metric, "estimate": 0.3, "low": 0.2, "high": 0.4} | difference)
    rows.append({"model": "sft", "metric": "coverage@10", "estimate": 40.0})
    return pd.DataFrame(rows)


def unfairness() -> pd.DataFrame:
    rows = [(m, g, x) for m, s in (("sft", 1), ("gdrt", 0.5)) for g, x in (("1", -0.1 * s), ("2", 0.1 * s))]
    return pd.DataFrame(rows, columns=["model", "group", "gu"])


FIGURES = {
    "faa": lambda title: plots.faa_by_segment(faa(), title=title),
    "faa of one": lambda title: plots.faa_by_segment(faa().drop(columns="model"), signed=True, title=title),
    "heat": lambda title: plots.token_heatmap(heat_map(), title=title),
    "pairs": lambda title: plots.cooccurrence_by_segment(pairs(), title=title),
    "relevance": lambda title: plots.relevance_distribution(token_table(), title=title),
    "sizes": lambda title: plots.group_sizes(token_table(), title=title),
    "tau": lambda title: plots.weights_over_tau([0.5, 2.0], [0.1, 1, 10], title=title),
    "training": lambda title: plots.training_curves(history(), smooth=2, title=title),
    "curve": lambda title: plots.learning_curve(curve(), "windows", "ndcg", "objective", title=title),
    "accuracy": lambda title: plots.accuracy_intervals(comparison(), title=title),
    "differences": lambda title: plots.differences(comparison(), title=title),
    "unfairness": lambda title: plots.unfairness_bars(unfairness(), title=title),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_titled_labelled_opaque_and_leaves_nothing_open(name, tmp_path):
    figure = FIGURES[name](TITLE)
    assert isinstance(figure, Figure) and figure.get_suptitle() == TITLE
    for ax in figure.axes:
        assert ax.get_xlabel() or len(ax.get_xticks()) == 0
    assert figure.axes[0].get_ylabel() or name in ("heat", "accuracy", "differences")
    file = plots.save(figure, tmp_path / "new" / "figure.png")
    assert [path.name for path in file.parent.iterdir()] == ["figure.png"]
    pixels = imread(file)
    assert pixels.ndim == 3 and (pixels.shape[2] == 3 or (pixels[..., 3] == 1).all())
    assert (pixels[0, 0, :3] == 1).all()
    assert plt.get_fignums() == []


def heights(ax) -> list[list[float]]:
    return [[bar.get_height() for bar in bars] for bars in ax.containers]


def test_faa_bars_are_mean_absolute_attributions_per_model():
    frame = faa()
    ax = plots.faa_by_segment(frame).axes[0]
    for bars, model in zip(heights(ax), ("sft", "gdrt")):
        own = frame[frame.model == model]
        expected = [np.nanmean(own.attribution[own.segment == s].abs()) for s in figures.SEGMENTS]
        assert bars == pytest.approx(expected)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["sft", "gdrt"]
    assert ax.containers[0][0].get_hatch() != ax.containers[1][0].get_hatch()
    signed = plots.faa_by_segment(frame, signed=True).axes[0]
    assert heights(signed)[0][0] == pytest.approx(
        frame.attribution[(frame.model == "sft") & (frame.segment == "TASK")].mean()
    )


def test_heat_map_shows_every_token_and_wraps():
    ax = plots.token_heatmap(heat_map(repeats=1)).axes[0]
    texts = [text.get_text() for text in ax.texts]
    assert "".join(texts) == "The user saw:\u21b5Alien $5$\u21b5Next?"
    assert not any(text.get_parse_math() for text in ax.texts)  # a dollar in a title is no formula
    assert len({text.get_position()[1] for text in ax.texts}) == 3
    assert [line.get_linestyle() for line in ax.lines] == [":"] * 4 + ["-"] * 3 + [":"] * 3
    long = plots.token_heatmap(pd.DataFrame({"token": [" word"] * 60, "segment": "TASK", "attribution": 0.0})).axes[0]
    assert len({text.get_position()[1] for text in long.texts}) == 4
    assert max(text.get_position()[0] + len(text.get_text()) for text in long.texts) <= 96


def test_heat_map_colours_by_sign():
    ax = plots.token_heatmap(
        pd.DataFrame({"token": ["a", "b", "c"], "segment": "TASK", "attribution": [-2.0, 0.0, 2.0]})
    ).axes[0]
    (red, _, blue), _, (red2, _, blue2) = [patch.get_facecolor()[:3] for patch in ax.patches]
    assert red > blue and blue2 > red2


def test_histogram_counts_training_tokens_not_titles():
    table = token_table()
    ax = plots.relevance_distribution(table).axes[0]
    assert sum(bar.get_height() for bar in ax.patches) == pytest.approx(table["count"].sum())
    own = table[table["count"] > 0]
    means = [np.average(part.relevance, weights=part["count"]) for _, part in own.groupby("group")]
    assert [line.get_xdata()[0] for line in ax.lines] == pytest.approx(means)


def test_group_sizes_are_shares():
    table = token_table()
    ax = plots.group_sizes(table).axes[0]
    weighted, plain = heights(ax)
    assert sum(weighted) == pytest.approx(100) and sum(plain) == pytest.approx(100)
    assert weighted[0] == pytest.approx(100 * table["count"][table.group == 0].sum() / table["count"].sum())


def test_weights_over_tau_are_those_of_dro():
    losses, taus, prior = [0.5, 1.2, 2.0], [0.1, 0.5, 3.0], [0.5, 0.3, 0.2]
    ax = plots.weights_over_tau(losses, taus, prior).axes[0]
    drawn = np.array([line.get_ydata() for line in ax.lines[:3]])
    expected = [dro.group_weights(torch.tensor(losses), t, torch.tensor(prior)).numpy() for t in taus]
    np.testing.assert_allclose(drawn.T, expected, atol=1e-6)
    assert len({(line.get_marker(), line.get_linestyle()) for line in ax.lines[:3]}) == 3


def test_training_curves_draw_losses_and_weights():
    losses, weights = plots.training_curves(history()).axes
    assert len(losses.lines) == len(weights.lines) == 3
    np.testing.assert_allclose(losses.lines[0].get_ydata(), history().loss_g0)
    np.testing.assert_allclose(weights.lines[0].get_ydata(), 1 / 3)
    smooth = plots.training_curves(history(), smooth=2).axes[0].lines[0].get_ydata()
    assert smooth[1] == pytest.approx((3.0 + 1.5) / 2)


def test_learning_curve_averages_repeats_and_spans_them():
    ax = plots.learning_curve(curve(), "windows", "ndcg", "objective", xlabel="windows (number)").axes[0]
    line, _, (spans,) = ax.containers[0].lines
    assert list(line.get_ydata()) == pytest.approx([0.11, 0.11])
    np.testing.assert_allclose(spans.get_segments()[0][:, 1], [0.10, 0.12])
    assert ax.get_xlabel() == "windows (number)"
    assert len({container.lines[0].get_marker() for container in ax.containers}) == 2


def test_intervals_reach_from_low_to_high():
    ax = plots.accuracy_intervals(comparison(), ["HR@10"]).axes[0]
    assert list(ax.lines[0].get_xdata()) == [0.05, 0.2] and ax.lines[1].get_xdata()[0] == 0.1
    assert [label.get_text() for label in ax.get_yticklabels()] == ["sft", "gdrt", "balanced"]


def test_only_differences_that_leave_out_zero_are_filled():
    ax = plots.differences(comparison(), ["HR@10"]).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["gdrt", "balanced"]
    clear, unclear = ax.lines[1], ax.lines[3]
    assert clear.get_markerfacecolor() == clear.get_color() and unclear.get_markerfacecolor() == "white"
    assert any(list(line.get_xdata()) == [0, 0] for line in ax.lines)
    assert "minus SFT" in ax.get_xlabel()


def test_a_forest_shows_each_place_under_a_mean_of_several():
    told = {"text": "x", "verdict": "undecided", "effect": 1.0, "low": -1.0, "high": 3.0, "relative": False}
    alone = told | {"id": "H1", "places": {"A": [1.0, -1.0, 3.0, 1]}}
    several = told | {"id": "H3", "places": {"B": [-2.0, -4.0, 0.0, 1], "A": [4.0, 2.0, 6.0, 5]}}
    (ax,) = plots.forest(pd.DataFrame([alone, several])).axes
    drawn = [(tuple(line.get_xdata()), line.get_ydata()[0]) for line in ax.lines if len(line.get_xdata()) == 2]
    spans = {span: at for span, at in drawn if span != (0, 1)}
    assert 1 < spans[-2.0, 0.0] < spans[1.0, 3.0] < 2, "in half widths of the mean, under the second row"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["B", "A"]
    assert plots.forest(pd.DataFrame([alone])).axes[0].get_legend() is None


def test_unfairness_is_in_percentage_points():
    ax = plots.unfairness_bars(unfairness()).axes[0]
    np.testing.assert_allclose(heights(ax), [[-10, 10], [-5, 5]])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plots.faa_by_segment(pd.DataFrame({"segment": ["TASK"]})), "no column attribution"),
        (lambda: plots.unfairness_bars(unfairness()[:0]), "empty"),
        (lambda: plots.accuracy_intervals(comparison(), ["MRR"]), "MRR.*NDCG@10, HR@10"),
        (lambda: plots.differences(comparison(), []), "choose from"),
        (lambda: plots.weights_over_tau([1.0, 2.0], [0.0]), "tau="),
        (lambda: plots.show(plots.unfairness_bars(unfairness()), "  "), "alt is empty"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_shown_figures_keep_their_alt_text(monkeypatch):
    """JupyterLab and nbconvert both drop the alt of image/png: it must stand in the HTML."""
    sent = {}
    monkeypatch.setattr("IPython.display.display", lambda data, **options: sent.update(data=data, **options))
    figure, ax = plt.subplots(facecolor="none")
    ax.plot([0, 1])
    plots.show(figure, alt='Loss "falls" & stays < 1')
    assert plt.get_fignums() == []
    assert sent["raw"] and sent["metadata"]["image/png"]["alt"] == 'Loss "falls" & stays < 1'
    assert 'alt="Loss &quot;falls&quot; &amp; stays &lt; 1"' in sent["data"]["text/html"]

    import base64

    from bs4 import BeautifulSoup
    from nbconvert import HTMLExporter
    from nbformat.v4 import new_code_cell, new_notebook, new_output

    pixels = imread(io.BytesIO(base64.b64decode(sent["data"]["image/png"])))
    assert (pixels[0, 0] == 1).all()
    width = sent["metadata"]["image/png"]["width"]  # on the page; the picture itself is sharper
    assert f'width="{width}"' in sent["data"]["text/html"] and pixels.shape[1] == 2 * width
    output = new_output("display_data", data=sent["data"], metadata=sent["metadata"])
    page, _ = HTMLExporter().from_notebook_node(new_notebook(cells=[new_code_cell("", outputs=[output])]))
    images = BeautifulSoup(page, "html.parser").find_all("img")
    assert [image["alt"] for image in images] == ['Loss "falls" & stays < 1']


def test_an_animation_is_folded_and_has_a_frame_for_each_step(monkeypatch):
    import base64

    from PIL import Image

    sent = {}
    monkeypatch.setattr("IPython.display.display", lambda data, **options: sent.update(data))
    figure, (ax,) = canvas.axes("", (2, 1))
    (line,) = ax.plot([0, 1], [0, 0])
    canvas.animation(figure, lambda height: line.set_ydata([0, height]), [0, 0.5, 1], alt="A line < 1 rises")
    page = sent["text/html"]
    assert page.startswith("<details><summary>") and 'alt="A line &lt; 1 rises"' in page
    film = Image.open(io.BytesIO(base64.b64decode(page.partition("base64,")[2].partition('"')[0])))
    assert film.n_frames == 3
    shots = [film.seek(frame) or film.convert("RGB").tobytes() for frame in range(3)]
    assert len(set(shots)) == 3


def test_saving_over_a_file_replaces_it_whole(tmp_path, monkeypatch):
    path = plots.save(plots.unfairness_bars(unfairness()), tmp_path / "a.png")
    before = path.read_bytes()

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        plots.save(plots.weights_over_tau([1.0, 2.0], [1.0]), path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.png"]
