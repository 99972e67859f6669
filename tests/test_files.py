"""Writing files and folders: the old content or the new one."""

from __future__ import annotations

import errno
import hashlib
import os

import numpy as np
import pytest

from gdrt_lite.system import files
from gdrt_lite.system.errors import GdrtError


def folder_with(path, text):
    path.mkdir(parents=True)
    (path / "content").write_text(text)
    return path


def test_a_folder_is_replaced_although_an_earlier_kill_left_its_predecessor(tmp_path):
    folder_with(tmp_path / ".run-old", "left by a kill")
    folder = folder_with(tmp_path / "run", "old")
    files.replace_folder(folder_with(tmp_path / "temporary", "new"), folder)
    assert (folder / "content").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_full_disk_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    path = files.write_text(tmp_path / "report.md", "old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(GdrtError, match="disk is full"):
        files.write_text(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_what_is_not_finite_becomes_null(tmp_path):
    value = {"x": [float("nan"), 1.0, float("inf"), -np.inf, np.float32("inf")]}
    assert files.write_json(tmp_path / "a.json", value, indent=None).read_text() == '{"x": [null, 1.0, null, null, null]}\n'


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_is_no_folder_to_write_to(tmp_path, below):
    file = files.write_text(tmp_path / "taken", "kept")
    with pytest.raises(GdrtError, match="taken.* is no folder that can be written to"):
        files.writable_folder(file / below)
    assert file.read_text() == "kept"


def test_a_closed_folder_is_no_folder_to_write_to(tmp_path):
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("nothing is closed to this user, or on this system")
    with pytest.raises(GdrtError, match="Permission denied.*name another"):
        files.writable_folder(tmp_path)


def test_a_folder_to_write_to_is_made_and_left_empty(tmp_path):
    folder = files.writable_folder(tmp_path / "a" / "b")
    assert folder == tmp_path / "a" / "b" and list(folder.iterdir()) == []
    assert files.writable_folder(folder) == folder


def test_each_file_of_a_list_of_sums_is_compared(tmp_path):
    assert files.check_sums(tmp_path) == {"SHA256SUMS": "is missing"}
    for name in ("good", "changed"):
        files.write_text(tmp_path / name, name)
    good = hashlib.sha256(b"good").hexdigest()
    files.write_text(tmp_path / "SHA256SUMS", f"{good}  good\n{good} *changed\n\n{good}  absent\n")
    found = files.check_sums(tmp_path)
    assert found["good"] == "" and "is damaged" in found["changed"] and found["absent"] == "is missing"
    files.write_text(tmp_path / "SHA256SUMS", "one-word\n")
    assert "not '<sha256>  <file>'" in files.check_sums(tmp_path)["SHA256SUMS"]
