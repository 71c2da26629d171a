"""File managers: the type and its magic, the thumbnailer as a file manager runs it."""

from __future__ import annotations

import configparser
import errno
import io
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from diveqcodec.cli.desktop import thumbnailer_file, type_file
from diveqcodec.pillow import MIME
from tests.support.commands import diveq, draw, errors, install_tiny, opened
from tests.support.places import GOLDEN, ROOT

NAMESPACE = {"m": "http://www.freedesktop.org/standards/shared-mime-info"}


@pytest.fixture(autouse=True)
def _weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install_tiny(monkeypatch, tmp_path)


def test_the_magic_is_that_of_the_golden_files() -> None:
    (kind,) = ElementTree.fromstring(type_file()).findall("m:mime-type", NAMESPACE)
    assert kind.get("type") == MIME
    (match,) = kind.findall("m:magic/m:match", NAMESPACE)
    assert (match.get("type"), match.get("offset")) == ("string", "0")
    magic = (match.get("value") or "").encode().decode("unicode_escape").encode("latin-1")
    assert len(magic) == 4
    files = sorted(GOLDEN.rglob("*.dvq"))
    assert len(files) > 10
    assert all(path.read_bytes().startswith(magic) for path in files)
    (glob,) = kind.findall("m:glob", NAMESPACE)
    assert glob.get("pattern") == "*.dvq"


@pytest.mark.skipif(
    not (shutil.which("update-mime-database") and shutil.which("gio")),
    reason="shared-mime-info and gio are not installed",
)
def test_the_desktop_knows_the_type(tmp_path: Path) -> None:
    home = tmp_path / "share"
    assert diveq("desktop", "--folder", home).exit_code == 0
    unnamed = tmp_path / "unnamed"
    shutil.copyfile(GOLDEN / "colour.dvq", unnamed)

    def kind(path: Path) -> str:
        attribute = "standard::content-type"
        variables = {**os.environ, "XDG_DATA_HOME": str(home)}
        command = ["gio", "info", "-a", attribute, str(path)]
        run = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
        return run.stdout.rpartition(f"{attribute}: ")[2].strip()

    assert kind(GOLDEN / "colour.dvq") == MIME  # by name
    assert kind(unnamed) == MIME  # by magic
    assert diveq("desktop", "--folder", home, "--remove").exit_code == 0
    assert kind(unnamed) != MIME


def test_what_is_installed_can_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    result = diveq("desktop")
    assert result.exit_code == 0
    assert "Note: update-mime-database is not installed" in result.stderr
    written = {path.name for path in (tmp_path / "share").rglob("*") if path.is_file()}
    assert written == {"diveq.xml", "diveq.thumbnailer"}
    assert diveq("desktop", "--remove").exit_code == 0
    assert diveq("desktop", "--remove").exit_code == 0
    assert not [path for path in (tmp_path / "share").rglob("*") if path.is_file()]


def test_what_cannot_be_removed_or_run_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "share"
    folder = home / "mime" / "packages" / "diveq.xml"
    folder.mkdir(parents=True)
    monkeypatch.setattr(shutil, "which", lambda _name: str(tmp_path / "gone"))
    result = diveq("desktop", "--remove", "--folder", home)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith(f"Error: {folder}: cannot be removed: ")
    folder.rmdir()
    result = diveq("desktop", "--remove", "--folder", home)
    assert result.exit_code == 1
    assert result.stderr.endswith(f"Error: {tmp_path / 'gone'}: cannot be run: no such file\n")


