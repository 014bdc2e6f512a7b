"""One peer connection that carries SGC: negotiation, states, feedback, closing.

connection = Connection(options, sender=…, receiver=…, on_shown=…)
text = await connection.offer()            # the other side: answer(text) → text; this side: accept(text)
await connection.connected(timeout=5)
connection.put(captured) …
await connection.close()
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.exceptions import OperationError
from aiortc.rtp import RTCP_PSFB_APP, RtcpPsfbPacket

from streamgc.errors import BackendMissing, CallError, InputError, ModelMismatch, PeerUnreachable, SignallingError
from streamgc.profiling.spans import Spans
from streamgc.rtc import hook, wiring
from streamgc.rtc.description import FORMAT_VERSION, Parameters, has_sound, has_video, read_parameters, write_parameters
from streamgc.rtc.feedback import pack_application_feedback
from streamgc.rtc.hearing import IncomingSound
from streamgc.rtc.impairment import Impairment, Link
from streamgc.rtc.incoming import IncomingVideo, PacketBuffer
from streamgc.rtc.lipsync import LipSync, honest_reports
from streamgc.rtc.liveness import SILENCE_S, Heard, consent
from streamgc.rtc.opus import Samples
from streamgc.rtc.outgoing import OutgoingVideo
from streamgc.rtc.pictures import Captured, Encoded, Picture, PictureReceiver, PictureSender, Shown
from streamgc.rtc.rate import RateControl
from streamgc.rtc.rtcp import SenderRtcp
from streamgc.rtc.sound import OutgoingSound, Sound
from streamgc.rtc.wire import Wire

CLOSE_S = 1.0
_GRACE_NS = 80_000_000
"""Feedback waits so long for a reverse packet before it goes out by itself."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConnectionOptions:
    """What is fixed for the life of a connection."""

    model: str  # 16 hex digits
    kbps: float = 12.0  # ceiling for frame messages
    fps: float = 15.0
    ice_servers: tuple[RTCIceServer, ...] = ()
    impairment: Impairment | None = None  # of what this side sends
    sgc: bool = True  # False: a conventional codec from the start, for what SGC is not made for
    fallback: bool = True  # VP8 or H.264 with a peer that has no SGC or another model
    codec: str = ""  # the only one to offer and accept: VP8 or H264, for comparison; empty = SGC if both have it
    sound: bool = False  # offer and accept sound
    sound_kbps: float = 16.0  # ceiling for Opus
    wire_kbps: float = 0.0  # ceiling for all that is sent, headers included; 0 = none


