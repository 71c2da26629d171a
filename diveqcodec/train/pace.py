"""A run of a given time: how many steps it has, from the speed of late.

The learning rate comes down over the last part of the steps, so their number must be about right
well before the time is up. Knows steps and a clock: nothing of what a step does.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

_EVERY = 10  # steps between measurements of the speed; the first ones are not measured
_LATE = 0.97  # share of the time after which the number of steps stays


class Pace:
    """Adapts the number of steps to the time that is left.

    When a new phase begins, in which a step takes another time, the speed is measured anew.

    Args:
        seconds: of the session, from now on.
        window: steps that the speed is measured over, best those between two validations.
        clock: seconds, monotonic.
    """

    def __init__(
        self, seconds: float, window: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock, self._window = clock, max(window, 10 * _EVERY)
        started = clock()
        self._end = started + seconds
        self._late = started + _LATE * seconds
        self._marks: deque[tuple[int, float]] = deque()  # steps made, and when
        self._next = 0  # step of the next measurement
        self._phase: object = None

    def steps(self, step: int, steps: int, phase: object) -> int:
        """Called before `step` of so far `steps`: how many there shall be, `step` if time is up."""
        now = self._clock()
        if now >= self._end:
            return step
        if phase != self._phase:
            self._phase = phase
            self._marks.clear()
            self._next = step + _EVERY  # the first steps of a phase are slower
        if step >= self._next and now < self._late:
            self._next = step + _EVERY
            return self._measured(step, now) or max(steps, step + 1)
        return max(steps, step + 1)

    def _measured(self, step: int, now: float) -> int | None:
        self._marks.append((step, now))
        while self._marks[0][0] < step - self._window:
            self._marks.popleft()
        first, then = self._marks[0]
        if step == first:
            return None
        left = math.floor((self._end - now) * (step - first) / max(now - then, 1e-9))
        return step + max(left, 1)
