"""Noise of an odd size as pixels, and pictures through files of any format."""

from io import BytesIO

import numpy as np

from diveqcodec.image import load

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, size=(13, 17, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, size=(13, 17, 1), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, size=(13, 17), dtype=np.uint8)
ALPHA[0, :5] = 0  # hidden colours are to be kept too


def file_of(picture, format="PNG", **options):
    stream = BytesIO()
    picture.save(stream, format, **options)
    stream.seek(0)
    return stream


def reload(picture, format="PNG", **options):
    return load(file_of(picture, format, **options))
