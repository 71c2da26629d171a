"""--cluster and stores on the command line: the same files and records as without."""

import contextlib
import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from diveqcodec import cluster as engines
from diveqcodec import zoo
from diveqcodec.cli import batch, worker
from diveqcodec.cli.console import Console, OutputError
from diveqcodec.cli.files import check_target
from diveqcodec.cli.jobs import Failure, Job, Outcome, Source
from diveqcodec.cli.options import Session
from diveqcodec.errors import DiveqError
from diveqcodec.processes import Died, Engine
from diveqcodec.store import place
from tests.support.commands import diveq, draw, errors, install_tiny
from tests.support.dying import Dying, Interrupted

T = TypeVar("T")
R = TypeVar("R")


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = install_tiny(monkeypatch, tmp_path)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


class Forgetful:
    """An engine without processes: what dies is done again, and the last come back first."""

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R | Died]]:
        for item in list(items)[::-1]:
            function(item)
            yield item, function(item)


def write(job: Job, session: Session) -> Outcome:
    """A stand-in for a codec."""
    batch.check(job, is_forced=False)
    assert isinstance(job.target, Path)
    assert job.target.is_absolute()
    job.target.write_text("done")
    session.console.note("hear")
    return Outcome(f"{job.source.name} -> {job.target_name}", {"model": id(session)})


def done(jobs: list[Job], console: Console) -> dict[str, Outcome | Failure]:
    found = worker.results(jobs, write, Session(console), Forgetful(), 1)
    return {job.source.name: result for job, result in found}


def test_what_is_done_twice_does_not_meet_its_own_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A worker that dies between writing and telling costs nothing; old outputs are safe."""
    Path("old.dvq").write_text("old")
    jobs = [Job(Source(name, Path(name)), Path(f"{name}.dvq")) for name in ("new", "old")]
    found = done(jobs, Console())
    new, old = found["new"], found["old"]
    assert isinstance(new, Outcome)
    assert new.line == "new -> new.dvq"
    assert isinstance(old, Failure)
    assert old.text.endswith("old.dvq: already exists; use -f to overwrite")
    assert old.names_output
    assert (Path("old.dvq").read_text(), Path("new.dvq").read_text()) == ("old", "done")
    assert capsys.readouterr().err == "Note: hear\n", "the note of the last try, and once"
    done(jobs[:1], Console(is_quiet=True))
    assert capsys.readouterr().err == ""


def test_a_process_keeps_its_session(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [Job(Source(name, Path(name)), Path(f"{name}.dvq")) for name in "abc"]
    found = done(jobs, Console()).values()
    assert len({result.record["model"] for result in found if isinstance(result, Outcome)}) == 1


def test_workers_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = worker.Setup(0, "cpu", 1, "0.0.1")
    with pytest.raises(DiveqError, match=r"a worker has diveqcodec .*, this is 0\.0\.1"):
        worker._do(setup, write, Job(Source("a", Path("a")), Path("a.dvq")))


def test_weights_that_lie_elsewhere_on_this_machine(tmp_path: Path, models: Path) -> None:
    entry = zoo.find()
    moved = models / "moved.safetensors"
    entry.path.rename(moved)
    assert zoo.load_entry(entry).name == "moved"
    moved.unlink()
    with pytest.raises(DiveqError, match="no such file here; put the weights where all machines"):
        zoo.load_entry(entry)


def test_wrong_usage() -> None:
    draw(Path("a.png"))
    for arguments, said in (
        (("a.png", "--cluster", "ray://h:1"), "ray://h:1: use local, HOST:PORT of a Dask"),
        (("a.png", "--cluster", "h:1", "-j", 2), "-j is for this machine; a cluster works on"),
        (("-", "--cluster", "local", "-o", "b"), "- (a standard stream) cannot be combined with"),
        (("a.png", "--cluster", "local", "-o", "-"), "- (a standard stream) cannot be combined"),
        (("a.png", "--keep-times", "-o", "memory://a"), "--keep-times: a store keeps no times"),
        (("a.png", "--cluster", "local", "-o", "memory://a"), "is seen by one process only"),
    ):
        result = diveq("compress", *arguments)
        assert result.exit_code == 2, said
        assert said in result.stderr
    result = diveq("eval", "a.png", "--cluster", "h:1", "-j", 2)
    assert (result.exit_code, "-j is for this machine" in result.stderr) == (2, True)


def test_without_dask_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    draw(Path("a.png"))
    result = diveq("compress", "a.png", "--cluster", "local")
    assert result.exit_code == 1
    assert errors(result) == ["Error: --cluster needs Dask: pip install 'diveqcodec[cluster]'"]
    assert diveq("compress", "a.png").exit_code == 0
    result = diveq("compress", "a.png", "--cluster", "local", "--skip-existing")
    assert result.exit_code == 0, "nothing is to be done, so no cluster is needed"


# Stores.


@pytest.fixture
def memory() -> Iterator[Any]:
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/", recursive=True)


def records(result: Any) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in result.stdout.splitlines()]
    for record in found:
        record.pop("seconds", None)
    return sorted(found, key=lambda record: str(record["input"]))


def test_a_store_has_the_same_files_as_a_folder(memory: Any) -> None:
    for name in ("a.png", "sub/b.jpg", ".hidden.png"):
        path = draw(Path("in", name))
        memory.pipe_file(f"/in/{name}", path.read_bytes())
    for name in ("in/bad.png", "in/notes.txt"):
        Path(name).touch()
        memory.pipe_file(f"/{name}", b"")
    here = diveq("compress", "in", "-o", "out", "--json")
    there = diveq("compress", "memory://in", "-o", "memory://out", "--json")
    assert (here.exit_code, there.exit_code) == (1, 1)
    text = json.dumps(records(there)).replace("memory:///", "")
    assert json.loads(text) == records(here)
    assert "skipped 1 of 4 files, not pictures" in there.stderr
    assert errors(there) == [
        "Error: memory:///in/bad.png: not an image that Pillow can read: it is empty"
    ]
    assert memory.find("/out") == ["/out/a.dvq", "/out/sub/b.dvq"]
    for name in memory.find("/out"):
        assert memory.cat_file(name) == Path(name[1:]).read_bytes()

    diveq("decompress", "memory://out", "-o", "back")
    diveq("decompress", "out", "-o", "memory://back")
    assert memory.cat_file("/back/sub/b.png") == Path("back/sub/b.png").read_bytes()
    again = diveq("compress", "memory://in", "-o", "memory://out")
    assert len(errors(again)) == 3
    assert "Error: memory:///out/a.dvq: already exists; use -f to overwrite" in errors(again)
    skipping = diveq("compress", "memory://in", "-o", "memory://out", "--skip-existing")
    assert "2 already there, 1 failed" in skipping.stderr
    assert diveq("compress", "memory://in/a.png", "-o", "memory://x.dvq", "--verify").exit_code == 0
    assert memory.exists("/x.dvq")
    with pytest.raises(OutputError, match="is the input itself"):
        check_target(place("memory://x.dvq"), place("memory://x.dvq"), True)


def test_eval_reads_stores(memory: Any) -> None:
    path = draw(Path("in/a.png"))
    memory.pipe_file("/in/a.png", path.read_bytes())
    for source in ("in", "memory://in"):
        result = diveq("eval", source, "-q", "50", "--csv", "r.csv", "-f", "--resume", "journal")
        assert result.exit_code == 0, result.output
    assert "1 rows are known from an earlier run" in result.stderr
    missing = diveq("eval", "memory://nowhere", "-q", "50")
    assert errors(missing) == ["Error: memory://nowhere: no such file or folder"]


# With an engine.


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Two workers for all tests, which find the tiny model among the installed ones."""
    pytest.importorskip("distributed", reason="Dask is not installed")
    with pytest.MonkeyPatch.context() as patch:
        install_tiny(patch, tmp_path_factory.mktemp("workers"))
        with engines.connected("local", 2) as found:
            yield found


