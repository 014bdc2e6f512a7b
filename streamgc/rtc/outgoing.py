"""The sending half: newest picture in, packets out.

aiortc's sender asks its track for the next thing to send and waits; the track takes the newest captured picture, has
the codec encode it on a thread of its own, and returns the packets. So a slow encoder never builds delay: the
pictures in between are replaced, and counted.
"""

import asyncio
import contextlib
import fractions
import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import av
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from streamgc.errors import BitstreamError
from streamgc.profiling.spans import REPORT_IN, Spans
from streamgc.rtc.feedback import Report
from streamgc.rtc.hook import CLOCK_RATE, Outgoing
from streamgc.rtc.payload import REPEATS_MAX, WIRE_OVERHEAD, packetise
from streamgc.rtc.pictures import Captured, Encoded, NewestSlot, Picture, PictureSender
from streamgc.rtc.rate import RateControl
from streamgc.rtc.repair import echo_waits
from streamgc.rtc.worker import Worker

FAILURES_MAX = 15
"""Pictures in a row that the codec may fail on before the call is given up."""

INTRA_INTERVAL_NS = 500_000_000
"""At most so often is the codec asked for an intra message, however many are requested."""

REPEAT_MAX_BYTES = 500
"""What is longer than this is not repeated: the codec sees to it that long objects arrive."""

EARLY_NS = 15_000_000
"""A picture may be so much early when fewer are sent than are captured."""

_TIME_BASE = fractions.Fraction(1, CLOCK_RATE)

_log = logging.getLogger(__name__)


@dataclass
class SendCounts:
    """What became of the pictures, since the start."""

    captured: int = 0
    sent: int = 0
    packets: int = 0
    payload_bytes: int = 0
    repeats: int = 0
    echoes: int = 0
    intra_requested: int = 0
    people: int = 0  # in the last picture, where the codec says it: kept, found, and how strongly
    people_found: int = 0
    kept_strength: float = 1.0
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass
class _Orders:
    """What has to be told to the codec before its next picture."""

    feedback: bytes = b""
    intra: bool = False
    kbps: float = 0.0
    fps: float = 0.0
    burst: float = 0.0
    narrow: bool = False


class _Echo(NamedTuple):
    """A message that is sent again."""

    at_s: float  # when, time.monotonic
    number: int
    captured: Captured
    waits: tuple[float, ...]  # seconds to those after it


class Plain(NamedTuple):
    """In place of what the codec made, for a picture that a conventional codec sends."""

    message: bytes = b""
    repeat: bytes = b""
    kept: Picture | None = None


