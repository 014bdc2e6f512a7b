"""Takes the once-a-second snapshot of a connection."""

import time
from typing import NamedTuple

from streamgc.profiling.percentiles import StageTimes, as_report
from streamgc.profiling.spans import Span
from streamgc.rtc.connection import Connection
from streamgc.rtc.hearing import SoundHeard
from streamgc.rtc.statistics import Received, Sent, Statistics

STAGE_WINDOW = 300
"""Spans a stage that its percentiles look back over: 20 s at 15 frames a second."""


class _Totals(NamedTuple):
    """Running totals, whose differences are rates."""

    at_ns: int
    wire_sent: int
    wire_received: int
    payload_sent: int
    payload_received: int
    frames_sent: int
    frames_shown: int
    sound_sent: int
    sound_received: int


class Snapshots:
    """Snapshots of one connection; rates are over the time since the one before."""

    def __init__(self, connection: Connection, engine: str = "") -> None:
        self._connection, self._engine = connection, engine
        self._stages = StageTimes(STAGE_WINDOW)
        self._start_ns = time.monotonic_ns()
        self._last = self._totals()
        self.spans: list[Span] = []  # of the last snapshot

    def take(self) -> Statistics:
        """The snapshot of now."""
        connection = self._connection
        self.spans = connection.spans.drain()
        self._stages.add_spans(self.spans)
        before, self._last = self._last, self._totals()
        seconds = max(1e-6, (self._last.at_ns - before.at_ns) / 1e9)
        rates = [(new - old) / seconds for new, old in zip(self._last, before, strict=True)]
        outgoing = connection.outgoing
        return Statistics(
            at_s=round((self._last.at_ns - self._start_ns) / 1e9, 3),
            state=connection.state,
            codec=connection.codec,
            model=connection.options.model,
            engine=self._engine,
            note=connection.failure or "",
            sent=self._sent(rates),
            received=self._received(rates),
            rtt_ms=round(outgoing.rtt_ms, 1) if outgoing and outgoing.rtt_ms is not None else None,
            stages=as_report(self._stages.percentiles()),
        )

    def _totals(self) -> _Totals:
        connection = self._connection
        sent = connection.outgoing.counts if connection.outgoing else None
        got = connection.incoming.counts if connection.incoming else None
        return _Totals(
            time.monotonic_ns(),
            connection.wire.bytes_sent,
            connection.wire.bytes_received,
            sent.payload_bytes if sent else 0,
            got.payload_bytes if got else 0,
            sent.sent if sent else 0,
            got.shown if got else 0,
            connection.sound.counts.payload_bytes if connection.sound else 0,
            connection.heard_sound.counts.payload_bytes if connection.heard_sound else 0,
        )

    def _sent(self, rates: list[float]) -> Sent:
        outgoing, rtcp, rate = self._connection.outgoing, self._connection.rtcp, self._connection.rate
        if outgoing is None:
            return Sent(kbps_onwire=_kbps(rates[1]))
        counts, sound = outgoing.counts, self._connection.sound
        return Sent(
            kbps_onwire=_kbps(rates[1]),
            kbps_payload=_kbps(rates[3]),
            fps=round(rates[5], 1),
            frames_captured=counts.captured,
            frames_sent=counts.sent,
            frames_dropped=dict(counts.dropped),
            packets=counts.packets,
            target_kbps=round(rate.message_kbps, 2),
            limit_kbps=round(rate.limit_kbps, 2),
            target_fps=rate.fps,
            repeat_depth=rate.depth,
            repeats=counts.repeats,
            echoes=counts.echoes,
            retransmitted=rtcp.retransmitted if rtcp else 0,
            intra_requested=counts.intra_requested,
            loss_reported=round(rate.loss, 4),
            people=counts.people,
            people_found=counts.people_found,
            kept_strength=round(counts.kept_strength, 2),
            sound_kbps=_kbps(rates[7]),
            sound_packet_ms=rate.sound.packet_ms if rate.sounding else 0,
            sound_packets=sound.counts.packets if sound else 0,
        )

    def _received(self, rates: list[float]) -> Received:
        incoming = self._connection.incoming
        if incoming is None:
            return Received(kbps_onwire=_kbps(rates[2]), silent_s=round(self._connection.heard.silent_s, 2))
        now = time.monotonic_ns()
        counts, messages = incoming.counts, incoming.reassembler.counts
        heard, skew = self._connection.heard_sound, self._connection.sync.skew_ms
        sound = heard.counts if heard is not None else SoundHeard()
        dropped = {**counts.dropped, "lost": messages.lost, "late": messages.late}
        return Received(
            kbps_onwire=_kbps(rates[2]),
            kbps_payload=_kbps(rates[4]),
            fps=round(rates[6], 1),
            frames_received=counts.received,
            frames_shown=counts.shown,
            frames_dropped={cause: number for cause, number in dropped.items() if number},
            messages_recovered=messages.recovered,
            messages_duplicate=messages.duplicate,
            packets=counts.packets,
            packets_reordered=messages.reordered,
            loss=round(incoming.loss.loss(now), 4),
            queue_ms=incoming.delay.queue_ms,
            jitter_ms=round(incoming.delay.jitter_ms, 1),
            freeze_longest_s=round(incoming.freeze_ns(now) / 1e9, 3),
            silent_s=round(self._connection.heard.silent_s, 2),
            sound_kbps=_kbps(rates[8]),
            sound_packets=sound.packets,
            sound_late=sound.late,
            sound_concealed_ms=sound.concealed_ms,
            skew_ms=None if skew is None else round(skew, 1),
        )


def _kbps(bytes_a_second: float) -> float:
    return round(bytes_a_second * 8 / 1000, 2)
