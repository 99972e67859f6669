"""Data sets: interactions of users with titles, and their split into training, validation and test examples."""

from gdrt_lite.data.interactions import TIES, Interactions, from_frame
from gdrt_lite.data.sources import (
    NAMED,
    amazon_interactions,
    data_folder,
    is_here,
    load_amazon,
    load_movielens,
    load_movielens_100k,
    open_data,
    write_amazon,
)
from gdrt_lite.data.tables import read_table
from gdrt_lite.data.windows import SPLITS, Example, Ranked, Splits, chunks_of, sample, windows

__all__ = [
    "NAMED", "SPLITS", "TIES", "Example", "Interactions", "Ranked", "Splits", "amazon_interactions", "chunks_of",
    "data_folder", "from_frame", "is_here", "load_amazon", "load_movielens", "load_movielens_100k", "open_data",
    "read_table", "sample", "windows", "write_amazon",
]  # fmt: skip
