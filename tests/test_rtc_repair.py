"""Repair and rate over the emulated network, by a simulated clock: what gets through in time, and what it costs.

A picture takes 20 ms to code, 20 ms to show and 40 ms of network, jitter of 5 ms apart; so of the 150 ms some 65 are
left for loss and queues.
"""

import random
import statistics
from pathlib import Path

import pytest

from streamgc.rtc.credit import BURST_S, DEBT_S, Credit
from streamgc.rtc.estimate import DelayMeter, LossMeter
from streamgc.rtc.feedback import Report
from streamgc.rtc.impairment import Impairment
from streamgc.rtc.repair import COPIES_MAX, ECHO_S, Repair, echo_waits
from tests.link_simulation import Simulated

MS = 1_000_000
SEEDS = (1, 2, 3)
SENT_KBPS = 14.4  # 8 kbit/s of messages and the headers of 15 packets a second


def simulated(seed: int, kbps: float = 8.0, **accidents: float | str) -> Simulated:
    return Simulated(Impairment(delay_ms=40, jitter_ms=5, seed=seed, **accidents), kbps).run()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("loss", "burst", "in_time", "freeze_s", "copies"),
    [
        (0.0, 1, 0.999, 0.15, 1.0),
        (0.01, 1, 0.995, 0.3, 2.1),
        (0.05, 1, 0.995, 0.25, 2.5),
        (0.1, 1, 0.995, 0.25, 3.2),
        (0.2, 1, 0.985, 0.3, 4.0),
        (0.5, 1, 0.88, 0.9, 4.0),
        (0.1, 3, 0.955, 0.9, 4.0),
        (0.02, 5, 0.96, 1.0, 4.0),
    ],
)
def test_pictures_come_in_time_although_packets_are_lost(
    loss: float, burst: float, in_time: float, freeze_s: float, copies: float
) -> None:
    calls = [simulated(seed, loss=loss, burst=burst) for seed in SEEDS]
    assert statistics.mean(call.share_within(0.15) for call in calls) >= in_time
    assert max(call.freeze_s() for call in calls) <= freeze_s
    sent = [statistics.mean(call.copies[45:]) for call in calls]
    assert max(sent) <= copies
    assert all(call.kbps_sent(3, 59) <= (SENT_KBPS + 8) * statistics.mean(sent) for call in calls)


def test_a_narrow_path_is_not_filled_with_copies() -> None:
    """Headers and a repeat in every packet are what fits into 20 kbit/s; the pictures still come within 250 ms."""
    for cap, within in ((60, 0.99), (30, 0.97), (20, 0.95)):
        call = simulated(1, rate_kbps=cap, loss=0.03)
        assert call.kbps_sent(3, 59) < cap
        assert call.share_within(0.25) >= within, cap


@pytest.mark.parametrize("cap", [20, 30, 60])
@pytest.mark.parametrize("kbps", [8, 24])
def test_a_cap_alone_costs_no_copies_and_little_delay(cap: float, kbps: float) -> None:
    calls = [simulated(seed, kbps, rate_kbps=cap) for seed in SEEDS]
    assert statistics.mean(call.share_within(0.25) for call in calls) >= 0.97
    assert statistics.mean(call.share_within(0.25, start=20) for call in calls) >= 0.98
    assert max(statistics.mean(call.copies[45:]) for call in calls) < 1.2
    assert min(call.kbps_sent(20, 59) for call in calls) > min(0.75 * cap, SENT_KBPS - 1)


def step(folder: Path) -> str:
    """A path of 100 kbit/s that takes 20 from 20 to 40 s."""
    trace = folder / "step.csv"
    trace.write_text("0,100\n20,20\n40,100\n120,100\n")
    return str(trace)


@pytest.mark.parametrize(("keyed", "jitter_ms", "back_s"), [(False, 5, 3.5), (True, 5, 3.5), (True, 10, 4)])
def test_a_step_down_is_followed_within_three_seconds_and_a_step_up_within_ten(
    keyed: bool, jitter_ms: float, back_s: float, tmp_path: Path
) -> None:
    """Keys that were saved up for, sent whole, made it 13 to 20 seconds down, and often none up."""
    for seed in (1, 2, 3, 4, 5, 6):
        path = Impairment(delay_ms=40, jitter_ms=jitter_ms, seed=seed, trace=step(tmp_path))
        call = Simulated(path, 24, keyed=keyed).run()
        assert call.kbps_sent(15, 20) > 28
        assert call.settled_s(20, 40) <= 1.5
        assert call.share_within(0.25, 23, 40) >= 0.99
        assert call.kbps_sent(23, 40) > 8
        assert call.back_s(40, 0.9 * 24) <= back_s
        assert call.share_within(0.25, 40, 59) >= 0.99


def test_keys_go_on_over_a_narrow_path_in_messages_that_hold_up_no_picture() -> None:
    for cap, kbps in ((20, 8), (30, 8), (20, 24)):
        calls = [
            Simulated(Impairment(delay_ms=40, jitter_ms=5, seed=seed, rate_kbps=cap), kbps, keyed=True).run()
            for seed in SEEDS
        ]
        for call in calls:
            assert call.share_within(0.25) >= 0.985
            assert max(size for at, size in call.messages if at > 5) < 350  # of 1500 that some keys have
            assert call.keys[0] < 8
            assert len([at for at in call.keys if at > 10]) >= 7
            assert sum(size for at, size in call.messages if at > 10) * 8 / 50_000 > 5  # kbit/s


