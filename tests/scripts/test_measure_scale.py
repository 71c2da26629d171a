"""What measures scale: its tables say what was found, and nothing is lost unseen."""

import json
import os
import sys
from pathlib import Path

import pytest

from diveqcodec.errors import DiveqError
from scripts import engine_cost, measure_scale
from scripts.engine_cost import Cost
from scripts.measure_scale import Batch, Coded, Record
from tests.support.commands import TINY, draw, opened

pytest.importorskip("psutil", reason="psutil comes with Dask, which is not installed")

# The command's process says who it is, and a child of it looks like one of Dask's workers.
WRITES = """
import json, subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "spawn_main"])
for i in range(4):
    print(json.dumps({"input": str(i)} | ({"error": "bad"} if i == 2 else {})), flush=True)
    time.sleep(0.05)
print(json.dumps({"input": "worker", "status": worker.wait()}), flush=True)
raise SystemExit(1)
"""


def found(records: list[Record]) -> Batch:
    """A batch that does a record every half second, with 5 ms of a core for each."""
    times = [2 + i / 2 for i in range(len(records))]
    processor = {i + 1: 3 + i * 0.005 for i in range(len(records))}
    return Batch(records, times, processor, 8.0, 9.0, 0.5, 1, 1)


def test_crops_are_the_same_every_time_and_the_damaged_ones_are_named(tmp_path: Path) -> None:
    paths = [draw(tmp_path / "photos/a.png"), draw(tmp_path / "photos/b.png", size=(90, 70))]
    assert measure_scale.photographs(tmp_path / "photos") == paths
    bad = [measure_scale.crops(paths, tmp_path / name, 30, 16) for name in ("one", "two")]
    files = [sorted((tmp_path / name).rglob("*.png")) for name in ("one", "two")]
    assert [len(bad[0]), len(files[0])] == [measure_scale.BAD, 30]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    for path in files[0]:
        if str(path) in bad[0]:
            with pytest.raises(OSError, match="truncated"):
                opened(path)
        else:
            assert opened(path).size == (16, 16)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DiveqError, match="has no pictures"):
        measure_scale.photographs(tmp_path / "empty")


def test_one_core_is_measured_and_what_is_multiplied_says_so(picture_file: Path) -> None:
    first, second = measure_scale.one_core([picture_file] * 2, TINY, 50)
    assert first.bytes_out == second.bytes_out > 0
    assert first.pixels == 48 * 32
    assert min(first.compress, first.decompress, second.compress, second.decompress) > 0
    slower = Coded(400_000, 1, 1000, 0.9, 0.1), Coded(400_000, 1, 1000, 0.2, 0.5)
    assert measure_scale.fastest(slower) == Coded(400_000, 1, 1000, 0.2, 0.1)
    coded = [Coded(400_000, 1, 1000, 0.2, 0.5), Coded(0, 1, 3000, 0.6, 0.5)]
    table = measure_scale.core_table(coded)
    assert "| a picture, one core | 0.400 s | 0.500 s | 2,000 |" in table
    assert "| a second and a core | 2.5 | 2.0 |  |" in table
    assert "| a million, by arithmetic | 111 core hours | 139 core hours | 2.0 GB |" in table


def test_an_engine_that_is_not_there_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(sys, "argv", ["engine_cost", "ray"])
    engine_cost.main()
    assert json.loads(capsys.readouterr().out) == {"missing": "ray"}
    cost: Cost = {"version": "1.2", "start": 2.0, "memory": 5e6, "processes": 3, "wall": 0.012}
    table = measure_scale.engine_table({"dask": {**cost, "processor": 0.0064}, "ray": None})
    assert "| a task, few at a time: wall, processor | 12.0 ms, 6.4 ms | not installed |" in table
    assert "| memory of it, without work | 5 MB in 3 processes | not installed |" in table


def test_a_command_is_watched_and_a_worker_of_it_killed() -> None:
    batch = measure_scale.run_batch([sys.executable, "-c", WRITES], 2)
    assert [record["input"] for record in batch.records] == ["0", "1", "2", "3", "worker"]
    assert batch.failed == ["2"]
    assert (batch.killed, batch.records[-1]["status"], batch.status) == (1, -9, 1)
    assert batch.times == sorted(batch.times)
    assert batch.seconds > batch.times[-1] > 0.15
    assert batch.processor.keys() == {1, 2, 3, 4, 5}
    assert batch.computed > 0
    assert measure_scale.kill_a_worker(os.getpid()) == 0, "the first one is gone, others are none"


def test_the_table_of_a_batch() -> None:
    whole = found([{"input": str(i)} for i in range(11)])
    lines = measure_scale.batch_table(whole, 11, set()).splitlines()
    assert lines[1:5] == [
        "| of 11 pictures | seconds | a second | client and scheduler, of a core |",
        "|---|---|---|---|",
        "| 1 to 2 | 0.5 | 2.0 | 1% |",
        "| 2 to 4 | 1.0 | 2.0 | 1% |",
    ]
    text = "\n".join(lines)
    assert "first record after 2.0 s, all after 8.0 s; 2.0 a second" in text
    assert "5.00 ms of a core a picture, 0 s in all; one full core at 200 pictures" in text
    assert "records 11, of different pictures 11; exit status 1; errors 0, exactly the 0" in text
    assert "errors 0, NOT the 1 damaged files" in measure_scale.batch_table(whole, 11, {"1"})
    twice = [Record(input="0")] * 10 + [Record(input="1", error="bad")]
    text = measure_scale.batch_table(found(twice), 11, {"1"})
    assert "of different pictures 2; exit status 1; errors 1, exactly the 1 damaged files" in text


@pytest.mark.slow
def test_all_of_it_with_a_few_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("distributed", reason="Dask is not installed")
    for name in "ab":
        draw(tmp_path / f"{name}.png", size=(100, 80))
    more = ["-m", str(TINY), "--many", "60", "--side", "16", "--tasks", "20"]
    monkeypatch.setattr(sys, "argv", ["measure_scale", str(tmp_path), *more])
    measure_scale.main()
    text = capsys.readouterr().out
    assert "| version | " in text
    assert "workers killed: 1; records 60, of different pictures 60; exit status 1" in text
    assert "errors 3, exactly the 3 damaged files" in text
    assert "57 files written" in text
    assert "60 records, 3 errors" in text
