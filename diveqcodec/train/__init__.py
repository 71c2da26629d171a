"""Training: configuration, pictures, the loop, checkpoints, the folder of a run.

    config = settings(path, assignments, steps=..., seed=...)
    result = run(config, dataset, folder)         # or resume=True, force=True, init=weights
    plot(folder, folder / "curves.png")

    from diveqcodec.train.exporting import export  # needs the entropy coder: not imported here
    report = export(folder, target, check=pictures)

Imports neither constriction nor compressai (but for `exporting`), so that it runs from a bare tree
on any machine with torch and Pillow. Knows nothing of the command line.
"""

from diveqcodec.train.config import TrainConfig, settings
from diveqcodec.train.plotting import plot
from diveqcodec.train.runs import DryRun, Result, dry_run, run

__all__ = ["DryRun", "Result", "TrainConfig", "dry_run", "plot", "run", "settings"]
