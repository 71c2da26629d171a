import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

from diveqcodec.evaluate.curves import read_curve
from diveqcodec.evaluate.resultfiles import read_results
from tests.support.commands import diveq, draw, errors, install_tiny, opened
from tests.support.learned import ARCHITECTURE, save_checkpoint, with_compressai
from tests.support.places import ROOT
from tests.support.tiffs import page, raw_like, tiff


@pytest.fixture(autouse=True)
def _sandbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install_tiny(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    draw(Path("set/a.png"), size=(40, 24))
    draw(Path("set/sub/b.png"), size=(33, 35))
    Path("set/notes.txt").write_text("not a picture")


def test_results_as_table_json_csv_plot_and_pictures() -> None:
    files = ("-o", "r.json", "--csv", "r.csv", "--plot", "r.png", "--save-images", "decoded")
    result = diveq("eval", "set", "-q", "20,60,90", "--anchor", "jpeg", "--parts", *files)
    assert result.exit_code == 0, result.output
    assert "slice 1 bpp" in result.stdout
    assert "diveq-5: 2 pictures" in result.stdout
    assert "jpeg: 2 pictures" in result.stdout
    assert "BD-rate" in result.stdout

    content = json.loads(Path("r.json").read_text())
    assert content["images"] == ["a.png", "sub/b.png"]
    assert content["qualities"] == [20, 60, 90]
    diveq("compress", "set/a.png", "-q", 60, "-o", "a.dvq")
    row = content["rows"][1]
    assert row["bytes"] == Path("a.dvq").stat().st_size
    assert sum(row["parts"].values()) == 8 * row["bytes"]
    assert read_curve(Path("r.jpeg.json")).name == "jpeg"

    with Path("r.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert {len(row) for row in rows} == {len(head)}
    assert [row[0] for row in rows].count("diveq-5") == 6
    assert rows[-1][0] == "jpeg"
    assert opened("r.png").width > 500
    decoded = sorted(str(path) for path in Path("decoded").rglob("*.png"))
    assert decoded[0] == "decoded/a.png.q20.png"
    assert len(decoded) == 6


def test_no_preview_is_measured() -> None:
    """A camera's raw file is an error with its remedy; the full page of a TIFF is taken."""
    full, preview = np.asarray(opened("set/a.png")), np.asarray(opened("set/sub/b.png"))
    Path("more").mkdir()
    Path("more/raw.dng").write_bytes(tiff([raw_like(preview)]))
    Path("more/scan.tif").write_bytes(tiff([page(preview, 2, t254=1), page(full, 2)]))
    Path("more/same.png").write_bytes(Path("set/a.png").read_bytes())
    result = diveq("eval", "more", "-q", "20,90", "-o", "r.json")
    assert result.exit_code == 1
    assert errors(result) == [
        "Error: more/raw.dng: a camera's raw file (EXAMPLE), not developed; "
        "make a TIFF or PNG of it first, such as with rawpy"
    ]
    rows = json.loads(Path("r.json").read_text())["rows"]
    assert [row["image"] for row in rows] == ["same.png"] * 2 + ["scan.tif"] * 2
    keys = ("width", "height", "bytes", "psnr_rgb")
    same, scan = ([[row[key] for key in keys] for row in part] for part in (rows[:2], rows[2:]))
    assert same == scan


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8")
def test_names_that_are_not_utf8_are_in_every_file_of_results() -> None:
    name = os.fsdecode(b"caf\xe9.png")
    Path("set/a.png").rename(Path("set", name))
    files = ("-o", "r.json", "--csv", "r.csv", "--html", "r.html", "--resume", "journal")
    for _ in range(2):  # the second time from the journal
        result = diveq("eval", "set", "-q", "20", *files, "-f")
        assert result.exit_code == 0, result.output
    found = read_results(Path("r.json"))
    assert found is not None
    assert set(found.images) == {name, "sub/b.png"}
    assert b"caf\xe9.png" in Path("r.csv").read_bytes()
    assert "caf\\udce9.png" in Path("r.html").read_text("utf-8")


def test_one_picture_needs_no_folder() -> None:
    result = diveq("eval", "set/a.png", "-q", "50")
    assert result.exit_code == 0
    assert "diveq-5: 1 picture\n" in result.stdout
    assert not Path("set/a.dvq").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("-q", "20,high"),
        ("-q", "0"),
        ("--anchor", "nonsuch"),
        ("--anchor", "avif:speed=11"),
        ("--anchor", "jpeg:speed=1"),
        ("--anchor", "webp:method=" + "1" * 5000),
        ("--anchor", "webp:method=\u0663"),
        ("-e", "high"),
        ("-e", "1" * 5000),
        ("-q", "1" * 5000),
        ("-e", "4"),
        ("--jobs", "0"),
        ("--plot", "r.gif"),
        ("--range", "9,2"),
        ("--range", "9,inf"),
        ("--range", "nan,9"),
        ("-q", "20,nan"),
        ("-m", "nonsuch"),
        ("--baseline", "mbt2018"),
        ("--baseline", "mbt2018=set/a.png"),
        ("--baseline", "mbt2018:=set/a.png"),
        ("--baseline", "mbt2018:high=set/a.png"),
        ("--baseline", "mbt2018:-1=set/a.png"),
        ("--baseline", "mbt2018:65536=set/a.png"),
        ("--baseline", f"mbt2018:{'1' * 5000}=set/a.png"),
    ],
)
def test_wrong_usage_is_seen_before_any_work(arguments: tuple[str, ...]) -> None:
    result = diveq("eval", "set", *arguments)
    assert result.exit_code == 2
    assert arguments[-1] in errors(result)[0]


