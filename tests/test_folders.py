"""What lies below a folder: one walk for all commands."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diveqcodec.folders import files_below


def refuse(error: OSError) -> None:
    raise error


def test_files_come_in_order_without_what_is_hidden(tmp_path: Path) -> None:
    for name in ("z.png", "a.png", "sub/b.png", ".hidden.png", ".git/c.png", "sub/.d/e.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = files_below(tmp_path, refuse)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "a.png",
        "sub/b.png",
        "z.png",
    ]


@pytest.mark.skipif(os.name == "nt", reason="links and pipes of POSIX")
def test_a_broken_link_is_kept_and_no_pipe_nor_linked_folder(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    assert files_below(tmp_path, refuse) == [tmp_path / "gone"]


def test_a_folder_that_cannot_be_read_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.png").touch()
    scandir = os.scandir

    def locked(path: Any) -> Iterator[os.DirEntry[str]]:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    told: list[OSError] = []
    assert files_below(tmp_path, told.append) == [tmp_path / "a.png"]
    assert [error.filename for error in told] == [str(tmp_path / "locked")]
