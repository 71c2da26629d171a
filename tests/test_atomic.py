"""A file is the old one or the new one."""

import os
import stat
from pathlib import Path

import pytest

from diveqcodec.atomic import leftovers, replacing


def test_a_block_that_ends_well_replaces(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    with replacing(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_links_stay_and_what_they_lead_to_is_replaced(tmp_path: Path) -> None:
    other, here = tmp_path / "other", tmp_path / "here"
    other.mkdir()
    here.mkdir()
    (here / "link").symlink_to("../other/file")
    (here / "again").symlink_to("link")
    for text in ("new", "newer"):  # the first time it leads to nothing
        with replacing(here / "again") as temporary:
            temporary.write_text(text)
            assert temporary.parent.samefile(other)  # a rename does not leave its disk
        assert (other / "file").read_text() == text
    assert sorted(path.is_symlink() for path in tmp_path.rglob("*")) == [False] * 3 + [True] * 2


def test_links_in_a_circle_are_no_file(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic link") as caught, replacing(tmp_path / "a"):
        pass
    assert caught.value.filename == str(tmp_path / "a")
    assert (tmp_path / "a").is_symlink()


@pytest.mark.parametrize("name", ["a.tmp", ".a.tmp", ".diveq-0.tmp"])
def test_nobody_elses_file_is_touched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    (tmp_path / "far").write_text("mine too")
    (tmp_path / "b.tmp").symlink_to("far")
    for target in (tmp_path / "a", tmp_path / "b"):
        with replacing(target) as temporary:
            temporary.write_text("new")
        assert target.read_text() == "new"
    assert (tmp_path / name).read_text() == "mine"
    assert (tmp_path / "far").read_text() == "mine too"
    assert sorted(os.listdir(tmp_path)) == sorted([name, "a", "b", "b.tmp", "far"])


def test_two_that_write_one_file_do_not_meet(tmp_path: Path) -> None:
    target = tmp_path / "a"
    with replacing(target) as first:
        first.write_text("first")
        with replacing(target) as second:
            second.write_text("second")
        assert target.read_text() == "second"
    assert target.read_text() == "first"
    assert list(tmp_path.iterdir()) == [target]


def test_a_name_may_be_as_long_as_any(tmp_path: Path) -> None:
    target = tmp_path / ("a" * 255)
    with replacing(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


def test_what_is_being_written_is_hidden_and_found(tmp_path: Path) -> None:
    (tmp_path / ".diveq-notes.tmp").write_text("mine")
    with replacing(tmp_path / "a") as temporary:
        assert temporary.name.startswith(".")
        assert list(leftovers(tmp_path)) == [temporary]
        temporary.write_text("new")
    assert list(leftovers(tmp_path)) == []
    assert list(leftovers(tmp_path / "none")) == []


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, ValueError])
def test_a_block_that_fails_leaves_the_old_file_alone(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "a"
    target.write_text("old")

    def fail() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_bytes_are_on_the_disk_before_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[object] = []
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append(os.fstat(file).st_size))

    def replaced(source: Path, target: Path) -> None:
        done.append("replaced")
        replace(source, target)

    monkeypatch.setattr(os, "replace", replaced)
    with replacing(tmp_path / "a") as temporary:
        temporary.write_bytes(bytes(1000))
    assert done == [1000, "replaced"]


@pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX's")
def test_what_is_private_is_so_while_it_is_written(tmp_path: Path) -> None:
    for permissions in (0o600, 0o640, 0o400):  # the last may be written here all the same
        with replacing(tmp_path / "a", permissions) as temporary:
            temporary.write_bytes(b"new")
            assert stat.S_IMODE(temporary.stat().st_mode) == permissions | 0o200


def test_what_cannot_be_cleared_away_hides_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path, missing_ok: bool = False) -> None:
        del missing_ok
        raise PermissionError("unlink")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(ValueError, match="half"), replacing(tmp_path / "a"):
        raise ValueError("half")
