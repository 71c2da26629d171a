"""Where the commands are tried out: a tiny model is installed, and the folder is their own."""

from pathlib import Path

import pytest

from tests.support.commands import install_tiny


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of the weights; the current folder is another, and empty."""
    folder = install_tiny(monkeypatch, tmp_path)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder
