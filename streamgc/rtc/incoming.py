"""The receiving half: packets in, the newest picture out.

`PacketBuffer` stands where aiortc's jitter buffer was. Packets are put together on the event loop; complete messages
go, in order and all of them, to the codec on a thread of its own, which afterwards renders the newest picture only. A
slow renderer so skips pictures and never falls behind.
"""

import asyncio
import functools
import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from streamgc.errors import BitstreamError
from streamgc.profiling.spans import REPORT_OUT, Spans
from streamgc.rtc.estimate import DelayMeter, LossMeter, ReceivedRate
from streamgc.rtc.feedback import FeedbackSchedule, Report, pack_block
from streamgc.rtc.hearing import IncomingSound
from streamgc.rtc.hook import CLOCK_RATE
from streamgc.rtc.lipsync import LipSync
from streamgc.rtc.payload import WIRE_OVERHEAD, parse_packet
from streamgc.rtc.pictures import PictureReceiver, Received, Shown
from streamgc.rtc.reassembly import Message, Reassembler
from streamgc.rtc.retransmission import NackWhileUseful
from streamgc.rtc.worker import Worker

INBOX_MAX = 256
"""Messages that may wait for the codec; more only wait when it hangs, and then the oldest go."""

PLI_INTERVAL_NS = 500_000_000
CATCH_UP_NS = 65_000_000
"""The newest picture may wait so long for the display of those before it: not quite a picture interval at 15 a second,
in which a renderer that was held up once catches up again."""

LOSS_NEWS = 0.02
"""A lost message is news for the sender while the loss it was told of is below this."""

_log = logging.getLogger(__name__)


@dataclass
class ReceiveCounts:
    """What became of what arrived, since the start."""

    packets: int = 0
    payload_bytes: int = 0
    received: int = 0
    shown: int = 0
    freeze_longest_ns: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


class PacketBuffer:
    """In place of aiortc's jitter buffer: passes every packet on and never keeps one."""

    def __init__(self, take: Callable[[Any], None]) -> None:
        self._take = take

    def add(self, packet: Any) -> tuple[bool, None]:
        """For aiortc; nothing ever goes to its decoder thread."""
        self._take(packet)
        return False, None