class Connection:
    """A peer connection with one video stream in each direction that has a codec, and sound both ways if wanted.

    `conventional` says how a picture is made fit to be sent by VP8 when the peer has no SGC; without it nothing is
    sent then, because a conventional codec sends the whole picture. `on_shown(shown, at_ns)`, `on_sent(number,
    captured, encoded)`, `on_sound(samples, at_ns)` and `on_state(name)` are called on the event loop; states are
    connecting, connected, silent, failed and closed. Sound is 48 kHz, mono, int16: `put_sound` takes it, `on_sound`
    gets 20 ms at a time.
    """

    def __init__(
        self,
        options: ConnectionOptions,
        sender: PictureSender | None = None,
        receiver: PictureReceiver | None = None,
        on_shown: Callable[[Shown, int], None] = lambda shown, at_ns: None,
        on_sent: Callable[[int, Captured, Encoded], None] = lambda number, captured, encoded: None,
        on_state: Callable[[str], None] = lambda state: None,
        on_plain: Callable[[Picture, int, int | None], None] = lambda picture, at_ns, captured_ns: None,
        conventional: Callable[[Picture], Picture] | None = None,
        spans: Spans | None = None,
        on_sound: Callable[[Samples, int], None] = lambda samples, at_ns: None,
    ) -> None:
        if sender is None and receiver is None:
            raise InputError("a connection needs a sender or a receiver")
        hook.register()
        self.options = options
        self.state = "new"
        self.codec = ""  # what was negotiated: SGC, VP8 or H264
        self.failure: str | None = None
        self.heard = Heard()
        self.rate = RateControl(options.kbps, options.fps, options.wire_kbps, options.sound_kbps)
        self.spans = Spans() if spans is None else spans  # an empty recorder is falsy
        self.errors = 0  # packets that made aiortc or us raise
        self._parameters = Parameters(FORMAT_VERSION, options.model)
        self._on_state, self._on_plain, self._conventional = on_state, on_plain, conventional
        self.wire = Wire(Link(options.impairment) if options.impairment else None)
        self.pc = RTCPeerConnection(
            RTCConfiguration(list(options.ice_servers), bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
        )
        self.pc._RTCPeerConnection__cname = secrets.token_hex(4)  # type: ignore[attr-defined]  # short: it is sent often
        self.pc.on("connectionstatechange", self._state_changed)
        self._settled = asyncio.Event()
        self._feedback_due = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._transceiver: RTCRtpTransceiver | None = None
        self.rtcp: SenderRtcp | None = None
        self.sync = LipSync()
        self.outgoing = (
            OutgoingVideo(sender, self.rate, self.spans, self._riding_block, on_sent, self._fail) if sender else None
        )
        self.incoming = (
            IncomingVideo(
                receiver, self.spans, on_shown, self._take_block, self._feedback_due.set, self._request_intra, self.sync
            )
            if receiver
            else None
        )
        self.sound: OutgoingSound | None = None
        self.heard_sound: IncomingSound | None = None
        self._sound_transceiver: RTCRtpTransceiver | None = None
        if options.sound:
            self._prepare_sound(on_sound)

    async def offer(self) -> str:
        """The session description to send to the peer."""
        self._add_transceiver(self.options.sgc)
        if self.sound is not None:
            self._add_sound(self.sound)
        await self.pc.setLocalDescription(await self.pc.createOffer())
        self._check_candidates()
        return write_parameters(self.pc.localDescription.sdp, self._parameters)

    async def answer(self, text: str) -> str:
        """Take the peer's offer, return the answer to send back.

        Raises `SignallingError` when the text is no offer, `ModelMismatch` or `CallError` when there is no common
        codec.
        """
        theirs = read_parameters(text)
        same = theirs == self._parameters
        if not same:
            self._explain(theirs)
        self._add_transceiver(same and self.options.sgc)
        if self.sound is not None and has_sound(text):
            self._add_sound(self.sound)
        await self._set_remote(text, "offer")
        for transceiver in self.pc.getTransceivers():
            if transceiver not in (self._transceiver, self._sound_transceiver):
                transceiver.direction = "inactive"  # what nobody listens to would fill a queue
        await self.pc.setLocalDescription(await self.pc.createAnswer())
        self._check_candidates()
        self._wire_up()
        return write_parameters(self.pc.localDescription.sdp, self._parameters)

    async def accept(self, text: str) -> None:
        """Take the peer's answer; raises as `answer` does."""
        theirs = read_parameters(text)
        await self._set_remote(text, "answer")
        self._wire_up()
        if theirs != self._parameters:
            self._explain(theirs)
            if self.codec == hook.CODEC_NAME:
                raise ModelMismatch("the peer chose SGC with another model than ours")

    async def connected(self, timeout: float = 10.0) -> None:
        """Wait until media can flow; raises `PeerUnreachable` when it cannot, or not within `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._settled.wait()
        if self.state != "connected":
            raise PeerUnreachable(
                "no network path to the peer was found: check that UDP is allowed, or use a TURN server (--turn)"
            )

    def put(self, captured: Captured) -> None:
        """Send a picture; one that waits is replaced."""
        if self.outgoing is not None and self.state in ("connected", "silent"):
            self.outgoing.put(captured)

    def put_sound(self, sound: Sound) -> None:
        """Send sound, if it was negotiated and the user is not muted."""
        if self.sound is not None and self._sound_transceiver is not None and self.state in ("connected", "silent"):
            self.rate.sounding = not self.sound.muted
            self.sound.put(sound)

    def mute(self, muted: bool) -> None:
        """Send no sound from now on, or send it again."""
        if self.sound is not None:
            self.sound.muted = muted
            self.rate.sounding = self.rate.sounding and not muted

    async def close(self) -> None:
        """End everything within about a second: tasks, threads, sockets."""
        if self.state == "closed":
            return
        self._set_state("closed")
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)
        for track in (self.outgoing, self.sound):
            if track is not None:
                track.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self.pc.close()
        for worker in (self.outgoing, self.incoming, self.heard_sound):
            if worker is not None:
                await worker.close()
        self.wire.close()

    def _add_transceiver(self, own: bool) -> None:
        direction = "sendrecv" if self.outgoing and self.incoming else "sendonly" if self.outgoing else "recvonly"
        self._transceiver = self.pc.addTransceiver(self.outgoing or "video", direction=direction)
        self._transceiver.setCodecPreferences(hook.preferences(own, self.options.fallback, self.options.codec))

    def _prepare_sound(self, on_sound: Callable[[Samples, int], None]) -> None:
        try:
            self.sound = OutgoingSound(lambda: self.rate.sound)
            self.heard_sound = IncomingSound(on_sound, self.sync)
        except BackendMissing as error:
            self.sound = self.heard_sound = None
            _log.warning("%s", error)
        if self.incoming is not None:
            self.incoming.sound = self.heard_sound

    def _add_sound(self, track: OutgoingSound) -> None:
        self._sound_transceiver = self.pc.addTransceiver(track, direction="sendrecv")
        self._sound_transceiver.setCodecPreferences(hook.opus())

    async def _set_remote(self, text: str, kind: str) -> None:
        if not has_video(text):
            raise SignallingError(f"the peer's {kind} is no session description with video")
        try:
            await self.pc.setRemoteDescription(RTCSessionDescription(text, kind))
        except OperationError as error:
            raise CallError("the peer has no video codec in common with us") from error
        except Exception as error:  # aiortc's parser raises whatever it stumbles over
            raise SignallingError(f"the peer's {kind} is no session description") from error

    def _explain(self, theirs: Parameters | None) -> None:
        """Say why SGC is not used; an error when nothing else may be."""
        reason = self._parameters.against(theirs)
        if not self.options.fallback:
            raise ModelMismatch(reason) if theirs else CallError(reason)
        self.failure = f"{reason}: a conventional codec is used"
        _log.warning("%s", self.failure)

    def _check_candidates(self) -> None:
        if "a=candidate:" not in self.pc.localDescription.sdp:
            raise PeerUnreachable("this machine has no network address to be reached at")

    def _wire_up(self) -> None:
        """Set what this connection needs on aiortc's objects, between negotiation and connecting."""
        transceiver = self._transceiver
        assert transceiver is not None
        self.codec = transceiver._codecs[0].name
        transport: Any = transceiver.receiver.transport
        agent = transport.transport._connection
        agent.query_consent = consent(agent, self.heard)
        wiring.transport(transport, self._guarded)
        self.wire.attach(agent._protocols)
        if self.codec == hook.CODEC_NAME:
            self._wire_sgc(transceiver)
        else:
            self._wire_conventional(transceiver)
        if self._sound_transceiver is not None and self._sound_transceiver._codecs:
            assert self.sound is not None
            assert self.heard_sound is not None
            wiring.sound(self._sound_transceiver, self.sound, self.heard_sound, self.sync)

    def _wire_sgc(self, transceiver: Any) -> None:
        sender, receiver = transceiver.sender, transceiver.receiver
        outgoing = self.outgoing
        wiring.sgc(transceiver, None if outgoing is None else lambda: outgoing.stamped, self.sync)
        if self.incoming is not None:
            receiver._RTCRtpReceiver__jitter_buffer = PacketBuffer(self.incoming.take_packet)
            receiver._RTCRtpReceiver__nack_generator = self.incoming.nack
            self._start(self._send_feedback())
        if outgoing is not None:
            self.rtcp = SenderRtcp(sender._handle_rtcp_packet, outgoing, self.rate, sender._ssrc)
            sender._handle_rtcp_packet = self.rtcp.handle

    def _wire_conventional(self, transceiver: Any) -> None:
        if self.outgoing is not None:
            if self._conventional is None:
                raise CallError("the peer has no SGC, and the background mode forbids to send whole pictures")
            outgoing = self.outgoing
            outgoing.conventional = self._conventional
            sender = transceiver.sender
            sender._send_rtcp = honest_reports(sender._send_rtcp, lambda: outgoing.stamped)
        wiring.listen_for_reports(transceiver.receiver, self.sync, "video", hook.CLOCK_RATE)
        if self.incoming is not None and transceiver.receiver.track is not None:
            self._start(wiring.show_conventional(transceiver.receiver, self.sync, self._on_plain))

    def _guarded(self, handle: wiring.Handler) -> wiring.Handler:
        """Count what the peer authenticated as a sign of life, and keep its packets from ending the transport."""

        async def guarded(*arguments: Any, **named: Any) -> None:
            self.heard.note()
            if self.state == "silent":
                self._set_state("connected")
            try:
                await handle(*arguments, **named)
            except ConnectionError:
                raise
            except Exception as error:
                self.errors += 1
                _log.debug("packet ignored: %s: %s", type(error).__name__, error)

        return guarded

    def _riding_block(self, now_ns: int) -> bytes:
        if self.incoming is None or not self.incoming.schedule.ride(now_ns):
            return b""
        return self.incoming.block(now_ns)

    async def _send_feedback(self) -> None:
        """Feedback that found no reverse packet to ride on goes out by RTCP."""
        assert self.incoming is not None
        assert self._transceiver is not None
        receiver: Any = self._transceiver.receiver
        schedule = self.incoming.schedule
        while True:
            now = time.monotonic_ns()
            grace = _GRACE_NS if self.outgoing is not None and self.outgoing.counts.sent else 0
            wait = schedule.alone_at() + grace - now
            if wait > 0:
                self._feedback_due.clear()
                # Not wait_for: before Python 3.12 it may swallow a cancellation.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait / 1e9):
                        await self._feedback_due.wait()
                continue
            block = self.incoming.block(now)
            if not block:
                schedule.last_ns = now
                continue
            own, media = self._transceiver.sender._ssrc, self.incoming.remote_ssrc
            fci = pack_application_feedback(block)
            await receiver._send_rtcp(RtcpPsfbPacket(fmt=RTCP_PSFB_APP, ssrc=own, media_ssrc=media, fci=fci))

    def _take_block(self, data: bytes) -> None:
        if self.rtcp is not None:
            self.rtcp.take_block(data)

    def _request_intra(self) -> None:
        assert self._transceiver is not None
        assert self.incoming is not None
        receiver: Any = self._transceiver.receiver
        self._start(receiver._send_rtcp_pli(self.incoming.remote_ssrc))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self) -> None:
        while self.state in ("connected", "silent"):
            await asyncio.sleep(0.25)
            if self.state == "connected" and self.heard.silent_s > SILENCE_S:
                self._set_state("silent")

    def _state_changed(self) -> None:
        state = self.pc.connectionState
        if state == "connected" and self.state in ("new", "connecting"):
            self.heard.note()
            self._set_state("connected")
            self._start(self._watch())
        elif state in ("failed", "closed") and self.state != "closed":
            self.failure = self.failure or "the connection to the peer was lost"
            self._set_state("failed")
        elif state == "connecting" and self.state == "new":
            self._set_state("connecting")

    def _set_state(self, state: str) -> None:
        if state != self.state:
            self.state = state
            if state in ("connected", "failed", "closed"):
                self._settled.set()
            self._on_state(state)

    def _fail(self, error: Exception) -> None:
        self.failure = f"the sender stopped: {error}"
        self._set_state("failed")
