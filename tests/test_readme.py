"""The texts keep their word: commands, snippets, links, and names of files and of options.

`sh` blocks of the README and of docs/ are run, on drawn pictures, in order. Training is cut short:
two steps of the tiny model. A block is left alone if the line above it is `<!-- long-running -->`
or `<!-- not tested -->`, or if it holds other commands than `diveq`, and so is an indented block;
but the options of every `diveq` line must exist, also of one that `torchrun` starts, and so must
every goal of `make`.
"""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from diveqcodec.cli import main
from diveqcodec.cli.options import CONTEXT
from diveqcodec.train import loop
from diveqcodec.train.config import to_toml
from tests.support.commands import diveq, draw, install_tiny
from tests.support.places import PACKAGE, ROOT
from tests.support.tiny import tiny_config
from tests.support.training import draw_pictures, few_blocks

README = ROOT / "README.md"
TEXTS = (  # every one but those of other folders' own
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "models").glob("*.md")),
    ROOT / "sample_images" / "README.md",
)
SKIPPED = ("<!-- long-running -->", "<!-- not tested -->")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of commands, each a pipeline: lists of words by stage."""

    text: str
    line: int
    pipelines: tuple[tuple[tuple[str, ...], ...], ...]
    is_run: bool

    @property
    def commands(self) -> list[tuple[str, ...]]:
        stages = [stage for pipeline in self.pipelines for stage in pipeline]
        modules = [stage[stage.index("diveqcodec") :] for stage in stages if "diveqcodec" in stage]
        return [stage for stage in [*stages, *modules] if stage[0] in ("diveq", "diveqcodec")]

    @property
    def goals(self) -> list[str]:
        """What `make` is asked for."""
        return [stage[1] for pipeline in self.pipelines for stage in pipeline if stage[0] == "make"]


def parse(text: str, name: str = "") -> Iterator[Block]:
    """Blocks of `sh`, and indented ones that have a command of ours."""
    for match in re.finditer(r"(?m)^```sh\n(.*?)^```$", text, re.DOTALL):
        before = text[: match.start()]
        pipelines = pipelines_of(match[1])
        stages = [stage for pipeline in pipelines for stage in pipeline]
        is_ours = all(stage[0] == "diveq" for stage in stages)
        is_marked = before.rstrip("\n").endswith(SKIPPED)
        yield Block(name, before.count("\n") + 1, pipelines, is_ours and not is_marked)
    for match in re.finditer(r"(?m)(?<=\n\n)(?: {4}.*\n)+(?=\n|\Z)", text):
        if re.search(r"(?m)^ {4}(diveq |make )|-m diveqcodec ", match[0]):
            line = text[: match.start()].count("\n") + 1
            yield Block(name, line, pipelines_of(match[0]), is_run=False)


def pipelines_of(commands: str) -> tuple[tuple[tuple[str, ...], ...], ...]:
    lines = commands.replace("\\\n", " ").splitlines()
    found = (tuple(split(words)) for line in lines if (words := shlex.split(line, comments=True)))
    return tuple(found)


def split(words: list[str]) -> Iterator[tuple[str, ...]]:
    stage: list[str] = []
    for word in [*words, "|"]:
        if word == "|":
            yield tuple(stage)
            stage = []
        else:
            stage.append(word)


BLOCKS = [
    block
    for path in TEXTS
    for block in parse(path.read_text("utf-8"), path.relative_to(ROOT).as_posix())
]
COMMANDS = list(dict.fromkeys(command for block in BLOCKS for command in block.commands))
GOALS = list(dict.fromkeys(goal for block in BLOCKS for goal in block.goals))
RUN = list(dict.fromkeys(block.text for block in BLOCKS if block.is_run and block.commands))


def test_there_is_something_to_test() -> None:
    assert {"README.md", "docs/usage.md", "docs/training.md", "docs/evaluation.md"} <= set(RUN)
    run = {command[1] for block in BLOCKS if block.is_run for command in block.commands}
    assert set(main.commands) >= run >= {"compress", "decompress", "info", "train", "export"}
    assert {"demo", "test", "results", "results-table"} <= set(GOALS)
    assert any("--cluster" in command for command in COMMANDS)  # of an indented block


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize("goal", GOALS)
def test_every_goal_of_make_exists(goal: str) -> None:
    command = ["make", "-n", goal, *(["KODAK=DIR"] if goal == "results" else [])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"/(diveq|python|ruff|pytest) ", done.stdout) or goal == "install"


def cut_short(words: tuple[str, ...]) -> list[str]:
    """The same command; a new run makes two steps of the tiny model."""
    if words[1] != "train" or "--resume" in words:
        return list(words[1:])
    kept = list(words[1:])
    for option in {"--hours", "--steps"} & set(kept):
        place = kept.index(option)
        del kept[place : place + 2]
    return [*kept, "-c", "../tiny.toml", "--device", "cpu"]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_option_exists(words: tuple[str, ...]) -> None:
    command = main.commands[words[1]]
    # click keeps a command's help option as its first context has it, also for later tests
    names = CONTEXT["help_option_names"]
    with click.Context(main, info_name="diveq", help_option_names=names) as parent:
        command.make_context(words[1], list(words[2:]), parent=parent).close()


@pytest.mark.parametrize("text", RUN)
def test_the_commands_run(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_tiny(monkeypatch, tmp_path)
    monkeypatch.setattr(loop, "cosine_basis", few_blocks)
    (tmp_path / "tiny.toml").write_text(to_toml(tiny_config(steps=2)))
    work = tmp_path / "work"
    draw_pictures(work / "photos")
    for name in ("photo.png", "cat.png", "holiday/beach.jpg", "holiday/day2/hill.png"):
        draw(work / name)
    draw(work / "pictures" / "one.png", size=(64, 64))
    monkeypatch.chdir(work)
    for block in (block for block in BLOCKS if block.text == text):
        Path("cat.dvq").unlink(missing_ok=True)
        if any("cat.dvq" in words for words in block.commands):  # which the texts take for granted
            assert diveq("compress", "cat.png").exit_code == 0
        for pipeline in block.pipelines if block.is_run else ():
            data: bytes | None = None
            for stage in pipeline:
                result = diveq(*cut_short(stage), stdin=data)
                said = f"{text}:{block.line}: {' '.join(stage)}\n{result.stderr}"
                assert result.exit_code == 0, said
                data = result.stdout_bytes
    if text == "README.md":
        assert (work / "photo.dvq").exists()
        assert (work / "mine.safetensors").exists()


def test_marks_comments_pipes_and_foreign_commands_are_understood() -> None:
    text = (
        "Do:\n\n```sh\ndiveq info a.dvq   # what\n\ndiveq compress a -o - | diveq info -\n```\n"
        "<!-- long-running -->\n```sh\ndiveq eval x\n```\n\n```sh\nmake demo\n```\n"
        "```python\nimport x\n```\nAlso:\n\n    dask x\n    diveq info -\n\n    no command\n"
    )
    first, second, third, indented = parse(text)
    assert first.pipelines == (
        (("diveq", "info", "a.dvq"),),
        (("diveq", "compress", "a", "-o", "-"), ("diveq", "info", "-")),
    )
    assert (first.line, first.is_run, second.is_run, third.is_run) == (3, True, False, False)
    assert second.commands == [("diveq", "eval", "x")]
    assert third.goals == ["demo"]
    assert (indented.line, indented.is_run) == (21, False)
    assert indented.commands == [("diveq", "info", "-")]
    (training,) = parse("```sh\ntorchrun --x 2 -m diveqcodec train x -o y\n```\n")
    assert (training.is_run, training.commands) == (
        False,
        [("diveqcodec", "train", "x", "-o", "y")],
    )
    assert cut_short(("diveq", "train", "x", "--hours", "2", "-o", "y"))[:4] == [
        *("train", "x", "-o", "y")
    ]


SNIPPETS = [
    pytest.param(code, id=f"{path.stem}-{number}")
    for path in (README, ROOT / "docs" / "desktop.md")
    for number, code in enumerate(
        re.findall(r"^```python\n(.*?)^```$", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    )
    if "ImageFolder" not in code  # torchvision's, which need not be here
]


@pytest.mark.parametrize("code", SNIPPETS)
def test_the_snippets_run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_tiny(monkeypatch, tmp_path)
    draw(tmp_path / "cat.png")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert "cat2.png" not in code or (tmp_path / "cat2.png").exists()


LINKS = re.compile(r"\]\(([^)\s]+)\)")


def anchors(text: str) -> set[str]:
    """What GitHub calls the headings of a text."""
    headings = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(path: Path) -> None:
    for link in LINKS.findall(path.read_text("utf-8")):
        if "://" in link:
            continue
        name, _, heading = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not heading or heading in anchors(target.read_text("utf-8")), link


def test_the_readme_leads_to_every_text() -> None:
    """By however many steps; and fits on a page."""
    assert README.read_text("utf-8").count("\n") <= 150
    found, pending = {README}, [README]
    while pending:
        path = pending.pop()
        for link in LINKS.findall(path.read_text("utf-8")):
            target = (path.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.exists() and target not in found:
                found.add(target)
                pending.append(target)
    assert not set(TEXTS) - found - {ROOT / "CHANGELOG.md"}


def test_usage_names_every_option_of_coding() -> None:
    text = (ROOT / "docs" / "usage.md").read_text("utf-8")
    words = {word for code in re.findall(r"`([^`\n]+)`", text) for word in code.split()}
    for name in ("compress", "decompress"):
        options = {option for one in main.commands[name].params for option in one.opts}
        options -= {"inputs", "--help"}
        assert len(options) > 15
        assert not options - words, name


CONTRIBUTING = ROOT / "CONTRIBUTING.md"
TABLE = CONTRIBUTING.read_text("utf-8").partition("## Files\n")[2].partition("\n## ")[0]
NAMED = [
    name for row in TABLE.splitlines() for name in re.findall(r"`([^` ]+)`", row.split(" | ")[0])
]


def test_the_table_of_files_names_every_room() -> None:
    found = {path for name in NAMED for place in (ROOT, PACKAGE) for path in place.glob(name)}
    assert all(any(place.glob(name) for place in (ROOT, PACKAGE)) for name in NAMED)
    inside = {path for path in PACKAGE.iterdir() if not path.name.startswith("__")}
    around = {ROOT / name for name in ("models", "results", "docs", "scripts", "tests")}
    assert not {path.name for path in (inside | around) - found - {PACKAGE / "py.typed"}}


def test_contributing_names_files_that_are_there() -> None:
    text = CONTRIBUTING.read_text("utf-8")
    names = set(re.findall(r"`([\w/]+\.(?:py|md|txt|toml))`", text))
    assert len(names) > 10
    places = (ROOT, PACKAGE, ROOT / "tests")
    assert not [name for name in names if not any((place / name).exists() for place in places)]


def test_contributing_names_what_there_is_to_change() -> None:
    """Classes and functions of the chapter "Change it": each is in the package still."""
    text = CONTRIBUTING.read_text("utf-8").partition("## Change it\n")[2]
    names = set(re.findall(r"`([A-Za-z_.]+)`", text)) - {
        "quantizer.gradient",
        "quantize/__init__.py",
    }
    found = "\n".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py"))
    last = {name.split(".")[-1] for name in names if not name.endswith(".py")}
    assert last >= {"Gradient", "reconstruct", "PriorLayer"}
    assert not [
        name
        for name in last
        if not re.search(rf"(?m)^ *(class|def) {name}\b|^{name}\b.* = ", found)
    ]