@pytest.fixture
def connect(two_workers: Engine, monkeypatch: pytest.MonkeyPatch) -> Callable[[Engine], None]:
    """Says what `--cluster` connects to; at first the two workers."""

    def connect(engine: Engine) -> None:
        found = contextlib.nullcontext(engine)
        monkeypatch.setattr(engines, "connected", lambda *_arguments: found)

    connect(two_workers)
    return connect


@pytest.fixture
def dying(two_workers: Engine, connect: Callable[[Engine], None], tmp_path: Path) -> Dying:
    """The same, and one of them is killed; it is connected to."""
    (tmp_path / "kills").mkdir()
    engine = Dying(two_workers, tmp_path / "kills")
    connect(engine)
    return engine


def draw_folder(count: int) -> None:
    for i in range(count):
        draw(Path(f"in/{i}.png"), size=(40 + i, 30))
    Path("in/bad.png").touch()


def contents(folder: str, suffix: str) -> dict[str, bytes]:
    """Of all files but those that a killed worker had not written whole: they are hidden."""
    return {path.name: path.read_bytes() for path in Path(folder).glob(f"*{suffix}")}


def table(name: str) -> list[list[str]]:
    """A CSV file of `eval`, without its last columns, which are times."""
    return [line.split(",")[:8] for line in Path(name).read_text().splitlines()]


def test_a_killed_worker_loses_nothing(dying: Dying) -> None:
    """The same files, records and errors as without; a whole output is not in its own way."""
    draw_folder(10)
    alone = diveq("compress", "in", "-o", "one", "--json")
    both = diveq("compress", "in", "-o", "two", "--json", "--cluster", "local")
    assert len(dying.killed()) == 1
    assert (alone.exit_code, both.exit_code) == (1, 1)
    assert errors(both) == errors(alone)
    assert len(errors(both)) == 1
    text = json.dumps(records(alone)).replace('"one/', '"two/')
    assert records(both) == json.loads(text)
    assert contents("two", ".dvq") == contents("one", ".dvq")
    assert len(contents("two", ".dvq")) == 10


