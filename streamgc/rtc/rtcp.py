"""RTCP of an SGC stream: fewer reports than aiortc sends, and what comes in from the receiver."""

import itertools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    RtcpPsfbPacket,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSrPacket,
    unpack_remb_fci,
)

from streamgc.errors import BitstreamError
from streamgc.rtc.feedback import parse_application_feedback, parse_block
from streamgc.rtc.outgoing import OutgoingVideo
from streamgc.rtc.rate import RateControl

REPORTS_KEPT = 5
"""One in so many sender and receiver reports goes out: about every five seconds. Each costs some 100 bytes a second
otherwise, and all that is in them but the clock for lip-sync comes in our own feedback."""

FIRST_REPORTS = 3
"""All of the first go out, so that sound and picture agree early although some are lost."""

RETRANSMISSIONS_MAX = 40
"""Packets a second that a receiver may ask for again, so that it cannot make a sender flood."""

_log = logging.getLogger(__name__)


def thin_reports(send: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    """A replacement for `_send_rtcp` of aiortc's sender or receiver that leaves most regular reports out."""
    count = itertools.count()

    async def thinned(packets: Any) -> None:
        first = packets[0] if isinstance(packets, list) else packets
        if isinstance(first, RtcpSrPacket | RtcpRrPacket):
            number = next(count)
            if number >= FIRST_REPORTS and number % REPORTS_KEPT:
                return
        await send(packets)

    return thinned


class SenderRtcp:
    """In place of `_handle_rtcp_packet` of aiortc's sender."""

    def __init__(
        self, original: Callable[[Any], Awaitable[None]], track: OutgoingVideo, rate: RateControl, ssrc: int
    ) -> None:
        self._original, self._track, self._rate, self._ssrc = original, track, rate, ssrc
        self._second, self._this_second = 0, 0
        self.retransmitted = 0
        self.malformed = 0

    async def handle(self, packet: Any) -> None:
        """Take one RTCP packet that aiortc routed to this sender."""
        if isinstance(packet, RtcpPsfbPacket):
            if packet.fmt in (RTCP_PSFB_PLI, RTCP_PSFB_FIR):
                self._track.request_intra()
            elif packet.fmt == RTCP_PSFB_APP:
                self._application(packet.fci)
        elif isinstance(packet, RtcpRtpfbPacket) and packet.fmt == RTCP_RTPFB_NACK:
            packet.lost = packet.lost[: self._allowance(len(packet.lost))]
            await self._original(packet)
        else:
            await self._original(packet)

    def take_block(self, data: bytes) -> None:
        """Take a feedback block, from RTCP or from a packet of the other direction."""
        try:
            block = parse_block(data)
        except BitstreamError:
            self.malformed += 1
            return
        if block.report is not None:
            self._track.report(block.report, time.monotonic_ns())
        if block.codec:
            self._track.feedback(block.codec)

    def _application(self, fci: bytes) -> None:
        try:
            block = parse_application_feedback(fci)
        except BitstreamError:
            self.malformed += 1
            return
        if block is not None:
            self.take_block(block)
            return
        try:
            bitrate, ssrcs = unpack_remb_fci(fci)
        except Exception:  # struct.error too: aiortc does not check the length
            self.malformed += 1
            return
        if self._ssrc in ssrcs:
            self._rate.receiver_limit(bitrate / 1000)

    def _allowance(self, wanted: int) -> int:
        second = time.monotonic_ns() // 1_000_000_000
        if second != self._second:
            self._second, self._this_second = second, 0
        allowed = min(wanted, RETRANSMISSIONS_MAX - self._this_second)
        self._this_second += allowed
        self.retransmitted += allowed
        return allowed
