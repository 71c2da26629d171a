"""Installed weights: found by name, id and path; imported; missing with a remedy."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from diveqcodec import zoo
from diveqcodec.errors import ModelError
from tests.support.commands import TINY, diveq, errors, install_tiny
from tests.support.places import ROOT


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return install_tiny(monkeypatch, tmp_path)


def make(path: Path, model_id: str, provenance: dict[str, Any] | None = None) -> Path:
    """A file that says it is weights; it has no tensors."""
    info = {"version": 1, "id": model_id, "config": {}, "provenance": provenance or {}}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({}, path, metadata={"diveq": json.dumps(info)})
    return path


def tiny_id() -> str:
    with safe_open(TINY, "numpy") as file:
        identifier: str = json.loads(file.metadata()["diveq"])["id"]
    return identifier


def test_the_default_is_found_and_loaded() -> None:
    assert zoo.find().name == zoo.DEFAULT
    assert zoo.find().is_default
    assert zoo.load().model_id.hex() == tiny_id()


def test_by_path_name_and_id(models: Path) -> None:
    other = make(models / "other.safetensors", "ab" * 8)
    assert zoo.find(other).path == other
    assert zoo.find("other").path == other
    assert zoo.find("abab").path == other
    assert zoo.find("ABABAB").path == other
    found = zoo.by_id(b"\xab" * 8)
    assert found is not None
    assert found.path == other
    assert zoo.by_id(b"\xac" * 8) is None


def test_a_name_wins_over_an_id(models: Path) -> None:
    make(models / "one.safetensors", "abcd" * 4)
    named = make(models / "abcd.safetensors", "11" * 8)
    assert zoo.find("abcd").path == named


def test_an_ambiguous_or_too_short_id(models: Path) -> None:
    make(models / "one.safetensors", "abcd1" + "0" * 11)
    make(models / "two.safetensors", "abcd2" + "0" * 11)
    with pytest.raises(ModelError, match=r"^abcd: fits several models: one \(abcd1.*more digits$"):
        zoo.find("abcd")
    assert zoo.find("abcd2").name == "two"
    with pytest.raises(ModelError, match="no such model"):
        zoo.find("abc")


def test_earlier_folders_win(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = make(zoo.user_folder() / "mine.safetensors", "ab" * 8)
    assert zoo.find("mine").path == user
    first = make(models / "mine.safetensors", "cd" * 8)
    assert zoo.find("mine").path == first
    assert zoo.find("abab").path == user
    second = make(models.parent / "more" / "mine.safetensors", "ef" * 8)
    monkeypatch.setenv(zoo.VARIABLE, f"{second.parent}{os.pathsep}{models}")
    assert zoo.find("mine").path == second


def test_the_same_weights_are_listed_once(models: Path) -> None:
    shutil.copyfile(TINY, models / "copy.safetensors")
    assert [entry.model_id for entry in zoo.installed()] == [tiny_id()]


def test_the_shipped_folder_is_models() -> None:
    code = "from diveqcodec import zoo; print(zoo.shipped_folder())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert Path(done.stdout.strip(), "__init__.py").read_text("utf-8") == (
        (ROOT / "models" / "__init__.py").read_text("utf-8")
    )


def test_nothing_installed_names_the_remedy(models: Path, tmp_path: Path) -> None:
    (models / f"{zoo.DEFAULT}.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights are installed; give weights with -m PATH"):
        zoo.find()
    result = diveq("compress", tmp_path / "any.png")
    assert result.exit_code == 1
    (line,) = errors(result)
    assert line.startswith("Error: no weights are installed; give weights with -m PATH, or ")
    result = diveq("models")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "diveq models --import PATH" in result.stderr


def test_the_default_is_missing_but_another_is_there(models: Path) -> None:
    (models / f"{zoo.DEFAULT}.safetensors").rename(models / "other.safetensors")
    with pytest.raises(ModelError, match=rf"^{zoo.DEFAULT}: no such model; installed: other \("):
        zoo.find()
    assert diveq("models").stdout.startswith("  other")


def test_files_that_are_no_weights_are_left_out(models: Path, tmp_path: Path) -> None:
    (models / "broken.safetensors").write_bytes(b"nonsense")
    save_file({}, models / "foreign.safetensors", metadata={"format": "pt"})
    assert [entry.name for entry in zoo.installed()] == [zoo.DEFAULT]
    result = diveq("models")
    assert result.stderr.count("Note: left out ") == 2
    with pytest.raises(ModelError, match="not a weights file"):
        zoo.find(models / "broken.safetensors")
    with pytest.raises(ModelError, match="foreign.safetensors: not weights of diveq"):
        zoo.find(models / "foreign.safetensors")
    with pytest.raises(ModelError, match="^nowhere/x: no such file$"):
        zoo.find("nowhere/x")


def test_models_lists_what_is_there(models: Path) -> None:
    make(models / "measured.safetensors", "ab" * 8, {"measured": {"kodak": "31.2 dB at 0.48 bpp"}})
    make(models / "said.safetensors", "cd" * 8, {"measured": "good enough"})
    result = diveq("models")
    assert result.exit_code == 0
    first, second, third = result.stdout.splitlines()
    size = TINY.stat().st_size / 1e6
    assert first.split() == ["*", zoo.DEFAULT, tiny_id(), f"{size:.1f}", "MB"]
    assert second.startswith("  measured")
    assert second.endswith("kodak 31.2 dB at 0.48 bpp")
    assert third.endswith("good enough")
    records = [json.loads(line) for line in diveq("models", "--json").stdout.splitlines()]
    assert [record["is_default"] for record in records] == [True, False, False]


def test_import_checks_and_copies(models: Path, tmp_path: Path) -> None:
    source = tmp_path / "mine.safetensors"
    shutil.copyfile(TINY, source)
    result = diveq("models", "--import", source)
    assert "is installed already" in result.stderr
    present = models / f"{zoo.DEFAULT}.safetensors"
    result = diveq("models", "--import", source, "--json")
    assert json.loads(result.stdout)["path"] == str(present)
    present.unlink()
    assert diveq("models", "--import", source).exit_code == 0
    assert zoo.find("mine").path == zoo.user_folder() / "mine.safetensors"
    assert zoo.find("mine").path.read_bytes() == TINY.read_bytes()


def test_import_refuses_damaged_weights_and_taken_names(models: Path, tmp_path: Path) -> None:
    (models / f"{zoo.DEFAULT}.safetensors").unlink()
    data = bytearray(TINY.read_bytes())
    data[-100] ^= 1
    source = tmp_path / "bad.safetensors"
    source.write_bytes(data)
    for path in (source, tmp_path / "nope.safetensors"):
        result = diveq("models", "--import", path)
        assert result.exit_code == 1
        assert errors(result)[0].startswith(f"Error: {path}: ")
    assert not zoo.user_folder().exists()
    taken = make(zoo.user_folder() / "mine.safetensors", "ab" * 8)
    before = taken.read_bytes()
    shutil.copyfile(TINY, tmp_path / "mine.safetensors")
    result = diveq("models", "--import", tmp_path / "mine.safetensors")
    assert result.exit_code == 1
    taken_is = f"Error: {taken}: already exists; import the weights under another name"
    assert errors(result) == [taken_is]
    assert taken.read_bytes() == before
    taken.unlink()
    taken.symlink_to("nothing")
    result = diveq("models", "--import", tmp_path / "mine.safetensors")
    assert errors(result) == [taken_is]
    assert taken.is_symlink()


def test_a_user_without_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a container has whose user is a number without a name."""
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert [entry.name for entry in zoo.installed()] == [zoo.DEFAULT]
    assert diveq("models").exit_code == 0
    other = make(tmp_path / "other.safetensors", "ab" * 8)
    assert zoo.find(other).path == other
    monkeypatch.setenv(zoo.VARIABLE, "")
    result = diveq("models", "--import", TINY)
    assert errors(result) == ["Error: this user has no home folder; set HOME, or XDG_DATA_HOME"]
    assert diveq("models").stderr.startswith(f"Note: no weights in {zoo.shipped_folder()}; ")


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")
