"""Which page of a TIFF is the picture: no preview in its place, and none lost for another."""

from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from diveqcodec.errors import ImageError
from diveqcodec.image import Pixels, load
from diveqcodec.image import tiff as directories
from tests.support.tiffs import Directory, page, raw_like, tiff

RNG = np.random.default_rng(0)
SMALL = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
FULL = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)
PREVIEW = "the full picture coded, not the preview"
ALONE = "it is marked as a preview, but there is no other page"
DAMAGED = "damaged: a page after the first cannot be read"


def loaded(chain: list[Directory], **options: bool) -> tuple[Pixels, tuple[str, ...]]:
    picture = load(BytesIO(tiff(chain)), name="x.tif", **options)
    return picture.pixels, picture.notices


@pytest.mark.parametrize(("photometric", "tags"), [(32803, {}), (34892, {}), (1, {"t50706": 1})])
def test_a_raw_file_is_refused_with_its_remedy(photometric: int, tags: dict[str, int]) -> None:
    with pytest.raises(ImageError) as caught:
        loaded([raw_like(SMALL, photometric, **tags)])
    assert str(caught.value) == (
        "x.tif: a camera's raw file (EXAMPLE), not developed; "
        "make a TIFF or PNG of it first, such as with rawpy"
    )


# The fourth of these, Pillow does not read.
@pytest.mark.parametrize(("order", "is_big"), [("<", False), (">", False), ("<", True)])
@pytest.mark.parametrize("mark", ["t254", "t255"])
def test_the_full_page_is_taken_wherever_it_is(order: str, is_big: bool, mark: str) -> None:
    preview = page(SMALL, 2, **{mark: 1 if mark == "t254" else 2})
    below = page(SMALL, 2, **{mark: 1 if mark == "t254" else 2})
    below.below = [page(FULL, 2)]
    for chain in ([preview, page(FULL, 2)], [below]):
        picture = load(BytesIO(tiff(chain, order, is_big)))
        np.testing.assert_array_equal(picture.pixels, FULL)
        assert picture.notices == (PREVIEW,)


def test_the_largest_of_several_full_pages_and_no_mask() -> None:
    middle, mask = page(FULL[:12, :16], 2), page(np.zeros((99, 99), np.uint8), 4, t254=4)
    pixels, notices = loaded([page(SMALL, 2, t254=1), middle, page(FULL, 2), mask])
    np.testing.assert_array_equal(pixels, FULL)
    assert notices == (PREVIEW, "the first of 2 frames coded")


def test_a_full_first_page_stays() -> None:
    pyramid = [page(FULL, 2), page(SMALL, 2, t254=1), page(SMALL[:3], 2, t254=1)]
    pixels, notices = loaded(pyramid)
    np.testing.assert_array_equal(pixels, FULL)
    assert notices == ()  # smaller versions of it are no other frames
    pixels, notices = loaded([page(SMALL, 2), page(FULL, 2)])
    np.testing.assert_array_equal(pixels, SMALL)
    assert notices == ("the first of 2 frames coded",)


def test_a_larger_full_page_below_an_unmarked_one_is_taken() -> None:
    first = page(SMALL, 2)
    first.below = [page(FULL, 2)]
    np.testing.assert_array_equal(loaded([first])[0], FULL)


def test_a_preview_alone_is_coded_with_a_notice() -> None:
    pixels, notices = loaded([page(SMALL, 2, t254=1)])
    np.testing.assert_array_equal(pixels, SMALL)
    assert notices == (ALONE,)


def test_a_damaged_later_page_loses_nothing_of_the_first(tmp_path: Path) -> None:
    data = tiff([page(FULL, 2), page(SMALL, 2), page(SMALL, 2)])
    starts = [one.offset for one in directories.read(BytesIO(data)).pages]
    for end in (starts[1] + 1, starts[1] + 30, starts[2] - 1, starts[2] + 10):
        path = tmp_path / "cut.tif"
        path.write_bytes(data[:end])
        picture = load(path)
        np.testing.assert_array_equal(picture.pixels, FULL)
        assert DAMAGED in picture.notices
        with pytest.raises(ImageError, match=f"cut.tif: {DAMAGED}"):
            load(path, strict=True)


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged tags
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_truncation_is_an_error_or_says_what_is_missing(order: str) -> None:
    """The preview may be all that is left; nothing but the whole file is the picture."""
    data = tiff([page(SMALL, 2, t254=1), page(FULL[:8, :8], 2)], order)
    found = Counter[str]()
    for end in range(len(data) + 1):
        try:
            picture = load(BytesIO(data[:end]), max_pixels=10_000)
        except ImageError:
            found["error"] += 1
            continue
        if picture.pixels.shape == (8, 8, 3):
            np.testing.assert_array_equal(picture.pixels, FULL[:8, :8])
            assert picture.notices == (PREVIEW,)
            assert end >= len(data) - 4  # the last pointer is 0 and may be missing
            found["picture"] += 1
            continue
        np.testing.assert_array_equal(picture.pixels, SMALL)
        if picture.notices == (ALONE,):  # cut within a pointer, which some programs leave out
            found["pointer"] += 1
            continue
        assert any(notice.startswith("damaged: ") for notice in picture.notices)
        with pytest.raises(ImageError, match="<stream>: damaged: "):
            load(BytesIO(data[:end]), max_pixels=10_000, strict=True)
        found["preview"] += 1
    assert found["error"] > 200
    assert found["preview"] > 200
    assert (found["pointer"], found["picture"]) == (4, 5)


@pytest.mark.filterwarnings("ignore")  # as above
def test_flips_are_pictures_or_errors() -> None:
    data = tiff([page(SMALL, 2, t254=1), page(FULL[:8, :8], 2)])
    random = np.random.default_rng(1)
    found = Counter[str]()
    for place in range(0, len(data), 4):
        flipped = bytearray(data)
        flipped[place] ^= 1 << random.integers(8)
        try:
            picture = load(BytesIO(bytes(flipped)), max_pixels=10_000)
        except ImageError:
            found["error"] += 1
            continue
        assert picture.pixels.ndim == 3
        found["picture"] += 1
    assert found["error"] > 10
    assert found["picture"] > 80


def test_loops_of_directories_end() -> None:
    data = bytearray(tiff([page(SMALL, 2), page(SMALL, 2)]))
    pages = directories.read(BytesIO(bytes(data))).pages
    data[pages[1].next_at : pages[1].next_at + 4] = pages[0].offset.to_bytes(4, "little")
    picture = load(BytesIO(bytes(data)))
    np.testing.assert_array_equal(picture.pixels, SMALL)
