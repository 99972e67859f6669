"""Fetching the Amazon sets from a server of this machine: whole, altered, missing, unreachable."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading

import pytest

from gdrt_lite import __main__, data
from gdrt_lite.system import amazon
from gdrt_lite.system.errors import GdrtError


@pytest.fixture
def served(tmp_path, monkeypatch):
    """(folder, url) of a server with two small sets, whose checksums the package then expects."""
    folder = tmp_path / "served"
    sums = {}
    for name in ("Book", "Office"):
        (folder / name).mkdir(parents=True)
        rows = "".join(f'u{i},"[{i % 7}, {(i + 1) % 7}, {(i + 2) % 7}, {(i + 3) % 7}]",{i}\n' for i in range(40))
        for file in ("train.csv", "test_5000.csv"):
            (folder / name / file).write_text("user_id,item_ids,timestamp\n" + rows)
        (folder / name / "id2name4Rec.json").write_text(str({str(i): f"{name} {i}" for i in range(7)}).replace("'", '"'))
        sums[name] = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in (folder / name).iterdir()}
    monkeypatch.setattr(amazon, "FILES", sums)
    monkeypatch.setenv("GDRT_LITE_CACHE", str(tmp_path / "cache"))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(amazon.fetch, "__defaults__", (f"http://127.0.0.1:{server.server_port}",))
    yield folder
    server.shutdown()
    server.server_close()


def test_the_sets_are_fetched_once_and_opened_by_name(served, capsys):
    assert __main__.main(["fetch", "amazon"]) == 0
    assert "data ready" in capsys.readouterr().out
    splits = data.open_data("amazon/Office", history=3)
    assert splits.name.startswith("Amazon Office") and len(splits.catalogue) == 7
    (served / "Office" / "train.csv").unlink()
    assert __main__.main(["fetch", "amazon"]) == 0  # the cache has all of it


def test_an_altered_file_is_refused_and_what_was_whole_is_kept(served, tmp_path, capsys):
    with (served / "Office" / "train.csv").open("a") as file:
        file.write("x")
    assert __main__.main(["fetch", "amazon"]) == 1
    assert "cut short or altered" in capsys.readouterr().err
    home = tmp_path / "cache" / "amazon"
    assert sorted(path.name for path in home.iterdir() if path.is_dir()) == ["Book"]


def test_a_missing_file_and_a_dead_server_are_told_apart(served):
    with pytest.raises(GdrtError, match="answers 404"):
        amazon.fetch(amazon.fetch.__defaults__[0] + "/nowhere")
    with pytest.raises(GdrtError, match="cannot be reached"):
        amazon.fetch("http://127.0.0.1:9")
