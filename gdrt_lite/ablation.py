"""The meanings of "without a segment": each turns a prompt into the prompt that lacks it.

Source: arXiv 2510.10978, section 2. Derived in notebook 01, sections 2 to 4.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby

import numpy as np

from gdrt_lite.prompts import HISTORY, PREFIX, TARGET, TASK, Encoded

FEATURES = (TASK, HISTORY, PREFIX)


def ablate(encoded: Encoded, segment: int, ablation: str, neutral: int, donor: Encoded | None = None) -> Encoded:
    """The prompt without one segment; its labels stay the same.

    Args:
        encoded: the whole prompt.
        segment: TASK, HISTORY or PREFIX. One forward pass serves all t at once for PREFIX, because what y_t may not see
            (y_<t) is not shown to any later token either.
        ablation: one of `ABLATIONS`.
        neutral: id of the neutral token.
        donor: another example's prompt, for "resample".

    Raises:
        ValueError: unknown ablation, missing donor, or nothing left to predict from.
    """
    if ablation not in ABLATIONS:
        raise ValueError(f"ablation={ablation!r} is unknown; choose one of {', '.join(ABLATIONS)}.")
    return ABLATIONS[ablation](encoded, TARGET if segment == PREFIX else segment, neutral, donor)


def _attention(encoded: Encoded, label: int, neutral: int, _: Encoded | None) -> Encoded:
    """Mask the tokens and keep all positions.

    A masked token from which a label is predicted also becomes the neutral token. Its own embedding would leak through the
    residual stream.
    """
    first = encoded.predict_at[0]
    places = enumerate(zip(encoded.ids, encoded.segments, strict=True))
    return replace(
        encoded,
        ids=tuple(neutral if segment == label and place >= first else i for place, (i, segment) in places),
        attend=tuple(0 if s == label else a for s, a in zip(encoded.segments, encoded.attend, strict=True)),
    )


def _token(encoded: Encoded, label: int, neutral: int, _: Encoded | None) -> Encoded:
    """Put the neutral token in place of each token."""
    places = zip(encoded.ids, encoded.segments, strict=True)
    return replace(encoded, ids=tuple(neutral if segment == label else i for i, segment in places))


def _delete(encoded: Encoded, label: int, _: int, __: Encoded | None) -> Encoded:
    """Remove the tokens; later positions shift."""
    kept = [place for place, segment in enumerate(encoded.segments) if segment != label]
    # A label whose place is deleted is predicted from the nearest kept token before it.
    slot = np.searchsorted(kept, encoded.predict_at, side="right") - 1
    if slot[0] < 0:
        raise ValueError("ablation='delete' leaves no token before the first target token; use 'token' or 'attention'.")
    ids, segments, attend = (tuple(part[p] for p in kept) for part in (encoded.ids, encoded.segments, encoded.attend))
    return Encoded(ids, segments, tuple(int(s) for s in slot), encoded.labels, attend)


def _resample(encoded: Encoded, label: int, _: int, donor: Encoded | None) -> Encoded:
    """Put the donor's pieces in place of the prompt's own: target tokens, titles, or what stands before each title.

    With one fixed prompt the TASK segment of every donor is the same, so TASK then has attribution 0.
    """
    if donor is None:
        raise ValueError("ablation='resample' needs a donor: the prompt of another example.")
    pieces = _pieces(encoded)
    own = [i for i, (segment, _) in enumerate(pieces) if segment == label]
    pool = [ids for segment, ids in _pieces(donor) if segment == label]
    if not pool:
        raise ValueError("the donor of ablation='resample' has an empty history.")
    for place, i in enumerate(own):
        pieces[i] = (label, _donated(label, pieces[i][1], place, place == len(own) - 1, pool))
    return _joined(encoded, pieces)


def _shuffle(encoded: Encoded, label: int, _: int, __: Encoded | None) -> Encoded:
    """Put the titles of the history in another order: the order is gone, the set is kept. Other segments stay.

    A checksum of the prompt is the random seed, so a prompt is always shuffled alike.
    """
    pieces = _pieces(encoded)
    own = [i for i, (segment, _) in enumerate(pieces) if segment == label == HISTORY]
    order = np.random.default_rng(zlib.crc32(str(encoded.ids).encode())).permutation(own)
    before = list(pieces)
    for place, source in zip(own, order, strict=True):
        pieces[place] = before[source]
    return _joined(encoded, pieces)


Ablation = Callable[[Encoded, int, int, Encoded | None], Encoded]  # (prompt, segment label, neutral id, donor)
ABLATIONS: dict[str, Ablation] = {
    "attention": _attention, "token": _token, "delete": _delete, "resample": _resample, "shuffle": _shuffle,
}  # fmt: skip
MEANINGS = ("attention", "token", "delete", "resample")  # those that take a segment away; "shuffle" takes its order


def _joined(encoded: Encoded, pieces: list[tuple[int, tuple[int, ...]]]) -> Encoded:
    """The prompt made of other pieces; its labels are predicted from the same places, counted from the end."""
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
