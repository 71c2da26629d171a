"""Builds wheel and sdist, installs each in empty environments, and decodes the golden files there.

    python scripts/check_wheels.py --python python3.12 --python python3.13 --torch 2.13.0

Every golden file must decode to its golden indices, `python -m diveqcodec` must compress and
decompress a picture with the shipped weights, and `import diveqcodec.pillow` must open the file.
A line says of each environment which versions it had; exit status 1 if one fails.

Environments are made in a temporary folder one after the other and removed. torch's default build
for Linux brings several gigabytes of CUDA libraries each time: `--packages DIR` names a folder that
`pip install --target DIR` has filled, which all environments see, so that pip need not install
them again; `--find-links DIR` one of wheels.

Standard library alone: the part below "in the environment" runs there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, install, check; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", action="append", help="an interpreter; may be repeated")
    parser.add_argument("--torch", action="append", help="a version of torch; may be repeated")
    parser.add_argument("--find-links", type=Path, help="a folder of wheels")
    parser.add_argument("--packages", type=Path, help="packages that all environments see")
    parser.add_argument("--probe", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.probe:
        print(json.dumps(probe()))
        return 0
    failed = 0
    with tempfile.TemporaryDirectory(prefix="diveq-wheels-") as name:
        folder = Path(name)
        built = build(folder / "dist")
        for python in asked.python or [sys.executable]:
            for torch in asked.torch or [None]:
                packages = [] if torch is None else [f"torch=={torch}"]
                try:
                    environment = Environment(folder / "env", python, asked)
                    for archive in built:
                        said = environment.check(archive, packages)
                        print(f"{archive.name}: {json.dumps(said)}", flush=True)
                except subprocess.CalledProcessError as error:
                    failed += 1
                    last = (error.stderr or error.stdout or "").strip().splitlines()[-12:]
                    print(f"FAILED {python}, torch {torch}:", *last, sep="\n  ", flush=True)
    return 1 if failed else 0


def build(folder: Path) -> list[Path]:
    """The wheel, and the sdist that it was built from."""
    run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)])
    return [*folder.glob("*.whl"), *folder.glob("*.tar.gz")]


class Environment:
    """A new and empty environment of an interpreter; what was in its folder is gone."""

    def __init__(self, folder: Path, python: str, asked: argparse.Namespace) -> None:
        run([python, "-m", "venv", "--clear", str(folder)])
        self.python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        self.options = ["--find-links", str(asked.find_links)] if asked.find_links else []
        if asked.packages is not None:
            code = "import sysconfig; print(sysconfig.get_path('purelib'))"
            place = run([str(self.python), "-c", code]).strip()
            Path(place, "shared.pth").write_text(f"{asked.packages.resolve()}\n", "utf-8")

    def check(self, archive: Path, packages: list[str]) -> dict[str, Any]:
        """Install an archive in the place of the last one, and ask what it does."""
        pip = [str(self.python), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        run([*pip, *self.options, *packages, str(archive)])
        run([*pip, "--no-deps", "--force-reinstall", str(archive)])
        # -I: neither this folder nor the current one is looked into, only what was installed
        said = run([str(self.python), "-I", __file__, "--probe"], self.python.parent)
        found: dict[str, Any] = json.loads(said)
        return found


def run(command: list[str], folder: Path | None = None) -> str:
    """What a command prints.

    Raises:
        CalledProcessError: it fails.
    """
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
    return done.stdout


# In the environment: of the package, only what was installed.


def probe() -> dict[str, Any]:
    """Decode the golden files, use the command and the plugin; the versions of all that did it."""
    import importlib.metadata

    import diveqcodec

    assert ROOT not in Path(diveqcodec.__file__).parents, "not the installed package"
    names = ("torch", "numpy", "constriction", "pillow", "safetensors", "click")
    versions = {name: importlib.metadata.version(name) for name in names}
    return {
        "python": sys.version.split()[0],
        **versions,
        "golden": golden(),
        "lossless": golden_lossless(),
        "command": command(),
    }


def golden() -> int:
    """How many golden files decode to their golden indices: all of them.

    Raises:
        AssertionError: one does not.
    """
    import hashlib

    from diveqcodec.codec import Codec
    from diveqcodec.container import bitstream
    from diveqcodec.container.entropy import Decoder
    from diveqcodec.exact.tile import TileCoder
    from diveqcodec.model.dvq import STRIDE

    expected = json.loads((GOLDEN / "golden.json").read_text("utf-8"))
    codec = Codec.load(GOLDEN / "tiny.safetensors")
    for name, known in expected.items():
        data = (GOLDEN / f"{name}.dvq").read_bytes()
        file = bitstream.read(data)
        grid = bitstream.tile_grid(file.header.width, file.header.height)
        found: dict[str, list[str]] = {"indices": [], "latent": []}
        for tile, content in zip(grid, file.tiles, strict=True):
            assert content is not None
            size = -(-tile.height // STRIDE), -(-tile.width // STRIDE)
            quality_bin = codec.model.config.scale.bin(file.header.gain_index)
            coder = TileCoder(codec.model, Decoder(content.payload), quality_bin, size)
            latent, crc = coder.run()
            found["indices"].append(f"{crc:08x}")
            digest = hashlib.sha256(latent.long().numpy().astype("<i8").tobytes())
            found["latent"].append(digest.hexdigest()[:16])
        for key, values in found.items():
            assert values == known[key], f"{name}: {key} are {values}, not {known[key]}"
        shape = codec.decompress(data).pixels.shape[1::-1]
        assert shape == (file.header.width, file.header.height), name
    return len(expected)


def golden_lossless() -> int:
    """How many golden files without a model decode to their golden pixels: all of them."""
    import hashlib

    from diveqcodec.container import pixelfile

    folder = GOLDEN / "lossless"
    expected = json.loads((folder / "golden.json").read_text("utf-8"))
    for name, known in expected.items():
        picture = pixelfile.decompress((folder / f"{name}.dvq").read_bytes())
        planes = picture.pixels.tobytes()
        planes += b"" if picture.alpha is None else picture.alpha.tobytes()
        digest = hashlib.sha256(planes).hexdigest()[:16]
        assert digest == known["pixels"], f"{name}: other pixels"
    return len(expected)


def command() -> str:
    """Compress and decompress a picture by `python -m diveqcodec`, and open it with Pillow."""
    from PIL import Image

    import diveqcodec.pillow  # noqa: F401

    diveq = [sys.executable, "-I", "-m", "diveqcodec"]
    with tempfile.TemporaryDirectory() as name:
        small, back = Path(name, "cat.dvq"), Path(name, "cat.png")
        picture = str(ROOT / "sample_images" / "cat.png")
        run([*diveq, "compress", picture, "-o", str(small), "--quiet"])
        run([*diveq, "decompress", str(small), "-o", str(back), "--quiet"])
        with Image.open(small) as one, Image.open(back) as other:
            assert one.tobytes() == other.tobytes(), "Pillow shows other pixels than the command"
        return f"{small.stat().st_size} bytes"


if __name__ == "__main__":
    sys.exit(main())
