"""The rate of a call over time: what its start costs is paid back, and then no more."""

from __future__ import annotations

import pytest

from streamgc.pipeline.budget import EARLY_ERROR, EARLY_SECONDS, PAY_BACK_SECONDS, Budget

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


def test_an_early_key_is_the_starts_and_there_is_one() -> None:
    budget, other = Budget(KBPS, FPS), Budget(KBPS, FPS)
    assert not budget.grants_early_key(50), "the first key is not there yet"
    for each in (budget, other):
        each.spent(START, start=True)
        each.spent(30, start=False)
        assert not each.grants_early_key(50), "the first has just come"
        for _ in range(round(EARLY_SECONDS[0] * FPS)):
            each.spent(30, start=False)
    assert budget.grants_early_key(EARLY_ERROR + 1)
    assert not budget.grants_early_key(EARLY_ERROR - 1)
    budget.key_made(900, early=True)
    assert budget.object_bytes(30) == 900
    owed = budget.frame_bytes
    budget.spent(30 + 900, start=False)
    other.spent(30, start=False)
    assert budget.frame_bytes < owed, "it is paid back slowly"
    assert budget.object_bytes(30) <= other.object_bytes(30) + 40, "it is not taken from what is saved up"
    assert not budget.grants_early_key(50)


def test_no_early_key_later_or_on_a_narrow_path() -> None:
    budget = Budget(KBPS, FPS)
    budget.spent(START, start=True)
    for _ in range(round(EARLY_SECONDS[0] * FPS) + 1):
        budget.spent(30, start=False)
    budget.set_rate(KBPS, narrow=True)
    assert not budget.grants_early_key(50)
    budget.set_rate(KBPS)
    assert budget.grants_early_key(50)
    for _ in range(round(EARLY_SECONDS[1] * FPS)):
        budget.spent(30, start=False)
    assert not budget.grants_early_key(50)