class IncomingVideo:
    """Everything between RTP packets and displayed pictures of one stream."""

    def __init__(
        self,
        codec: PictureReceiver,
        spans: Spans,
        on_shown: Callable[[Shown, int], None],
        on_feedback: Callable[[bytes], None],
        on_report: Callable[[], None],
        request_intra: Callable[[], None],
        sync: LipSync,
    ) -> None:
        self.counts = ReceiveCounts()
        self.reassembler = Reassembler()
        self.loss, self.delay, self.rate = LossMeter(), DelayMeter(), ReceivedRate()
        self.schedule = FeedbackSchedule()
        self.nack = NackWhileUseful()
        self.remote_ssrc = 0
        self.sound: IncomingSound | None = None  # shares the path, and so counts in the report
        self._sync = sync
        self._stamps: dict[int, int] = {}  # RTP timestamp by message number modulo 256
        self._display_ns = 0  # when the last picture goes on display
        self._closed = False
        self._codec, self._spans = codec, spans
        self._on_shown, self._on_feedback = on_shown, on_feedback
        self._on_report, self._request_intra = on_report, request_intra
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._inbox: deque[Message] = deque()
        self._filled = asyncio.Event()
        self._worker = Worker("sgc-decoder")
        self._stamp: int | None = None  # unwrapped RTP timestamp of the last packet
        self._newest: tuple[int, int] | None = None  # newest message's number and arrival
        self._shown_ns = 0
        self._render_ns = 0  # smoothed
        self._pli_ns = -PLI_INTERVAL_NS
        self._failing = False
        self._told_loss = 0.0
        self._pump = asyncio.create_task(self._run(), name="sgc-incoming")

    def take_packet(self, packet: Any) -> None:
        """Take an RTP packet of aiortc; whatever is in it, nothing is raised."""
        now = time.monotonic_ns()
        self.counts.packets += 1
        self.counts.payload_bytes += len(packet.payload)
        try:
            parsed = parse_packet(packet.payload)
        except BitstreamError:
            self.counts.dropped["malformed packet"] += 1
            return
        stamp = self._unwrap_stamp(packet.timestamp)
        sent_ms = stamp * 1000 / CLOCK_RATE + parsed.delay_ms
        self.remote_ssrc = packet.ssrc
        if not self.nack.repaired:
            self.loss.add(packet.sequence_number, now)
        # A packet that was asked for again is late by a round trip, which is no queue.
        if parsed.fragment == 0 and not self.nack.repaired:
            self.delay.add(sent_ms, now, len(packet.payload))
        self.rate.add(now, len(packet.payload) + WIRE_OVERHEAD)
        self._stamps[parsed.number] = packet.timestamp
        self.reassembler.patience_ns = self.nack.patience_ns
        lost = self.reassembler.counts.lost
        messages = self.reassembler.push(parsed, packet.sequence_number, now)
        if parsed.feedback:
            self._on_feedback(parsed.feedback)
        self._newest = (self.reassembler.newest, now)
        self._accept(messages)
        self._after(lost)

    def report(self, now_ns: int) -> Report | None:
        """What the sender should know, or None before the first packet."""
        if self._newest is None:
            return None
        number, arrived_ns = self._newest
        held_ms = min(255, (now_ns - arrived_ns) // 1_000_000)
        self._told_loss = self.loss.loss(now_ns)
        kbps, queue_ms = self.rate.kbps(now_ns), self.delay.queue_ms
        if self.sound is not None:
            kbps += self.sound.rate.kbps(now_ns)
            queue_ms = max(queue_ms, self.sound.queue_ms(now_ns))
        burst, widened = self.loss.burst, self.delay.widened(now_ns)
        return Report(self._told_loss, queue_ms, kbps, number & 0xFF, held_ms, burst, widened)

    def block(self, now_ns: int) -> bytes:
        """A feedback block, for whoever sends it now; empty when there is nothing to say yet."""
        report = self.report(now_ns)
        if report is not None:
            self._spans.add(REPORT_OUT, now_ns - report.held_ms * 1_000_000, now_ns, report.newest)
        return pack_block(report, self.schedule.take(now_ns)) if report is not None else b""

    def freeze_ns(self, now_ns: int) -> int:
        """The longest time without a new picture, the present one included."""
        running = now_ns - self._shown_ns if self._shown_ns else 0
        return max(self.counts.freeze_longest_ns, running)

    async def close(self) -> None:
        """Stop the timer, the task and the worker."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._pump.cancel()
        await asyncio.gather(self._pump, return_exceptions=True)
        await self._worker.close()

    def _accept(self, messages: list[Message]) -> None:
        if not messages:
            return
        for message in messages:
            if message.delay_ms >= 0:
                self._spans.add("reassemble", message.arrived_ns, time.monotonic_ns(), message.number)
        self._inbox.extend(messages)
        while len(self._inbox) > INBOX_MAX:
            self._inbox.popleft()
            self.counts.dropped["codec too slow"] += 1
        self._filled.set()

    def _after(self, lost_before: int) -> None:
        """Set the timer for what is missing, and tell the sender of a loss it does not know of."""
        if self.reassembler.counts.lost > lost_before and self._told_loss < LOSS_NEWS:
            self.schedule.urgent = True
            self._on_report()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.reassembler.deadline_ns()
        if deadline is not None:
            wait = max(0.0, (deadline - time.monotonic_ns()) / 1e9)
            self._timer = self._loop.call_later(wait, self._expire)

    def _expire(self) -> None:
        lost = self.reassembler.counts.lost
        self._timer = None
        self._accept(self.reassembler.expire(time.monotonic_ns()))
        self._after(lost)

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            batch = list(self._inbox)
            self._inbox.clear()
            if not batch:
                continue
            received = await self._worker.run(functools.partial(self._decode, batch))
            self._acknowledge(received)

    def _decode(self, batch: list[Message]) -> list[Received]:
        """On the worker's thread: all messages in order; pictures of the newest, and of those before it that cost no
        delay.

        Messages come together when one was recovered from a repeat in the next one's packet. Showing the older
        picture first then keeps the movement smooth, as long as the newest is not held up.
        """
        received = []
        for place, message in enumerate(batch):
            try:
                received.append(self._codec.receive(message.data, message.arrived_ns))
            except BitstreamError as error:
                self._conceal("not decodable", error)
            except Exception as error:  # a fault in the codec costs a picture, not the call
                self._conceal("failed to decode", error)
            else:
                if self._worth_showing(len(batch) - 1 - place):
                    self._render()
        return received

    def _worth_showing(self, newer: int) -> bool:
        """Whether to render a picture after which `newer` wait already."""
        return newer == 0 or (not self._inbox and newer * self._render_ns <= CATCH_UP_NS)

    def _render(self) -> None:
        start = time.monotonic_ns()
        try:
            shown = self._codec.render()
        except Exception as error:
            self._conceal("failed to render", error)
            return
        if shown is not None:
            now = time.monotonic_ns()
            self._render_ns = (3 * self._render_ns + now - start) // 4
            self._call_soon(functools.partial(self._show, shown, now))

    def _conceal(self, cause: str, error: Exception) -> None:
        self.counts.dropped[cause] += 1
        if not self._failing:
            _log.warning("a picture was concealed (%s): %s: %s", cause, type(error).__name__, error)
        self._failing = True
        self._call_soon(self._ask_for_intra)

    def _call_soon(self, function: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            return  # the loop has gone

    def _acknowledge(self, received: list[Received]) -> None:
        self.counts.received += len(received)
        if not received:
            return
        if received[-1].needs_intra:
            self._ask_for_intra()
        else:
            self._failing = False
        feedback = received[-1].feedback
        if feedback:
            self.schedule.update(feedback, any(item.urgent for item in received))
            self._on_report()

    def _ask_for_intra(self) -> None:
        now = time.monotonic_ns()
        if now - self._pli_ns >= PLI_INTERVAL_NS:
            self._pli_ns = now
            self._request_intra()

    def _show(self, shown: Shown, rendered_ns: int) -> None:
        """Display now, or when its sound is heard."""
        now = time.monotonic_ns()
        stamp = self._stamps.get(shown.number & 0xFF)
        if stamp is not None:
            self._sync.picture_ready(stamp, now)
        self._display_ns = max(self._display_ns, now + round(self._sync.hold_ms * 1e6))
        if self._display_ns > now:
            self._loop.call_later((self._display_ns - now) / 1e9, self._display, shown, rendered_ns)
        else:
            self._display(shown, rendered_ns)

    def _display(self, shown: Shown, rendered_ns: int) -> None:
        if self._closed:
            return
        now = time.monotonic_ns()
        self._spans.add("display", rendered_ns, now, shown.number)
        if self._shown_ns:
            self.counts.freeze_longest_ns = max(self.counts.freeze_longest_ns, now - self._shown_ns)
        self._shown_ns = now
        self.counts.shown += 1
        self._on_shown(shown, now)

    def _unwrap_stamp(self, stamp: int) -> int:
        if self._stamp is None:
            self._stamp = stamp
        ahead = (stamp - self._stamp + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        full = self._stamp + ahead
        self._stamp = max(self._stamp, full)
        return full
