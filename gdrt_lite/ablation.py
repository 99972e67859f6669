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
    if label == TARGET:
        pool = [donor.ids[p] for p in donor.positions(TARGET)][:-1] or [donor.ids[-1]]  # without EOS
        target = encoded.positions(TARGET)
        ids = encoded.ids[: target[0]] + tuple(pool[i % len(pool)] for i in range(len(target)))
        return replace(encoded, ids=ids)
    runs, pool = _runs(encoded), [ids for s, ids in _runs(donor) if s == label]
    own = [i for i, (s, _) in enumerate(runs) if s == label]
    if not pool:
        raise ValueError("the donor of ablation='resample' has an empty history.")
    for order, i in enumerate(own):
        if label == HISTORY:
            runs[i] = (label, pool[order % len(pool)])
        elif order in (0, len(own) - 1):  # the opening, or the question before the target
            runs[i] = (label, pool[0 if order == 0 else -1])
        elif len(pool) > 2:  # what stands between two titles
            runs[i] = (label, pool[1])
    ids = tuple(i for _, run in runs for i in run)
    segments = tuple(s for s, run in runs for _ in run)
    shift = len(ids) - len(encoded)
    return Encoded(ids, segments, tuple(p + shift for p in encoded.predict_at), encoded.labels, (1,) * len(ids))


def _runs(encoded: Encoded) -> list[tuple[int, tuple[int, ...]]]:
    runs = groupby(zip(encoded.segments, encoded.ids, strict=True), key=lambda pair: pair[0])
    return [(segment, tuple(i for _, i in run)) for segment, run in runs]
