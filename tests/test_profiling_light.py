"""Glass to glass by light: the block is painted, found again, and agrees with what the frames' identities say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgc.call.demo_options import Study
from streamgc.call.study import studied
from streamgc.profiling.luminance import (
    BRIGHT,
    DARK,
    PERIOD_NS,
    SIDE,
    TOP,
    Level,
    Step,
    brightness,
    find_steps,
    level_at,
    paint,
)
from tests.rtc_fakes import FakeCodec

INTERVAL = 1e9 / 15


def seen(
    delay_ms: float, ramp: int, seconds: int = 6, jump: float = 0.0
) -> tuple[list[Step], list[Level], dict[int, float]]:
    """A call that shows every frame `delay_ms` after its capture, and reaches a new level over `ramp` frames; the light
    comes `jump` ms later than the frame's identity says."""
    random = np.random.default_rng(0)
    steps, levels, identity = [], [], {}
    shown = last = float(DARK)
    for number in range(seconds * 15):
        captured = round(number * INTERVAL)
        level = level_at(captured, 0)
        if level != last:
            steps.append(Step(captured, level))
            last = level
        shown += (level - shown) / ramp
        levels.append(Level(captured + round((delay_ms + jump) * 1e6), shown + random.normal(0, 1.5)))
        identity[captured] = delay_ms
    return steps, levels, identity


def test_the_block_is_painted_on_a_copy() -> None:
    picture = np.full((256, 256, 3), 128, np.uint8)
    painted = paint(picture, BRIGHT)
    assert brightness(painted) == BRIGHT
    assert brightness(picture) == 128
    assert (painted != picture).sum() == SIDE * SIDE * 3
    assert painted[TOP - 1].max() == 128
    assert [level_at(PERIOD_NS * n, 0) for n in range(4)] == [DARK, BRIGHT, DARK, BRIGHT]


@given(st.floats(5, 350), st.integers(1, 3))
def test_steps_are_found_within_an_interval(delay_ms: float, ramp: int) -> None:
    found = find_steps(*seen(delay_ms, ramp), INTERVAL)
    assert found.steps == 5
    assert found.found == 5
    assert found.within_interval == 1
    assert found.identity_ms == pytest.approx(delay_ms)


def test_a_display_that_lags_behind_its_call_back_is_found_out() -> None:
    found = find_steps(*seen(40, 1, jump=150), INTERVAL)
    assert found.found == 5
    assert found.within_interval == 0
    assert found.light_ms == pytest.approx(190, abs=1)


def test_a_picture_that_stands_still_finds_nothing() -> None:
    steps, levels, identity = seen(40, 1)
    frozen = [level._replace(level=DARK) for level in levels]
    assert find_steps(steps, frozen, identity, INTERVAL).found == 0
    assert find_steps([], [], {}, INTERVAL).within_interval == 0


def test_a_codec_that_is_not_studied_is_left_alone() -> None:
    codec = FakeCodec()
    assert studied(codec, Study()) is codec
