"""DiVeQ and SF-DiVeQ, their product and residual forms, and what codebooks start from."""

from diveqcodec.quantize.base import (
    CodebookQuantizer,
    Quantizer,
    index_counts,
    perplexity,
    usage,
)
from diveqcodec.quantize.compose import Product, Residual
from diveqcodec.quantize.diveq import DiVeQ
from diveqcodec.quantize.lattice import lattice_basis, lattice_coordinates, lattice_points
from diveqcodec.quantize.replacement import replace_unused
from diveqcodec.quantize.sf_diveq import SFDiVeQ, expand, interpolate, sf_diveq_step, split_index
from diveqcodec.quantize.step import Noise, diveq_step, nearest, with_value

__all__ = [
    "CodebookQuantizer",
    "DiVeQ",
    "Noise",
    "Product",
    "Quantizer",
    "Residual",
    "SFDiVeQ",
    "diveq_step",
    "expand",
    "index_counts",
    "interpolate",
    "lattice_basis",
    "lattice_coordinates",
    "lattice_points",
    "nearest",
    "perplexity",
    "replace_unused",
    "sf_diveq_step",
    "split_index",
    "usage",
    "with_value",
]