def test_published_curves_and_files_are_anchors_too() -> None:
    first = diveq("eval", "set/a.png", "-q", "20,60,90", "-o", "r.json")
    assert first.exit_code == 0
    assert json.loads(Path("r.json").read_text())["rows"][0]["parts"] == {}
    result = diveq(
        "eval",
        "set/a.png",
        "-q",
        "20,60,90",
        "--curve",
        "vtm",
        "--curve",
        "r.json",
        "--range",
        "1,2",
    )
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert any(line.startswith("vtm ") and "1" in line and "2" in line for line in lines)
    assert any(line.startswith("diveq-5 ") for line in lines)
    itself = diveq("eval", "set/a.png", "-q", "20,60,90", "--curve", "r.json")
    assert "+0.0 %" in itself.stdout.replace("-0.0 %", "+0.0 %")


def test_unknown_curve_names_the_known_ones() -> None:
    result = diveq("eval", "set/a.png", "-q", "50", "--curve", "vtn")
    assert result.exit_code == 1
    assert errors(result)[0].startswith("Error: vtn: no such file or curve; there are: ")
    assert "vtm" in errors(result)[0]


def test_published_curves_are_told_from_measured_codecs() -> None:
    diveq("eval", "set", "-q", "20,60,90", "-o", "r.json")
    others = ("--anchor", "webp", "--curve", "webp", "--curve", "r.json")
    result = diveq("eval", "set", "-q", "20,60,90", *others, "--plot", "r.svg")
    assert result.exit_code == 0, result.output
    names = {"webp", "webp (published)", "diveq-5 (r.json)"}
    assert "Note: webp (published): is of Kodak's 24 pictures" in result.stderr
    table = result.stdout[result.stdout.index("anchor ") :].splitlines()[1:4]
    assert {line.partition("  ")[0] for line in table} == names
    text = Path("r.svg").read_text("utf-8")
    assert "PSNR-RGB (dB)" in text
    assert all(f">{name}</text>" in text for name in names | {"diveq-5"})


@with_compressai
def test_learned_baselines_are_measured_like_anchors() -> None:
    weights = [save_checkpoint(Path(f"w{seed}.pth.tar"), seed) for seed in (3, 4)]
    baselines = [
        f"--baseline={ARCHITECTURE}:{q}={path}" for q, path in zip((5, 2), weights, strict=True)
    ]
    outputs = ("-o", "r.json", "--csv", "r.csv", "--plot", "r.svg")
    others = ("--anchor", "jpeg", *baselines)
    result = diveq("eval", "set", "-q", "20,60,90", *others, *outputs)
    assert result.exit_code == 0, result.output
    assert f"{ARCHITECTURE}: 2 pictures\n" in result.stdout
    table = result.stdout[result.stdout.index("anchor ") :].splitlines()[1:3]
    assert [line.split()[0] for line in table] == ["jpeg", ARCHITECTURE]
    content = json.loads(Path(f"r.{ARCHITECTURE}.json").read_text())
    assert content["name"] == ARCHITECTURE
    assert content["qualities"] == [2, 5]
    assert len(content["results"]["bpp"]) == 2
    assert len({row["psnr_rgb"] for row in content["rows"]}) == 4  # two pictures, two networks
    assert [line.split(",")[0] for line in Path("r.csv").read_text().splitlines()].count(
        ARCHITECTURE
    ) == 4
    assert f"Note: {ARCHITECTURE}: not in the plot" in result.stderr  # the networks are random
    assert Path("r.svg").exists()


