"""The README's commands do what it says: its `sh` blocks are run, on drawn pictures, in order.

A block is left alone if the line above it is `<!-- long-running -->` or `<!-- not tested -->`, or
if it trains or holds other commands than `diveq`; but the options of every `diveq` line must exist.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from diveqcodec.cli import main
from tests.support.commands import diveq, draw, install_tiny
from tests.support.places import ROOT

README = ROOT / "README.md"
SKIPPED = ("<!-- long-running -->", "<!-- not tested -->")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of commands, each a pipeline: lists of words by stage."""

    line: int
    pipelines: tuple[tuple[tuple[str, ...], ...], ...]
    is_run: bool

    @property
    def commands(self) -> list[tuple[str, ...]]:
        return [stage for pipeline in self.pipelines for stage in pipeline if stage[0] == "diveq"]


def parse(text: str) -> Iterator[Block]:
    for match in re.finditer(r"(?m)^```sh\n(.*?)^```$", text, re.DOTALL):
        before = text[: match.start()]
        commands = match[1].replace("\\\n", " ").splitlines()
        pipelines = []
        for command in commands:
            words = shlex.split(command, comments=True)
            if words:
                pipelines.append(tuple(split(words)))
        stages = [stage for pipeline in pipelines for stage in pipeline]
        is_quick = all(stage[0] == "diveq" and stage[1] != "train" for stage in stages)
        is_marked = before.rstrip("\n").endswith(SKIPPED)
        yield Block(before.count("\n") + 1, tuple(pipelines), is_quick and not is_marked)


def split(words: list[str]) -> Iterator[tuple[str, ...]]:
    stage: list[str] = []
    for word in [*words, "|"]:
        if word == "|":
            yield tuple(stage)
            stage = []
        else:
            stage.append(word)


BLOCKS = list(parse(README.read_text("utf-8")))
COMMANDS = [command for block in BLOCKS for command in block.commands]


def test_there_is_something_to_test() -> None:
    run = {command[1] for block in BLOCKS if block.is_run for command in block.commands}
    assert {"compress", "decompress", "info"} <= run


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_option_exists(words: tuple[str, ...]) -> None:
    command = main.commands[words[1]]
    with click.Context(main, info_name="diveq") as parent:
        command.make_context(words[1], list(words[2:]), parent=parent).close()


def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_tiny(monkeypatch, tmp_path)
    work = tmp_path / "work"
    for name in ("photo.png", "cat.png", "holiday/beach.jpg", "holiday/day2/hill.png"):
        draw(work / name)
    draw(work / "pictures" / "one.png", size=(64, 64))
    monkeypatch.chdir(work)
    assert diveq("compress", "cat.png").exit_code == 0  # files that the README takes for granted
    for block in BLOCKS:
        for pipeline in block.pipelines if block.is_run else ():
            data: bytes | None = None
            for stage in pipeline:
                result = diveq(*stage[1:], stdin=data)
                said = f"README.md:{block.line}: {' '.join(stage)}\n{result.stderr}"
                assert result.exit_code == 0, said
                data = result.stdout_bytes
    assert (work / "photo.dvq").exists()


def test_marks_comments_pipes_and_foreign_commands_are_understood() -> None:
    text = (
        "Do:\n\n```sh\ndiveq info a.dvq   # what\n\ndiveq compress a -o - | diveq info -\n```\n"
        "<!-- long-running -->\n```sh\ndiveq eval x\n```\n\n```sh\nmake demo\n```\n"
        "```python\nimport x\n```\n"
    )
    first, second, third = parse(text)
    assert first.pipelines == (
        (("diveq", "info", "a.dvq"),),
        (("diveq", "compress", "a", "-o", "-"), ("diveq", "info", "-")),
    )
    assert (first.line, first.is_run, second.is_run, third.is_run) == (3, True, False, False)
    assert second.commands == [("diveq", "eval", "x")]
    (training,) = parse("```sh\ndiveq train x\n```\n")
    assert not training.is_run


PYTHON = re.findall(r"^```python\n(.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_the_snippets_run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_tiny(monkeypatch, tmp_path)
    draw(tmp_path / "cat.png")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert "cat2.png" not in code or (tmp_path / "cat2.png").exists()
