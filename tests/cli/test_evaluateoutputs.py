"""What `diveq eval` is to write: no output destroys another one, or what is read."""

import os
from pathlib import Path

import pytest

from tests.support.commands import diveq, draw, errors, install_tiny


@pytest.fixture(autouse=True)
def _sandbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install_tiny(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    draw(Path("set/a.png"), size=(40, 24))


@pytest.mark.parametrize(
    ("options", "name", "first", "second"),
    [
        (("-o", "X", "--resume", "X"), "X", "-o", "--resume"),
        (("-o", "X", "--csv", "./X"), "X", "-o", "--csv"),
        (("--csv", "X.png", "--plot", "X.png"), "X.png", "--csv", "--plot"),
        (("--html", "new/X", "--csv", "new/../new/X"), "new/X", "--csv", "--html"),
        (("--anchor=webp", "-o", "r", "--csv", "r.webp"), "r.webp", "-o", "--csv"),
        (("-e1,5", "-o", "r", "--resume", "r.diveq-5-e5"), "r.diveq-5-e5", "-o", "--resume"),
        (("--csv", "link", "--resume", "X"), "X", "--csv", "--resume"),
        (("--csv", "hard", "--html", "journal"), "journal", "--csv", "--html"),
        (("--csv", "hard", "--resume", "journal"), "journal", "--csv", "--resume"),
    ],
)
def test_two_outputs_are_two_files(
    options: tuple[str, ...], name: str, first: str, second: str
) -> None:
    os.symlink("X", "link")
    Path("journal").write_text('{"journal": "diveq eval", "version": 1}\n')
    os.link("journal", "hard")
    before = Path("journal").read_bytes()
    result = diveq("eval", "set", "-q", "20", "-f", *options)
    assert result.exit_code == 2
    assert errors(result) == [
        f"Error: {second}: {name} is written by {first} too; name another file"
    ]
    assert Path("journal").read_bytes() == before
    assert not Path("X").exists()
    assert result.stdout == ""


def test_what_takes_everything_may_be_named_twice() -> None:
    result = diveq("eval", "set", "-q", "20", "--csv", os.devnull, "-o", os.devnull)
    assert result.exit_code == 0, result.output


def test_no_output_is_an_input() -> None:
    assert diveq("eval", "set", "-q", "20,90", "-o", "r.json").exit_code == 0
    weights = next(Path("models-for-tests").iterdir())
    os.symlink("set/a.png", "link.png")
    for option, name in (
        ("-o", "set/a.png"),
        ("--csv", "link.png"),
        ("--html", "r.json"),
        ("--csv", str(weights)),
    ):
        before = Path(name).read_bytes()
        others = ("--curve", "r.json", "--curve", "vtm")
        result = diveq("eval", "set", "-q", "20,90", "-f", *others, option, name)
        assert result.exit_code == 1
        assert errors(result) == [
            f"Error: {name}: is an input itself; name another output with {option}"
        ]
        assert Path(name).read_bytes() == before


def test_no_decoded_picture_takes_the_place_of_an_input() -> None:
    before = draw(Path("set/a.png.q20.png")).read_bytes()
    result = diveq("eval", "set", "-q", "20", "--save-images", "set/../set")
    assert errors(result) == [
        "Error: set/../set/a.png.q20.png: is an input itself; "
        "name another folder with --save-images"
    ]
    assert Path("set/a.png.q20.png").read_bytes() == before
    assert diveq("eval", "set", "-q", "30", "--save-images", "set").exit_code == 0
