import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from diveqcodec import codec
from diveqcodec.cli import compress
from diveqcodec.codec import Codec
from diveqcodec.container import bitstream
from diveqcodec.image import Picture, load
from diveqcodec.quality import DEFAULT_QUALITY
from tests.support.commands import diveq, draw, errors, opened
from tests.support.profiles import ADOBE_RGB

pytestmark = pytest.mark.usefixtures("models")


def test_compress_and_decompress_a_picture() -> None:
    draw(Path("photo.png"), size=(48, 32))
    result = diveq("compress", "photo.png", "-q", 90)
    assert (result.exit_code, result.stdout) == (0, "")
    size = Path("photo.dvq").stat().st_size
    (line,) = result.stderr.splitlines()
    start, width_height, size_text, bpp, ratio, seconds = line.split("   ")
    assert start == "photo.png -> photo.dvq"
    assert width_height == "48x32"
    assert size_text == f"{size:,} B"
    assert bpp == f"{8 * size / (48 * 32):.3f} bpp"
    assert ratio == f"{48 * 32 * 3 / size:.0f}:1"
    assert seconds.endswith(" s")

    assert diveq("decompress", "photo.dvq", "-o", "back.png").exit_code == 0
    original = np.asarray(opened("photo.png"), dtype=float)
    decoded = np.asarray(opened("back.png"), dtype=float)
    assert decoded.shape == original.shape
    assert np.square(original - decoded).mean() < np.square(original - original.mean()).mean() / 4


def test_the_library_writes_the_same_bytes(tmp_path: Path) -> None:
    from diveqcodec import image, zoo

    draw(Path("photo.png"))
    diveq("compress", "photo.png", "-q", 33, "-e", 1)
    expected = Codec(zoo.load()).compress(image.load("photo.png"), 33, 1)
    assert Path("photo.dvq").read_bytes() == expected


def test_quality_and_effort_change_the_file() -> None:
    draw(Path("photo.png"), size=(96, 96))
    sizes = {}
    for name, arguments in {"a": ("-q", 20), "b": ("-q", 80), "c": ("-q", 80, "-e", 1)}.items():
        assert diveq("compress", "photo.png", "-o", f"{name}.dvq", *arguments).exit_code == 0
        sizes[name] = Path(f"{name}.dvq").read_bytes()
    assert len(sizes["a"]) < len(sizes["b"])
    assert sizes["c"] != sizes["b"]


def test_weights_that_training_left_nothing_in_are_said_once() -> None:
    """The golden weights are such; every pixel can be kept all the same."""
    for name in ("a.png", "b.png"):
        draw(Path(name))
    result = diveq("compress", "a.png", "b.png", "-e", 9)
    assert result.exit_code == 1
    assert len(errors(result)) == 1
    assert errors(result)[0].endswith("efforts above 5 need that; use -e 5")
    assert not Path("a.dvq").exists()
    assert diveq("compress", "a.png", "-e", 9, "--lossless").exit_code == 0


def test_options_are_those_that_the_codec_has() -> None:
    assert tuple(map(int, compress.EFFORTS)) == tuple(codec.EFFORTS)
    options = {option.name: option.default for option in compress.command.params}
    assert options["quality"] == DEFAULT_QUALITY
    assert options["effort"] == str(codec.DEFAULT_EFFORT)
    text = diveq("compress", "-h").stdout
    for absent in ("--crop", "mps", "jxl"):
        assert absent not in text


@pytest.mark.parametrize(
    "arguments",
    [
        ("-q", 0),
        ("-q", 101),
        ("-q", "nan"),
        ("-q", "inf"),
        ("-e", 8),
        ("--background", "soup"),
        ("--threads", 0),
    ],
)
def test_values_out_of_range_are_wrong_usage(arguments: tuple[object, ...]) -> None:
    draw(Path("photo.png"))
    result = diveq("compress", "photo.png", *arguments)
    assert result.exit_code == 2
    assert str(arguments[1]) in errors(result)[0]
    assert not Path("photo.dvq").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target-bpp", 1, "--target-size", 9], "--target-bpp and --target-size exclude"),
        (["--target-psnr", 30, "-q", 50], "--target-psnr and -q exclude each other; use one"),
        (["--target-psnr", -1], "target psnr -1: must be above 0"),
        (["--target-bpp", "nan"], "target bpp nan: must be above 0, and finite"),
        (["--target-psnr", "inf"], "target psnr inf: must be above 0, and finite"),
        (["--target-size", 0], "0"),
        (
            ["--target-bpp", 1, "--lossless"],
            "--lossless keeps every pixel: it excludes --target-bpp",
        ),
    ],
)
def test_targets_that_make_no_sense(arguments: list[object], message: str) -> None:
    draw(Path("a.png"))
    result = diveq("compress", "a.png", *arguments)
    assert result.exit_code == 2
    assert message in errors(result)[0]


