"""Windows, splits and loaders: nothing leaks, nothing is lost, and bad files are told apart by line."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdrt_lite import data
from gdrt_lite.data import Example, loaders
from gdrt_lite.system import assets
from gdrt_lite.system.errors import GdrtError


def toy(users: int = 20, items: int = 8, start=lambda user: 100 * user) -> data.Interactions:
    rows = [(f"u{u:02d}", f"T{(u + i) % 30:02d}", start(u) + i) for u in range(users) for i in range(items)]
    return data.from_frame(pd.DataFrame(rows, columns=["u", "i", "t"]), "u", "i", "t")


@pytest.fixture(scope="module")
def movielens() -> data.Interactions:
    return data.load_movielens()


# ---------------------------------------------------------------------------------------------------- windows


def test_windows_by_hand():
    frame = toy(users=1, items=5).frame
    assert data.windows(frame, history=2, min_history=1) == [
        Example("u00", ("T00",), "T01", 1),
        Example("u00", ("T00", "T01"), "T02", 2),
        Example("u00", ("T01", "T02"), "T03", 3),
        Example("u00", ("T02", "T03"), "T04", 4),
    ]


interaction_rows = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(0, 6)), min_size=1, max_size=60)


@settings(deadline=None, max_examples=60)
@given(interaction_rows, st.integers(1, 4), st.integers(0, 4))
def test_windows_agree_with_a_naive_loop(rows, min_history, more):
    interactions = data.from_frame(pd.DataFrame(rows, columns=["u", "i", "t"]), "u", "i", "t")
    expected = []
    for user in sorted({str(u) for u, _, _ in rows}):
        taken: list[tuple[str, int]] = []
        for _, item, at in sorted((r for r in rows if str(r[0]) == user), key=lambda r: r[2]):  # stable, as documented
            if str(item) in [title for title, _ in taken]:
                continue
            if len(taken) >= min_history:
                history = tuple(title for title, _ in taken[-(min_history + more) :])
                expected.append(Example(user, history, str(item), at))
            taken.append((str(item), at))
    assert data.windows(interactions.frame, min_history + more, min_history) == expected


def test_growing_windows_by_hand():
    frame = toy(users=1, items=7).frame
    found = [(len(e.history), e.history[0], e.target) for e in data.windows(frame, history=3, min_history=2, growing=True)]
    assert found == [(2, "T00", "T02"), (3, "T00", "T03"), (2, "T02", "T04"), (3, "T02", "T05"), (2, "T04", "T06")]


@settings(deadline=None, max_examples=60)
@given(interaction_rows, st.integers(1, 4), st.integers(0, 4))
def test_growing_windows_have_the_targets_of_sliding_ones_and_the_end_of_their_histories(rows, min_history, more):
    frame = data.from_frame(pd.DataFrame(rows, columns=["u", "i", "t"]), "u", "i", "t").frame
    sliding = data.windows(frame, min_history + more, min_history)
    growing = data.windows(frame, min_history + more, min_history, growing=True)
    assert [(e.user, e.target, e.time) for e in growing] == [(e.user, e.target, e.time) for e in sliding]
    for long, short in zip(sliding, growing, strict=True):
        assert min_history <= len(short.history) and short.history == long.history[-len(short.history) :]
    for chunk in data.chunks_of(growing):
        # Each history is the one before it with its target behind: a model reads them as one.
        windows = [growing[i] for i in chunk]
        assert all(b.history == (*a.history, a.target) for a, b in zip(windows, windows[1:], strict=False))
        assert len(windows[0].history) == min_history and len(windows) <= more + 1
    assert sorted(i for chunk in data.chunks_of(growing) for i in chunk) == list(range(len(growing)))


def test_a_sample_of_whole_chunks_takes_them_from_the_users_in_turn():
    examples = toy(users=6, items=10).split("new_users", history=5, min_history=2, growing=True).train
    drawn = data.sample(examples, 15, seed=1, whole_chunks=True)
    assert len(drawn) == 15 and sorted(map(len, data.chunks_of(drawn))) == [3, 4, 4, 4]
    assert len({e.user for e in drawn}) == 4 and data.sample(examples, 9, seed=1, whole_chunks=True) == drawn[:9]


def test_from_frame_keeps_first_of_a_pair_and_row_order_in_ties():
    df = pd.DataFrame({"who": [2, 1, 1, 1, 1], "what": ["x", " b", "a", "c", "b"], "when": [9, 5, 5, 1, 2]})
    frame = data.from_frame(df, "who", "what", "when").frame
    assert frame.values.tolist() == [["1", "c", 1], ["1", "b", 2], ["1", "a", 5], ["2", "x", 9]]


@pytest.mark.parametrize(
    "times",
    [
        ["1970-01-01 00:00:07", "1970-01-02"],
        pd.to_datetime(["1970-01-01 00:00:07", "1970-01-02 00:00:00"]),
        pd.to_datetime(["1970-01-01 01:00:07", "1970-01-02 01:00:00"]).tz_localize("Europe/Paris"),
        [7, 86_400],
        [7.9, 86_400.0],
        ["7", "86400"],
    ],
)
def test_from_frame_reads_times(times):
    df = pd.DataFrame({"u": ["a", "a"], "i": ["x", "y"], "t": times})
    assert data.from_frame(df, "u", "i", "t").frame["time"].tolist() == [7, 86_400]


@pytest.mark.parametrize("genres", [{"x": ["G", "H"], "y": "G"}, "kind"])
def test_from_frame_reads_genres(genres):
    df = pd.DataFrame({"u": ["a", "a"], "i": ["x", "y"], "t": [1, 2], "kind": ["G|H", "G"]})
    assert data.from_frame(df, "u", "i", "t", genres=genres).genres == {"x": ("G", "H"), "y": ("G",)}


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda df: df.drop(columns="i"), "no column 'i'; its columns are u, t"),
        (lambda df: df[:0], "empty"),
        (lambda df: df.assign(i=["x", None, "z"]), "'i' is empty in row 1"),
        (lambda df: df.assign(u=["a", "b", " "]), "'u' is empty in row 2"),
        (lambda df: df.assign(t=[1, 2, float("nan")]), "'t' holds no time in row 2"),
        (lambda df: df.assign(t=[1, float("inf"), 3]), "'t' holds no time in row 1"),
        (lambda df: df.assign(t=["2020-01-01", "soon", "2020-01-03"]), "row 1: 'soon'"),
    ],
)
def test_from_frame_names_what_is_wrong(change, says):
    df = pd.DataFrame({"u": ["a", "b", "c"], "i": ["x", "y", "z"], "t": [1, 2, 3]})
    with pytest.raises(ValueError, match=says):
        data.from_frame(change(df), "u", "i", "t")


# ----------------------------------------------------------------------------------------------------- splits


@pytest.mark.parametrize("by", data.SPLITS)
def test_every_window_lands_in_exactly_one_part(movielens, by):
    splits = movielens.split(by=by)
    parts = splits.train + splits.valid + splits.test
    assert Counter(parts) == Counter(data.windows(movielens.frame, 10, 3))
    assert splits.valid and splits.test
    assert splits.catalogue == sorted(set(splits.catalogue)) == movielens.titles
    for example in parts:
        assert 3 <= len(example.history) <= 10 and example.target not in example.history


def test_new_users_are_new(movielens):
    splits = movielens.split(by="new_users", seed=3)
    train, valid, test = ({e.user for e in part} for part in (splits.train, splits.valid, splits.test))
    assert not (train & valid or train & test or valid & test)
    assert len(valid) == len(test) == round(0.1 * len(train | valid | test))
    assert splits == movielens.split(by="new_users", seed=3)
    assert test != {e.user for e in movielens.split(by="new_users", seed=4).test}


def test_time_split_trains_on_the_past_only(movielens):
    splits = movielens.split(by="time")
    assert max(e.time for e in splits.train) < min(e.time for e in splits.valid)
    assert max(e.time for e in splits.valid) < min(e.time for e in splits.test)
    total = len(splits.train) + len(splits.valid) + len(splits.test)
    assert len(splits.train) / total == pytest.approx(0.8, abs=0.01)
    assert len(splits.test) / total == pytest.approx(0.1, abs=0.01)


def test_leave_one_out_holds_back_each_users_last_two(movielens):
    splits = movielens.split(by="leave_one_out")
    seen = {(e.user, title) for e in splits.train for title in (*e.history, e.target)}
    assert not seen & {(e.user, e.target) for e in splits.valid + splits.test}
    last = movielens.frame.groupby("user").tail(1).set_index("user")["item"]
    assert all(last[e.user] == e.target for e in splits.test)
    valid = {e.user: e for e in splits.valid}
    assert all(valid[e.user].target == e.history[-1] for e in splits.test)
    assert len({e.user for e in splits.test}) == len(splits.test) == len(splits.valid)


def test_users_with_few_windows_only_train_in_leave_one_out():
    short, long = toy(users=1, items=5), toy(users=2, items=6)
    frame = pd.concat([long.frame, short.frame.assign(user="short")])
    splits = data.from_frame(frame, "user", "item", "time").split(by="leave_one_out")
    assert {e.user for e in splits.test} == {"u00", "u01"}
    assert [e.user for e in splits.train].count("short") == 2


@settings(deadline=None, max_examples=60)
@given(interaction_rows, st.sampled_from(data.SPLITS), st.integers(0, 3))
def test_splits_never_leak_or_lose(rows, by, seed):
    interactions = data.from_frame(pd.DataFrame(rows, columns=["u", "i", "t"]), "u", "i", "t")
    try:
        splits = interactions.split(by=by, history=3, min_history=1, seed=seed)
    except ValueError:
        return
    windows = data.windows(interactions.frame, 3, 1)
    assert Counter(splits.train + splits.valid + splits.test) == Counter(windows)
    if by == "new_users":
        assert not {e.user for e in splits.train} & {e.user for e in splits.valid + splits.test}
    elif by == "time":
        assert max(e.time for e in splits.train) < min(e.time for e in splits.valid)
        assert max(e.time for e in splits.valid) < min(e.time for e in splits.test)
    else:
        train = {(e.user, e.target) for e in splits.train}
        assert not train & {(e.user, e.target) for e in splits.valid + splits.test}


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"by": "random"}, "by='random' is no split; choose one of new_users, time, leave_one_out"),
        ({"min_history": 0}, "min_history=0"),
        ({"history": 2}, "history=2 must be a whole number, at least 3"),
        ({"history": 2.5, "min_history": 1}, "history=2.5"),
        ({"min_history": True}, "min_history=True"),
        (
            {"min_history": 8},
            "No user has more than min_history=8 items.* bring longer histories, .* .in a Config: a history below 3",
        ),
        ({"min_history": 7, "by": "leave_one_out"}, "user with three windows"),
    ],
)
def test_split_names_bad_arguments(arguments, says):
    with pytest.raises(ValueError, match=says):
        toy().split(**{"history": 10, **arguments})


def test_splits_that_cannot_be_filled_are_told():
    with pytest.raises(ValueError, match="three users with a window and has 2"):
        toy(users=2).split()
    same = toy()
    with pytest.raises(ValueError, match="cannot be cut by time"):
        data.Interactions(same.frame.assign(time=5)).split(by="time")


def test_warm_titles_are_those_of_training():
    splits = toy(start=lambda user: 100 * user).split(by="time")
    assert splits.warm() == {t for e in splits.train for t in (*e.history, e.target)}
    assert {e.target for e in splits.test} - splits.warm()  # late users bring titles that training never saw


# --------------------------------------------------------------------------------------- filters and sampling


def test_top_items_counts_then_alphabet():
    df = pd.DataFrame({"u": list("abcabca"), "i": ["z", "z", "z", "b", "b", "a", "a"], "t": range(7)})
    interactions = data.from_frame(df, "u", "i", "t", genres={"z": ["G"]})
    assert interactions.top_items(2).titles == ["a", "z"]
    assert interactions.top_items(9).titles == ["a", "b", "z"]
    assert interactions.top_items(1).genres == {"z": ("G",)}


@pytest.mark.parametrize("call", [lambda d: d.top_items(0), lambda d: data.sample([], 0)])
def test_sizes_below_one_are_refused(call):
    with pytest.raises(ValueError, match="=0 must be a whole number, at least 1"):
        call(toy())


def test_sample_goes_round_the_users():
    busy = [Example("busy", ("a",), f"b{i}", i) for i in range(50)]
    calm = [Example(f"calm{i}", ("a",), "b", i) for i in range(4)]
    drawn = data.sample(busy + calm, 10, seed=1)
    assert len(set(drawn)) == 10
    assert len({e.user for e in drawn[:5]}) == 5
    assert data.sample(busy + calm, 5, seed=1) == drawn[:5]
    assert data.sample(busy + calm, 10, seed=2) != drawn
    assert Counter(data.sample(busy + calm, 99)) == Counter(busy + calm)
    assert data.sample([], 3) == []


# -------------------------------------------------------------------------------------------------- MovieLens


def test_movielens_is_what_the_card_says():
    everything = data.load_movielens(top_items=None)
    card = (data.data_folder() / "movielens" / "README.md").read_text(encoding="utf-8")
    assert "| ratings | 99,997 |" in card and "| movies | 9,061 |" in card
    assert len(everything.frame) == 99_996  # one user rated both entries of War of the Worlds (2005)
    assert len(everything.titles) == 9_059  # two pairs of ids share title and year
    assert everything.frame["user"].nunique() == 671
    assert everything.genres["Toy Story (1995)"] == ("Adventure", "Animation", "Children", "Comedy", "Fantasy")
    assert set(everything.titles) == set(everything.genres)
    assert everything.frame[["user", "time"]].equals(everything.frame[["user", "time"]].sort_values(["user", "time"]))
    assert [str(kind) for kind in everything.frame.dtypes[["time"]]] == ["int64"]
    assert all(isinstance(value, str) for value in everything.frame["user"])


def test_movielens_popular_part(movielens):
    assert len(movielens.titles) == 500
    counts = movielens.frame["item"].value_counts()
    assert counts.index[0] == "Forrest Gump (1994)" and counts.iloc[0] == 341
    assert "The Lion King (1994)" in counts.index
    assert not [title for title in movielens.titles if ", The" in title]


def test_a_damaged_or_missing_movielens_file_is_told(tmp_path):
    folder = tmp_path / "movielens"
    shutil.copytree(data.data_folder() / "movielens", folder)
    loaders.read_movielens(folder)
    content = bytearray((folder / "ratings.csv.gz").read_bytes())
    content[1000] ^= 1
    (folder / "ratings.csv.gz").write_bytes(content)
    with pytest.raises(GdrtError, match="ratings.csv.gz is damaged.*git checkout"):
        loaders.read_movielens(folder)
    (folder / "ratings.csv.gz").unlink()
    with pytest.raises(GdrtError, match="ratings.csv.gz is missing"):
        loaders.read_movielens(folder)


@pytest.mark.parametrize(
    "stored, natural",
    [
        ("Postman, The (Postino, Il)", "The Postman (Il Postino)"),
        (
            "Good, the Bad and the Ugly, The (Buono, il brutto, il cattivo, Il)",
            "The Good, the Bad and the Ugly (Il Buono, il brutto, il cattivo)",
        ),
        ("Avventura, L' (Adventure, The)", "L'Avventura (The Adventure)"),
        ("Macbeth (a.k.a. Tragedy of Macbeth, The)", "Macbeth (a.k.a. The Tragedy of Macbeth)"),
        ("Vitelloni, I (a.k.a. The Young)", "I Vitelloni (a.k.a. The Young)"),
        ("Blind Side, The ", "The Blind Side"),
        ("Man  Escaped, A", "A Man Escaped"),
        ("I Love You, Man", "I Love You, Man"),
        ("Girl, Interrupted", "Girl, Interrupted"),
        ("The Lovers", "The Lovers"),
    ],
)
def test_titles_in_reading_order(stored, natural):
    assert loaders.natural_title(stored) == natural
    assert loaders.natural_title(natural) == natural


def test_movielens_100k_form(tmp_path, monkeypatch):
    (tmp_path / "ml-100k.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "1\tNet, The\t1995\tSci-Fi Thriller\n2\tunkonwn\tunkonwn\tunknown\n"
        '3\tLand "Before" Time (1995)\tV\tAnimation\n4\tNet, The\t1995\tThriller\n',
        encoding="utf-8",
    )
    (tmp_path / "ml-100k.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n7\t3\t3\t20\n7\t1\t3\t10\n7\t2\t3\t15\n7\t4\t1\t30\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(assets, "movielens_100k", lambda: tmp_path)
    loaded = data.load_movielens_100k()
    assert loaded.frame.values.tolist() == [["7", "The Net (1995)", 10], ["7", 'Land "Before" Time (1995)', 20]]
    assert loaded.genres["The Net (1995)"] == ("Sci-Fi", "Thriller")
    assert data.load_movielens_100k(top_items=1).titles == ['Land "Before" Time (1995)']


# ----------------------------------------------------------------------------------------------------- Amazon

TITLES = {"1": "Pens &amp; Paper", "2": "Pens & Paper", "3": "Stapler\n Red", "4": "Desk", "5": "", "6": "Lamp"}


@pytest.fixture
def amazon(tmp_path):
    """Writes a folder in the Amazon form and returns it; keyword arguments replace a file's text."""

    def write(train="", test='9,"[3, 4]",50\n', names=None, header="user_id,item_ids,timestamp\n"):
        lines = "".join(f'{i},"[1, 4, 3]",{100 - i}\n' for i in range(20))
        (tmp_path / "train_10000.csv").write_text(header + (train or lines), encoding="utf-8")
        (tmp_path / "test_5000.csv").write_text("user_id,item_ids,timestamp\n" + test, encoding="utf-8")
        text = json.dumps(TITLES) if names is None else names
        (tmp_path / "id2name4Rec.json").write_text(text, encoding="utf-8")
        return tmp_path

    return write


