"""The report of a run as one HTML page that loads nothing: what was found in sentences, with the figures in it.

Read with docs/run.md; the measures are derived in notebooks 00, 01 and 06.
"""

from __future__ import annotations

import base64
import html
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from gdrt_lite import attribution, data, decoding, lm, metrics, plots, stranger
from gdrt_lite.data import Splits
from gdrt_lite.study import report
from gdrt_lite.study.cell import Cell
from gdrt_lite.system import files

PEOPLE, ATTRIBUTED = 24, 12  # test examples of the live diagnosis, and those of them that are attributed
ADAPTERS = {"pre-trained": None, "SFT": "movielens-sft", "GDRT": "movielens-gdrt"}
STYLE = """body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 sans-serif; color-scheme: light dark }
img { max-width: 100%; background: #fff } table { border-collapse: collapse; display: block; overflow-x: auto }
td, th { padding: .3rem .8rem; border-bottom: 1px solid #999; text-align: left }"""


def diagnose(progress: bool = True) -> dict[str, Any]:
    """What the released adapters of SmolLM2 do on test users, measured live.

    Returns:
        people: the two examples whose genres overlap least; lists: their ten best titles after SFT, exactly ranked;
        worth: own minus stranger per model, nats, with its interval; faa: the table of `attribution.feature_ablation`.

    Raises:
        GdrtError: the model or an adapter cannot be had.
    """
    folder = data.data_folder() / "adapters"
    config = Cell.read(folder / "movielens-sft" / "cell.json").config
    splits = data.open_data(config.data, config.split, config.top_items, config.history)
    people = data.sample(splits.test, PEOPLE, seed=0)
    genres = [{genre for title in person.history for genre in splits.genres.get(title, ())} for person in people]
    pairs = itertools.combinations([i for i, own in enumerate(genres) if own], 2)
    pair = [people[i] for i in min(pairs, key=lambda both: len(genres[both[0]] & genres[both[1]]))]
    found: dict[str, Any] = {"people": pair, "worth": {}}
    frames = []
    for name, adapter in ADAPTERS.items():
        if progress:
            print(f"SmolLM2, {name}: own minus stranger and attribution", flush=True)
        model = lm.load(config.model, adapter=folder / adapter if adapter else None)
        apart = stranger.own_minus_stranger(model, people)
        found["worth"][name] = metrics.bootstrap(apart.difference, apart.user)
        frames.append(attribution.feature_ablation(model, people[:ATTRIBUTED]).assign(model=name))
        if name == "SFT":
            ranked = decoding.rank_catalogue(model, [e.history for e in pair], splits.catalogue, 10, exclude_history=True)
            found["lists"] = [[title for title, _ in own] for own in ranked]
    return found | {"faa": pd.concat(frames, ignore_index=True)}


def reading(worth: metrics.Interval) -> str:
    """What an interval of own minus stranger allows one to say."""
    if worth.low > 0:
        return f"{worth:+.2f} nats lies above zero, so the model reads its users"
    return f"{worth:+.2f} nats {'lies below' if worth.high < 0 else 'includes'} zero, so it is not shown to read its users"


def of_adapters(found: Mapping[str, Any], folder: Path) -> str:
    """The part on the released adapters; its figure is saved as faa.png in `folder`."""
    one, other = found["lists"]
    shares = {
        name: (table := attribution.segment_table(own).mean_abs) / table.sum() for name, own in found["faa"].groupby("model")
    }
    told = ", ".join(f"{shares[name]['HISTORY']:.0%} for {name}" for name in ADAPTERS)
    figure = plots.faa_by_segment(found["faa"], title=f"HISTORY's share: {told}")
    users = pd.DataFrame(
        {f"user {e.user}, who rated {'; '.join(e.history)}": own for e, own in zip(found["people"], found["lists"])}
    )
    said = [f"SmolLM2, {name}: own minus stranger {reading(worth)}." for name, worth in found["worth"].items()]
    alt = f"Mean absolute attribution per segment and model. Share of HISTORY: {told}"
    return (
        f"<h2>The released adapters of SmolLM2, measured live</h2><p>These users have hardly a genre in common. After SFT "
        f"they are offered <b>{len(set(one) & set(other))} of 10</b> titles in common.</p>{_table(users)}{_list(said)}"
        f"<p>Share of the attribution that falls on the user's own titles: {told}.</p>"
        f"{_image(plots.save(figure, folder / 'faa.png'), alt)}"
    )


def of_run(table: pd.DataFrame, cells: Mapping[str, Cell], splits: Splits, folder: Path) -> str:
    """The part on the models that the run has trained, and on the baselines."""
    known = {name: report.cell_metrics(cell) for name, cell in cells.items()}
    gap = known["sft"]["NDCG@10"].minus(known["popularity"]["NDCG@10"])
    word = "ranks above" if gap.low > 0 else "ranks below" if gap.high < 0 else "cannot be told from"
    said = [f"SFT {word} popularity: the difference in NDCG@10 is {gap:+.3f} [95% interval over users]."]
    for name, own in known.items():
        if "own minus stranger" in own and cells[name].history:
            said.append(f"{name}: own minus stranger {reading(own['own minus stranger'].interval())}.")
    images = []
    for name, cell in cells.items():
        if (folder / f"training-{name}.png").exists() and "loss_g0" in cell.history:
            losses = pd.DataFrame(cell.history).filter(like="loss_g")
            ends = " to ".join(f"{part.mean().max():.1f}" for part in (losses.head(5), losses.tail(5)))
            said.append(f"{name}: the mean loss of the hardest group goes from {ends} nats a token.")
            images.append(_image(folder / f"training-{name}.png", f"Loss and weight of each group under {name}"))
    config, tested = cells["sft"].config, len(cells["sft"].users)
    intro = (
        f"<h2>The model {html.escape(config.model)} on {html.escape(splits.name)}, trained in this run</h2>"
        f"<p>{cells['sft'].train_examples} training examples, {config.epochs:g} epoch{'s' * (config.epochs != 1)}, {tested} "
        "test examples of users that no model has seen.</p>"
    )
    accuracy = _image(folder / "accuracy.png", "Accuracy of each model with 95% intervals")
    return f"{intro}{_list(said)}{_table(report.headline(table, config.ablations[0]))}{accuracy}{''.join(images[-1:])}"


def write(folder: Path, parts: list[str]) -> Path:
    """Write report.html into `folder`."""
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>GDRT</title><style>{STYLE}</style>'
    )
    links = '<p>All figures: <a href="report.md">report.md</a> and <a href="report.json">report.json</a>.</p>'
    body = f"<h1>Does the recommender read its user?</h1>{''.join(parts)}{links}"
    return files.write_text(
        folder / "report.html", f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'
    )


def _table(frame: pd.DataFrame) -> str:
    return frame.to_html(index=False, border=0)


def _list(sentences: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in sentences)}</ul>"


def _image(path: Path, alt: str) -> str:
    return (
        f'<p><img alt="{html.escape(alt)}" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"></p>'
    )