@with_compressai
def test_baselines_that_are_wrong() -> None:
    save_checkpoint(Path("w.pth"))
    Path("text.pth").write_text("not weights")
    for values, status, message in (
        (["nonsuch:3=w.pth"], 2, "Error: --baseline nonsuch: CompressAI has no such model; it has"),
        (["mbt2018:3=no.pth"], 2, "no.pth: no such file"),
        (["mbt2018:3=w.pth"] * 2, 2, "mbt2018:3: given twice; give every quality once"),
        ([f"{ARCHITECTURE}:3=text.pth"], 1, "Error: text.pth: not a checkpoint of"),
    ):
        result = diveq("eval", "set", *(f"--baseline={value}" for value in values))
        assert result.exit_code == status, result.output
        (line,) = errors(result)
        assert message in line
        assert result.stdout == ""


def test_existing_results_of_a_baseline_are_refused() -> None:
    Path("r.mbt2018.json").write_text("precious")
    result = diveq("eval", "nope", "-o", "r.json", "--baseline", "mbt2018:1=set/a.png")
    assert errors(result) == ["Error: r.mbt2018.json: already exists; use -f to overwrite"]


def test_a_bad_picture_is_named_and_left_out_of_everything() -> None:
    shutil.copytree("set", "good")
    Path("set/c.png").write_bytes(Path("good/a.png").read_bytes()[:-60])
    draw(Path("set/wide.png"), size=(16400, 1))  # beyond what WebP can have, but not us
    files = ("--anchor", "webp", "--csv", "r.csv", "-f", "-o", "r.json", "-q", "20,90")
    result = diveq("eval", "set", *files)
    assert result.exit_code == 1
    assert [":".join(line.split(":")[1:4]) for line in errors(result)] == [
        " set/c.png: cannot be decoded (image file is truncated)",
        " set/wide.png: webp: cannot code this picture",
    ]
    assert "Note: 2 of 4 pictures left out for every codec" in result.stderr
    assert "diveq-5: 2 pictures" in result.stdout
    assert "webp: 2 pictures" in result.stdout
    found = {name: json.loads(Path(name).read_text()) for name in ("r.json", "r.webp.json")}
    assert "wide" not in Path("r.csv").read_text()
    assert diveq("eval", "good", *files).exit_code == 0
    for name, content in found.items():  # as if the bad ones had never been there
        expected = json.loads(Path(name).read_text())
        assert content["images"] == expected["images"] == ["a.png", "sub/b.png"]
        for key in ("bpp", "psnr-rgb"):
            assert content["results"][key] == expected["results"][key]


def test_missing_and_empty_data() -> None:
    Path("empty").mkdir()
    for name, message in (
        ("nope", "Error: nope: no such file or folder"),
        ("empty", "Error: empty: contains no pictures"),
        ("set/notes.txt", "Error: set/notes.txt: not an image that Pillow can read"),
    ):
        result = diveq("eval", name, "-q", "50")
        assert result.exit_code == 1
        assert errors(result) == [message]


def test_existing_results_are_refused_before_any_work() -> None:
    Path("r.webp.json").write_text("precious")
    result = diveq("eval", "nope", "-o", "r.json", "--anchor", "webp")
    assert errors(result) == ["Error: r.webp.json: already exists; use -f to overwrite"]
    assert Path("r.webp.json").read_text() == "precious"


def test_only_what_the_installation_brings_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """MS-SSIM and BD-rates too: those libraries are only oracles of tests."""
    for name in ("compressai", "pytorch_msssim", "scipy", "torchvision"):
        for module in [name, *(one for one in sys.modules if one.startswith(f"{name}."))]:
            monkeypatch.setitem(sys.modules, module, None)
    draw(Path("wide/a.png"), size=(168, 170))
    result = diveq(
        *("eval", "wide", "-q", "20,60,90", "--anchor", "webp", "--curve", "vtm"),
        *("--plot", "rd.png", "-o", "r.json"),
    )
    assert (result.exit_code, errors(result)) == (0, []), result.output
    assert all(
        0 < value < 1 for value in json.loads(Path("r.json").read_text())["results"]["ms-ssim-rgb"]
    )
    assert opened("rd.png").width > 500