class OutgoingVideo(MediaStreamTrack):
    """The video track of an SGC sender. With `conventional` set it hands pictures to aiortc's own encoder instead."""

    kind = "video"

    def __init__(
        self,
        codec: PictureSender,
        rate: RateControl,
        spans: Spans,
        feedback_block: Callable[[int], bytes],
        on_sent: Callable[[int, Captured, Encoded], None] = lambda number, captured, encoded: None,
        on_failed: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        super().__init__()
        self.counts = SendCounts()
        self.rtt_ms: float | None = None
        self.conventional: Callable[[Picture], Picture] | None = None
        self.stamped: tuple[int, int] | None = None  # RTP time before aiortc's origin, and capture, of the last packet
        self._codec, self._rate, self._spans = codec, rate, spans
        self._feedback_block, self._on_sent, self._on_failed = feedback_block, on_sent, on_failed
        self._slot: NewestSlot[Captured] = NewestSlot(lambda: self._drop("replaced before encoding"))
        self._worker = Worker("sgc-encoder")
        self._number = 0
        self._orders = _Orders()
        self._intra_ns = -INTRA_INTERVAL_NS
        self._failures = 0
        self._earlier: deque[bytes] = deque(maxlen=REPEATS_MAX)
        self._sent_ns: dict[int, int] = {}
        self._echo: _Echo | None = None
        self._coding: asyncio.Task[Outgoing | None] | None = None
        self._packetised: tuple[int, int] | None = None  # the message that aiortc is sending, and since when
        self._plain_stamp: tuple[int, int] | None = None
        self._due_ns = 0  # when the rate control wants the next picture

    def put(self, captured: Captured) -> None:
        """Hand over a picture; if the codec is busy it waits, until a newer one replaces it."""
        self.counts.captured += 1
        if self._wanted(captured.captured_ns):
            self._slot.put(captured)
        else:
            self._drop("held back by the rate control")

    async def recv(self) -> Any:
        """For aiortc: the packets of the next picture (or the picture itself, for a conventional codec)."""
        if self._packetised is not None:  # aiortc asks for more once the packets before are on their way
            number, since = self._packetised
            self._packetised = None
            self._spans.add("pace", since, time.monotonic_ns(), number)
        if self._plain_stamp is not None:  # what was handed over last has left now
            self.stamped = self._plain_stamp
        while self.readyState == "live":
            if self._coding is None:
                captured = await self._take()
                if captured is None:
                    return self._make_echo()
                if self.conventional is not None:
                    frame = await self._plain(captured, self.conventional)
                    if frame is None:
                        continue
                    return frame
                self._coding = asyncio.create_task(self._next(captured))
            await asyncio.wait({self._coding}, timeout=self._until_echo())
            if not self._coding.done():
                return self._make_echo()
            coding, self._coding = self._coding, None
            outgoing = coding.result()
            if outgoing is not None:
                self._packetised = self._number - 1, time.monotonic_ns()
                return outgoing
        raise MediaStreamError

    def request_intra(self) -> None:
        """The far side asked for a picture that decodes by itself (PLI)."""
        now = time.monotonic_ns()
        if now - self._intra_ns >= INTRA_INTERVAL_NS:
            self._intra_ns, self._orders.intra = now, True
            self.counts.intra_requested += 1

    def feedback(self, data: bytes) -> None:
        """Take the codec's feedback from the far side; it reaches the codec before its next picture."""
        self._orders.feedback = data

    def report(self, report: Report, now_ns: int) -> None:
        """Take the transport's report from the far side."""
        self._rate.report(report)
        held_ns = report.held_ms * 1_000_000
        self._spans.add(REPORT_IN, now_ns - held_ns, now_ns, report.newest)
        sent = self._sent_ns.get(report.newest)
        if sent is not None and report.held_ms < 255:
            measured = (now_ns - sent) / 1e6 - report.held_ms
            if measured >= 0:
                self.rtt_ms = measured if self.rtt_ms is None else 0.8 * self.rtt_ms + 0.2 * measured

    def _wanted(self, captured_ns: int) -> bool:
        """Whether a picture is due at the frame rate that the path takes."""
        if self.conventional is not None or self._rate.fps >= self._rate.source_fps:
            return True
        if captured_ns < self._due_ns - EARLY_NS:
            return False
        interval = round(1e9 / self._rate.fps)
        self._due_ns = max(self._due_ns + interval, captured_ns)
        return True

    async def close(self) -> None:
        """Stop handing out pictures and end the worker."""
        self.stop()
        await self._worker.close()
        if self._coding is not None:
            self._coding.cancel()
            await asyncio.wait({self._coding})

    def _until_echo(self) -> float | None:
        """Seconds until the next echo is due; None when there is none."""
        return None if self._echo is None else max(0.0, self._echo.at_s - time.monotonic())

    async def _take(self) -> Captured | None:
        """The next picture, or None when the echo of the last message is due before there is one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._until_echo()):
                return await self._slot.take()
        return None

    def _make_echo(self) -> Outgoing:
        assert self._echo is not None
        echo, self._echo = self._echo, None
        if echo.waits:
            self._echo = echo._replace(at_s=echo.at_s + echo.waits[0], waits=echo.waits[1:])
        payloads = self._packed(echo.number, echo.captured, self._earlier[0], ())
        self.counts.echoes += 1
        return self._outgoing(payloads, echo.captured)

    async def _next(self, captured: Captured) -> Outgoing | None:
        """The packets of a picture. The last message's echoes go on meanwhile, and end with the new message, which
        repeats it."""
        orders, self._orders = self._orders, _Orders()
        orders.kbps, orders.fps = self._rate.message_kbps, self._rate.fps
        orders.burst, orders.narrow = self._rate.burst_bytes, self._rate.narrow
        number = self._number
        try:
            encoded = await self._worker.run(lambda: self._encode(captured, number, orders))
            message = encoded.message
            payloads = self._packetise(number, captured, message, tuple(self._earlier)) if message else []
        except Exception as error:  # whatever the codec raises costs one picture, not the call
            self._orders.intra = self._orders.intra or orders.intra
            self._fail(error)
            return None
        self._failures = 0
        if not payloads:
            self._drop("skipped by the codec")
            return None
        self._number += 1
        self.counts.sent += 1
        self._note_people(encoded)
        self._earlier.appendleft(encoded.repeat if len(encoded.repeat) <= REPEAT_MAX_BYTES else b"")
        self._rate.spent(len(message))
        waits = echo_waits(self._rate.echoes)
        self._echo = None
        if waits and self._earlier[0]:
            self._echo = _Echo(time.monotonic() + waits[0], number, captured, waits[1:])
        self._on_sent(number, captured, encoded)
        return self._outgoing(payloads, captured)

    def _note_people(self, encoded: Any) -> None:
        """Who was in the picture; a codec that does not look for people says nothing."""
        counts = self.counts
        counts.people = getattr(encoded, "people", 0)
        counts.people_found = getattr(encoded, "people_found", 0)
        counts.kept_strength = getattr(encoded, "kept_strength", 1.0)

    def _outgoing(self, payloads: list[bytes], captured: Captured) -> Outgoing:
        self.counts.packets += len(payloads)
        payload_bytes = sum(map(len, payloads))
        self.counts.payload_bytes += payload_bytes
        self._rate.left(payload_bytes + len(payloads) * WIRE_OVERHEAD)
        timestamp = captured.captured_ns * CLOCK_RATE // 1_000_000_000 & 0xFFFFFFFF
        self.stamped = (timestamp, captured.captured_ns)
        return Outgoing(payloads, timestamp)

    def _encode(self, captured: Captured, number: int, orders: _Orders) -> Encoded:
        """On the worker's thread."""
        if orders.feedback:
            try:
                self._codec.feedback(orders.feedback)
            except BitstreamError as error:
                _log.info("feedback ignored: %s", error)
        if orders.intra:
            self._codec.request_intra()
        self._codec.set_rate(orders.kbps, orders.fps, orders.burst, orders.narrow)
        self._spans.add("capture", captured.begun_ns or captured.captured_ns, captured.captured_ns, number)
        self._spans.add("wait", captured.captured_ns, time.monotonic_ns(), number)
        with self._spans.frame(number):
            return self._codec.encode(captured.picture, number, captured.captured_ns)

    def _packetise(self, number: int, captured: Captured, message: bytes, earlier: tuple[bytes, ...]) -> list[bytes]:
        """Of a message that leaves for the first time: latency and round trips are counted from here."""
        with self._spans("packetise", frame=number):
            self._sent_ns[number & 0xFF] = time.monotonic_ns()
            repeats = earlier[: self._rate.depth]
            self.counts.repeats += sum(1 for old in repeats if old)
            return self._packed(number, captured, message, repeats)

    def _packed(self, number: int, captured: Captured, message: bytes, repeats: tuple[bytes, ...]) -> list[bytes]:
        now = time.monotonic_ns()
        delay_ms = (now - captured.captured_ns) // 1_000_000
        return packetise(number, message, delay_ms, repeats, self._feedback_block(now))

    async def _plain(self, captured: Captured, convert: Callable[[Picture], Picture]) -> av.VideoFrame | None:
        """The picture for a conventional codec; None where it cannot be made, which costs the picture, not the call."""
        try:
            picture = await self._worker.run(lambda: convert(captured.picture))  # a whole segmenter, in some modes
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        except Exception as error:
            self._fail(error)
            return None
        self._failures = 0
        frame.pts = captured.captured_ns * CLOCK_RATE // 1_000_000_000
        frame.time_base = _TIME_BASE
        self._plain_stamp = (frame.pts & 0xFFFFFFFF, captured.captured_ns)
        self._on_sent(self.counts.sent, captured, Plain())
        self.counts.sent += 1
        return frame

    def _drop(self, cause: str) -> None:
        self.counts.dropped[cause] += 1

    def _fail(self, error: Exception) -> None:
        self._drop("failed to encode")
        self._failures += 1
        if self._failures == 1:
            _log.warning("a picture could not be encoded: %s: %s", type(error).__name__, error)
        if self._failures == FAILURES_MAX:
            self._on_failed(error)
