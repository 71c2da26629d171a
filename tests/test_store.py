"""Paths and stores: the same questions, the same answers; nothing half-written."""

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from diveqcodec import image, store
from diveqcodec.errors import DiveqError, ImageError
from diveqcodec.store import Present, Remote, is_url, place
from tests.support.commands import draw

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")


@pytest.fixture(autouse=True)
def memory() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").rm("/", recursive=True)


def remote(text: str) -> Remote:
    found = place(text)
    assert isinstance(found, Remote)
    return found


def test_paths_are_paths(tmp_path: Path) -> None:
    assert place("a/b.png") == Path("a/b.png")
    assert place(f"file://{tmp_path}/a b.png") == tmp_path / "a b.png"
    assert [is_url(name) for name in ("a.png", "-", "C:\\a", "s3://a/b", "a:b", "zip::a")] == [
        *(False, False, False, True, False, True)
    ]


def test_a_file_that_is_named_like_a_url_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("zip::a").touch()
    assert place("zip::a") == Path("zip::a")


def test_names_of_remote_files_are_made_as_those_of_paths() -> None:
    for text in ("/d/a.jpg", "/d/a.tar.gz", "/d/v1.2 final", "/d.e/f"):
        here, there = Path(text), remote(f"memory:/{text}")
        assert (there.name, there.suffix) == (here.name, here.suffix)
        assert there.path == str(here)
        assert there.with_name("y").path == str(here.with_name("y"))
        assert there.parent.path == str(here.parent)
        below = (there / "z/w").relative_to(there.parent)
        assert str(below) == str((here / "z/w").relative_to(here.parent))
        assert str(there) == f"memory://{text}"
        assert place(str(there)) == there
        assert pickle.loads(pickle.dumps(there)) == there


@pytest.mark.parametrize("is_whole", [True, False])
def test_what_is_written_is_whole(is_whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of stores: those whose objects come into being whole, and others."""
    if not is_whole:
        monkeypatch.setattr(store, "_WHOLE", frozenset())
    target, seen = remote("memory://new/folder/a.dvq"), list[bytes]()
    for data in (b"one", b"two"):
        target.write_whole(data, seen.append if data == b"two" else None)
        assert target.read_bytes() == data
        assert target.parent.names() == {"a.dvq"}, "something was left behind"
    assert seen == [b"two"]

    def refuse(data: bytes) -> None:
        raise DiveqError("bad")

    with pytest.raises(DiveqError, match="bad"):
        target.write_whole(b"three", refuse)
    assert target.read_bytes() == b"two"
    assert target.parent.names() == {"a.dvq"}


def test_other_stores_never_have_a_part_under_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_WHOLE", frozenset())
    target = remote("memory://a.dvq")
    written = list[str]()
    put = target.files.pipe_file

    def killed(path: str, data: bytes) -> None:
        written.append(path)
        put(path, data[:1])
        raise KeyboardInterrupt

    monkeypatch.setattr(target.files, "pipe_file", killed)
    with pytest.raises(KeyboardInterrupt):
        target.write_whole(b"one")
    assert written
    assert not target.exists()
    assert target.parent.names() == set()


def test_what_is_present(tmp_path: Path) -> None:
    present = Present()
    (tmp_path / "link").symlink_to("nowhere")
    assert tmp_path / "link" in present
    assert tmp_path / "a" not in present
    folder = remote("memory://there")
    assert folder / "a" not in present
    folder.write_whole(b"")  # a file where the folder was looked for
    there = remote("memory://d/a")
    there.write_whole(b"")
    assert there in Present()
    assert there.with_name("b") not in Present()


def test_a_folder_is_listed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = remote("memory://d")
    (folder / "a").write_whole(b"")
    calls = list[str]()
    ls = folder.files.ls

    def listed(path: str, **named: bool) -> object:
        calls.append(path)
        return ls(path, **named)

    monkeypatch.setattr(folder.files, "ls", listed)
    present = Present()
    assert folder / "a" in present
    assert all(folder / f"b{i}" not in present for i in range(9))
    assert len(calls) == 1


def test_pictures_of_stores_are_loaded(tmp_path: Path) -> None:
    path = draw(tmp_path / "a.png")
    there = remote("memory://a.png")
    there.write_whole(path.read_bytes())
    assert (image.load(there).pixels == image.load(path).pixels).all()
    with pytest.raises(ImageError, match="memory:///b.png: no such file"):
        image.load(there.with_name("b.png"))


def test_whatever_a_store_raises_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    there = remote("memory://a.png")

    def refuse(path: str) -> bytes:
        raise RuntimeError("no\ncredentials")

    monkeypatch.setattr(there.files, "cat_file", refuse)
    with pytest.raises(OSError, match="memory: no credentials"):
        there.read_bytes()
    with pytest.raises(ImageError, match=r"memory:///a.png: memory: no credentials"):
        image.load(there)


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DiveqError, match=r"^nonsense://a: no such store \(Protocol not known"):
        place("nonsense://a")
    for name in [name for name in sys.modules if name.split(".")[0] == "s3fs"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(DiveqError, match=r"^s3://a/b: .*s3fs"):
        place("s3://a/b")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(DiveqError, match=r"^s3://a/b: needs fsspec: pip install"):
        place("s3://a/b")