def test_amazon_form(amazon):
    splits = data.load_amazon(amazon())
    assert splits.catalogue == ["Desk", "Lamp", "Pens & Paper", "Stapler Red"]
    assert splits.test == [Example("9", ("Stapler Red",), "Desk", 50)]
    assert splits.train[0] == Example("19", ("Pens & Paper", "Desk"), "Stapler Red", 81)
    assert [e.time for e in splits.valid] == [99, 100]
    assert max(e.time for e in splits.train) < 99 and len(splits.train) == 18
    assert splits.genres == {} and data.load_amazon(amazon(), valid_fraction=0).valid == []


def test_amazon_lists_in_either_notation_and_empty_titles(amazon):
    train = '1,"[\'3\', \'4\']",1\n1,"(3, 5, 4)",2\n1,"[3, 5]",3\n1,[4],4\n'
    with pytest.warns(UserWarning, match="skipped 2 windows"):
        splits = data.load_amazon(amazon(train=train), valid_fraction=0)
    assert splits.train == [Example("1", ("Stapler Red",), "Desk", at) for at in (1, 2)]


@pytest.mark.parametrize(
    "files, says",
    [
        ({"header": "user,item_ids,timestamp\n"}, "train_10000.csv has no column 'user_id'.*names user,item_ids"),
        ({"train": '1,"[1, 3]",5\n2,"[1, 77]",5\n'}, "train_10000.csv, line 3: id 77 has no title"),
        ({"train": '1,"[1, 3]",5\n\n2,"[1, 3",5\n'}, "line 4: item_ids is not a list of ids"),
        ({"train": "1,13,5\n"}, "line 2: item_ids is not a list of ids like .* but '13'"),
        ({"train": "1,\"__import__('os')\",5\n"}, "line 2: item_ids is not a list"),
        ({"train": '1,"[1, 3]",soon\n'}, "line 2: timestamp is not a whole number but 'soon'"),
        ({"train": '1,"[1, 3]"\n'}, "line 2: timestamp is not a whole number but None"),
        ({"train": ',"[1, 3]",5\n'}, "line 2: user_id is empty"),
        ({"test": "1,[3],5\n"}, "test_5000.csv holds no window with a history and a target"),
        ({"test": "\n"}, "test_5000.csv holds no window"),
        ({"names": "{"}, "id2name4Rec.json is not valid JSON"),
        ({"names": '["a"]'}, "must be one JSON object"),
        ({"names": '{"1": 2}'}, "must be one JSON object"),
    ],
)
def test_amazon_errors_name_file_and_line(amazon, files, says):
    with pytest.raises(GdrtError, match=says):
        data.load_amazon(amazon(**files))


