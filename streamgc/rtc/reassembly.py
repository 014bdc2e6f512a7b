"""From packets to messages, in order, each once: reordering, fragments, repeats, deadlines.

aiortc's own jitter buffer waits for the next frame before it hands one over; here a message goes out the moment it is
complete and nothing before it is missing. A missing message is waited for no longer than `patience`, because a later
picture is worth more than a complete sequence.
"""

from dataclasses import dataclass
from typing import NamedTuple

from streamgc.rtc.payload import Packet

WINDOW = 32
"""Messages held while an earlier one is missing; a jump further ahead gives the missing ones up at once."""


class Message(NamedTuple):
    """A complete message."""

    number: int  # counted by the sender from 0; modulo 256 correct, above that as counted since the first packet seen
    data: bytes
    arrived_ns: int  # when its last piece arrived, time.monotonic_ns
    delay_ms: int  # capture to packetisation at the sender; -1 for a message that came as a repeat
    repeated: bool  # True when it came inside a later packet


@dataclass
class Counts:
    """What became of what arrived."""

    delivered: int = 0
    lost: int = 0  # given up
    late: int = 0  # came after it was given up
    duplicate: int = 0  # came again
    recovered: int = 0  # delivered from a repeat
    reordered: int = 0  # packets that overtook another


class Reassembler:
    """Puts messages together; knows no clock but what it is told, so that it can be tested without one."""

    def __init__(self, patience_ns: int = 20_000_000) -> None:
        self.patience_ns = patience_ns
        self.counts = Counts()
        self.newest = -1  # highest message number seen
        self._next = -1  # the number due next
        self._anchor = (0, 0)  # message number and RTP sequence number of the packet that was furthest on
        self._pieces: dict[int, list[bytes | None]] = {}
        self._complete: dict[int, Message] = {}
        self._given_up: set[int] = set()
        self._overtaken: list[Message] = []

    def push(self, packet: Packet, sequence: int, now_ns: int) -> list[Message]:
        """Take one packet with its RTP sequence number; return the messages that are due now, in order."""
        number = self._unwrap(packet.number, sequence)
        if number < self._next:
            late = number in self._given_up
            self.counts.late += late
            self.counts.duplicate += not late
            self._given_up.discard(number)
            return []
        self._jump_to(number)
        if packet.fragments == 1:
            self._add(Message(number, packet.body, now_ns, packet.delay_ms, False))
        else:
            self._add_piece(number, packet, now_ns)
        for back, old in enumerate(packet.repeats, start=1):
            if old and number - back >= self._next and number - back not in self._complete:
                self._add(Message(number - back, old, now_ns, -1, True))
        return self._due() + self.expire(now_ns)

    def expire(self, now_ns: int) -> list[Message]:
        """Give up what has been waited for long enough; return the messages that are due now, in order."""
        messages: list[Message] = []
        while self._complete:
            deadline = self.deadline_ns()
            if deadline is None or deadline > now_ns:
                break
            self._give_up(min(self._complete))
            messages += self._due()
        return messages

    def deadline_ns(self) -> int | None:
        """When `expire` should be called next, or None when nothing is waited for."""
        if not self._complete:
            return None
        return min(message.arrived_ns for message in self._complete.values()) + self.patience_ns

    def missing(self) -> list[int]:
        """Numbers of the messages that later complete ones are waiting for."""
        if not self._complete:
            return []
        return [number for number in range(self._next, max(self._complete)) if number not in self._complete]

    def _unwrap(self, low: int, sequence: int) -> int:
        """The full number whose low byte is `low`, nearest to what the RTP sequence number makes likely."""
        if self._next < 0:
            self._next, self._anchor = low, (low, sequence)
            return low
        number, anchor = self._anchor
        ahead = (sequence - anchor + 0x8000 & 0xFFFF) - 0x8000
        expected = number + ahead
        number = expected + ((low - expected + 128 & 0xFF) - 128)
        if ahead > 0:
            self._anchor = (number, sequence) if number >= self._anchor[0] else self._anchor
        elif ahead < 0:
            self.counts.reordered += 1
        return number

    def _jump_to(self, number: int) -> None:
        """Make room for a number far ahead, as after an outage."""
        self.newest = max(self.newest, number)
        if number - self._next >= WINDOW:
            self._give_up(number - WINDOW + 1)

    def _add(self, message: Message) -> None:
        if message.number in self._complete:
            self.counts.duplicate += 1
            return
        self._pieces.pop(message.number, None)
        self._complete[message.number] = message

    def _add_piece(self, number: int, packet: Packet, now_ns: int) -> None:
        if number in self._complete:
            self.counts.duplicate += 1
            return
        pieces = self._pieces.setdefault(number, [None] * packet.fragments)
        if len(pieces) != packet.fragments or pieces[packet.fragment] is not None:
            self.counts.duplicate += 1
            return
        pieces[packet.fragment] = packet.body
        whole = [piece for piece in pieces if piece is not None]
        if len(whole) == packet.fragments:
            self._add(Message(number, b"".join(whole), now_ns, packet.delay_ms, False))

    def _give_up(self, until: int) -> None:
        """Everything missing before `until` will not be waited for any more."""
        for number in range(max(self._next, until - 4 * WINDOW), until):
            if number not in self._complete:
                self._given_up.add(number)
        for number in [old for old in self._pieces if old < until]:
            del self._pieces[number]
        self.counts.lost += until - self._next - sum(number < until for number in self._complete)
        skipped = sorted(number for number in self._complete if number < until)
        self._overtaken = [self._complete.pop(number) for number in skipped]
        self._next = until
        for number in [old for old in self._given_up if old < until - 4 * WINDOW]:
            self._given_up.discard(number)

    def _due(self) -> list[Message]:
        due, self._overtaken = self._overtaken, []
        while self._next in self._complete:
            due.append(self._complete.pop(self._next))
            self._next += 1
        self.counts.delivered += len(due)
        self.counts.recovered += sum(message.repeated for message in due)
        return due
