"""The four meanings of "without a segment": each turns a prompt into the prompt that lacks it.

Source: arXiv 2510.10978, section 2. Derived in notebook 01, sections 2 to 4.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import numpy as np

from gdrt_lite.prompts import HISTORY, PREFIX, TARGET, TASK, Encoded

FEATURES = (TASK, HISTORY, PREFIX)

ABLATIONS = ("attention", "token", "delete", "resample")


def ablate(encoded: Encoded, segment: int, ablation: str, neutral: int, donor: Encoded | None = None) -> Encoded:
    """The prompt without one segment; its labels stay the same.

    Args:
        encoded: the whole prompt.
        segment: TASK, HISTORY or PREFIX. One forward pass serves all t at once for PREFIX, because what y_t may not see
            (y_<t) is not shown to any later token either.
        ablation: "attention" masks the tokens and keeps all positions; a masked slot from which a label is predicted also
            gets the neutral token, or its own embedding would leak through the residual stream. "token" puts the neutral
            token in their place. "delete" removes them, later positions shift. "resample" puts the donor's segment there,
            title for title; with one fixed prompt the TASK segment of every donor is the same, so TASK then scores 0.
        neutral: id of the neutral token.
        donor: another example's prompt, for "resample".

    Raises:
        ValueError: unknown ablation, missing donor, or nothing left to predict from.
    """
    label = TARGET if segment == PREFIX else segment
    first_label_slot = encoded.predict_at[0]
    gone = [s == label for s in encoded.segments]
    if ablation == "token":
        return replace(encoded, ids=tuple(neutral if g else i for i, g in zip(encoded.ids, gone, strict=True)))
    if ablation == "attention":
        leaks = [g and p >= first_label_slot for p, g in enumerate(gone)]
        return replace(
            encoded,
            ids=tuple(neutral if leak else i for i, leak in zip(encoded.ids, leaks, strict=True)),
            attend=tuple(0 if g else a for a, g in zip(encoded.attend, gone, strict=True)),
        )
    if ablation == "delete":
        return _delete(encoded, gone)
    if ablation == "resample":
        if donor is None:
            raise ValueError("ablation='resample' needs a donor: the prompt of another example.")
        return _resample(encoded, label, donor)
    raise ValueError(f"ablation={ablation!r} is unknown; choose one of {', '.join(ABLATIONS)}.")


def _delete(encoded: Encoded, gone: list[bool]) -> Encoded:
    kept = [p for p, g in enumerate(gone) if not g]
    if not kept or kept[0] > encoded.predict_at[-1]:
        raise ValueError("ablation='delete' leaves no token before the target to predict from; use 'token' or 'attention'.")
    # A label whose slot is deleted is predicted from the nearest kept token before it.
    slot = np.searchsorted(kept, encoded.predict_at, side="right") - 1
    if slot[0] < 0:
        raise ValueError("ablation='delete' leaves no token before the first target token; use 'token' or 'attention'.")
    return Encoded(
        ids=tuple(encoded.ids[p] for p in kept),
        segments=tuple(encoded.segments[p] for p in kept),
        predict_at=tuple(int(s) for s in slot),
        labels=encoded.labels,
        attend=tuple(encoded.attend[p] for p in kept),
    )


def _resample(encoded: Encoded, label: int, donor: Encoded) -> Encoded:
    """The prompt with the donor's pieces in place of its own: target tokens, titles, or what stands before each title."""
    pieces = _pieces(encoded)
    own = [i for i, (segment, _) in enumerate(pieces) if segment == label]
    pool = [ids for segment, ids in _pieces(donor) if segment == label]
    if not pool:
        raise ValueError("the donor of ablation='resample' has an empty history.")
    for place, i in enumerate(own):
        pieces[i] = (label, _donated(label, pieces[i][1], place, place == len(own) - 1, pool))
    ids = tuple(i for _, piece in pieces for i in piece)
    segments = tuple(segment for segment, piece in pieces for _ in piece)
    shift = len(ids) - len(encoded)
    return Encoded(ids, segments, tuple(p + shift for p in encoded.predict_at), encoded.labels, (1,) * len(ids))


def _donated(label: int, own: tuple[int, ...], place: int, last: bool, pool: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The donor's piece in place of `own`, the prompt's piece number `place` of this segment."""
    if label == TARGET:  # as many tokens as labels, without the EOS that ends a title
        words = pool[0][:-1] or pool[0]
        return tuple(words[i % len(words)] for i in range(len(own)))
    if label == HISTORY:
        return pool[place % len(pool)]
    if place == 0:  # the opening
        return pool[0]
    if last:  # the question before the target
        return pool[-1]
    return pool[1] if len(pool) > 2 else own  # what stands between two titles


def _pieces(encoded: Encoded) -> list[tuple[int, tuple[int, ...]]]:
    """Neighbouring tokens of one segment, with their segment."""
    runs = groupby(zip(encoded.segments, encoded.ids, strict=True), key=lambda pair: pair[0])
    return [(segment, tuple(i for _, i in run)) for segment, run in runs]
