"""What a connection changes on aiortc's objects, between negotiation and connecting."""

import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

from aiortc.mediastreams import MediaStreamError

from streamgc.rtc import hook
from streamgc.rtc.hearing import IncomingSound
from streamgc.rtc.incoming import PacketBuffer
from streamgc.rtc.lipsync import LipSync, honest_reports, monotonic_of
from streamgc.rtc.opus import SAMPLE_RATE
from streamgc.rtc.pictures import Picture
from streamgc.rtc.rtcp import thin_reports
from streamgc.rtc.sound import OutgoingSound

Handler = Callable[..., Coroutine[Any, Any, None]]
_SHORT_TAG = b"SRTP_AES128_CM_SHA1_80"
"""The SRTP profile with the shortest tag that browsers and aiortc have: 10 bytes a packet instead of GCM's 16."""


def transport(of: Any, guarded: Callable[[Handler], Handler]) -> None:
    """Ask for short SRTP tags, and put ``guarded`` around what takes in the peer's packets."""
    of._srtp_profiles = sorted(of._srtp_profiles, key=lambda one: one.openssl_profile != _SHORT_TAG)
    of._handle_rtp_data = guarded(of._handle_rtp_data)
    of._handle_rtcp_data = guarded(of._handle_rtcp_data)


def sound(transceiver: Any, track: OutgoingSound, heard: IncomingSound, sync: LipSync) -> None:
    """Have sound leave and arrive by our own tracks."""
    transceiver._headerExtensions = []
    sender, receiver = transceiver.sender, transceiver.receiver
    receiver._RTCRtpReceiver__jitter_buffer = PacketBuffer(heard.take_packet)
    receiver._send_rtcp = thin_reports(receiver._send_rtcp)
    sender._send_rtcp = honest_reports(thin_reports(sender._send_rtcp), lambda: track.stamped)
    listen_for_reports(receiver, sync, "audio", SAMPLE_RATE)


def sgc(transceiver: Any, stamped: Callable[[], tuple[int, int] | None] | None, sync: LipSync) -> None:
    """Leave out what SGC does not need, and thin out reports; ``stamped`` as in `honest_reports`, None for a
    connection that only receives."""
    transceiver._headerExtensions = []  # 12 bytes a packet
    sender, receiver = transceiver.sender, transceiver.receiver
    receiver._RTCRtpReceiver__remote_bitrate_estimator = None
    receiver._send_rtcp = thin_reports(receiver._send_rtcp)
    sender._send_rtcp = thin_reports(sender._send_rtcp)
    if stamped is not None:
        sender._send_rtcp = honest_reports(sender._send_rtcp, stamped)
    listen_for_reports(receiver, sync, "video", hook.CLOCK_RATE)


def listen_for_reports(receiver: Any, sync: LipSync, kind: str, rate: int) -> None:
    """Let ``sync`` see the sender reports of a stream whose clock ticks ``rate`` times a second."""
    original = receiver._handle_rtcp_packet

    async def handle(packet: Any) -> None:
        sync.note(kind, rate, packet)
        await original(packet)

    receiver._handle_rtcp_packet = handle


async def show_conventional(receiver: Any, sync: LipSync, on_plain: Callable[[Picture, int, int | None], None]) -> None:
    """Hand on the newest pictures of a conventional codec until the track ends: RGB, now, and the moment of capture if
    known (both time.monotonic_ns)."""
    track = receiver.track
    with contextlib.suppress(MediaStreamError):
        while True:
            frame = await track.recv()
            while not track._queue.empty() and (newer := track._queue.get_nowait()) is not None:
                frame = newer
            stamp = frame.pts + receiver._RTCRtpReceiver__timestamp_mapper._origin & 0xFFFFFFFF
            captured = sync.captured_ns("video", stamp)
            now = time.monotonic_ns()
            on_plain(frame.to_ndarray(format="rgb24"), now, None if captured is None else monotonic_of(captured))
