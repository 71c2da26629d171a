"""`diveq train`: a model of one's own from a folder of pictures."""

from __future__ import annotations

import functools
import logging
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diveqcodec.cli.console import Misuse
from diveqcodec.cli.options import FiniteRange, Session, force_option, session_options

if TYPE_CHECKING:
    from diveqcodec.train import Result, TrainConfig


@click.command(short_help="Train a model on a folder of pictures.")
@click.argument("dataset", required=False, type=click.Path(path_type=Path))
@click.option(
    "-c",
    "--config",
    "config_file",
    metavar="FILE.toml",
    type=click.Path(path_type=Path),
    help="Settings that replace the defaults.",
)
@click.option(
    "--set",
    "assignments",
    metavar="KEY=VALUE",
    multiple=True,
    help="One setting, such as optim.lr=2e-4; may be repeated.",
)
@click.option(
    "-o",
    "--output",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="The run's folder; the default is runs/ and the name of DATASET.",
)
@click.option("--steps", type=click.IntRange(1), help="Steps in all: optim.steps.")
@click.option(
    "--hours",
    type=FiniteRange(min=0, min_open=True),
    help="How long this session shall take; the steps are adapted to it.",
)
@click.option("--seed", type=click.IntRange(0), help="Of all that is random: seed.")
@click.option("--resume", is_flag=True, help="Go on with the run in RUN, exactly.")
@click.option(
    "--init",
    metavar="WEIGHTS",
    type=click.Path(path_type=Path),
    help="Start from exported weights.",
)
@click.option("--dry-run", is_flag=True, help="Make a few steps, say how long all will take.")
@click.option(
    "--plot",
    "plotted",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Draw the log of a run into RUN/curves.png instead of training.",
)
@force_option
@session_options(json=False)
def command(
    session: Session,
    dataset: Path | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
    output: Path | None,
    steps: int | None,
    hours: float | None,
    seed: int | None,
    resume: bool,
    init: Path | None,
    dry_run: bool,
    plotted: Path | None,
    force: bool,
) -> None:
    """Train a model on the pictures of DATASET, a folder.

    RUN gets the configuration, a log, samples and checkpoints. Ctrl-C saves; --resume goes on as
    if nothing had happened. diveq export makes weights of a run.
    """
    if plotted is not None:
        if dataset is not None:
            raise Misuse("--plot RUN draws a run and takes no DATASET")
        _plot(session, plotted)
        return
    if dataset is None:
        raise Misuse("say which pictures to train on: diveq train DATASET")
    if steps is not None and hours is not None:
        raise Misuse("--steps and --hours exclude each other")
    if resume and (force or init is not None):
        raise Misuse("--resume goes on with a run: it excludes -f and --init")
    from diveqcodec import train

    run = output or Path("runs") / dataset.resolve().name
    config = train.settings(
        config_file, assignments, steps=steps, seed=seed, resumed=run if resume else None
    )
    if dry_run:
        _dry_run(session, config, dataset, init)
        return
    start = functools.partial(
        train.run,
        config,
        dataset,
        run,
        device=session.device(),
        resume=resume,
        force=force,
        init=init,
        hours=hours,
    )
    if int(os.environ.get("RANK", "0")):  # torchrun started several: the first one speaks for all
        logging.getLogger("diveqcodec").setLevel(logging.ERROR)
        start()
        return
    with session.console.counter(config.optim.steps, "step") as advance:
        result = start(progress=_Progress(session, config.optim.steps, advance))
    _conclude(session, result, dataset)


class _Progress:
    """Turns lines of the log into lines for people and moves the bar."""

    def __init__(self, session: Session, steps: int, advance: Any) -> None:
        self._console = session.console
        self._steps = steps
        self._advance = advance
        self._step = 0

    def __call__(self, step: int, line: dict[str, Any]) -> None:
        self._advance(step - self._step)
        self._step = step
        if "validation" in line:
            parts = [
                f"λ {key}: {value['bpp']:.3f} bpp {value['psnr']:.2f} dB"
                f" (networks {value['networks']:+.2f})"
                for key, value in line.items()
                if isinstance(value, dict)
            ]
            self._console.line(f"step {step}/{self._steps}   validation   " + "   ".join(parts))
            return
        figures = [f"step {step}/{self._steps}"]
        for key, form in (
            ("loss", "loss {:.4f}"),
            ("bpp", "{:.3f} bpp"),
            ("psnr", "{:.2f} dB"),
            ("crops_per_second", "{:.2f} crops/s"),
        ):
            if key in line:
                figures.append(form.format(line[key]))
        self._console.line("   ".join(figures))


def _dry_run(session: Session, config: TrainConfig, dataset: Path, init: Path | None) -> None:
    from diveqcodec import train
    from diveqcodec.train.config import to_toml

    result = train.dry_run(config, dataset, device=session.device(), init=init)
    hours = result.seconds_per_step * config.optim.steps / 3600
    session.console.result(to_toml(result.config))
    session.console.result(
        f"# {result.parameters:,} parameters\n"
        f"# {result.pictures} pictures to train on, {result.held_out} held out, "
        f"{len(result.skipped)} left out; {result.megabytes:,.0f} MB in memory\n"
        f"# {result.seconds_per_step:.2f} s a step, {result.crops_per_second:.2f} crops/s: "
        f"{hours:.1f} h for {config.optim.steps} steps"
    )


def _conclude(session: Session, result: Result, dataset: Path) -> None:
    """Say how it ended and what to do next."""
    folder = shlex.quote(str(result.folder))
    if count := len(result.skipped):
        were = "file of {} was" if count == 1 else "files of {} were"
        session.console.note(f"{count} {were.format(dataset)} left out")
    done = f"step {result.step} of {result.steps}, {result.seconds / 60:.1f} min"
    if result.is_finished:
        weights = shlex.quote(f"{result.folder.resolve().name}.safetensors")
        session.console.line(f"{result.folder}: {done}")
        session.console.line(f"next: diveq export {folder} -o {weights}")
        return
    again = f"diveq train {shlex.quote(str(dataset))} -o {folder} --resume"
    session.console.error(f"{result.folder}: stopped at {done}; saved. Go on with: {again}")
    session.finish(1)


def _plot(session: Session, run: Path) -> None:
    from diveqcodec import train

    target = run / "curves.png"
    train.plot(run, target)
    session.console.line(f"{run} -> {target}")
