"""Vector quantizers behind one interface: DiVeQ, SF-DiVeQ, and what they are measured against.

    quantizer = DiVeQ(size=256, dim=8)
    value, indices, loss = quantizer(z)      # in training: loss is added to the task's
    quantizer.eval()
    quantizer.lookup(quantizer.encode(z))    # what a decoder sees that has the indices alone

`Product` and `Residual` compose any of them; `Projected` puts linear maps around one.
"""

from diveqcodec.quantize.base import Quantised, Quantizer, Stepping
from diveqcodec.quantize.codebook import CodebookQuantizer
from diveqcodec.quantize.compose import Product, Residual
from diveqcodec.quantize.diveq import DiVeQ
from diveqcodec.quantize.ema import EMA
from diveqcodec.quantize.fsq import FSQ
from diveqcodec.quantize.gumbel import GumbelSoftmax
from diveqcodec.quantize.indices import index_counts, perplexity, usage
from diveqcodec.quantize.lfq import BSQ, LFQ
from diveqcodec.quantize.nsvq import NSVQ
from diveqcodec.quantize.projected import Projected
from diveqcodec.quantize.replacement import replace_unused
from diveqcodec.quantize.rotation import RotationTrick, rotate
from diveqcodec.quantize.sf_diveq import SFDiVeQ, expand, interpolate, sf_diveq_step, split_index
from diveqcodec.quantize.simvq import SimVQ
from diveqcodec.quantize.ste import STE
from diveqcodec.quantize.step import Noise, diveq_step, nearest, with_value

__all__ = [
    "BSQ",
    "CodebookQuantizer",
    "DiVeQ",
    "EMA",
    "FSQ",
    "GumbelSoftmax",
    "LFQ",
    "NSVQ",
    "Noise",
    "Product",
    "Projected",
    "Quantised",
    "Quantizer",
    "Residual",
    "RotationTrick",
    "SFDiVeQ",
    "STE",
    "SimVQ",
    "Stepping",
    "diveq_step",
    "expand",
    "index_counts",
    "interpolate",
    "nearest",
    "perplexity",
    "replace_unused",
    "rotate",
    "sf_diveq_step",
    "split_index",
    "usage",
    "with_value",
]
