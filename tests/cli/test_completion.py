"""Completion: what is offered, asked as the three shells ask, and by a real bash, zsh and fish."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import get_completion_class

from diveqcodec.cli import main
from tests.support.commands import TINY
from tests.support.places import ROOT

SHELLS = ("bash", "zsh", "fish")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIVEQ_MODELS", str(TINY.parent))
    for name in ("a.dvq", "b.DVQ", "c.png", ".hidden.dvq", "sub/d.dvq", "sub/e.png", "dark/f.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()


def offered(line: str, shell: str = "bash") -> list[tuple[str, str]]:
    """What is offered at the end of a line: (value, type)."""
    words = shlex.split(line)
    incomplete = "" if line.endswith(" ") else words.pop()
    kind = get_completion_class(shell)
    assert kind is not None
    items = kind(main, {}, "diveq", "_DIVEQ_COMPLETE").get_completions(words[1:], incomplete)
    return [(item.value, item.type) for item in items]


def values(line: str) -> list[str]:
    found = offered(line)
    assert {kind for _, kind in found} <= {"plain"}
    return [value for value, _ in found]


def test_dvq_files_and_folders() -> None:
    assert values("diveq decompress ") == ["a.dvq", "b.DVQ", "dark/", "sub/"]
    assert values("diveq info a") == ["a.dvq"]
    assert values("diveq decompress a.dvq sub/") == ["sub/d.dvq"]
    assert values("diveq info .h") == [".hidden.dvq"]


@pytest.mark.parametrize(
    "line",
    [
        "diveq compress ",  # pictures have too many suffixes
        "diveq compress a -o x",
        "diveq decompress su",  # folders alone: the shell goes on into them without a space
        "diveq decompress dark/",
        "diveq decompress nowhere/",
        "diveq decompress '~/'",
        "diveq compress -m nothing",
    ],
)
def test_the_shell_completes_files_itself(line: str) -> None:
    assert [kind for _, kind in offered(line)] == ["file"]


def test_names_that_a_shell_would_quote_are_left_to_it() -> None:
    Path("two words.dvq").touch()
    assert [kind for _, kind in offered("diveq info ")] == ["file"]
    assert values("diveq info a") == ["a.dvq"]


def test_values_of_options() -> None:
    assert values("diveq compress -q ") == ["5", "20", "35", "50", "65", "80", "95"]
    assert values("diveq compress a.png --quality 5") == ["5", "50"]
    assert values("diveq compress --device c") == ["cpu", "cuda"]
    assert values("diveq compress -m ti") == ["tiny"]
    assert values("diveq compress --background w") == ["white"]
    assert values("diveq compress --metadata ") == ["none", "icc", "all"]
    assert "tiff" in values("diveq decompress --format t")
    assert "--target-psnr" in values("diveq compress --target")
    for quality in values("diveq compress -q "):
        assert 1 <= float(quality) <= 100


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_is_given_its_script_and_its_answers(shell: str) -> None:
    def ask(**variables: str) -> str:
        code = "from diveqcodec.cli import main; main(prog_name='diveq')"
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    if shell != "bash" or shutil.which("bash"):
        assert "_DIVEQ_COMPLETE" in ask(_DIVEQ_COMPLETE=f"{shell}_source")
    said = ask(
        _DIVEQ_COMPLETE=f"{shell}_complete",
        COMP_WORDS="diveq info a" if shell != "fish" else "diveq info",
        COMP_CWORD="2" if shell != "fish" else "a",
    )
    assert "a.dvq" in said
    assert "c.png" not in said


# The script is asked as the shell asks it: with what was typed, and a Tab.
DRIVERS = {
    "bash": "COMP_WORDS=(diveq info a); COMP_CWORD=2; _diveq_completion diveq; echo $COMPREPLY",
    "zsh": "compadd() print $completions; words=(diveq info a); CURRENT=3; _diveq_completion",
    "fish": "complete --do-complete 'diveq info a'",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_real_shell(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    command = tmp_path / "bin" / "diveq"
    command.parent.mkdir()
    code = "from diveqcodec.cli import main; main(prog_name='diveq')"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{code}" "$@"\n')
    command.chmod(0o755)
    load = f'eval "$(_DIVEQ_COMPLETE={shell}_source diveq)"'
    if shell == "fish":
        load = "_DIVEQ_COMPLETE=fish_source diveq | source"
    if shell == "zsh":
        load = f"autoload -U compinit && compinit -u -D; {load}"
    run = subprocess.run(
        [shell, "-c", f"{load}\n{DRIVERS[shell]}"],
        env={
            **os.environ,
            "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
    )
    assert run.stdout.split() == ["a.dvq"], run.stderr
