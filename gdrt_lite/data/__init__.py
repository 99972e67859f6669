"""Data sets: interactions of users with titles, and their split into training, validation and test examples."""

from gdrt_lite.data.interactions import (
    Interactions,
    amazon_interactions,
    data_folder,
    from_frame,
    load_amazon,
    load_movielens,
    load_movielens_100k,
)
from gdrt_lite.data.windows import SPLITS, Example, Splits, chunks_of, sample, windows

__all__ = [
    "SPLITS",
    "Example",
    "Interactions",
    "Splits",
    "amazon_interactions",
    "chunks_of",
    "data_folder",
    "from_frame",
    "load_amazon",
    "load_movielens",
    "load_movielens_100k",
    "sample",
    "windows",
]