def test_targets() -> None:
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (96, 96, 3), dtype=np.uint8)).save("a.png")
    diveq("compress", "a.png", "-q", 30)
    size = Path("a.dvq").stat().st_size
    for arguments in (("--target-size", size), ("--target-bpp", 8 * size / 96**2)):
        result = diveq("compress", "a.png", "-f", "--json", *arguments)
        record = json.loads(result.stdout)
        assert 0.99 * size <= record["bytes"] <= size
        assert record["is_target_reached"]
        assert 1 < record["quality"] < 60
        assert record[arguments[0][2:].replace("-", "_")] == arguments[1]
        assert record["bytes"] == Path("a.dvq").stat().st_size
    result = diveq("compress", "a.png", "-f", "--target-size", 20)
    assert result.exit_code == 0
    size = Path("a.dvq").stat().st_size
    note = f"Note: a.png: {size:,} B is the nearest found to the target of 20 B"
    assert note in result.stderr.splitlines()


def test_json_is_one_object_a_line_errors_too() -> None:
    draw(Path("a.png"), size=(40, 24))
    Path("b.png").write_text("no picture")
    result = diveq("compress", "a.png", "b.png", "--json")
    assert result.exit_code == 1
    good, bad = map(json.loads, result.stdout.splitlines())
    size = Path("a.dvq").stat().st_size
    assert good["bytes"] == size
    assert good["bpp"] == pytest.approx(8 * size / 960)
    assert (good["input"], good["output"], good["width"], good["height"]) == (
        "a.png",
        "a.dvq",
        40,
        24,
    )
    assert isinstance(good["seconds"], float)
    assert bad == {
        "input": "b.png",
        "output": "b.dvq",
        "error": "not an image that Pillow can read",
    }
    assert errors(result) == ["Error: b.png: not an image that Pillow can read"]
    assert "a.png" not in result.stderr


def test_stdin_to_stdout_by_default() -> None:
    data = draw(Path("a.png")).read_bytes()
    result = diveq("compress", "-", stdin=data)
    assert result.exit_code == 0
    assert result.stderr.startswith("<stdin> -> <stdout>   40x24")
    diveq("compress", "a.png")
    assert result.stdout_bytes == Path("a.dvq").read_bytes()


def test_a_picture_to_stdout() -> None:
    draw(Path("a.png"))
    result = diveq("compress", "a.png", "-o", "-")
    assert bitstream.read_header(result.stdout_bytes).width == 40
    assert not Path("a.dvq").exists()


def test_json_and_stdout_exclude_each_other() -> None:
    data = draw(Path("a.png")).read_bytes()
    for arguments in (("a.png", "-o", "-"), ("-",)):
        result = diveq("compress", *arguments, "--json", stdin=data)
        assert (result.exit_code, result.stdout) == (2, "")


def test_binary_is_not_written_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diveqcodec.cli.files.sys.stdout.isatty", lambda: True)
    draw(Path("a.png"))
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True)
    result = diveq("compress", "a.png", "-o", "-")
    assert result.exit_code == 2
    assert errors(result) == [
        "Error: will not write binary data to a terminal; redirect it, or use -o FILE"
    ]
    result = diveq("compress", "-")
    assert result.exit_code == 2
    assert result.stdout == ""


def test_the_format_is_recognised_by_content() -> None:
    draw(Path("a.png")).rename("a.jpg")
    assert diveq("compress", "a.jpg").exit_code == 0


def test_grey_and_alpha_are_kept() -> None:
    draw(Path("grey.png"), "L")
    draw(Path("both.png"), "RGBA")
    assert diveq("compress", "grey.png", "both.png").exit_code == 0
    assert bitstream.read_header(Path("grey.dvq").read_bytes()).is_grey
    assert bitstream.read_header(Path("both.dvq").read_bytes()).has_alpha
    assert diveq("decompress", "grey.dvq", "both.dvq", "-o", "out").exit_code == 0
    assert opened("out/grey.png").mode == "L"
    alpha = np.asarray(opened("out/both.png"))[..., 3]
    assert (alpha == np.asarray(opened("both.png"))[..., 3]).all()


def test_background_flattens() -> None:
    draw(Path("both.png"), "RGBA")
    seen: list[Picture] = []

    def spy(self: Codec, picture: Picture, quality: float, effort: int, **rest: Any) -> bytes:
        seen.append(picture)
        return original(self, picture, quality, effort, **rest)

    original = Codec.compress
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Codec, "compress", spy)
        assert diveq("compress", "both.png", "--background", "#ff0000").exit_code == 0
    (picture,) = seen
    assert picture.alpha is None
    source = np.asarray(opened("both.png"), dtype=float)
    share = source[..., 3:] / 255
    expected = source[..., :3] * share + np.array([255, 0, 0]) * (1 - share)
    assert np.abs(picture.pixels - expected).max() <= 0.51


