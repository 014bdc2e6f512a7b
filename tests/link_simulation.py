"""A call without codec, sockets and waiting: the real rate control, repair, meters, reassembly and emulated network, by
a clock that jumps from one event to the next. A minute takes a second."""

import asyncio
import contextlib
import itertools
import random
import selectors
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from streamgc.rtc.estimate import DelayMeter, LossMeter, ReceivedRate
from streamgc.rtc.feedback import FeedbackSchedule, Report, pack_block, parse_block
from streamgc.rtc.impairment import Impairment, Link
from streamgc.rtc.outgoing import REPEAT_MAX_BYTES
from streamgc.rtc.payload import WIRE_OVERHEAD, packetise, parse_packet
from streamgc.rtc.rate import RateControl
from streamgc.rtc.reassembly import Reassembler
from streamgc.rtc.repair import echo_waits
from streamgc.rtc.retransmission import REORDER_PATIENCE_NS
from tests.message_simulation import Made, StandInReceiver, StandInSender

SERVICE_S = 0.020
"""Of the sender's codec, and of the receiver's, for one picture; measured on two cores."""

DATAGRAM = WIRE_OVERHEAD - 28
"""Bytes of a datagram beside the payload: the link adds IP and UDP."""

WARM_UP_S, TAIL_S = 3.0, 1.0


