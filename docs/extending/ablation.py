"""An ablation: the history backwards, which keeps its titles and their number and reverses their order."""

from gdrt_lite.ablation import ABLATIONS
from gdrt_lite.prompts import HISTORY, Encoded


def backwards(encoded: Encoded, label: int, neutral: int, donor: Encoded | None) -> Encoded:
    """The prompt whose history tokens come in reverse order; other segments stay as they are."""
    places = encoded.positions(HISTORY) if label == HISTORY else []
    ids = list(encoded.ids)
    for place, source in zip(places, reversed(places), strict=True):
        ids[place] = encoded.ids[source]
    return Encoded(tuple(ids), encoded.segments, encoded.predict_at, encoded.labels, encoded.attend)


ABLATIONS["backwards"] = backwards
