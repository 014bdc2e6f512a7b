"""The rate of a call over time: what its start costs is paid back, and then no more."""

from __future__ import annotations

import pytest

from streamgc.pipeline.budget import PAY_BACK_SECONDS, Budget

KBPS, FPS = 8.0, 15.0
START = 5000  # bytes


def test_the_start_is_paid_back_within_a_minute_and_once() -> None:
    budget = Budget(KBPS, FPS)
    whole = KBPS * 125 / FPS
    budget.spent(START, start=True)
    seconds = round(PAY_BACK_SECONDS)
    spent = 0.0
    for frame in range(2 * seconds * round(FPS)):
        if frame == (seconds + 1) * FPS:
            assert budget.frame_bytes == whole
        elif frame < (seconds - 1) * FPS:
            assert budget.frame_bytes < whole
        spent += budget.frame_bytes
        budget.spent(round(budget.frame_bytes), start=False)
    assert START + spent == pytest.approx(2 * seconds * KBPS * 125 + whole, abs=2 * whole)