class _Jumping(selectors.DefaultSelector):
    """Does not wait, but says how long it would have."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop on which sleeping takes no time."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


@dataclass
class Simulated:
    """One way of a call, `seconds` long."""

    impairment: Impairment
    kbps: float = 8.0
    fps: float = 15.0
    seconds: float = 60.0
    keyed: bool = False  # messages as the codec makes them; else all of about the size that the rate allows
    captured: dict[int, float] = field(default_factory=dict)  # by message number, s
    shown: dict[int, float] = field(default_factory=dict)
    sent: list[tuple[float, int]] = field(default_factory=list)  # s, bytes on the wire
    limits: list[tuple[float, float]] = field(default_factory=list)  # s, kbit/s
    allowed: list[tuple[float, float]] = field(default_factory=list)  # s, kbit/s of messages
    copies: list[int] = field(default_factory=list)
    messages: list[tuple[float, int]] = field(default_factory=list)  # s, bytes
    keys: list[float] = field(default_factory=list)  # s, of the arrival of one

    def run(self) -> "Simulated":
        """Make the call."""
        loop = JumpingLoop()
        try:
            loop.run_until_complete(self._call())
        finally:
            loop.close()
        return self

    def share_within(self, bound_s: float, start: float = WARM_UP_S, end: float = 0.0) -> float:
        """Of the pictures captured between `start` and `end` (0: the last but `TAIL_S` seconds), those displayed so
        soon."""
        end = end or self.seconds - TAIL_S
        numbers = [number for number, at in self.captured.items() if start <= at < end]
        return sum(self.shown.get(n, 1e9) - self.captured[n] <= bound_s for n in numbers) / len(numbers)

    def settled_s(self, start: float, end: float, bound_s: float = 0.25, share: float = 0.95) -> float:
        """After `start`, until that share of all the pictures that follow up to `end` are displayed so soon; as
        `streamgc.call.transport.recovery` has it."""
        settled, slow = end, 0
        numbers = sorted((n for n, at in self.captured.items() if start <= at < end), reverse=True)
        for count, number in enumerate(numbers, start=1):
            slow += self.shown.get(number, 1e9) - self.captured[number] > bound_s
            if slow <= (1 - share) * count:
                settled = self.captured[number]
        return settled - start

    def back_s(self, start: float, kbps: float) -> float:
        """After `start`, until messages may have so much again; what they make of it depends on the picture."""
        return next((at - start for at, allowed in self.allowed if at >= start and allowed >= kbps), 1e9)

    def kbps_sent(self, start: float, end: float) -> float:
        """On the wire."""
        return sum(size for at, size in self.sent if start <= at < end) * 8 / 1000 / (end - start)

    def freeze_s(self) -> float:
        """The longest time without a new picture after the warm-up."""
        times = sorted(at for at in self.shown.values() if at >= WARM_UP_S)
        return max(after - before for before, after in itertools.pairwise(times))

    async def _call(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._chance = random.Random(self.impairment.seed)
        self._rate = RateControl(self.kbps, self.fps, clock=self._loop.time)
        self._there = Link(self.impairment)
        self._back = Link(Impairment(loss=self.impairment.loss, burst=self.impairment.burst, delay_ms=40, seed=99))
        self._loss, self._delay, self._arrived = LossMeter(), DelayMeter(), ReceivedRate()
        self._reassembler = Reassembler(REORDER_PATIENCE_NS)
        self._sequence, self._newest = 0, (0, 0)
        self._codec = StandInSender(self.kbps, self.fps)
        self._decoder = StandInReceiver()
        self._schedule, self._due = FeedbackSchedule(), asyncio.Event()
        tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._reports())]
        await asyncio.sleep(self.seconds)
        for task in tasks:
            task.cancel()
        self._there.close()
        self._back.close()

    async def _send(self) -> None:
        number, earlier, due = 0, [b""] * 3, 0.0
        for place in range(int(self.seconds * self.fps)):
            await asyncio.sleep(max(0.0, place / self.fps - self._loop.time()))
            now = self._loop.time()
            if now < due - 0.015:
                continue
            due = max(due + 1 / self._rate.fps, now)
            message, repeat = self._encode(number)
            await asyncio.sleep(SERVICE_S)
            self.captured[number] = now
            self.messages.append((now, len(message)))
            self._packets(number, message, tuple(earlier))
            earlier = [repeat if len(repeat) <= REPEAT_MAX_BYTES else b"", *earlier[:2]]
            self._rate.spent(len(message))
            waits = echo_waits(self._rate.echoes) if earlier[0] else ()
            self.copies.append(1 + len(waits))
            at = 0.0
            for wait in waits:
                at += wait
                self._loop.call_later(at, self._packets, number, earlier[0], ())
            number += 1

    def _encode(self, number: int) -> Made:
        kbps, fps = self._rate.message_kbps, self._rate.fps
        if self.keyed:
            self._codec.budget.set_rate(kbps, fps, self._rate.burst_bytes, self._rate.narrow)
            return self._codec.encode(number)
        message = bytes(max(8, int(kbps * 125 / fps * self._chance.uniform(0.6, 1.4))))
        return Made(message, message)

    def _packets(self, number: int, message: bytes, earlier: tuple[bytes, ...]) -> None:
        now = self._loop.time()
        for payload in packetise(number, message, 0, earlier[: self._rate.depth]):
            self._sequence += 1
            sequence = self._sequence
            self.sent.append((now, len(payload) + WIRE_OVERHEAD))
            self._rate.left(len(payload) + WIRE_OVERHEAD)
            self._there.push(len(payload) + DATAGRAM, self._arrival(payload, sequence, now))

    def _arrival(self, payload: bytes, sequence: int, sent_s: float) -> Callable[[], None]:
        return lambda: self._receive(payload, sequence & 0xFFFF, sent_s)

    def _receive(self, payload: bytes, sequence: int, sent_s: float) -> None:
        now_ns = self._now_ns()
        packet = parse_packet(payload)
        self._loss.add(sequence, now_ns)
        if packet.fragment == 0:
            self._delay.add(sent_s * 1000, now_ns, len(payload))
        self._arrived.add(now_ns, len(payload) + WIRE_OVERHEAD)
        self._show(self._reassembler.push(packet, sequence, now_ns))
        self._newest = (self._reassembler.newest, now_ns)
        deadline = self._reassembler.deadline_ns()
        if deadline is not None:
            self._loop.call_at(deadline / 1e9, lambda: self._show(self._reassembler.expire(self._now_ns())))

    def _show(self, messages: list[Any]) -> None:
        at = self._loop.time()
        for message in messages:
            at += SERVICE_S
            self.shown.setdefault(message.number, at)
            if self.keyed:
                feedback, urgent = self._decoder.receive(message.data)
                self._schedule.update(feedback, urgent)
                self._due.set()
                while len(self.keys) < self._decoder.completed:
                    self.keys.append(at)

    async def _reports(self) -> None:
        while True:
            wait = self._schedule.alone_at() / 1e9 - self._loop.time()
            if wait > 0:
                self._due.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._due.wait()
                continue
            now_ns = self._now_ns()
            codec = self._schedule.take(now_ns)
            number, arrived_ns = self._newest
            if not arrived_ns:
                continue
            report = Report(
                self._loss.loss(now_ns),
                self._delay.queue_ms,
                self._arrived.kbps(now_ns),
                number & 0xFF,
                min(255, (now_ns - arrived_ns) // 1_000_000),
                self._loss.burst,
                self._delay.widened(now_ns),
            )
            self._back.push(30, self._reported(pack_block(report, codec)))

    def _reported(self, block: bytes) -> Callable[[], None]:
        def take() -> None:
            report, codec = parse_block(block)
            assert report is not None
            self._rate.report(report)
            if codec:
                self._codec.feedback(codec)
            self.limits.append((self._loop.time(), self._rate.limit_kbps))
            self.allowed.append((self._loop.time(), self._rate.message_kbps))

        return take

    def _now_ns(self) -> int:
        return round(self._loop.time() * 1e9)