def test_efforts_are_codecs_of_their_own() -> None:
    outputs = ("-o", "r.json", "--save-images", "decoded")
    result = diveq("eval", "set", "-q", "20,90", "-e", "1,5", *outputs)
    assert result.exit_code == 0, result.output
    assert "diveq-5-e1: bits needed" in result.stdout
    assert "diveq-5-e5: bits needed" in result.stdout
    names = ("r.json", "r.diveq-5-e5.json")
    fast, usual = (json.loads(Path(name).read_text()) for name in names)
    assert (fast["name"], usual["name"]) == ("diveq-5-e1", "diveq-5-e5")
    assert "effort 1" in fast["description"]
    for content, effort in ((fast, 1), (usual, 5)):
        diveq("compress", "set/a.png", "-q", 20, "-e", effort, "-o", "a.dvq", "-f")
        assert content["rows"][0]["bytes"] == Path("a.dvq").stat().st_size
    assert Path("decoded/e1/a.png.q20.png").exists()
    assert Path("decoded/e5/a.png.q20.png").exists()
    refused = diveq("eval", "set", "-q", "20", "-e", "1,5", "-o", "r.json")
    assert errors(refused) == ["Error: r.json: already exists; use -f to overwrite"]
    Path("r.json").unlink()
    refused = diveq("eval", "set", "-q", "20", "-e", "1,5", "-o", "r.json")
    assert errors(refused) == ["Error: r.diveq-5-e5.json: already exists; use -f to overwrite"]
    alone = diveq("eval", "set/a.png", "-q", "20")
    assert "diveq-5: 1 picture\n" in alone.stdout


def test_an_effort_that_the_weights_do_not_have() -> None:
    for effort, text in (("8", "-e effort 8: use one of 1, 3, 5, 7, 9"), ("9", "use -e 5")):
        refused = diveq("eval", "set", "-q", "20", "-e", effort)
        assert refused.exit_code != 0
        assert text in refused.stderr
        assert len(errors(refused)) == 1


def test_anchors_with_settings() -> None:
    result = diveq(
        *("eval", "set/a.png", "-q", "20,90", "-o", "r.json"),
        *("--anchor", "webp:method=0", "--anchor", "webp", "--anchor", "webp:method=6"),
    )
    assert result.exit_code == 0, result.output
    assert [path.name for path in sorted(Path().glob("r*.json"))] == [
        "r.json",
        "r.webp-method0.json",
        "r.webp.json",
    ]
    assert "method 0" in json.loads(Path("r.webp-method0.json").read_text())["description"]


