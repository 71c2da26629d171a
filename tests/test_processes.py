"""Many things done by processes of this machine."""

from __future__ import annotations

import operator
from collections.abc import Collection
from concurrent.futures import Future, wait
from typing import Any

import pytest

from diveqcodec import processes
from diveqcodec.processes import LocalProcesses


def test_what_was_at_work_at_an_interruption_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(running: Collection[Future[Any]], **options: Any) -> None:
        wait(running, **options)  # something is done, and nobody has heard of it
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "wait", interrupted)
    found: list[tuple[int, Any]] = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(LocalProcesses(2).map(operator.neg, range(100)))
    assert 0 < len(found) < 100
    assert found == [(number, -number) for number, _ in found]