def test_keys_leave_whole_until_a_queue_was_seen() -> None:
    call = Simulated(Impairment(delay_ms=40, jitter_ms=5), 8, keyed=True).run()
    assert max(size for at, size in call.messages if at > 5) > 900
    assert call.keys[0] < 0.2
    assert len(call.keys) >= 14


@pytest.mark.parametrize(("loss", "first_s", "in_time"), [(0.2, 1.5, 0.99), (0.5, 4.0, 0.93)])
def test_the_first_key_is_mended_at_once_where_packets_are_lost_without_a_queue(
    loss: float, first_s: float, in_time: float
) -> None:
    calls = [
        Simulated(Impairment(delay_ms=40, jitter_ms=5, seed=seed, loss=loss), keyed=True, seconds=20).run()
        for seed in SEEDS
    ]
    assert max(call.keys[0] for call in calls) <= first_s
    assert statistics.mean(call.share_within(0.25) for call in calls) >= in_time


def test_what_may_leave_at_once_is_a_part_of_the_rate_and_what_left_is_paid_back() -> None:
    now = [0.0]
    credit = Credit(lambda: now[0])
    full = credit.left(16)
    assert full == pytest.approx(16 * 125 * BURST_S)
    credit.spend(round(full) + 100, 16)
    assert credit.left(16) == pytest.approx(-100)
    now[0] += 0.05
    assert credit.left(16) == pytest.approx(0)
    now[0] += 10
    assert credit.left(16) == full
    assert credit.left(8) == full / 2  # what was saved at the old rate is gone
    credit.spend(5000, 16)
    now[0] += DEBT_S
    assert credit.left(16) == pytest.approx(0)


def test_copies_follow_what_is_lost_and_how() -> None:
    def after(loss: float, burst: float, reports: int = 60) -> int:
        repair = Repair()
        for _ in range(reports):
            repair.report(Report(loss, 0, 14.0, 0, 0, burst), congested=False)
        return repair.copies

    assert after(0.0, 1.0) == 1
    assert after(0.05, 1.05, reports=1) == 2  # at once
    assert after(0.05, 1.05) == 2
    assert after(0.12, 1.14) == 3
    assert after(0.3, 1.4) == COPIES_MAX
    assert after(0.05, 3.0) == COPIES_MAX


def test_what_has_ended_is_feared_for_a_while_and_what_congestion_dropped_is_not() -> None:
    repair = Repair()
    for _ in range(20):
        repair.report(Report(0.1, 0, 14.0, 0, 0, 3.0), congested=False)
    for _ in range(20):  # five seconds between two bursts
        repair.report(Report(0.0, 0, 14.0, 0, 0, 3.0), congested=False)
    assert repair.copies == COPIES_MAX
    for _ in range(240):
        repair.report(Report(0.0, 0, 14.0, 0, 0, 3.0), congested=False)
    assert repair.copies == 1
    for _ in range(20):
        repair.report(Report(0.3, 200, 14.0, 0, 0, 6.0), congested=True)
    assert repair.copies == 1


def test_echoes_are_apart_and_soon_over() -> None:
    assert echo_waits(0) == ()
    for echoes in range(1, COPIES_MAX):
        waits = echo_waits(echoes)
        assert len(waits) == echoes
        assert min(waits) >= ECHO_S
        assert sum(waits) <= 0.04


def test_the_mean_run_of_losses_is_of_the_last_runs_and_reordering_is_none() -> None:
    meter = LossMeter()
    assert meter.burst == 1
    for number in range(0, 4000, 20):
        for step in range(17):  # three of twenty are missing
            meter.add(number + step & 0xFFFF, (number + step) * 20 * MS)
    assert meter.burst == pytest.approx(3)
    for number in range(4000, 8000, 20):
        for step in range(19):
            meter.add(number + step & 0xFFFF, (number + step) * 20 * MS)
    assert meter.burst == pytest.approx(1, abs=0.05)
    assert len(meter._seen) <= 110  # those of two seconds, whether anybody asks or not
    overtaken = LossMeter()
    for number in range(0, 400, 2):
        overtaken.add(number + 1, number * 20 * MS)
        overtaken.add(number, (number + 1) * 20 * MS)
    assert overtaken.burst == 1
    outage = LossMeter()
    for number in (1, 2, 20_000):
        outage.add(number, number * MS)
    assert outage.burst <= 16


def test_a_path_that_widens_shows_in_packets_quicker_than_any_of_their_size() -> None:
    meter = DelayMeter()

    def send(start: int, count: int, kbps: float, size: int) -> None:
        for number in range(start, start + count):
            jitter = (number * 7 % 11) - 5
            meter.add(number * 66.0, round((number * 66 + 40 + size * 8 / kbps + jitter) * MS), size)

    send(0, 100, 20, 120)
    send(100, 3, 20, 40)  # short messages are quicker without any change of the path
    send(103, 160, 20, 120)
    now = 263 * 66 * MS
    assert not meter.widened(now)
    send(263, 9, 100, 120)
    assert meter.widened(now + 600 * MS)
    assert not meter.widened(now + 2500 * MS)


def test_a_path_that_widens_shows_among_messages_of_all_sizes() -> None:
    """The smallest over the narrow path are quicker than most over the wide one."""
    for seed in SEEDS:
        chance, meter, found = random.Random(seed), DelayMeter(), []
        for number in range(600):
            kbps, size = 20 if number < 300 else 100, chance.choice((20, 40, 60, 80, 120, 250))
            transit = 40 + (size + 53) * 8 / kbps + chance.gauss(0, 5)
            meter.add(number * 66.0, round((number * 66 + transit) * MS), size)
            if meter.widened(round((number * 66 + transit) * MS)):
                found.append(number)
        assert 300 <= found[0] < 315
        assert found[-1] < 340