def test_what_the_readme_installs_is_enough() -> None:
    """Nothing that only the extras bring is asked for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    core = {Requirement(text).name for text in project["dependencies"]}
    lists = project["optional-dependencies"].values()
    extras = {Requirement(text).name for some in lists for text in some}
    names = sorted(name.replace("-", "_") for name in extras - core)
    assert {"compressai", "pytorch_msssim", "scipy"} <= set(names)
    options = ["-q", "20,90", "--anchor", "webp", "--curve", "vtm"]
    options += ["--plot", "rd.png", "--html", "r.html"]
    code = (
        "import sys\n"
        f"for name in {names}: sys.modules[name] = None\n"  # importing one is an ImportError
        "from diveqcodec.cli import main\n"
        f"main({['eval', 'set/a.png', *options]})\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (run.returncode, "Error" in run.stderr) == (0, False), run.stderr
    assert "BD-rate" in run.stdout
    assert Path("rd.png").exists()
    assert Path("r.html").exists()


def test_what_is_missing_is_said_once_and_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, options in (
        ("pillow_jxl", ("--anchor", "jxl")),
        ("matplotlib.figure", ("--plot", "rd.png")),
        ("matplotlib.figure", ("--html", "r.html")),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            result = diveq("eval", "set", "-q", "50", *options)
        assert result.exit_code == 1
        assert result.stdout == ""
        (line,) = errors(result)
        assert line.startswith(f"Error: {module}: not installed; install it with: pip install ")


def test_a_run_goes_on_from_its_journal() -> None:
    first = diveq("eval", "set", "-q", "20,90", "--resume", "j.jsonl", "-o", "r.json")
    assert first.exit_code == 0, first.output
    draw(Path("set/c.png"))
    again = diveq("eval", "set", "-q", "20,90", "--resume", "j.jsonl", "-o", "again.json")
    assert "Note: 4 rows are known from an earlier run" in again.stderr
    found, old = (json.loads(Path(name).read_text()) for name in ("again.json", "r.json"))
    assert found["images"] == ["a.png", "c.png", "sub/b.png"]
    assert [row for row in found["rows"] if row["image"] != "c.png"] == old["rows"]
    Path("j.jsonl").write_text("something else")
    refused = diveq("eval", "set", "-q", "20", "--resume", "j.jsonl")
    assert errors(refused) == ["Error: j.jsonl: is no journal of diveq eval; name another file"]
    assert Path("j.jsonl").read_text() == "something else"


def test_parts_are_those_of_all_pictures_whatever_the_journal_has() -> None:
    command = ("eval", "set", "-q", "20")
    assert diveq("eval", "set/a.png", "-q", "20", "--resume", "j.jsonl").exit_code == 0
    mixed = diveq(*command, "--parts", "--resume", "j.jsonl", "-o", "mixed.json")
    assert diveq(*command, "--parts", "-o", "whole.json").exit_code == 0
    found, whole = (json.loads(Path(f"{name}.json").read_text()) for name in ("mixed", "whole"))
    assert all(row["parts"] for row in found["rows"])
    assert [row["parts"] for row in found["rows"]] == [row["parts"] for row in whole["rows"]]
    assert "slice 1 bpp" in mixed.stdout
    assert "slice 1 bpp" not in diveq(*command, "--resume", "j.jsonl").stdout


@pytest.mark.slow
@with_compressai
def test_rows_of_other_weights_are_not_taken_from_a_journal() -> None:
    for seed, rows in ((3, 4), (4, 6)):  # the second time ours are known, theirs are not
        weights = save_checkpoint(Path("w.pth.tar"), seed)
        baseline = ("--baseline", f"{ARCHITECTURE}:3={weights}")
        result = diveq("eval", "set", "-q", "20", *baseline, "--resume", "j.jsonl")
        assert result.exit_code == 0, result.output
        assert len(Path("j.jsonl").read_text().splitlines()) == 1 + rows


def test_a_decoded_picture_that_is_not_whole_is_made_again() -> None:
    command = ("eval", "set", "-q", "20", "--resume", "j.jsonl", "--save-images", "decoded")
    assert diveq(*command, "-o", "r.json").exit_code == 0
    journal = Path("j.jsonl").read_bytes()
    # as a machine that goes down may leave them: half a picture, half a line
    cut, kept = Path("decoded/a.png.q20.png"), Path("decoded/sub/b.png.q20.png")
    whole, inode = cut.read_bytes(), kept.stat().st_ino
    cut.write_bytes(whole[: len(whole) // 2])
    Path("j.jsonl").write_bytes(journal + bytes(64))
    assert diveq(*command, "-o", "again.json").exit_code == 0
    assert cut.read_bytes() == whole
    assert kept.stat().st_ino == inode
    assert Path("j.jsonl").read_bytes().startswith(journal)
    assert b"\0" not in Path("j.jsonl").read_bytes()
    assert sorted(path.name for path in Path("decoded").iterdir()) == ["a.png.q20.png", "sub"]


@pytest.mark.slow
def test_jobs_find_the_same_as_one_process() -> None:
    for jobs in (1, 2):
        others = ("--anchor", "webp", "-j", jobs, "-o", f"{jobs}.json")
        assert diveq("eval", "set", "-q", "20,90", *others).exit_code == 0
    for name in ("{}.json", "{}.webp.json"):
        alone, together = (json.loads(Path(name.format(jobs)).read_text()) for jobs in (1, 2))
        for key in ("bpp", "psnr-rgb"):
            assert alone["results"][key] == together["results"][key]
        assert alone["images"] == together["images"]


def test_results_of_other_pictures_are_named() -> None:
    diveq("eval", "set/a.png", "-q", "20,90", "-o", "r.json")
    result = diveq("eval", "set", "-q", "20,90", "--curve", "r.json")
    assert "Note: diveq-5 (r.json): was not measured on the same pictures" in result.stderr


def test_medians_and_wins_are_in_the_table() -> None:
    """Beside a curve that needs twice the bits of one picture and 0.8 times those of the other."""
    diveq("eval", "set", "-q", "20,60,90", "-o", "r.json")
    content = json.loads(Path("r.json").read_text())
    for row in content["rows"]:
        row["bytes"] = row["bytes"] * {"a.png": 10, "sub/b.png": 4}[row["image"]] // 5
        row["bpp"] = 8 * row["bytes"] / (row["width"] * row["height"])
    Path("r.json").write_text(json.dumps(content))
    result = diveq("eval", "set", "-q", "20,60,90", "--curve", "r.json")
    head, line = result.stdout.splitlines()[-3:-1]  # a note on MS-SSIM is last
    assert re.split(r"  +", head)[3:5] == ["median", "won"]
    cells = re.split(r"  +", line)
    assert cells[0] == "diveq-5 (r.json)"
    assert float(cells[3].removesuffix(" %")) == pytest.approx((-50 + 25) / 2, abs=0.5)
    assert cells[4:] == ["1 of 2", "-", "-", "-"]
    assert "no MS-SSIM: 2 of 2 pictures with a side below 161 pixels (a.png, sub/b.png)" in (
        result.stdout
    )
