"""--cluster and stores on the command line: the same files and records as without."""

import functools
import json
import os
import signal
import sys
import threading
import time
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
from diveqcodec.processes import Died
from diveqcodec.store import place
from tests.support.commands import diveq, draw, errors, install_tiny

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


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two workers for all commands of a test."""
    pytest.importorskip("distributed", reason="Dask is not installed")
    with engines.connected("local", 2) as found:

        @functools.wraps(engines.connected)
        def connected(*_arguments: Any) -> Any:
            import contextlib

            return contextlib.nullcontext(found)

        monkeypatch.setattr(engines, "connected", connected)
        yield


def kill_a_worker(killed: list[int]) -> None:
    """From outside, as soon as there is a first output."""
    psutil = pytest.importorskip("psutil")

    for _ in range(12_000):
        if list(Path("two").glob("*.dvq")):
            for child in psutil.Process().children(recursive=True):
                if "spawn_main" in " ".join(child.cmdline()):
                    os.kill(child.pid, signal.SIGKILL)
                    killed.append(child.pid)
                    return
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.usefixtures("local")
def test_a_cluster_does_the_same_and_loses_nothing() -> None:
    for i in range(16):
        draw(Path(f"in/{i}.png"), size=(100 + i, 90))
    Path("in/bad.png").touch()
    alone = diveq("compress", "in", "-o", "one", "--json")
    killed: list[int] = []
    thread = threading.Thread(target=kill_a_worker, args=(killed,))
    thread.start()
    both = diveq("compress", "in", "-o", "two", "--json", "--cluster", "local")
    thread.join()
    assert killed
    assert (alone.exit_code, both.exit_code) == (1, 1)
    assert errors(both) == errors(alone)
    text = json.dumps(records(alone)).replace('"one/', '"two/')
    assert records(both) == json.loads(text)
    # a hidden file may be left, for that is where a worker writes before it is whole
    files = {path.name: path.read_bytes() for path in Path("two").glob("*.dvq")}
    assert files == {path.name: path.read_bytes() for path in Path("one").iterdir()}
    assert len(files) == 16

    Path("two/3.dvq").unlink()
    again = diveq("compress", "in", "-o", "two", "--cluster", "local", "--skip-existing")
    assert "17 files: 1 done, 15 already there, 1 failed" in again.stderr
    assert diveq("decompress", "two", "--cluster", "local").exit_code == 0
    assert len(list(Path("two").glob("*.png"))) == 16

    for name, more in (("a.csv", ()), ("b.csv", ("--cluster", "local"))):
        found = diveq("eval", "in", "-q", "20,50", "--csv", name, *more)
        assert found.exit_code == 1, found.output
        assert len([line for line in errors(found) if "bad.png" in line]) == 1
    tables = [Path(name).read_text().splitlines() for name in ("a.csv", "b.csv")]
    columns = [[line.split(",")[:8] for line in table] for table in tables]
    assert columns[0] == columns[1]
    assert len(columns[0]) == 33
