"""A data set by name: a week of a radio station, from a table that is made here in place of being read."""

import pandas as pd

from gdrt_lite import data


def load_radio(top_items: int | None = None) -> data.Interactions:
    """Forty listeners and twelve songs; a listener hears the songs in order, from one that is theirs on."""
    rows = [(f"listener {u}", f"Song No. {(u + i) % 12 + 1}", 3600 * i) for u in range(40) for i in range(8)]
    table = pd.DataFrame(rows, columns=["user", "item", "time"])
    heard = data.from_frame(table, "user", "item", "time", name="radio", noun="song", verb="heard")
    return heard if top_items is None else heard.top_items(top_items)


data.NAMED["radio"] = load_radio