def test_amazon_missing_parts(amazon, tmp_path):
    with pytest.raises(GdrtError, match="There is no folder"):
        data.load_amazon(tmp_path / "nowhere")
    folder = amazon()
    with pytest.raises(GdrtError, match="other.csv is missing"):
        data.load_amazon(folder, train="other.csv")
    with pytest.raises(ValueError, match="valid_fraction=1.0"):
        data.load_amazon(folder, valid_fraction=1.0)
    (folder / "id2name4Rec.json").unlink()
    with pytest.raises(GdrtError, match="id2name4Rec.json is missing"):
        data.load_amazon(folder)


def test_amazon_interactions_put_overlapping_windows_together(amazon):
    """User 7: Lamp, Desk and Stapler by 5, Pens at 9; the later windows come first and repeat the earlier items."""
    folder = amazon(train='7,"[4, 3, 1]",9\n7,"[6, 4, 3, 1]",9\n7,"[6, 4, 3]",5\n', test='7,"[4, 3, 1]",9\n8,"[6, 4]",2\n')
    found = data.amazon_interactions(folder)
    frame = found.frame[found.frame["user"] == "7"]
    assert frame["item"].tolist() == ["Lamp", "Desk", "Stapler Red", "Pens & Paper"]
    assert frame["time"].tolist() == [5, 5, 5, 9] and len(found.frame) == 6 and found.name.startswith("Amazon ")


def test_amazon_interactions_need_a_csv(amazon):
    folder = amazon()
    for file in folder.glob("*.csv"):
        file.unlink()
    with pytest.raises(GdrtError, match="holds no csv file"):
        data.amazon_interactions(folder)
