"""Makes the pictures of sample_images/ again: five photographs, cut and reduced, and one drawing.

The photographs ship with scikit-image and scikit-learn, which only this script needs:

    pip install --no-deps scikit-image scikit-learn
    python scripts/draw_samples.py sample_images

It knows nothing of the codec. Where the pictures come from, and under which licences, is written in
sample_images/README.md.
"""

import argparse
import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SUPERSAMPLING = 4  # the drawing is made this many times larger, and reduced, for smooth edges


@dataclass(frozen=True, slots=True)
class Cut:
    """One photograph: `box` (left, upper, right, lower) of `source`, reduced to `size`."""

    name: str
    package: str
    source: str
    box: tuple[int, int, int, int]
    size: tuple[int, int]


CUTS = (
    Cut("cat", "skimage", "data/chelsea.png", (0, 0, 451, 300), (315, 209)),  # odd sides
    Cut("coffee", "skimage", "data/coffee.png", (0, 0, 600, 400), (306, 204)),
    Cut("photographer", "skimage", "data/camera.png", (0, 0, 512, 512), (256, 256)),  # grey
    Cut("rocket", "skimage", "data/rocket.jpg", (106, 0, 533, 427), (256, 256)),
    Cut("pagoda", "sklearn", "datasets/images/china.jpg", (30, 20, 414, 404), (244, 244)),
)


def main() -> None:
    """Writes every picture of the set into the folder given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for cut in CUTS:
        photograph(cut).save(folder / f"{cut.name}.png", optimize=True)
    drawing(320, 200).save(folder / "drawing.png", optimize=True)


def photograph(cut: Cut) -> Image.Image:
    """The cut of an installed package's photograph, grey or RGB as the source is."""
    spec = importlib.util.find_spec(cut.package)  # located, not imported: no dependencies needed
    if spec is None or spec.origin is None:
        raise SystemExit(f"{cut.name}: the package {cut.package} is not installed")
    with Image.open(Path(spec.origin).parent / cut.source) as image:
        return image.resize(cut.size, Image.Resampling.LANCZOS, box=cut.box)


def drawing(width: int, height: int) -> Image.Image:
    """An RGBA picture: text, sharp and faint edges, a gradient, and transparent corners."""
    scale = SUPERSAMPLING
    image = Image.new("RGBA", (width * scale, height * scale))
    pen = ImageDraw.Draw(image)
    pen.rounded_rectangle(
        _scaled(8, 8, width - 8, height - 8), radius=24 * scale, fill=(246, 241, 230, 255)
    )
    for step in range(96):  # a gradient of colour and of opacity
        fill = (40 + step, 110, 200 - step, 255 - 2 * step)
        pen.rectangle(_scaled(24 + 2 * step, 150, 26 + 2 * step, 174), fill=fill)
    for ring in range(6):
        radius = 40 - 6 * ring
        fill = (200, 60 + 30 * ring, 40, 255) if ring % 2 == 0 else (250, 250, 250, 255)
        pen.ellipse(_scaled(258 - radius, 60 - radius, 258 + radius, 60 + radius), fill=fill)
    for ray in range(24):
        angle = 2 * math.pi * ray / 24
        tip = (264 + 36 * math.cos(angle), 150 + 36 * math.sin(angle))
        pen.line(_scaled(264, 150, *tip), fill=(30, 70, 60, 255), width=scale)
    ink = (28, 32, 44, 255)
    pen.text((24 * scale, 22 * scale), "diveq", font=ImageFont.load_default(44 * scale), fill=ink)
    small = ImageFont.load_default(11 * scale)
    pen.text(
        (26 * scale, 84 * scale), "z_q = z + r u,   u = sg[(v + d) / |v + d|]", font=small, fill=ink
    )
    pen.text((26 * scale, 104 * scale), "the quick brown fox jumps over", font=small, fill=ink)
    pen.text(
        (26 * scale, 122 * scale), "the lazy dog 0123456789", font=small, fill=(150, 60, 40, 255)
    )
    return image.resize((width, height), Image.Resampling.BOX)


def _scaled(*coordinates: float) -> list[float]:
    """Coordinates of the finished picture as coordinates of the larger one."""
    return [SUPERSAMPLING * value for value in coordinates]


if __name__ == "__main__":
    main()