def test_the_thumbnailer_runs_as_a_file_manager_runs_it(tmp_path: Path) -> None:
    """Its line is taken apart as the Desktop Entry Specification says, and run elsewhere."""
    picture = draw(tmp_path / "a b.png", "RGBA", (90, 60))
    file = tmp_path / "a b.dvq"
    assert diveq("compress", picture, "-o", file).exit_code == 0
    entry = configparser.ConfigParser(interpolation=None)
    entry.read_string(thumbnailer_file())
    section = entry["Thumbnailer Entry"]
    assert section["MimeType"] == f"{MIME};"
    assert Path(section["TryExec"]).samefile(sys.executable)
    values = {"%s": "32", "%i": str(file), "%o": str(tmp_path / "out.png")}
    words = [values.get(word, word) for word in shlex.split(section["Exec"])]
    with (tmp_path / "out.png").open("w+b") as held:  # as tumbler does, which reads what it holds
        run = subprocess.run(
            words,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
        small = opened(held.read())
    assert (small.format, small.mode, small.size) == ("PNG", "RGBA", (32, 21))


def test_a_path_with_strange_characters_is_quoted() -> None:
    text = thumbnailer_file('/a b/$x"y%z\\/python')
    line = next(line for line in text.splitlines() if line.startswith("Exec="))
    assert line.startswith('Exec="/a b/\\\\$x\\\\"y%%z\\\\\\\\/python" -m diveqcodec thumbnail ')


def test_thumbnails(tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    with Image.open(GOLDEN / "lossless" / "glass.dvq") as glass:
        glass.load()
    assert diveq("thumbnail", GOLDEN / "lossless" / "glass.dvq", out).exit_code == 0
    assert opened(out).tobytes() == glass.tobytes()  # not enlarged
    assert diveq("thumbnail", GOLDEN / "colour.dvq", out).exit_code == 1  # exists
    assert diveq("thumbnail", GOLDEN / "colour.dvq", out, "-f", "-s", "50").exit_code == 0
    assert max(opened(out).size) == 50


def test_thumbnails_of_what_is_damaged_or_missing(tmp_path: Path) -> None:
    bad, out = tmp_path / "bad.dvq", tmp_path / "out.png"
    bad.write_bytes((GOLDEN / "colour.dvq").read_bytes()[:-3])
    for name, message in ((bad, "damaged: truncated"), (tmp_path / "no.dvq", "no such file")):
        result = diveq("thumbnail", name, out)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"Error: {name}: {message}")
        assert result.stderr.count("\n") == 1
        assert not out.exists()
    result = diveq("thumbnail", GOLDEN / "colour.dvq", bad / "out.png")
    assert result.exit_code == 1
    assert result.stderr.endswith(f"out.png: cannot be written: {bad.name} is no folder\n")


def refusing(code: int, *, only: Callable[[Path], bool]) -> Callable[..., Any]:
    """As `open`, of a disk that is full, or a folder that may not be written in."""
    opened = io.open

    def attempt(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        path = None if isinstance(file, int) else Path(file)
        if path is None or "w" not in mode or not only(path):
            return opened(file, mode, *arguments, **options)
        with opened(file, mode) as cut:
            cut.write(b"a part")
        raise OSError(code, os.strerror(code), str(file))

    return attempt


@pytest.mark.parametrize("before", [b"precious", b"", None])
def test_a_full_disk_leaves_the_old_thumbnail(
    before: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "folder" / "out.png"
    out.parent.mkdir()
    if before is not None:
        out.write_bytes(before)
    tries = []

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def is_first(path: Path) -> bool:  # what was there has room
        tries.append(path)
        return path == out and len(tries) == 1

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(io, "open", refusing(errno.ENOSPC, only=is_first))
    result = diveq("thumbnail", GOLDEN / "lossless" / "glass.dvq", out, "-f")
    assert result.exit_code == 1
    assert errors(result) == [f"Error: {out}: cannot be written: no space left on device"]
    assert {path.name: path.read_bytes() for path in out.parent.iterdir()} == (
        {} if before is None else {"out.png": before}
    )


def test_a_thumbnail_may_be_all_that_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a sandbox whose folder is closed."""
    out = tmp_path / "out.png"
    out.write_bytes(b"an old one")

    def closed(path: Any, flags: int, *mode: int) -> int:
        if flags & os.O_CREAT and Path(path) != out:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return system_open(path, flags, *mode)

    system_open, system_access = os.open, os.access
    monkeypatch.setattr(os, "open", closed)
    monkeypatch.setattr(os, "access", lambda p, mode: p != tmp_path and system_access(p, mode))
    glass = GOLDEN / "lossless" / "glass.dvq"
    assert diveq("thumbnail", glass, out, "-f").exit_code == 0
    assert opened(out).format == "PNG"
    result = diveq("thumbnail", glass, tmp_path / "new.png")
    assert errors(result) == [
        f"Error: {tmp_path / 'new.png'}: cannot be written: permission denied"
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="folders of freedesktop.org")
def test_a_user_without_a_folder_names_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert errors(diveq("desktop")) == [
        "Error: this user has no home folder; name one of shared data with --folder"
    ]
    assert diveq("desktop", "--folder", tmp_path / "share").exit_code == 0
