"""The check of wheels: what it asks of an installed package, asked of this one."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts import check_wheels
from tests.support.places import GOLDEN


def test_all_golden_files_are_decoded() -> None:
    assert check_wheels.golden() == len(list(GOLDEN.glob("*.dvq")))
    assert check_wheels.golden_lossless() == len(list((GOLDEN / "lossless").glob("*.dvq")))


@pytest.mark.parametrize("key", ["indices", "latent"])
def test_another_result_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    for name in ("tiny.safetensors", "dot.dvq"):
        shutil.copyfile(GOLDEN / name, tmp_path / name)
    known = json.loads((GOLDEN / "golden.json").read_text("utf-8"))["dot"]
    (tmp_path / "golden.json").write_text(json.dumps({"dot": {**known, key: ["another"]}}))
    monkeypatch.setattr(check_wheels, "GOLDEN", tmp_path)
    with pytest.raises(AssertionError, match=f"dot: {key} are "):
        check_wheels.golden()


def test_every_archive_is_tried_in_every_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], folder: Path | None = None) -> str:
        commands.append(command)
        if "build" in command:
            dist = Path(command[command.index("--outdir") + 1])
            dist.mkdir()
            for name in ("a.whl", "a.tar.gz"):
                (dist / name).touch()
        if "--probe" not in command:
            return ""
        assert folder is not None, "beside the sources Python might find them"
        assert "-I" in command
        if any(word.endswith("a.tar.gz") for word in commands[-2]):
            raise subprocess.CalledProcessError(1, command, stderr="first line\nlast line")
        return '{"golden": 8}'

    monkeypatch.setattr(check_wheels, "run", run)
    status = check_wheels.main(
        ["--python", "python3.11", "--python", "python3.12", "--torch", "2.6"]
    )
    told = capsys.readouterr().out
    assert status == 1
    assert told.count('a.whl: {"golden": 8}') == 2
    for python in ("python3.11", "python3.12"):
        assert f"FAILED {python}, torch 2.6:\n  first line\n  last line\n" in told
        assert [python, "-m", "venv", "--clear"] in [command[:4] for command in commands]
    assert sum("torch==2.6" in command for command in commands) == 4
