"""Feedback blocks, when they go out, and what the sender makes of them."""

from hypothesis import given
from hypothesis import strategies as st

from streamgc.errors import BitstreamError
from streamgc.rtc.estimate import DelayMeter, LossMeter, ReceivedRate
from streamgc.rtc.feedback import (
    FeedbackSchedule,
    Report,
    pack_application_feedback,
    pack_block,
    parse_application_feedback,
    parse_block,
)
from streamgc.rtc.rate import FLOOR_KBPS, RateControl
from streamgc.rtc.retransmission import REORDER_PATIENCE_NS, NackWhileUseful

MS = 1_000_000
HEADERS_KBPS = 6.4  # of 15 packets a second


@given(
    loss=st.floats(0, 1), queue=st.integers(0, 3000), rate=st.floats(0, 9000), newest=st.integers(0, 255),
    held=st.integers(0, 400), burst=st.floats(1, 40), widened=st.booleans(), codec=st.binary(max_size=200),
)  # fmt: skip
def test_blocks_survive_both_ways_of_travel(
    loss: float, queue: int, rate: float, newest: int, held: int, burst: float, widened: bool, codec: bytes
) -> None:
    fci = pack_application_feedback(pack_block(Report(loss, queue, rate, newest, held, burst, widened), codec))
    assert len(fci) % 4 == 0
    block = parse_application_feedback(fci)
    assert block is not None
    report, found = parse_block(block)
    assert found == codec
    assert report is not None
    assert abs(report.loss - loss) <= 1 / 500
    assert report.queue_ms == min(1020, queue // 4 * 4)
    assert abs(report.received_kbps - min(rate, 6553.5)) <= 0.06
    assert (report.newest, report.held_ms, report.widened) == (newest, min(255, held), widened)
    assert abs(report.burst - min(burst, 15.9)) <= 0.05
    assert parse_block(pack_block(None, codec)) == (None, codec)


@given(st.binary(max_size=40))
def test_any_bytes_parse_or_raise_our_error(data: bytes) -> None:
    for parse in (parse_block, parse_application_feedback):
        try:
            parse(data)
        except BitstreamError:
            continue


def test_urgent_feedback_goes_at_once_and_the_rest_keeps_a_beat() -> None:
    schedule = FeedbackSchedule(last_ns=1000 * MS)
    schedule.update(b"a", urgent=False)
    assert schedule.alone_at() == 1250 * MS
    assert not schedule.ride(1100 * MS)
    assert schedule.ride(1125 * MS)
    schedule.update(b"b", urgent=True)
    schedule.update(b"c", urgent=False)
    assert schedule.alone_at() == 1125 * MS
    assert schedule.take(1130 * MS) == b"c"
    assert not schedule.urgent
    assert not schedule.ride(1200 * MS)
    assert schedule.ride(1130 * MS + 180 * MS)


def test_loss_is_the_share_of_the_last_two_seconds() -> None:
    meter = LossMeter()
    assert meter.loss(0) == 0
    for number in range(300):
        if number % 5:
            meter.add(number + 65_500 & 0xFFFF, number * 20 * MS)
    assert abs(meter.loss(300 * 20 * MS) - 0.2) < 0.02
    for number in range(300, 450):
        meter.add(number + 65_500 & 0xFFFF, number * 20 * MS)
    assert meter.loss(450 * 20 * MS) == 0


def test_a_growing_queue_shows_and_clocks_do_not() -> None:
    meter = DelayMeter()
    for number in range(100):
        meter.add(number * 20.0 + 5e9, (number * 20 + 40) * MS)
    assert meter.queue_ms == 0
    for number in range(100, 200):
        meter.add(number * 20.0 + 5e9, (number * 20 + 40 + (number - 100) * 3) * MS)
    assert 200 < meter.queue_ms <= 300
    for number in range(200, 900):
        meter.add(number * 20.0 + 5e9, (number * 20 + 140) * MS)
    assert meter.queue_ms == 0  # after ten seconds the longer way is the normal one


def test_the_received_rate_is_that_of_the_last_half_second() -> None:
    rate = ReceivedRate()
    for number in range(100):
        rate.add(number * 20 * MS, 100)
    assert abs(rate.kbps(1981 * MS) - 40) < 2
    assert abs(rate.kbps(2230 * MS) - 20) < 2
    assert rate.kbps(9000 * MS) == 0


def report(loss: float = 0.0, queue: int = 0, kbps: float = 0.0) -> Report:
    return Report(loss, queue, kbps, 0, 0)


def test_messages_are_repeated_while_there_is_loss() -> None:
    rate = RateControl(12, 15)
    assert rate.depth == 0
    rate.spent(3000)  # no room for echoes
    rate.report(report(loss=0.05))
    assert (rate.depth, rate.echoes) == (1, 0)
    for _ in range(8):
        rate.report(report(loss=0.2))
    assert (rate.depth, rate.echoes) == (2, 0)
    for _ in range(240):
        rate.report(report())
    assert (rate.depth, rate.echoes) == (0, 0)


def test_a_queue_brings_the_rate_down_at_once_and_room_brings_it_back() -> None:
    now = [0.0]
    rate = RateControl(40, 15, clock=lambda: now[0])
    assert rate.message_kbps < 18
    for _ in range(20):  # five seconds without a queue
        now[0] += 0.25
        rate.report(report(kbps=rate.message_kbps + HEADERS_KBPS))
    assert rate.message_kbps == 40
    rate.report(report(queue=300, kbps=30))
    first = rate.message_kbps
    assert 9 < first < 17
    now[0] += 0.25
    rate.report(report(queue=300, kbps=30))
    assert rate.message_kbps == first  # not cut again before the cut can show
    rates = []
    for _ in range(40):  # ten seconds
        now[0] += 0.25
        rate.report(report(queue=10, kbps=rate.message_kbps + HEADERS_KBPS))
        rates.append(rate.message_kbps)
    assert 18 < rates[8] < 26  # slow at first where the queue was
    assert rates[-1] > 35


def test_a_path_that_has_become_wider_is_tried_at_once() -> None:
    now, found = [0.0], {}
    for widened in (False, True):
        rate = RateControl(40, 15, clock=lambda: now[0])
        for _ in range(8):
            now[0] += 0.25
            rate.report(report(queue=120, kbps=20))
        for step in range(16):
            now[0] += 0.25
            kbps = rate.message_kbps + HEADERS_KBPS
            rate.report(report(queue=10, kbps=kbps)._replace(widened=widened and step == 4))
        found[widened] = rate.limit_kbps
    assert found[False] < 26
    assert found[True] > 32


def test_around_the_same_bottleneck_the_rate_calms_down() -> None:
    now, queue, cuts = [0.0], 0.0, []
    rate = RateControl(40, 15, clock=lambda: now[0])
    for _ in range(800):  # 200 s over a path that takes 20 kbit/s
        now[0] += 0.25
        offered = rate.message_kbps + HEADERS_KBPS
        before = rate.limit_kbps
        queue = max(0.0, queue + (offered - 20) / 20 * 250)
        rate.report(report(queue=int(queue), kbps=min(20.0, offered)))
        if rate.limit_kbps < before:
            cuts.append(now[0])
    late = [at for at in cuts if at > 50]
    assert len(late) < 30
    assert rate.message_kbps > 9


def test_never_below_the_floor_and_a_remb_is_heeded() -> None:
    rate = RateControl(20, 15)
    rate.report(report(queue=900, kbps=0.1))
    assert rate.message_kbps == FLOOR_KBPS
    other = RateControl(20, 15)
    other.receiver_limit(16.0)
    assert 8 < other.message_kbps < 9


def test_repeats_stop_in_congestion_and_echoes_need_room() -> None:
    rate = RateControl(12, 15)
    for _ in range(60):
        rate.spent(60)  # 7.2 kbit/s
        rate.report(report(loss=0.05, kbps=20))
    assert (rate.depth, rate.echoes) == (1, 1)
    narrow = RateControl(12, 15)
    for _ in range(60):
        narrow.spent(60)
        narrow.report(report(loss=0.05, queue=60, kbps=10))
    assert (narrow.depth, narrow.echoes) == (1, 0)
    narrow.report(report(loss=0.2, queue=400, kbps=10))
    assert narrow.depth == 0


def test_fewer_pictures_where_headers_would_take_what_they_need() -> None:
    rates = []
    for wire in (100, 12, 8, 6):
        rate = RateControl(8, 15, wire_kbps=wire)
        rates.append(rate.fps)
        assert rate.message_kbps >= FLOOR_KBPS
        assert rate.message_kbps + rate.fps * 53 * 8 / 1000 <= wire
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 15
    assert rates[-1] == 5


def test_sound_and_picture_share_twenty_kilobits_and_sound_outlives_the_picture() -> None:
    rate = RateControl(8, 15, wire_kbps=20)
    rate.sounding = True
    assert rate.sound.wire_kbps < 10
    assert rate.fps >= 8
    assert rate.sound.wire_kbps + rate.message_kbps + rate.fps * 53 * 8 / 1000 <= 20
    narrow = RateControl(8, 15, wire_kbps=11)
    narrow.sounding = True
    assert narrow.fps == 1
    assert narrow.sound.wire_kbps + narrow.message_kbps + narrow.fps * 53 * 8 / 1000 <= 11
    wide = RateControl(8, 15, clock=lambda: 100.0)
    wide.sounding = True
    for _ in range(60):
        wide.report(report(kbps=wide.limit_kbps))
    assert (wide.sound.kbps, wide.sound.packet_ms) == (16, 20)
    assert wide.fps == 15


def test_nack_only_where_a_repair_is_quick() -> None:
    near, far = NackWhileUseful(), NackWhileUseful()
    for nack, trip in ((near, 8), (far, 120)):
        sequence, asked = 0, 0
        for step in range(300):
            sequence += 1
            now = (10_000 + step * 66) * MS
            if step % 10 == 5:
                sequence += 1  # the one before is lost
            if nack.note(sequence & 0xFFFF, now):
                asked += 1
                assert nack.missing == {sequence - 1}
                nack.note(sequence - 1, now + trip * MS)
                assert nack.repaired
        assert asked == (30 if nack is near else 4)
    assert near.patience_ns == 8 * 1_500_000 + 5 * MS
    assert far.patience_ns == REORDER_PATIENCE_NS
