"""Tables that people have: from_frame's report, files of each form, random tables, the Amazon form written and read back."""

from __future__ import annotations

import re
import tempfile
import warnings
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdrt_lite import data, prompts
from gdrt_lite.data import Example, Splits
from gdrt_lite.system import files
from gdrt_lite.system.errors import GdrtError

DAY = 1_500_000_000


def random_cases(*strategies):
    """A test of 200 random cases, and in the long lane of 2,000."""

    def lanes(test):
        def run(cases):
            settings(deadline=None, max_examples=cases)(given(*strategies)(test))()

        return pytest.mark.parametrize("cases", [200, pytest.param(2000, marks=[pytest.mark.long, pytest.mark.slow])])(run)

    return lanes


def read(item=("x", "y", "z"), time=(DAY, DAY + 1, DAY + 2), user=("a", "a", "a"), **more) -> data.Interactions:
    titles = pd.Series(list(item), dtype=None if isinstance(item[0], float) else object)
    table = pd.DataFrame({"u": user, "i": titles, "t": list(time), "id": range(len(item))})
    return data.from_frame(table, "u", "i", "t", **more)


def told(interactions: data.Interactions) -> str:
    return " ".join(interactions.report)


# ---------------------------------------------------------------------------------------------- from_frame


@pytest.mark.parametrize(
    "one, other", [("A &amp; B", "A & B"), ("A\nB", "A B"), ("A\u00a0B", "A  B"), ("Ame\u0301lie", "Amélie")]
)
def test_titles_that_differ_in_writing_alone_are_one(one, other):
    assert read([one, other, "z"]).titles == sorted([" ".join(other.split()), "z"])
    assert "1 became another's" in told(read([one, other, "z"]))


def test_ids_that_share_a_title_are_counted():
    shared = read(["x", "y", "x"], user=["a", "a", "b"], item_id="id")
    assert "2 ids share 1 titles" in told(shared) and "share" not in told(read(item_id="id"))


@pytest.mark.parametrize("ids", [["1", "10", "100"], [1984.0, 7.0, 3.0], ["B000FAG6XC", "B01N5IB20Q", "B00ZV9RDKK"]])
def test_ids_in_the_place_of_titles_are_told(ids):
    assert "seems to hold ids" in told(read(ids)) and "ids" not in told(read(["1984", "Dune", "Emma"]))


def test_whole_floats_lose_their_fraction():
    assert read([1984.0, 7.0, 3.0], user=[1.0, 1.0, 2.0]).frame.values.tolist() == [
        ["1", "1984", DAY], ["1", "7", DAY + 1], ["2", "3", DAY + 2],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "times, says", [([2001, 1999, 2024], "holds years"), ([5, 3, 4], "no Unix seconds (the largest is 5)")]
)
def test_numbers_that_are_no_times_are_told(times, says):
    assert says in told(read(time=times)) and "seconds" not in told(read())


@pytest.mark.parametrize(
    "times",
    [
        ["2020-05-01 21:55:45.9", "2020-05-01 21:55:45.1", "2020-05-01 21:55:46"],
        pd.to_datetime(["2020-05-01 21:55:45.9", "2020-05-01 21:55:45.1", "2020-05-01 21:55:46.0"]),
        [DAY + 0.9, DAY + 0.1, DAY + 1],
        [0.9, 0.5, 1.0],
    ],
)
def test_parts_of_a_second_keep_their_order(times):
    found = read(time=times)
    assert found.frame["item"].tolist() == ["y", "x", "z"] and "2 times have parts of a second" in told(found)


def test_dates_beyond_nanoseconds_are_read():
    assert read(time=["9999-12-31", "2262-05-01", "1500-01-01"]).frame["item"].tolist() == ["z", "y", "x"]


@pytest.mark.parametrize("bad", [1e20, 2**63, 2**64 - 1, float("nan"), "soon", None])
def test_a_time_that_does_not_fit_is_refused_with_its_row(bad):
    with pytest.raises(ValueError, match="'t' holds no time in row 1"):
        read(time=pd.Series([DAY, bad, DAY + 1], dtype=object))


