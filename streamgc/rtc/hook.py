"""How `video/SGC` gets into aiortc, which has no public hook for codecs.

What is changed for the whole process is small: one more entry in the list of video codecs, encoder and decoder
look-ups that know it, and a loopback address offered where a machine has no other. Everything else is set on the
objects of one connection (`connection.py`). All names that are used inside aiortc and aioice are checked by
`register`, so that another version says so in one line instead of failing in the middle of a call.
"""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import aiortc
import av
from aioice import ice
from aiortc import codecs, rtcrtpreceiver, rtcrtpsender
from aiortc.codecs.base import Decoder, Encoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpparameters import RTCRtcpFeedback, RTCRtpCodecCapability, RTCRtpCodecParameters

from streamgc.errors import CallError

CODEC_NAME = "SGC"
MIME_TYPE = "video/SGC"
PAYLOAD_TYPE = 120
CLOCK_RATE = 90_000
LOOPBACK = "127.0.0.1"

_LOCK = threading.Lock()


class Outgoing(NamedTuple):
    """What an SGC track hands to aiortc's sender: the packets of one message."""

    payloads: list[bytes]
    timestamp: int  # RTP clock, before aiortc adds its random origin


class SgcEncoder(Encoder):
    """Passes packets through: the work was done in the track, on a thread of ours."""

    def encode(self, frame: object, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        """An SGC track never hands over raw frames; one that comes all the same is not sent."""
        return [], 0

    def pack(self, packet: Any) -> tuple[list[bytes], int]:
        """`packet` is an `Outgoing`."""
        return packet.payloads, packet.timestamp


class SgcDecoder(Decoder):
    """Nothing should come here: messages are taken out before aiortc's decoder thread."""

    def decode(self, encoded_frame: JitterFrame) -> list[Any]:
        """Raises the only error that aiortc's decoder thread survives."""
        raise av.error.InvalidDataError(0, "SGC messages are not decoded here")


def register() -> None:
    """Make `video/SGC` known to aiortc; once a process, again does nothing.

    Raises `CallError` when this aiortc or aioice lacks a name that the connection uses.
    """
    with _LOCK:
        if any(codec.mimeType == MIME_TYPE for codec in codecs.CODECS["video"]):
            return
        check_names()
        feedback = [RTCRtcpFeedback("nack"), RTCRtcpFeedback("nack", "pli"), RTCRtcpFeedback("goog-remb")]
        codecs.CODECS["video"].append(
            RTCRtpCodecParameters(MIME_TYPE, CLOCK_RATE, payloadType=PAYLOAD_TYPE, rtcpFeedback=feedback)
        )
        _wrap(rtcrtpsender, "get_encoder", SgcEncoder)
        _wrap(rtcrtpreceiver, "get_decoder", SgcDecoder)
        addresses = ice.get_host_addresses
        ice.get_host_addresses = lambda use_ipv4, use_ipv6: addresses(use_ipv4, use_ipv6) or [LOOPBACK]


def preferences(own: bool, conventional: bool, only: str = "") -> list[RTCRtpCodecCapability]:
    """The video codecs to offer or accept, best first: ours, then VP8 and H.264 with retransmission; or `only` one."""
    known = codecs.get_capabilities("video").codecs
    if only:
        return [codec for codec in known if codec.name in (only, "rtx")]
    return [codec for codec in known if codec.name == CODEC_NAME and own] + [
        codec for codec in known if codec.name != CODEC_NAME and conventional
    ]


def opus() -> list[RTCRtpCodecCapability]:
    """The one audio codec to offer or accept."""
    return [codec for codec in codecs.get_capabilities("audio").codecs if codec.name.lower() == "opus"]


def check_names() -> None:
    """Raise `CallError` when aiortc or aioice lacks something that is used of its inside."""
    missing = [name for owner, names in _ATTRIBUTES for name in names if not hasattr(owner, name)]
    missing += [name for function, names in _USES for name in names if name not in _names_in(function)]
    if missing:
        found = f"aiortc {aiortc.__version__}"
        raise CallError(f"{found} is not the version StreamGC was tested with (1.16): it lacks {', '.join(missing)}")


def _names_in(function: Callable[..., Any]) -> set[str]:
    code = function.__code__
    return {*code.co_names, *code.co_varnames}


def _wrap(module: Any, name: str, ours: Callable[[], Any]) -> None:
    original = getattr(module, name)
    setattr(module, name, lambda codec: ours() if codec.name == CODEC_NAME else original(codec))


_ATTRIBUTES: tuple[tuple[object, tuple[str, ...]], ...] = (
    (rtcrtpsender, ("get_encoder",)),
    (rtcrtpreceiver, ("get_decoder",)),
    (rtcrtpreceiver.RTCRtpReceiver, ("_send_rtcp", "_send_rtcp_pli", "_handle_rtcp_packet")),
    (rtcrtpsender.RTCRtpSender, ("_handle_rtcp_packet", "_run_rtcp", "_send_rtcp")),
    (aiortc.RTCDtlsTransport, ("_handle_rtp_data", "_handle_rtcp_data")),
    (ice, ("get_host_addresses",)),
    (ice.StunProtocol, ("datagram_received",)),
    (ice.Connection, ("query_consent", "build_request")),
)

_USES: tuple[tuple[Callable[..., Any], tuple[str, ...]], ...] = (
    (
        rtcrtpreceiver.RTCRtpReceiver._handle_rtp_packet,
        (
            "_RTCRtpReceiver__jitter_buffer",
            "_RTCRtpReceiver__nack_generator",
            "_RTCRtpReceiver__remote_bitrate_estimator",
            "_RTCRtpReceiver__timestamp_mapper",
        ),
    ),
    (rtcrtpsender.RTCRtpSender._next_encoded_frame, ("get_encoder", "pack", "payloads")),
    (rtcrtpreceiver.decoder_worker, ("get_decoder",)),
    (aiortc.RTCPeerConnection.__init__, ("_RTCPeerConnection__cname",)),
    (aiortc.RTCDtlsTransport.__init__, ("_srtp_profiles",)),
    (ice.Connection.__init__, ("_protocols", "_nominated", "_closing")),
    (ice.Connection.connect, ("query_consent",)),
    (ice.Connection.gather_candidates, ("get_host_addresses",)),
)
