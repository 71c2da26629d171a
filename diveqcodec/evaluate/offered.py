"""What an evaluation offers, by name: anchors, qualities, kinds of plots.

Imports nothing, so that `diveq --help` and completion may list it at once.
"""

ANCHORS = ("jpeg", "jpeg2000", "webp", "avif", "jxl")  # defined in diveqcodec.evaluate.anchors
QUALITIES = (5.0, 20.0, 35.0, 50.0, 65.0, 80.0, 95.0)  # of our codec, by default
PLOT_SUFFIXES = (".png", ".svg", ".pdf")
