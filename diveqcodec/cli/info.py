"""`diveq info`: what `.dvq` files say of themselves. Needs no model and imports no torch."""

from __future__ import annotations

import functools
from typing import Any

import click

from diveqcodec.cli import batch, completion, dvq
from diveqcodec.cli.console import one_line
from diveqcodec.cli.jobs import Job, Outcome
from diveqcodec.cli.kinds import DVQ
from diveqcodec.cli.options import Session, session_options
from diveqcodec.quality import quality_of


@click.command(short_help="Show what .dvq files contain.")
@click.argument(
    "inputs", metavar="FILE...", nargs=-1, required=True, shell_complete=completion.dvq_files
)
@session_options(device=False)
def command(session: Session, inputs: tuple[str, ...]) -> None:
    """Show what .dvq files contain, and whether they are damaged.

    FILE is a .dvq file, a folder (recursively), or - for stdin. All checksums are checked but that
    of the decoded indices, for which `diveq decompress` is needed.
    """
    jobs = [Job(source, None) for source in batch.expand(inputs, DVQ, session.console)]
    work = functools.partial(_info, inputs)
    session.finish(batch.run(jobs, work, session, is_summed=False))


def _info(inputs: tuple[str, ...], job: Job, session: Session) -> Outcome:
    from diveqcodec.container import bitstream

    data, header = dvq.read(job.source, inputs)
    file = bitstream.read(data)
    needs_model = bitstream.needs_model(file)
    entry = session.installed(header.model_id) if needs_model else None
    metadata = {
        name: len(content)
        for name, content in (("icc", file.icc), ("exif", file.exif), ("xmp", file.xmp))
        if content is not None
    }
    record: dict[str, Any] = {
        "input": job.source.name,
        "version": data[len(bitstream.MAGIC)],
        "width": header.width,
        "height": header.height,
        "is_grey": header.is_grey,
        "has_alpha": header.has_alpha,
        "has_mirror": header.has_mirror,
        "quality": round(quality_of(header.gain_index), 2) if needs_model else None,
        "gain_index": header.gain_index if needs_model else None,
        "model": None if entry is None else entry.name,
        "model_id": header.model_id.hex() if needs_model else None,
        "bytes": len(data),
        "bpp": 8 * len(data) / (header.width * header.height),
        "tiles": len(file.tiles),
        "lossless_tiles": sum(tile is None for tile in file.tiles),
        "tile_bytes": sum(len(tile.payload) for tile in file.tiles if tile is not None),
        "alpha_bytes": sum(len(tile.alpha or b"") for tile in file.tiles if tile is not None),
        "filtered_tiles": sum(bool(tile.filters) for tile in file.tiles if tile is not None),
        "filter_bytes": sum(len(tile.filters or b"") for tile in file.tiles if tile is not None),
        "patched_tiles": sum(bool(tile.patches) for tile in file.tiles if tile is not None),
        "patch_bytes": sum(len(tile.patches or b"") for tile in file.tiles if tile is not None),
        "lossless_bytes": sum(len(part.packed) for part in file.lossless),
        "metadata_bytes": metadata,
    }
    line = _line(record)
    if not session.console.is_json:
        session.console.result(one_line(line))
    return Outcome("", record)


def _line(record: dict[str, Any]) -> str:
    colours = "grey" if record["is_grey"] else "colour"
    if record["has_alpha"]:
        colours += " + alpha"
    model = record["model"] or "not installed"
    tiles = "1 tile" if record["tiles"] == 1 else f"{record['tiles']} tiles"
    if 0 < record["lossless_tiles"] < record["tiles"]:
        tiles += f" ({record['lossless_tiles']} lossless)"
    extras = []
    for name, tiles_with, size in (
        ("filters", record["filtered_tiles"], record["filter_bytes"]),
        ("patches", record["patched_tiles"], record["patch_bytes"]),
    ):
        if tiles_with:
            of = "" if record["tiles"] == 1 else f" in {tiles_with}"
            extras.append(f"{name}{of} {size:,} B")
    how = ["lossless"]
    if record["model_id"] is not None:
        how = [f"quality {record['quality']:g}", f"model {record['model_id']} ({model})"]
    parts = [
        record["input"],
        f"{record['width']}x{record['height']}",
        colours,
        f"{record['bytes']:,} B",
        f"{record['bpp']:.3f} bpp",
        *how,
        tiles,
        *extras,
        *(f"{name} {size:,} B" for name, size in record["metadata_bytes"].items()),
    ]
    return "   ".join(parts)