def test_messages_have_the_names_that_were_given(connect: Callable[[Engine], None]) -> None:
    """Not those that workers have, whose current folder is another."""
    draw_folder(2)
    Path("file").touch()
    Path("out/1.dvq").mkdir(parents=True)
    for output in ("out", "file/x"):
        alone, both = (
            diveq("compress", "in", "gone.png", "-f", "-o", output, "--json", *more)
            for more in ((), ("--cluster", "local"))
        )
        assert sorted(errors(both)) == sorted(errors(alone))
        assert records(both) == records(alone)
        assert f"Error: {output}/1.dvq: " in both.stderr
        shutil.rmtree("out", ignore_errors=True)


def test_compress_and_decompress_go_on_where_they_were_stopped(
    two_workers: Engine, connect: Callable[[Engine], None]
) -> None:
    draw_folder(8)
    diveq("compress", "in", "-o", "one")
    diveq("decompress", "one")
    for command, source, suffix, total in (
        ("compress", "in", ".dvq", 9),
        ("decompress", "two", ".png", 8),
    ):
        arguments = command, source, "-o", "two", "--cluster", "local"
        connect(Interrupted(two_workers, 3))
        stopped = diveq(*arguments)
        assert stopped.exit_code == 1
        assert f"stopped after 3 of {total} files; --skip-existing goes on" in stopped.stderr
        connect(two_workers)
        again = diveq(*arguments, "--skip-existing")
        found = re.search(rf"{total} files: (\d) done, (\d) already there", again.stderr)
        assert found is not None, again.output
        assert int(found[1]) + int(found[2]) == 8
        assert int(found[2]) >= 2, "one of three may be the bad one"
        assert contents("two", suffix) == contents("one", suffix)
        assert len(contents("two", suffix)) == 8


def test_eval_goes_on_where_it_was_stopped(
    two_workers: Engine, connect: Callable[[Engine], None]
) -> None:
    draw_folder(6)
    diveq("eval", "in", "-q", "20,50", "--csv", "one.csv")
    cluster = "--cluster", "local", "--resume", "journal"
    connect(Interrupted(two_workers, 4))
    stopped = diveq("eval", "in", "-q", "20,50", "--csv", "two.csv", *cluster)
    assert stopped.exit_code == 1
    assert not Path("two.csv").exists()
    rows = len(Path("journal").read_text().splitlines()) - 1
    assert rows in (6, 8), "two for each picture, of which one may be the bad one"
    assert f"Note: stopped with {rows} rows; --resume goes on" in stopped.stderr
    connect(two_workers)
    again = diveq("eval", "in", "-q", "20,50", "--csv", "two.csv", *cluster)
    assert f"{rows} rows are known from an earlier run" in again.stderr
    assert len([line for line in errors(again) if "bad.png" in line]) == 1
    assert table("two.csv") == table("one.csv")
    assert len(table("two.csv")) == 13


def test_workers_that_write_while_their_folder_is_removed_hide_no_ctrl_c(
    connect: Callable[[Engine], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_named: object) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    draw_folder(2)
    connect(Interrupted(Forgetful(), 0))
    monkeypatch.setattr(os, "rmdir", refuse)
    stopped = diveq("eval", "in", "-q", "20", "--cluster", "local", "--resume", "journal")
    assert stopped.exit_code == 1
    assert "Note: stopped with " in stopped.stderr


@pytest.mark.slow
def test_a_worker_killed_while_it_decompresses_loses_nothing(dying: Dying) -> None:
    draw_folder(10)
    diveq("compress", "in", "-o", "one")
    diveq("decompress", "one", "-o", "two")
    result = diveq("decompress", "one", "-o", "three", "--cluster", "local")
    assert len(dying.killed()) == 1
    assert (result.exit_code, errors(result)) == (0, [])
    assert contents("three", ".png") == contents("two", ".png")
    assert len(contents("three", ".png")) == 10


@pytest.mark.slow
def test_a_worker_killed_while_it_measures_loses_nothing(dying: Dying) -> None:
    draw_folder(8)
    diveq("eval", "in", "-q", "20,50", "--csv", "one.csv")
    cluster = "--cluster", "local", "--resume", "journal"
    result = diveq("eval", "in", "-q", "20,50", "--csv", "two.csv", *cluster)
    assert len(dying.killed()) == 1
    assert len([line for line in errors(result) if "bad.png" in line]) == 1
    assert table("two.csv") == table("one.csv")
    assert len(Path("journal").read_text().splitlines()) == len(table("two.csv")) == 17
