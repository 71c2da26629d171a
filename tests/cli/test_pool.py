"""Several processes: the same results in the same order, and no file lost for another's sake."""

import functools
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from diveqcodec.cli import batch
from diveqcodec.cli.console import Console, Misuse, OutputError
from diveqcodec.cli.jobs import Job, Outcome, Source
from diveqcodec.cli.options import Session
from diveqcodec.errors import DiveqError
from tests.support.commands import diveq, draw, install_tiny


def work(folder: Path, job: Job, session: Session) -> Outcome:
    """A stand-in for a codec; what it does follows from the name of the input."""
    name = job.source.name
    (folder / f"{name} {os.getpid()} {time.monotonic_ns()}").touch()
    if name.startswith("slow"):
        time.sleep(0.3)
    if name.startswith("bad"):
        raise DiveqError(f"{name}: is bad")
    if name.startswith("full"):
        raise OutputError("out: cannot be written: no space left")
    if name.startswith("misuse"):
        raise Misuse("wrong usage")
    if name.startswith("shaky") and len(list(folder.glob(f"{name} *"))) == 1:
        os.kill(os.getpid(), signal.SIGKILL)  # the first time only, as from outside
    if name.startswith("deadly"):
        os.kill(os.getpid(), signal.SIGKILL)
    threads = session.threads or 0
    return Outcome(f"{name} done", {"input": name, "threads": threads}, (), 2, 1)


def run(
    names: list[str], folder: Path, processes: int, capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[str]]:
    jobs = [Job(Source(name, Path(name)), Path(name + ".dvq")) for name in names]
    session = Session(Console())
    status = batch.run(jobs, functools.partial(work, folder), session, processes=processes)
    lines = capsys.readouterr().err.splitlines()
    return status, [line.rpartition("   ")[0] or line for line in lines]


def test_processes_say_the_same_in_the_same_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["slow 0", *(f"file {i}" for i in range(5)), "bad 1", "full 2", "file 7"]
    expected = run(names, tmp_path, 1, capsys)
    one = {path.name.split()[2] for path in tmp_path.iterdir()}
    assert one == {str(os.getpid())}
    assert run(names, tmp_path, 2, capsys) == expected
    assert expected[0] == 1
    assert expected[1][-1] == "9 files: 7 done, 2 failed   14 B -> 7 B"
    several = {path.name.split()[2] for path in tmp_path.iterdir()} - one
    assert len(several) == 2


def test_a_process_that_dies_costs_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["slow 0", "deadly 1", "slow 2", "slow 3", "file 4"]  # the slow ones are cut short
    status, lines = run(names, tmp_path, 2, capsys)
    assert status == 1
    assert lines == [
        "slow 0 done",
        "Error: deadly 1: the process at work on it died; "
        "there may be too little memory, try a smaller -j",
        "slow 2 done",
        "slow 3 done",
        "file 4 done",
        "5 files: 4 done, 1 failed   8 B -> 4 B",
    ]


DIED = "the process at work on it died; there may be too little memory, try a smaller -j"


def test_each_process_that_dies_costs_its_own_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["deadly 0", "slow 1", "bad 2", "deadly 3", "deadly 4", "slow 5", "file 6", "deadly 7"]
    status, lines = run(names, tmp_path, 2, capsys)
    assert status == 1
    expected = [f"Error: {name}: {DIED}" for name in names]
    for index in (1, 5, 6):
        expected[index] = f"{names[index]} done"
    expected[2] = "Error: bad 2: is bad"
    assert lines[:-1] == expected
    assert lines[-1].startswith("8 files: 3 done, 5 failed")


@pytest.mark.slow
def test_a_process_that_is_killed_once_costs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["slow 0", "shaky 1", "slow 2", "slow 3", "file 4"]
    status, lines = run(names, tmp_path, 2, capsys)
    assert status == 0
    assert lines[:-1] == [f"{name} done" for name in names]


def _kill_a_worker(folder: Path, killed: list[int]) -> None:
    """From outside, as the kernel does when memory is short: the first worker at work."""
    for _ in range(600):
        at_work = [int(path.name.split()[2]) for path in folder.iterdir()]
        if at_work:
            os.kill(at_work[0], signal.SIGKILL)
            killed.append(at_work[0])
            return
        time.sleep(0.02)


def test_a_worker_killed_from_outside_costs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed: list[int] = []
    thread = threading.Thread(target=_kill_a_worker, args=(tmp_path, killed))
    thread.start()
    names = [f"slow {i}" for i in range(6)]
    status, lines = run(names, tmp_path, 2, capsys)
    thread.join()
    assert killed
    assert killed[0] != os.getpid()
    assert (status, lines[:-1]) == (0, [f"{name} done" for name in names])
    tries = [path.name for path in tmp_path.iterdir()]
    assert len(tries) > len(names), "no file was cut short: nothing was tested"


def test_wrong_usage_ends_all_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Misuse, match="wrong usage"):
        run(["misuse 0", *(f"slow {i}" for i in range(9))], tmp_path, 2, capsys)
    assert len(list(tmp_path.iterdir())) < 8


@pytest.mark.slow
def test_compress_and_decompress_in_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_tiny(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    for i in range(4):
        draw(Path(f"d/{i}.png"), size=(40 + i, 30))
    Path("d/bad.png").touch()
    alone = diveq("compress", "d", "-o", "one")
    both = diveq("compress", "d", "-o", "two", "-j", 2)
    assert (alone.exit_code, both.exit_code) == (1, 1)
    names = sorted(path.name for path in Path("one").iterdir())
    assert len(names) == 4
    for name in names:
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()
    assert diveq("decompress", "two", "-j", 2).exit_code == 0
    assert len(list(Path("two").glob("*.png"))) == 4
