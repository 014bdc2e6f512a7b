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
    budget.key_made(700, early=True)
    assert budget.object_bytes(30, 700) == 700
    owed = budget.frame_bytes
    budget.spent(30 + 700, start=False)
    other.spent(30, start=False)
    assert budget.frame_bytes < owed, "it is paid back slowly"
    assert budget.object_bytes(30, 0) <= other.object_bytes(30, 0) + 40, "it is not taken from what is saved up"
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


def test_what_is_saved_for_a_key_is_the_keys_and_what_lies_above_makes_codes_finer() -> None:
    saving, ahead, above = Budget(KBPS, FPS), Budget(KBPS, FPS), Budget(KBPS, FPS)
    for _ in range(10):
        saving.spent(0, start=False)  # two thirds of a second of the rate: less than a key
    for _ in range(2 * round(FPS)):
        above.spent(0, start=False)
    ahead.spent(2500, start=False)
    before = saving.strength
    for budget in (saving, ahead, above):
        budget.coded(round(budget.code_bytes))
    assert saving.strength == pytest.approx(before, rel=0.01)
    assert above.strength < 0.97 * before
    assert ahead.strength > 1.03 * before


def test_codes_cost_what_is_aimed_at_although_bytes_are_saved_for_keys() -> None:
    budget, codes, wanted, key = Budget(KBPS, FPS), 0, 0.0, 0
    for frame in range(round(60 * FPS)):
        code = round(60 * (1 + 0.8 * (frame % 7 == 0)) * (budget.strength / 0.1) ** -0.43)
        if not key and budget.affords_key:
            key = 900
            budget.key_made(key)
        part = min(key, budget.object_bytes(code, key))
        key -= part
        if frame >= 5 * FPS:
            codes, wanted = codes + code, wanted + budget.code_bytes
        budget.coded(code)
        budget.spent(code + part + 3, start=False)
    assert codes == pytest.approx(wanted, rel=0.02)


def test_a_key_leaves_whole_where_the_path_is_not_narrow() -> None:
    budget, narrow = Budget(KBPS, FPS), Budget(KBPS, FPS)
    narrow.set_rate(KBPS, narrow=True)
    for each in (budget, narrow):
        while not each.affords_key:
            each.spent(0, start=False)
        each.key_made(1500)
    assert budget.object_bytes(30, 1500) >= 1500
    assert narrow.object_bytes(30, 1500) < 1000
    budget.spent(1530, start=False)
    waited = 0
    while not budget.affords_key:
        budget.spent(round(budget.code_bytes) + 3, start=False)
        waited += 1
    assert waited > 4 * FPS, "it is paid back before the next"
