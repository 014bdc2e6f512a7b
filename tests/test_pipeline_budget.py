"""The rate of a call over time: what its start costs is paid back, and then no more."""

from __future__ import annotations

import pytest

from streamgc.pipeline.budget import (
    EARLY_ERROR,
    EARLY_SECONDS,
    OVERHEAD,
    PAY_BACK_SECONDS,
    SETTLING_SECONDS,
    Budget,
)

KBPS, FPS = 8.0, 15.0
START = 5000  # bytes


def test_the_start_is_paid_back_within_a_minute_and_once() -> None:
    budget = Budget(KBPS, FPS)
    whole = KBPS * 125 / FPS
    budget.spent(START, START - 30, start=True)
    seconds = round(PAY_BACK_SECONDS)
    spent = 0.0
    for frame in range(2 * seconds * round(FPS)):
        if frame == (seconds + 1) * FPS:
            assert budget.frame_bytes == whole
        elif frame < (seconds - 1) * FPS:
            assert budget.frame_bytes < whole
        spent += budget.frame_bytes
        budget.spent(round(budget.frame_bytes), 0, start=False)
    assert START + spent == pytest.approx(2 * seconds * KBPS * 125 + whole, abs=2 * whole)


def test_an_early_key_is_the_starts_and_there_is_one() -> None:
    budget, other = Budget(KBPS, FPS), Budget(KBPS, FPS)
    assert not budget.grants_early_key(50), "the first key is not there yet"
    for each in (budget, other):
        each.spent(START, START - 30, start=True)
        each.spent(30, 0, start=False)
        assert not each.grants_early_key(50), "the first has just come"
        for _ in range(round(EARLY_SECONDS[0] * FPS)):
            each.spent(30, 0, start=False)
    assert budget.grants_early_key(EARLY_ERROR + 1)
    assert not budget.grants_early_key(EARLY_ERROR - 1)
    budget.key_made(700, early=True)
    assert budget.object_bytes(30, 700) == 700
    owed = budget.frame_bytes
    budget.spent(30 + 700, 700, start=False)
    other.spent(30, 0, start=False)
    assert budget.frame_bytes < owed, "it is paid back slowly"
    assert budget.object_bytes(30, 0) <= other.object_bytes(30, 0) + 40, "it is not taken from what is saved up"
    assert not budget.grants_early_key(50)


def test_no_early_key_later_or_on_a_narrow_path() -> None:
    budget = Budget(KBPS, FPS)
    budget.spent(START, START - 30, start=True)
    for _ in range(round(EARLY_SECONDS[0] * FPS) + 1):
        budget.spent(30, 0, start=False)
    budget.set_rate(KBPS, narrow=True)
    assert not budget.grants_early_key(50)
    budget.set_rate(KBPS)
    assert budget.grants_early_key(50)
    for _ in range(round(EARLY_SECONDS[1] * FPS)):
        budget.spent(30, 0, start=False)
    assert not budget.grants_early_key(50)


def test_keys_and_codes_pay_for_themselves() -> None:
    usual, keyed, moving, idle = (Budget(KBPS, FPS) for _ in range(4))
    for budget in (usual, keyed, moving, idle):
        for _ in range(round(SETTLING_SECONDS * FPS)):
            budget.spent(round(budget.code_bytes) + OVERHEAD, 0, start=False)
        for _ in range(round(FPS)):
            code = {id(moving): 3.0, id(idle): 0.2}.get(id(budget), 1.0) * budget.code_bytes
            budget.spent(round(code) + OVERHEAD, 0, start=False)
    keyed.spent(round(keyed.code_bytes) + OVERHEAD + 700, 700, start=False)
    before = usual.strength
    for budget in (usual, keyed, moving, idle):
        budget.coded(round(budget.code_bytes))
    assert usual.strength == pytest.approx(before, rel=0.01)
    assert keyed.strength == pytest.approx(before, rel=0.01), "codes are no coarser for a key that is owed for"
    assert moving.strength > 1.03 * before
    assert idle.strength < 0.97 * before
    assert not keyed.affords_key
    assert [_until_a_key(budget) for budget in (moving, idle)] == [_until_a_key(usual)] * 2, (
        "and keys come as they would"
    )


def _until_a_key(budget: Budget) -> int:
    """Pictures, coded as they should be, until a key is saved up for; at most a minute's."""
    for waited in range(round(60 * FPS)):
        if budget.affords_key:
            return waited
        budget.spent(round(budget.code_bytes) + OVERHEAD, 0, start=False)
    return round(60 * FPS)


def test_after_the_start_all_is_for_codes_and_no_key_is_saved_for() -> None:
    budget = Budget(KBPS, FPS)
    budget.spent(START, START - 30, start=True)
    for _ in range(round(SETTLING_SECONDS * FPS)):
        assert budget.code_bytes == pytest.approx(budget.frame_bytes - OVERHEAD)
        assert not budget.affords_key
        budget.spent(round(budget.code_bytes) + OVERHEAD, 0, start=False)
    assert budget.code_bytes < 0.8 * budget.frame_bytes
    assert 0 < _until_a_key(budget) < 3 * FPS
    rich = Budget(20.0, FPS)
    rich.spent(START, START - 30, start=True)
    assert _until_a_key(rich) < 1.5 * FPS, "where a key is cheap it need not wait as long"


def test_what_codes_cannot_use_is_the_keys_and_the_other_way_round() -> None:
    still, calm = Budget(KBPS, FPS), Budget(KBPS, FPS)
    for _ in range(round(5 * FPS)):
        still.spent(OVERHEAD, 0, start=False)  # codes of nothing: a second of the rate is kept for them, no more
        calm.spent(round(calm.code_bytes) + OVERHEAD, 0, start=False)  # and no key, though it could be had
    for budget in (still, calm):
        budget.key_made(700)
        assert budget.affords_key
    before = calm.strength
    calm.coded(round(calm.code_bytes))
    assert calm.strength < before, "codes get what keys do not need"


def test_a_call_of_more_begins_with_finer_codes() -> None:
    assert Budget(10.0, FPS).strength < Budget(5.0, FPS).strength < Budget(3.0, FPS).strength


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
        budget.spent(code + part + 3, part, start=False)
    assert codes == pytest.approx(wanted, rel=0.02)


def test_a_key_leaves_whole_where_the_path_is_not_narrow() -> None:
    budget, narrow = Budget(KBPS, FPS), Budget(KBPS, FPS)
    narrow.set_rate(KBPS, narrow=True)
    for each in (budget, narrow):
        while not each.affords_key:
            each.spent(round(each.code_bytes) + 3, 0, start=False)
        each.key_made(1500)
    assert budget.object_bytes(30, 1500) >= 1500
    assert narrow.object_bytes(30, 1500) < 1000
    budget.spent(1530, 1500, start=False)
    waited = 0
    while not budget.affords_key:
        budget.spent(round(budget.code_bytes) + 3, 0, start=False)
        waited += 1
    assert waited > 4 * FPS, "it is paid back before the next"
