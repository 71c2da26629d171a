"""Packs a folder of pictures into parts that are small enough to be carried anywhere.

    python scripts/pack_dataset.py PICTURES OUT [--limit 27000000] [--long-side 0] [--quality 95]

A part is an uncompressed tar file of the pictures' own bytes (or of JPEG files made anew, where a
long side is given and exceeded) and a `manifest.csv`: name, bytes, SHA-256. `train_timed.py`
unpacks parts and checks them against their manifests. The same pictures give the same bytes.
"""

import argparse
import csv
import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

MANIFEST = "manifest.csv"
_BLOCK = 512  # bytes: tar's headers, and what its members are padded to
_END = 20 * _BLOCK  # tar files are padded to whole records of this


def main() -> None:
    """Read the command line and pack."""
    parser = argparse.ArgumentParser(description="Pack pictures into parts of limited size.")
    parser.add_argument("pictures", type=Path, help="folder of pictures, searched recursively")
    parser.add_argument("out", type=Path, help="folder for the parts")
    parser.add_argument("--limit", type=int, default=27_000_000, help="bytes of a part at most")
    parser.add_argument(
        "--long-side",
        type=int,
        default=0,
        help="shrink larger pictures to this many pixels and code them as JPEG; 0: keep all as is",
    )
    parser.add_argument("--quality", type=int, default=95, help="of JPEG files that are made anew")
    options = parser.parse_args()
    from diveqcodec.cli.kinds import PICTURES
    from diveqcodec.errors import DiveqError
    from diveqcodec.train import data

    try:
        files = [path for path in data.find(options.pictures) if PICTURES.is_one(path)]
    except DiveqError as error:
        parser.exit(1, f"Error: {error}\n")
    if not files:
        parser.exit(1, f"Error: {options.pictures}: contains no pictures\n")
    members = contents(options.pictures, files, options.long_side, options.quality)
    options.out.mkdir(parents=True, exist_ok=True)
    if any(options.out.glob("part-*.tar")):
        parser.exit(1, f"Error: {options.out}: contains parts already; name another folder\n")
    try:
        parts = pack(members, options.out, options.limit)
    except (DiveqError, ValueError) as error:
        parser.exit(1, f"Error: {error}\n")
    for path in parts:
        print(f"{path}  {path.stat().st_size:,} bytes")


def contents(
    folder: Path, files: list[Path], long_side: int, quality: int
) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every picture, the same if it is small enough.

    Raises:
        ImageError: a large picture is damaged.
    """
    from diveqcodec.train import data

    for path in files:
        name, content = path.relative_to(folder).as_posix(), path.read_bytes()
        if long_side:
            with Image.open(io.BytesIO(content)) as image:
                is_large = max(image.size) > long_side
            if is_large:
                made = io.BytesIO()
                smaller = Image.fromarray(data.read(path, name, 0, long_side))
                smaller.save(made, "JPEG", quality=quality, subsampling=0)
                is_jpeg = path.suffix.lower() in (".jpg", ".jpeg")
                name, content = name if is_jpeg else f"{name}.jpg", made.getvalue()
        yield name, content


def pack(members: Iterator[tuple[str, bytes]], out: Path, limit: int) -> list[Path]:
    """Fill parts in the order given; returns their paths.

    Raises:
        ValueError: a picture is larger than a part may be.
    """
    parts: list[list[tuple[str, bytes]]] = [[]]
    room = limit - _END
    for name, content in members:
        size = 2 * _BLOCK + len(content) + len(name) + 128  # header, padding, manifest line
        if size > limit - _END:
            raise ValueError(f"{name}: {len(content)} bytes do not fit a part; use --long-side")
        if size > room:
            parts.append([])
            room = limit - _END
        parts[-1].append((name, content))
        room -= size
    paths = []
    for number, part in enumerate(parts):
        path = out / f"part-{number:02d}.tar"
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
            for name, content in [(MANIFEST, _manifest(part)), *part]:
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        paths.append(path)
    return paths


def unpack(paths: list[Path], target: Path) -> int:
    """Unpack parts and compare every picture with its manifest; returns how many there are.

    Raises:
        ValueError: a part is damaged or not one of `pack`.
    """
    count = 0
    for path in paths:
        try:
            with tarfile.open(path) as archive:
                archive.extractall(target, filter="data")
            rows = list(csv.reader((target / MANIFEST).read_text("utf-8").splitlines()))
        except (OSError, tarfile.TarError) as error:
            raise ValueError(f"{path}: not a part of a packed data set ({error})") from error
        (target / MANIFEST).unlink()
        for name, _, digest in rows[1:]:
            if hashlib.sha256((target / name).read_bytes()).hexdigest() != digest:
                raise ValueError(f"{path}: {name} is damaged; copy the part again")
            count += 1
    return count


def _manifest(part: list[tuple[str, bytes]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("name", "bytes", "sha256"))
    for name, content in part:
        writer.writerow((name, len(content), hashlib.sha256(content).hexdigest()))
    return text.getvalue().encode()


if __name__ == "__main__":
    main()