@pytest.mark.parametrize(
    "bad, says", [(["A", "B"], "a list in row 1"), ("\ud800", "Unicode in row 1"), ("&nbsp;", "blank .* in row 1")]
)
def test_a_title_that_is_none_is_refused_with_its_row(bad, says):
    with pytest.raises(ValueError, match=says):
        read(["x", bad, "z"])


def test_a_column_that_is_there_twice_is_refused():
    table = pd.DataFrame([["a", "x", 1, "y"]], columns=["u", "i", "t", "i"])
    with pytest.raises(ValueError, match="2 columns 'i'"):
        data.from_frame(table, "u", "i", "t")


def tied(ties: str, seed: int = 0) -> data.Interactions:
    names = [f"T{n}" for n in range(12)]
    return read(names, [DAY + n // 4 for n in range(12)], ["a"] * 12, ties=ties, seed=seed)


def test_ties_are_counted_and_kept_shuffled_or_one_session():
    rows, shuffled, other = tied("rows"), tied("shuffle"), tied("shuffle", seed=1)
    assert "100% of the users have items of one time" in told(rows) and "one time" not in told(read())
    assert rows.frame["item"].tolist() == [f"T{n}" for n in range(12)]
    assert shuffled.frame["item"].tolist() == tied("shuffle").frame["item"].tolist() != other.frame["item"].tolist()
    for third in range(3):
        places = slice(4 * third, 4 * third + 4)
        assert set(shuffled.frame["item"][places]) == set(rows.frame["item"][places])
    with pytest.raises(ValueError, match="ties='random' is none of rows, shuffle, session"):
        tied("random")


def test_in_a_session_no_item_is_in_the_history_of_another():
    windows = data.windows(tied("session").frame, 6, 3, sessions=True)
    assert [e.target for e in windows] == [f"T{n}" for n in range(4, 12)]
    assert {e.history for e in windows} == {tuple("T0 T1 T2 T3".split()), tuple("T2 T3 T4 T5 T6 T7".split())}
    splits = tied("session").split("leave_one_out", history=6)
    assert splits.test[0].history == ("T2", "T3", "T4", "T5", "T6", "T7")


@pytest.mark.parametrize(
    "cell", ["Action|Sci-Fi", "Action;Sci-Fi", "Action, Sci-Fi", "['Action', 'Sci-Fi']", ["Action", "Sci-Fi"]]
)
def test_genres_are_cut_where_the_column_cuts_them(cell):
    table = pd.DataFrame({"u": "a", "i": ["x", "y", "z"], "t": [1, 2, 3], "g": [cell, "Drama", "(no genres listed)"]})
    found = data.from_frame(table, "u", "i", "t", genres="g")
    assert found.genres == {"x": ("Action", "Sci-Fi"), "y": ("Drama",), "z": ()}
    assert ("Genres are cut at" in told(found)) == isinstance(cell, str)


def test_a_comma_inside_a_genre_cuts_nothing_where_the_column_has_bars():
    table = pd.DataFrame({"u": "a", "i": ["x", "y"], "t": [1, 2], "g": ["Kids, Family|War", "Kids, Family"]})
    assert data.from_frame(table, "u", "i", "t", genres="g").genres == {"x": ("Kids, Family", "War"), "y": ("Kids, Family",)}


def test_the_first_row_that_names_genres_counts():
    table = pd.DataFrame({"u": ["a", "b", "c"], "i": "x", "t": 1, "g": ["", "Drama", "War"]})
    assert data.from_frame(table, "u", "i", "t", genres="g").genres == {"x": ("Drama",)}


# -------------------------------------------------------------------------------------------------- files

ROWS = [(f"u{n % 7}", f"Film {n % 11}, &quot;uncut&quot;", DAY + 86_400 * n) for n in range(70)]


def frame(user="user_id", item="title", time="timestamp") -> pd.DataFrame:
    return pd.DataFrame(ROWS, columns=[user, item, time])


def write(table: pd.DataFrame, path: Path) -> Path:
    if path.suffix in (".jsonl", ".json"):
        table.to_json(path, orient="records", lines=True)
    elif path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="," if path.suffix == ".csv" else "\t")
    return path


@pytest.mark.parametrize("form", [".csv", ".tsv", ".json", ".jsonl", ".parquet", ".inter"])
@pytest.mark.parametrize("names", [("user_id", "title", "timestamp"), ("reviewerID", "Book Title", "unixReviewTime")])
def test_each_form_reads_as_its_frame(tmp_path, form, names):
    found = data.read_table(write(frame(*names), tmp_path / f"mine{form}"))
    expected = data.from_frame(frame(), "user_id", "title", "timestamp")
    pd.testing.assert_frame_equal(found.frame, expected.frame)
    assert found.name == "mine" and found.titles[0] == 'Film 0, "uncut"' and found.report == expected.report
    assert (found.noun, found.verb) == (("book", "read") if "Book Title" in names else ("item", "chosen"))


def test_a_yaml_file_beside_names_what_the_call_leaves_open(tmp_path):
    path = write(frame("who", "what", "when"), tmp_path / "mine.csv")
    files.write_text(tmp_path / "mine.yaml", "user: who\nitem: what\ntime: when\nnoun: song\nverb: sung\nname: My songs\n")
    found = data.read_table(path, verb="heard")
    assert (found.noun, found.verb, found.name) == ("song", "heard", "My songs")
    assert data.read_table(path, noun="x").noun == "x"
    for text, says in [("user: [1]", "in text"), ("usr: who", "found {'usr'"), ("user: who: x", "not valid YAML")]:
        files.write_text(tmp_path / "mine.yaml", text)
        with pytest.raises(GdrtError, match=f"mine.yaml.*{says}"):
            data.read_table(path)


@pytest.mark.parametrize("form", ["recbole", "two tables"])
def test_titles_come_from_a_second_table(tmp_path, form):
    ids = pd.DataFrame(
        [(u, int(re.search(r"\d+", i)[0]), t) for u, i, t in ROWS], columns=["user_id", "item_id", "timestamp"]
    )
    films = pd.DataFrame({"item_id": range(11), "title": [f"Film {n}" for n in range(11)], "class": ["Drama War"] * 11})
    if form == "recbole":
        ids.columns = ["user_id:token", "item_id:token", "timestamp:float"]
        films.columns = ["item_id:token", "title:token_seq", "class:token_seq"]
        write(films, tmp_path / "ml.item")
        found = data.read_table(write(ids, tmp_path / "ml.inter"))
    else:
        write(films, tmp_path / "films.csv")
        found = data.read_table(write(ids, tmp_path / "ratings.csv"), titles="films.csv", genres="class")
    assert found.titles == sorted(f"Film {n}" for n in range(11)) and found.frame["user"].nunique() == 7
    assert found.genres["Film 3"] == (("Drama", "War") if form == "recbole" else ("Drama War",))


def test_a_second_table_must_fit(tmp_path):
    path = write(frame(item="movieId"), tmp_path / "a.csv")
    write(frame(item="asin"), tmp_path / "b.csv")
    write(pd.DataFrame({"movieId": ["x", "x"], "title": ["A", "B"]}), tmp_path / "c.csv")
    for name, says in [("b.csv", "must share exactly one column"), ("c.csv", "has id 'x' of column 'movieId' twice")]:
        with pytest.raises(GdrtError, match=says):
            data.read_table(path, titles=name)


def test_rows_in_order_stand_for_times(tmp_path):
    path = write(frame().drop(columns="timestamp"), tmp_path / "a.csv")
    with pytest.raises(GdrtError, match="a.csv has no column for 'time' .*found: user_id, title.*time='rows'"):
        data.read_table(path)
    found = data.read_table(path, time="rows")
    assert found.frame.equals(data.from_frame(frame().assign(timestamp=range(70)), "user_id", "title", "timestamp").frame)
    assert "order of the rows stands for their times" in told(found) and "Unix" not in told(found)
    with pytest.raises(ValueError, match="by='time' needs the time of every item"):
        found.split("time")


@pytest.mark.parametrize(
    "name, text, says",
    [
        ("a.csv", "userId,movieId,timestamp\n1,2,3\n", "no column for 'item' .*found: userId, movieId, timestamp"),
        ("a.csv", "title,timestamp\nx,3\n", "no column for 'user' .*found: title, timestamp"),
        ("a.csv", "user,item,time\n1,2,3\n4,5,6\n", "column 'item' seems to hold ids"),
        ("a.csv", "user,item,time\n1,x,3\n\n4,,6\n", "a.csv: Column 'item' is empty in line 4"),
        ("a.csv", 'user,item,time\n1,"x\ny",3\n4,y,soon\n', "a.csv: Column 'time' holds no time in line 4: 'soon'"),
        ("a.csv", "user,item,time\n1,Hello, World,3\n", "a.csv cannot be read from its beginning: .* more or fewer cells"),
        ("a.csv", "user,item,time\n1,x,2\n1,x\n", "a.csv cannot be read after line 2: .* more or fewer cells"),
        ("a.tsv", 'user\titem\ttime\n1\t"x"y\t3\n', "a.tsv cannot be read from its beginning: "),
        ("a.csv", "", "a.csv holds no row"),
        ("a.csv", "user,item,user\n1,x,2\n", "names a column twice: user, item, user"),
        ("a.csv", "user,item,time\n", "a.csv holds no row"),
        ("a.jsonl", '{"user": 1}\n{"user": \n', "a.jsonl cannot be read after line 1: Expecting value"),
        ("a.jsonl", '{"user": 1}\n7\n', "a.jsonl cannot be read after line 1: each line must be an object"),
        ("a.jsonl", '{"user": 1, "title": "x", "time": 2}\n{"user": 1, "time": 2}\n', "'title' is empty in line 2"),
        ("a.json", '[{"instruction": "", "input": "He liked A", "output": "Yes"}]', "titles in their text see notebook 08"),
        ("a.json", "[" * 30_000, "a.json cannot be read from its beginning: "),
        (
            "a.csv",
            "user_id,history_item_title,item_title\n1,\"['a']\",b\n",
            "no column for 'time' .* ready windows must become rows",
        ),
        ("a.dat", "1::2", "a.dat is in no form that can be read"),
        ("a.parquet", "PAR1", "a.parquet cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_with_its_line(tmp_path, name, text, says):
    files.write_text(tmp_path / name, text)
    with pytest.raises(GdrtError, match=says):
        data.read_table(tmp_path / name)
    with pytest.raises(GdrtError, match=says):
        data.open_data(tmp_path / name)


def test_a_file_in_another_encoding_or_place_is_told(tmp_path):
    (tmp_path / "a.csv").write_bytes("user,item,time\n1,Amélie,3\n".encode("latin-1"))
    with pytest.raises(GdrtError, match="a.csv cannot be read .*utf-8"):
        data.read_table(tmp_path / "a.csv")
    with pytest.raises(GdrtError, match="b.csv cannot be read"):
        data.read_table(tmp_path / "b.csv")


# --------------------------------------------------------------------------------------- random tables

TITLES = ["Heat", "Dune & Co", "Amélie", "A, \"B\" 'C'", "1984", "a|b", "Ωmega", "x" * 300]
valid_rows = st.lists(
    st.tuples(st.sampled_from(["ann", "7", "bo b", "Ω"]), st.sampled_from(TITLES), st.integers(-(2**40), 2**40)),
    min_size=1,
    max_size=12,
)
POISON = {
    "user": ["", " ", None],
    "title": ["", " \n", "&nbsp;", None],
    "time": ["", "soon", "13/05/2020", "1e40", "inf", None, "[1]"],
}
poisoned = st.sampled_from([(column, bad) for column, cells in POISON.items() for bad in cells])


def naive(rows: list[tuple[str, str, int]]) -> list[list]:
    """User by user, oldest first, each title once."""
    kept = []
    for user in sorted({user for user, _, _ in rows}):
        seen = set()
        for _, title, at in sorted((row for row in rows if row[0] == user), key=lambda row: row[2]):
            if title not in seen:
                seen.add(title)
                kept.append([user, title, at])
    return kept


@random_cases(
    valid_rows, st.none() | st.tuples(st.integers(0, 11), poisoned), st.sampled_from(["frame", ".csv", ".tsv", ".jsonl"])
)
def test_a_random_table_is_right_or_refused_with_its_row(rows, poison, form):
    table = pd.DataFrame(rows, columns=["user", "title", "time"], dtype=object)
    if poison:
        place, (column, bad) = poison[0] % len(rows), poison[1]
        table.iloc[place, table.columns.get_loc(column)] = bad
        table.loc[len(table)] = ["ann", "Heat", 0]  # so that no column is empty throughout
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        path = Path(folder) / f"a{form}"
        if form != "frame":
            write(table, path)
        try:
            found = (
                data.from_frame(table, "user", "title", "time") if form == "frame" else data.read_table(path, item="title")
            )
        except (GdrtError, ValueError) as error:
            assert poison, error
            at = re.search(r"Column '(\w+)' .* in (line|row) (\d+)", str(error))
            assert at, error
            assert at[1] == column
            if form in (".jsonl", "frame"):  # a cell of the others may hold a line break
                assert int(at[3]) == place + (form == ".jsonl")
        else:
            assert not poison
            assert found.frame.values.tolist() == naive(rows)


anything = st.one_of(
    st.none(), st.integers(), st.floats(), st.text(max_size=5), st.booleans(), st.lists(st.integers(), max_size=2),
    st.datetimes(), st.dates(), st.sampled_from(["2020-01-01", "nan", "&amp;", "1e5", "\ud800", b"x", 1j]),
)  # fmt: skip


@random_cases(st.lists(st.tuples(anything, anything, anything), max_size=5))
def test_a_frame_of_anything_is_read_or_refused_with_its_row(rows):
    table = pd.DataFrame({name: pd.Series([row[n] for row in rows], dtype=object) for n, name in enumerate("uit")})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = data.from_frame(table, "u", "i", "t")
        except ValueError as error:
            assert re.search(r"Column '[uit]' .* in row \d|table is empty", str(error)), error
        else:
            assert 1 <= len(found.frame) <= len(rows) and found.report


@random_cases(
    st.sampled_from([".csv", ".tsv", ".json", ".jsonl", ".inter"]),
    st.sampled_from(["", "user,title,time\n", "user\ttitle\ttime\n", '{"user": 1, "title": "x", "time": 1}\n']),
    st.binary(max_size=40) | st.text('a1,"\n\t\r[]{}:\x00é', max_size=40).map(str.encode),
)
def test_a_file_of_anything_is_read_or_refused_by_name(form, header, rest):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{form}"
        path.write_bytes(header.encode() + rest)
        try:
            assert len(data.read_table(path).frame)
        except GdrtError as error:
            assert f"a{form}" in str(error)


windows_of = st.lists(
    st.tuples(st.sampled_from(["u", "v w", "7"]), st.lists(st.integers(0, 7), min_size=2, max_size=5), st.integers(0, DAY)),
    min_size=1, max_size=8,
)  # fmt: skip
broken_lines = st.sampled_from(
    ['u,"[0, 1",5', 'u,"[0, 99]",5', "u,7,5", 'u,"[0, 1]",soon', 'u,"[0, 1]",99999999999999999999', ',"[0, 1]",5', " ,'',5"]
)


@random_cases(windows_of, st.none() | st.tuples(st.integers(0, 7), broken_lines))
def test_a_random_amazon_folder_is_right_or_refused_with_its_line(rows, broken):
    lines = [f' {user} ,"{items}",{at}' for user, items, at in rows]
    if broken:
        lines.insert(place := broken[0] % (len(lines) + 1), broken[1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files.write_json(folder / "id2name4Rec.json", {str(n): title for n, title in enumerate(TITLES)})
        for file in ("train_10000.csv", "test_5000.csv"):
            files.write_text(folder / file, "\n".join(["user_id,item_ids,timestamp", *lines]))
        try:
            found = data.load_amazon(folder, valid_fraction=0)
        except GdrtError as error:
            assert broken and f"train_10000.csv, line {place + 2}: " in str(error)
        else:
            assert not broken
            titled = [(user, [TITLES[n] for n in items], at) for user, items, at in rows]
            assert found.train == [Example(u, tuple(own[:-1]), own[-1], at) for u, own, at in titled] == found.test
            behind = data.amazon_interactions(folder).frame
            pairs = {(user, title) for user, own, _ in titled for title in own}
            assert set(zip(behind["user"], behind["item"])) == pairs and len(behind) == len(pairs)


# ------------------------------------------------------------------------------- the Amazon form, open_data


@pytest.fixture
def splits() -> Splits:
    table = pd.DataFrame(
        [(f"u{u}", f"T{(3 * u + n) % 20}", DAY + 100 * u + n) for u in range(20) for n in range(8)], columns=list("uit")
    )
    return data.from_frame(table, "u", "i", "t", noun="song", verb="heard").split("time")


def test_what_is_written_in_the_amazon_form_is_read_back(tmp_path, splits):
    back = data.load_amazon(data.write_amazon(splits, tmp_path / "Songs"))
    for part in ("train", "valid", "test"):
        assert getattr(back, part) == getattr(splits, part)
    assert back.catalogue == splits.catalogue and (back.noun, back.verb) == ("song", "heard")
    assert data.open_data(tmp_path / "Songs", split="published") == back
    with pytest.raises(GdrtError, match="is not empty"):
        data.write_amazon(splits, tmp_path / "Songs")
    with pytest.raises(ValueError, match="by='time' needs the time of every item"):
        data.open_data(tmp_path / "Songs", split="time")


@pytest.mark.parametrize(
    "name, words", [("Amazon_Books", ("book", "read")), ("Office", ("product", "bought")), ("Games", ("game", "played"))]
)
def test_the_wording_follows_the_name_of_a_folder(tmp_path, splits, name, words):
    folder = data.write_amazon(splits, tmp_path / name)
    (folder / "data.yaml").unlink()
    found = data.open_data(folder, history=3)
    assert (found.noun, found.verb) == words
    assert prompts.for_items(found.noun, found.verb).before.startswith(f"A user has {words[1]} these {words[0]}s")
    found = data.open_data(folder, history=3, columns={"noun": "thing", "verb": "seen"})
    assert (found.noun, found.verb) == ("thing", "seen")


def test_targets_in_their_own_history_are_counted(tmp_path, splits):
    again = Example("u", ("T1", "T2"), "T1", DAY)
    folder = data.write_amazon(
        Splits(splits.train, splits.valid, [again, *splits.test], splits.catalogue, {}, "x"), tmp_path / "x"
    )
    found = data.load_amazon(folder)
    assert found.repeats() == 1 and found.repeats("train") == 0
    assert f"1 of {len(found.test)} test windows have their target in their own history" in found.report[0]
    assert data.load_amazon(data.write_amazon(splits, tmp_path / "y")).report == ()


def test_movielens_keeps_its_prompt_to_the_letter():
    splits = data.open_data("movielens", top_items=50)
    assert prompts.for_items(splits.noun, splits.verb) == prompts.DEFAULT
    assert splits == data.load_movielens(50).split(history=5)


def test_open_data_takes_names_files_folders_and_interactions(tmp_path):
    path = write(frame(), tmp_path / "mine.csv")
    expected = data.read_table(path).split(history=4)
    assert data.open_data(path, history=4) == data.open_data(str(path), history=4) == expected
    assert data.open_data(data.read_table(path), history=4) == expected and expected.report
    assert len(data.open_data(path, top_items=6).catalogue) == 6
    assert {len(e.history) for e in data.open_data(path, history=2).test} == {2}
    assert (
        data.is_here(path)
        and data.is_here("movielens-100k")
        and not data.is_here(tmp_path / "none.csv")
        and not data.is_here("")
    )
    with pytest.raises(ValueError, match="unknown data set 'movielenz'; choose 'movielens', 'movielens-100k', a table"):
        data.open_data("movielenz")
    with pytest.raises(ValueError, match="split='published' needs a folder"):
        data.open_data(path, split="published")
