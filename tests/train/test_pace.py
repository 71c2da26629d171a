"""Runs of a given time: the number of steps follows the speed of late."""

from diveqcodec.train.pace import Pace


def walk(seconds: float, seconds_of_step, steps: int = 20_000, window: int = 100):
    """Steps made until the run ends, the number of steps foreseen at each, and the time it took."""
    clock = [0.0]
    pace = Pace(seconds, window, lambda: clock[0])
    step, foreseen = 0, []
    while step < steps:
        duration, phase = seconds_of_step(step, steps)
        steps = max(pace.steps(step, steps, phase), step + 1)  # as `Trainer.advance` takes it
        foreseen.append(steps)
        clock[0] += duration
        step += 1
    return step, foreseen, clock[0]


def test_the_pace_follows_the_slower_phase() -> None:
    """Steps of 1 s, then of 4 s, 1000 s in all: the end comes when the time is up."""
    phases = []

    def seconds_of_step(step: int, steps: int) -> tuple[float, bool]:
        phases.append(step < 0.3 * steps)
        return (1 if phases[-1] else 4), phases[-1]

    step, foreseen, took = walk(1000.0, seconds_of_step)
    assert sorted(phases, reverse=True) == phases  # what is trained never rests again
    assert phases.count(True) > 200
    soon = foreseen[phases.count(True) + 50 :]  # after the change
    assert max(soon) < 1.03 * step
    assert 950 < took <= 1000 + 4


def test_a_steady_pace_is_found_at_once_and_kept() -> None:
    step, foreseen, took = walk(600.0, lambda step, steps: (0.5, 0))
    assert abs(step - 1200) <= 3
    assert all(abs(one - 1200) <= 3 for one in foreseen[30:])
    assert 595 < took <= 601


def test_a_pause_of_the_machine_shortens_the_run() -> None:
    """Half of the time in one step: what is left fits into the rest."""
    step, _, took = walk(600.0, lambda step, steps: (300.0 if step == 200 else 0.5, 0))
    assert 595 < took <= 602
    assert abs(step - 601) < 12


def test_a_run_without_time_makes_one_step() -> None:
    step, _, _ = walk(0.0, lambda step, steps: (1.0, 0))
    assert step == 1
