"""What the user meets first: help, version, completion; at once, and so without torch."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from diveqcodec.cli import main
from tests.support.commands import TINY, diveq
from tests.support.places import ROOT

COMMANDS = (
    "compress",
    "decompress",
    "info",
    "models",
    "train",
    "export",
    "eval",
    "thumbnail",
    "desktop",
)
HEAVY = ("torch", "numpy", "PIL", "scipy", "matplotlib", "compressai", "tqdm")


def loaded_by(*commands: str, **environment: str) -> tuple[str, set[str]]:
    """What commands print in one new process, and which heavy modules that has loaded then."""
    code = (
        "import shlex, sys\nfrom diveqcodec.cli import main\n"
        "for line in sys.argv[1:]:\n"
        "    try: main(shlex.split(line), prog_name='diveq')\n"
        "    except SystemExit as end: assert not end.code, line\n"
        f"print('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *commands],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
    )
    assert done.stderr == ""
    said, _, loaded = done.stdout.rpartition("LOADED")
    return said, set(loaded.split())


def test_help_lists_the_commands_and_loads_nothing() -> None:
    said, loaded = loaded_by("--help")
    assert all(f"\n  {name} " in said for name in COMMANDS)
    assert loaded == set()


def test_completion_loads_nothing() -> None:
    environment = {
        "_DIVEQ_COMPLETE": "bash_complete",
        "COMP_WORDS": "diveq comp",
        "COMP_CWORD": "1",
    }
    said, loaded = loaded_by("", **environment)
    assert said.split() == ["plain,compress"]
    assert loaded == set()


def test_completion_of_model_names_loads_no_torch() -> None:
    environment = {
        "_DIVEQ_COMPLETE": "bash_complete",
        "COMP_WORDS": "diveq compress -m ti",
        "COMP_CWORD": "3",
        "DIVEQ_MODELS": str(TINY.parent),
    }
    said, loaded = loaded_by("", **environment)
    assert said.split() == ["plain,tiny"]
    assert "torch" not in loaded


def test_info_and_models_load_no_torch() -> None:
    file = shlex.quote(str(TINY.parent / "grey.dvq"))
    said, loaded = loaded_by(f"info {file}", "models", DIVEQ_MODELS=str(TINY.parent))
    assert "grey.dvq   " in said
    assert "(tiny)" in said
    assert "  tiny " in said
    assert not {"torch", "PIL"} & loaded


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    short, long = diveq(name, "-h"), diveq(name, "--help")
    assert short.exit_code == 0
    assert short.stdout == long.stdout
    assert "--quiet" in short.stdout
    command = main.commands[name]
    assert command.short_help
    assert all(getattr(option, "help", "") != "" for option in command.params)


def test_version() -> None:
    result = diveq("-V")
    assert result.exit_code == 0
    assert result.stdout.startswith("diveq, version ")


def test_an_unknown_command_is_wrong_usage() -> None:
    assert diveq("squeeze").exit_code == 2
    assert diveq("compress").exit_code == 2
    assert diveq("compress", "a.png", "--crop", "0,0,1,1").exit_code == 2


def test_compress_and_decompress_load_neither_plots_nor_baselines(tmp_path: Path) -> None:
    picture, file = ROOT / "sample_images" / "cat.png", tmp_path / "cat.dvq"
    said, loaded = loaded_by(
        shlex.join(["compress", str(picture), "-o", str(file), "-m", "tiny", "--quiet"]),
        shlex.join(["decompress", str(file), "--quiet"]),
        DIVEQ_MODELS=str(TINY.parent),
    )
    assert said == ""
    assert file.with_suffix(".png").exists()
    assert loaded <= {"torch", "numpy", "PIL", "tqdm"}  # torch may bring tqdm