@pytest.mark.parametrize(
    ("choice", "kept"),
    [(None, {"icc"}), ("icc", {"icc"}), ("none", set()), ("all", {"icc", "exif"})],
)
def test_metadata(choice: str | None, kept: set[str]) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    image = opened(draw(Path("plain.png")))
    exif = Image.Exif()
    exif[0x010E] = "a description"
    profile = lab[:16] + b"RGB " + lab[20:]  # said to describe RGB, and not sRGB
    image.save("photo.png", icc_profile=profile, exif=exif)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diveqcodec.image.metadata._is_srgb", lambda icc, channels: False)
        arguments = () if choice is None else ("--metadata", choice)
        assert diveq("compress", "photo.png", *arguments).exit_code == 0
    file = bitstream.read(Path("photo.dvq").read_bytes())
    found = {"icc": file.icc, "exif": file.exif, "xmp": file.xmp}
    assert {name for name, value in found.items() if value} == kept


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description a="b"/></x:xmpmeta>'


@pytest.mark.parametrize("choice", ["all", "icc", "none"])
@pytest.mark.parametrize("read", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("written", ["png", "jpg", "tif", "webp"])
def test_metadata_through_files(read: str, written: str, choice: str) -> None:
    """EXIF, XMP, profile and resolution from a file of one format to one of another."""
    exif = Image.Exif()
    exif[0x010E] = "a description"
    exif[0x011A], exif[0x011B], exif[0x0128] = 300, 150, 2
    options: dict[str, Any] = {"exif": exif, "icc_profile": ADOBE_RGB, "dpi": (300, 150)}
    if read == "png":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    elif read == "tif":
        exif[700] = XMP
    else:
        options["xmp"] = XMP
    opened(draw(Path("plain.png"))).save(f"photo.{read}", **options)
    lossless = ("--lossless", "--metadata", choice)  # needs no model
    assert diveq("compress", f"photo.{read}", *lossless).exit_code == 0
    result = diveq("decompress", "photo.dvq", "-o", f"back.{written}", "--json")
    assert json.loads(result.stdout)["notices"] == []
    image, picture = opened(f"back.{written}"), load(f"back.{written}")
    found = image.getexif()
    assert picture.icc == (None if choice == "none" else ADOBE_RGB)
    assert picture.xmp == (XMP if choice == "all" else None)
    assert found.get(0x010E) == ("a description" if choice == "all" else None)
    if choice == "all":
        x, y = image.info.get("dpi") or (found[0x011A], found[0x011B])  # WebP has EXIF's alone
        assert (float(x), float(y)) == pytest.approx((300, 150), abs=0.02)


def test_notices_name_the_file() -> None:
    Image.fromarray(np.full((16, 16), 30000, np.uint16)).save("deep.png")
    result = diveq("compress", "deep.png")
    assert result.exit_code == 0
    assert "Note: deep.png: 16-bit input coded as 8-bit" in result.stderr.splitlines()
    assert diveq("compress", "deep.png", "-f", "--quiet").stderr == ""


def test_the_file_mode_is_that_of_any_new_file() -> None:
    draw(Path("a.png"))
    diveq("compress", "a.png")
    Path("plain").write_bytes(b"")
    assert stat.S_IMODE(Path("a.dvq").stat().st_mode) == stat.S_IMODE(Path("plain").stat().st_mode)


def test_the_model_may_be_a_path_a_name_or_an_id(tmp_path: Path) -> None:
    draw(Path("a.png"))
    entry = json.loads(diveq("models", "--json").stdout)
    for number, model in enumerate((entry["path"], entry["name"], entry["model_id"][:6])):
        assert diveq("compress", "a.png", "-m", model, "-o", f"{number}.dvq").exit_code == 0
    assert Path("0.dvq").read_bytes() == Path("2.dvq").read_bytes()
    result = diveq("compress", "a.png", "-m", "nonsuch")
    assert result.exit_code == 2
    assert errors(result)[0].startswith("Error: -m nonsuch: no such model; installed: diveq-5 (")


def test_no_gpu_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    draw(Path("a.png"))
    result = diveq("compress", "a.png", "--device", "cuda")
    assert result.exit_code == 2
    assert errors(result) == ["Error: --device cuda: no CUDA device is available; use cpu"]
    assert diveq("compress", "a.png", "--device", "tpu").exit_code == 2


def test_threads_and_verbosity(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", counts.append)
    draw(Path("a.png"))
    result = diveq("compress", "a.png", "--threads", 3, "-v", "--device", "cpu")
    assert counts == [3]
    assert "model diveq-5 (" in result.stderr
    assert "model diveq-5 (" not in diveq("compress", "a.png", "-f").stderr
