"""The doctor says what is wrong, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest

import gdrt_lite.__main__ as command_line
from gdrt_lite import data
from gdrt_lite.course import doctor
from gdrt_lite.system import assets, machine
from gdrt_lite.system.errors import GdrtError

GB = 1_000_000_000
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("GDRT_LITE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def found(name: str) -> list[doctor.Check]:
    checks = [check for check in doctor.run_checks() if check.name == name]
    assert checks
    return checks


def the_failure(name: str) -> doctor.Check:
    (check,) = [check for check in found(name) if check.status == doctor.FAIL]
    assert check.remedy
    return check


def test_every_question_is_answered_and_every_failure_has_a_remedy():
    checks = doctor.run_checks()
    assert list(dict.fromkeys(check.name for check in checks)) == list(doctor.CHECKS)
    for check in checks:
        assert check.status in (doctor.OK, doctor.NOTE, doctor.FAIL)
        assert check.detail
        assert bool(check.remedy) == (check.status == doctor.FAIL)


def test_exit_status_and_lines(monkeypatch, capsys):
    fine = {"one": lambda: iter([("OK", "good")]), "two": lambda: iter([("--", "so so")])}
    monkeypatch.setattr(doctor, "CHECKS", fine)
    assert doctor.main() == 0
    assert "[OK]   one          good\n[--]   two          so so\n" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "CHECKS", {**fine, "three": lambda: iter([("FAIL", "bad", "mend it")])})
    assert doctor.main() == 1
    output = capsys.readouterr().out
    assert "[FAIL] three        bad" in output and "-> mend it" in output and "1 to repair" in output


def test_a_check_that_breaks_fails_and_the_others_run(monkeypatch):
    def broken():
        raise ImportError("libtorch.so is damaged")
        yield

    monkeypatch.setattr(doctor, "CHECKS", {"torch": broken, "after": lambda: iter([("OK", "good")])})
    first, second = doctor.run_checks()
    assert first.status == doctor.FAIL and "libtorch.so is damaged" in first.detail and doctor.INSTALL in first.remedy
    assert second.status == doctor.OK


def test_json_names_the_computer_and_holds_every_check(monkeypatch, capsys):
    one, two = (lambda: iter([("OK", "good")])), (lambda: iter([("FAIL", "bad", "mend it")]))
    monkeypatch.setattr(doctor, "CHECKS", {"one": one})
    assert command_line.main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["failed"] == []
    monkeypatch.setattr(doctor, "CHECKS", {"one": one, "two": two})
    assert command_line.main(["doctor", "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["computer"] and answer["system"] and answer["failed"] == ["two"]
    assert answer["checks"][1] == {"name": "two", "status": "FAIL", "detail": "bad", "remedy": "mend it"}


def test_without_the_model_it_does_not_say_plainly_ready(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "CHECKS", {"model": doctor.CHECKS["model"]})
    assert doctor.main() == 0
    assert f"is fetched when it is first used, or by: {doctor.FETCH}" in capsys.readouterr().out
    monkeypatch.setattr(assets, "is_cached", lambda name: True)
    assert doctor.main() == 0
    assert capsys.readouterr().out.endswith("\nReady.\n")


# Like Colab: it preinstalls a torchao that peft refuses, and with it every adapter.
COLAB = """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
from gdrt_lite.course import doctor
from gdrt_lite.lm.adapters import trainable_copy
small = LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
tuned = trainable_copy(LlamaForCausalLM(small), None, seed=0)
assert any("lora_A" in name for name, _ in tuned.named_parameters())
assert "torchao" not in sys.modules
print([check for check in doctor.run_checks() if check.name == "adapters"][0])
import torchao
"""


@pytest.mark.slow
def test_an_old_torchao_is_named_and_does_not_keep_peft_from_its_work(tmp_path):
    for file, text in {
        "torchao/__init__.py": "",
        "torchao-0.10.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: torchao\nVersion: 0.10.0\n",
    }.items():
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text(text)
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, str(tmp_path)])}
    done = subprocess.run([sys.executable, "-c", COLAB], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "[--]   adapters" in done.stdout and "torchao 0.10.0 is too old for peft" in done.stdout
    assert "pip uninstall -y torchao" in done.stdout


def test_old_python(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    check = the_failure("python")
    assert "3.10.4" in check.detail and "3.11" in check.remedy


def requires(monkeypatch, *lines: str) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: list(lines))


def test_package_out_of_its_range(monkeypatch):
    requires(monkeypatch, "numpy>=1.26", "pandas>=99,<100")
    good, bad = sorted(found("packages"), key=lambda check: check.status == doctor.FAIL)
    assert good.status == doctor.OK and "numpy" in good.detail
    assert "pandas" in bad.detail and ">=99" in bad.detail
    assert bad.remedy.startswith("pip install") and "pandas" in bad.remedy


def test_missing_package(monkeypatch):
    requires(monkeypatch, "no-such-package-of-gdrt>=1", 'no-such-extra-of-gdrt>=1; extra == "test"')
    check = the_failure("packages")
    assert "no-such-package-of-gdrt>=1 is missing" in check.detail and "no-such-package-of-gdrt>=1" in check.remedy
    (note,) = [check for check in found("packages") if check.status == doctor.NOTE]
    assert "no-such-extra-of-gdrt" in note.detail


def test_package_itself_not_installed(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    assert doctor.INSTALL in the_failure("packages").remedy


def test_prereleases_and_local_builds_are_within_a_range(monkeypatch):
    requires(monkeypatch, "torch>=2.5")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.14.0.dev1+cpu")
    assert found("packages")[0].status == doctor.OK


@pytest.mark.parametrize(("total", "available", "status"), [(2, 1, doctor.FAIL), (8, 3, doctor.NOTE), (16, 12, doctor.OK)])
def test_memory(monkeypatch, total, available, status):
    monkeypatch.setattr(doctor, "memory", lambda: (total * GB, available * GB))
    (check,) = found("memory")
    assert check.status == status
    assert ("larger" in check.remedy) == (status == doctor.FAIL)


def test_memory_limit_of_a_container_counts(tmp_path):
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("400\n")
    assert doctor.memory(tmp_path) == (1000, 600)
    (tmp_path / "memory.max").write_text("max\n")
    for folder in (tmp_path, tmp_path / "missing"):
        total, available = doctor.memory(folder)
        assert total >= available > 1000


def test_full_disk(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(GB, GB // 2, GB // 2))
    assert "GDRT_LITE_CACHE" in the_failure("disk").remedy
    monkeypatch.setattr(assets, "is_cached", lambda name: True)  # half a gigabyte is enough once the model is there
    assert found("disk")[0].status == doctor.OK


def test_read_only_cache(monkeypatch):
    def denied(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", denied)
    check = the_failure("cache")
    assert "Permission denied" in check.detail and "GDRT_LITE_CACHE" in check.remedy
    monkeypatch.setattr(assets, "is_cached", lambda name: True)
    assert found("cache")[0].status == doctor.NOTE  # a filled cache that a class shares


def test_cache_that_cannot_be_made(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GDRT_LITE_CACHE", str(tmp_path / "file" / "cache"))
    for name in ("disk", "cache", "model"):
        (check,) = found(name)
        assert check.status == doctor.FAIL and "GDRT_LITE_CACHE" in check.detail + check.remedy


def test_model(monkeypatch):
    (check,) = found("model")
    assert check.status == doctor.NOTE and "python -m gdrt_lite fetch" in check.detail
    asked = []
    monkeypatch.setattr(assets, "is_cached", lambda name: asked.append(name) or True)
    assert found("model")[0].status == doctor.OK
    assert set(asked) == {doctor.MODEL}


def test_model_name_is_that_of_the_cache(cache, monkeypatch):
    monkeypatch.setattr(assets, "cached", lambda name, *_, **__: cache / name)
    assert assets.smollm2_folder().name == doctor.MODEL


def test_data_damaged_missing_or_absent(tmp_path, monkeypatch):
    copy = tmp_path / "data"
    shutil.copytree(data.data_folder() / "movielens", copy / "movielens")
    monkeypatch.setattr(data, "data_folder", lambda: copy)
    assert all(check.status == doctor.OK for check in found("data"))
    file = copy / "movielens" / "ratings.csv.gz"
    file.write_bytes(file.read_bytes()[:-1])
    assert "SHA-256" in the_failure("data").detail
    file.unlink()
    assert "missing" in the_failure("data").detail

    def absent():
        raise GdrtError("No data/movielens here.")

    monkeypatch.setattr(data, "data_folder", absent)
    check = the_failure("data")
    assert "No data/movielens" in check.detail and "git checkout" in check.remedy


def test_bf16_without_the_probes_of_torch(monkeypatch):
    """The doctor and the loader of models give one answer."""
    import torch

    from gdrt_lite import lm

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for probe in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, probe, raising=False)
    (check,) = found("bf16")
    assert check.status == doctor.NOTE and "float32" in check.detail
    assert not lm.has_fast_bf16(torch.device("cpu"))
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert found("bf16")[0].status == doctor.OK
    assert lm.has_fast_bf16(torch.device("cpu"))


def test_more_threads_than_cpus(monkeypatch):
    monkeypatch.setattr(machine, "usable_cpus", lambda: 0)
    (check,) = found("threads")
    assert check.status == doctor.NOTE and "OMP_NUM_THREADS" in check.detail


def test_fetch_takes_both_and_does_without_the_second(monkeypatch, capsys, tmp_path):
    """A class that is offline with a cache of the model alone can still be set up."""
    monkeypatch.setattr(assets, "smollm2_folder", lambda verify: tmp_path / "model")
    monkeypatch.setattr(assets, "movielens_100k", lambda verify: tmp_path / "second")
    assert command_line.main(["fetch"]) == 0
    assert str(tmp_path / "model") in (out := capsys.readouterr().out) and str(tmp_path / "second") in out

    def unreachable(verify):
        raise GdrtError("the package index cannot be reached")

    monkeypatch.setattr(assets, "movielens_100k", unreachable)
    assert command_line.main(["fetch"]) == 0
    assert "cannot be reached" in capsys.readouterr().err
    monkeypatch.setattr(assets, "smollm2_folder", unreachable)
    assert command_line.main(["fetch"]) == 1
