"""Repair and rate over the emulated network, by a simulated clock: what gets through in time, and what it costs.

A picture takes 20 ms to code, 20 ms to show and 40 ms of network, jitter of 5 ms apart; so of the 150 ms some 65 are
left for loss and queues.
"""

import statistics
from pathlib import Path

import pytest

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


def test_a_step_down_is_followed_within_three_seconds_and_a_step_up_within_ten(tmp_path: Path) -> None:
    trace = tmp_path / "step.csv"
    trace.write_text("0,100\n20,20\n40,100\n120,100\n")
    for seed in SEEDS:
        call = simulated(seed, 24, trace=str(trace))
        before = call.kbps_sent(15, 20)
        assert before > 28
        assert call.share_within(0.25, 23, 40) >= 0.97
        assert call.kbps_sent(23, 40) > 14
        back = next(
            second / 4 for second in range(80) if call.kbps_sent(40 + second / 4, 41 + second / 4) > 0.9 * before
        )
        assert back <= 5  # where the climb around the last congestion alone took more than twenty
        assert call.share_within(0.25, 40, 59) >= 0.99


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
    send(263, 3, 100, 120)
    assert meter.widened(now + 300 * MS)
    assert not meter.widened(now + 2000 * MS)
