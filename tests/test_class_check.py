"""The class check reads the doctors' answers and names the seats that need a hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import class_check  # noqa: E402

import gdrt_lite.__main__ as command_line  # noqa: E402
from gdrt_lite.course import doctor  # noqa: E402


@pytest.fixture
def answer(monkeypatch, capsys):
    """What the doctor prints for these checks."""

    def of(**checks) -> str:
        monkeypatch.setattr(doctor, "CHECKS", {name: lambda found=found: iter([found]) for name, found in checks.items()})
        command_line.main(["doctor", "--json"])
        return capsys.readouterr().out

    return of


def test_seats_are_counted_and_those_to_repair_come_first_with_the_remedy(tmp_path, answer, capsys):
    (tmp_path / "a-fine.json").write_text(answer(disk=("OK", "1 GB"), model=("OK", "there")))
    # PowerShell writes a mark of the byte order in front.
    (tmp_path / "b-later.json").write_text(answer(model=("--", "not yet: fetch")), encoding="utf-8-sig")
    (tmp_path / "c-ill.json").write_text(answer(disk=("FAIL", "full", "free some"), model=("OK", "there")))
    (tmp_path / "d-empty.json").write_text("")
    (tmp_path / "e-other.json").write_text(json.dumps([1]))
    assert class_check.main([str(tmp_path)]) == 1
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "5 seats: 3 to repair, 1 ready, without the model, 1 ready"
    assert [line.split()[0] for line in lines] == ["c-ill", "d-empty", "e-other", "b-later", "a-fine"]
    assert "disk: free some" in lines[0] and "doctor --json" in lines[1] and "not yet: fetch" in lines[3]
    for path in tmp_path.glob("[cde]*"):
        path.unlink()
    assert class_check.main([str(tmp_path)]) == 0


def test_an_empty_folder_is_said(tmp_path, capsys):
    assert class_check.main([str(tmp_path)]) == class_check.main([]) == 2
    assert "name a folder" in capsys.readouterr().err
