"""Glass to glass by light alone: a block of the source changes its brightness once a second, and the displayed pixels
are searched for the change. Nothing of the call's own book-keeping is used, so that it can be checked by it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEFT, TOP, SIDE = 16, 16, 48
"""The block, pixels of the coded picture: three cells a side, one away from the corner."""

DARK, BRIGHT = 70, 190
"""Grey levels of the block."""

PERIOD_NS = 1_000_000_000
"""A step so often, now up, now down."""

RISE = 0.25
"""Share of the step by which the displayed block must have changed: a generator needs a few frames for all of it, and
its own noise is far below."""


class Step(NamedTuple):
    """A change at the source: when the picture with it was handed over, and to which level."""

    captured_ns: int
    level: int


class Level(NamedTuple):
    """The mean of the block in a displayed picture, and when that was displayed."""

    at_ns: int
    level: float


class Found(NamedTuple):
    """A step that was found again: ms from the source to the display by light, and by the frame's identity."""

    light_ms: float
    identity_ms: float


class Agreement(NamedTuple):
    """Light against identity, over the steps of a call."""

    steps: int
    found: int
    light_ms: float  # medians
    identity_ms: float
    within_interval: float  # share of those found that differ by no more than a frame interval

    def as_dict(self) -> dict[str, float]:
        """For a report."""
        return {name: round(value, 3) for name, value in self._asdict().items()}


def level_at(captured_ns: int, since_ns: int) -> int:
    """The block's level in a picture that is handed over at `captured_ns`, in a call that began at `since_ns`."""
    return (DARK, BRIGHT)[(captured_ns - since_ns) // PERIOD_NS % 2]


def paint(picture: NDArray[np.uint8], level: int) -> NDArray[np.uint8]:
    """A copy of the picture (H, W, 3) with the block at this level."""
    painted = picture.copy()
    painted[TOP : TOP + SIDE, LEFT : LEFT + SIDE] = level
    return painted


def brightness(picture: NDArray[np.uint8]) -> float:
    """Mean of the block's inner half: its rim may be mixed with what is around it."""
    rim = SIDE // 4
    return float(picture[TOP + rim : TOP + SIDE - rim, LEFT + rim : LEFT + SIDE - rim].mean())


def find_steps(
    steps: Sequence[Step], levels: Sequence[Level], identity_ms: Mapping[int, float], interval_ns: float
) -> Agreement:
    """Search the displayed levels for every step. `identity_ms`: glass to glass by the time of hand-over, of the frames
    that were displayed; the step's frame may have been dropped, then the next one shows it first."""
    found = [one for step in steps if (one := _find(step, levels, identity_ms, interval_ns)) is not None]
    if not found:
        return Agreement(len(steps), 0, 0.0, 0.0, 0.0)
    near = sum(abs(one.light_ms - one.identity_ms) * 1e6 <= interval_ns for one in found)
    return Agreement(
        len(steps),
        len(found),
        statistics.median(one.light_ms for one in found),
        statistics.median(one.identity_ms for one in found),
        near / len(found),
    )


def _find(step: Step, levels: Sequence[Level], identity_ms: Mapping[int, float], interval_ns: float) -> Found | None:
    before = [one.level for one in levels if step.captured_ns - PERIOD_NS / 2 < one.at_ns <= step.captured_ns]
    if not before:
        return None
    start = statistics.median(before)
    for one in levels:
        if step.captured_ns < one.at_ns < step.captured_ns + PERIOD_NS and _changed(start, one.level, step.level):
            light = (one.at_ns - step.captured_ns) / 1e6
            carriers = [at for at in identity_ms if step.captured_ns <= at < step.captured_ns + 3 * interval_ns]
            if not carriers:
                return None
            first = min(carriers)
            return Found(light, identity_ms[first] + (first - step.captured_ns) / 1e6)
    return None


def _changed(start: float, level: float, goal: int) -> bool:
    return (level - start) / (goal - start) >= RISE if abs(goal - start) > 1 else False
