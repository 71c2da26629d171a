"""The benchmark's busy machine: it is busy while it should be, and no longer."""

import argparse
import contextlib
import os
from pathlib import Path

import pytest

from scripts import benchmark
from tests.support.commands import TINY


def test_programs_are_busy_for_as_long_as_the_block_runs() -> None:
    with contextlib.suppress(KeyError), benchmark.busy(2) as running:
        assert [one.poll() for one in running] == [None, None]
        raise KeyError
    assert all(one.returncode is not None for one in running)
    with benchmark.busy(0) as running:
        assert running == []


@pytest.mark.slow
def test_every_way_to_wait_is_measured_idle_and_loaded(
    picture_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", os.environ.get("OMP_WAIT_POLICY", "PASSIVE"))
    options = argparse.Namespace(picture=picture_file, quality=50.0, threads=2, loaded=1)
    benchmark.print_loaded(options, TINY)
    rows = [line.rsplit(maxsplit=4) for line in capsys.readouterr().out.splitlines()[3:]]
    assert [row[0] for row in rows] == list(benchmark.WAITING)
    assert [int(row[1]) for row in rows] == [2, 2, 1]
    for _, _, idle, loaded, ratio in rows:
        assert float(idle) > 0
        assert float(loaded) > 0
        assert float(ratio) == pytest.approx(float(loaded) / float(idle), rel=0.2, abs=0.1)
