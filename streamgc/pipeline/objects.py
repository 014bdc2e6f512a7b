"""Long objects – keys, rooms, label maps – in slices: sent in spare bytes, repeated until confirmed, put together."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from streamgc.codec.sections import Held, Part, PartKind

PATIENCE = 5
"""Frames after which a slice that is not confirmed is sent again (one round trip at 15 fps and 130 ms is 2–3)."""
PATIENCE_NARROW = 12
"""The same on a narrow path: an object is spread over more frames than there are reports of what is held (one in four),
and a queue may stand."""
KEY_NUMBERS = 8
OBJECT_NUMBERS = 16
LARGEST_OBJECT = 1 << 16
"""Bytes; an object that says it is larger is dropped."""
UNDER_WAY = 6
"""Objects being put together at a time; the oldest goes first."""


def numbers_of(kind: PartKind) -> int:
    """After how many objects the numbers of a kind repeat. Keys and coarse keys share one count."""
    return KEY_NUMBERS if kind in (PartKind.KEY, PartKind.COARSE_KEY) else OBJECT_NUMBERS


@dataclass
class _Outgoing:
    kind: PartKind
    number: int
    slices: list[bytes]
    sent_at: list[int | None]
    confirmed: set[int] = field(default_factory=set)

    @property
    def done(self) -> bool:
        return len(self.confirmed) == len(self.slices)


class ObjectSender:
    """The objects on their way; whoever came first goes first."""

    def __init__(self) -> None:
        self._objects: list[_Outgoing] = []

    def add(self, kind: PartKind, number: int, data: bytes, slice_bytes: int) -> None:
        """Queue an object in place of an older one of its kind; keys, which build on each other, all stay."""
        if kind not in (PartKind.KEY, PartKind.COARSE_KEY):
            self.drop(kind)
        count = max(1, -(-len(data) // slice_bytes))
        size = -(-len(data) // count)
        slices = [data[i * size : (i + 1) * size] for i in range(count)]
        self._objects.append(_Outgoing(kind, number, slices, [None] * count))

    def drop(self, kind: PartKind) -> None:
        """Forget what is under way of a kind."""
        self._objects = [o for o in self._objects if o.kind != kind]

    def pending(self, kind: PartKind) -> bool:
        """Whether an object of this kind is under way."""
        return any(o.kind == kind for o in self._objects)

    def unsent(self, kind: PartKind) -> int:
        """Bytes of a kind that were never sent."""
        return sum(
            len(data)
            for o in self._objects
            if o.kind == kind
            for data, at in zip(o.slices, o.sent_at, strict=True)
            if at is None
        )

    def unconfirmed(self, kind: PartKind) -> int:
        """Bytes of a kind that the receiver is not known to hold."""
        return sum(
            len(data)
            for o in self._objects
            if o.kind == kind
            for index, data in enumerate(o.slices)
            if index not in o.confirmed
        )

    def take(self, budget: int, frame: int, narrow: bool = False, burst: float = inf) -> list[Part]:
        """Slices for this frame's message, at most ``budget`` bytes, none begun after ``burst``; a coarse key every
        time until confirmed, on a ``narrow`` path only as often as everything else."""
        parts: list[Part] = []
        patience = PATIENCE_NARROW if narrow else PATIENCE
        for o in self._objects:
            whole = o.kind is PartKind.COARSE_KEY
            for index, data in enumerate(o.slices):
                at = o.sent_at[index]
                due = (whole and not narrow) or at is None or frame - at >= patience
                if index in o.confirmed or not due or ((len(data) > budget or burst <= 0) and not whole):
                    continue
                parts.append(Part(o.kind, o.number, index, len(o.slices), data))
                o.sent_at[index] = frame
                budget -= len(data)
                burst -= len(data)
        return parts

    def confirm(self, held: tuple[Held, ...]) -> None:
        """What the receiver says it holds."""
        for entry in held:
            for o in self._objects:
                if (o.kind, o.number) == (entry.kind, entry.object_id):
                    o.confirmed.update(range(min(entry.first, len(o.slices))))
                    o.confirmed.update(
                        entry.first + 1 + bit
                        for bit in range(64)
                        if entry.mask >> bit & 1 and entry.first + 1 + bit < len(o.slices)
                    )
        self._objects = [o for o in self._objects if not o.done]

    def complete(self, kind: PartKind, number: int) -> None:
        """The receiver holds all of an object."""
        self._objects = [o for o in self._objects if (o.kind, o.number) != (kind, number)]


class Complete(NamedTuple):
    """An object that has all its slices."""

    kind: PartKind
    number: int
    data: bytes


class ObjectReceiver:
    """Puts objects together. Late slices of finished ones are recognised by their number and ignored."""

    def __init__(self) -> None:
        self._open: dict[tuple[PartKind, int], dict[int, bytes]] = {}
        self._counts: dict[tuple[PartKind, int], int] = {}
        self._finished: dict[PartKind, Held] = {}
        self._newest: dict[PartKind, int] = {}

    def accept(self, part: Part) -> Complete | None:
        """Take a slice; the object when it was the last one missing."""
        name = (part.kind, part.object_id)
        if self._behind(part.kind, part.object_id):
            return None
        if self._counts.setdefault(name, part.slice_count) != part.slice_count:
            self._forget(name)  # another object under the same number: the newer one counts
            self._counts[name] = part.slice_count
        slices = self._open.setdefault(name, {})
        slices[part.slice_index] = part.payload
        if sum(map(len, slices.values())) > LARGEST_OBJECT:
            self._forget(name)
            return None
        if len(slices) < part.slice_count:
            if len(self._open) > UNDER_WAY:
                self._forget(next(iter(self._open)))
            return None
        data = b"".join(slices[i] for i in range(part.slice_count))
        self._forget(name)
        self._finished[part.kind] = Held(part.kind, part.object_id, part.slice_count, 0)
        self._newest[_sequence(part.kind)] = part.object_id
        self._forget_overtaken(part.kind)
        return Complete(part.kind, part.object_id, data)

    def held(self) -> tuple[Held, ...]:
        """What to report: objects under way, and the last finished one of each kind."""
        entries = list(self._finished.values())
        for (kind, number), slices in self._open.items():
            first = next(i for i in range(len(slices) + 1) if i not in slices)
            mask = sum(1 << (i - first - 1) for i in slices if first < i <= first + 64)
            entries.append(Held(kind, number, first, mask))
        return tuple(entries)

    def forget(self, kind: PartKind) -> None:
        """Drop the slices of a kind that is no longer wanted."""
        for name in [name for name in self._open if name[0] is kind]:
            self._forget(name)

    def _behind(self, kind: PartKind, number: int) -> bool:
        """Numbers run upwards modulo a small number: what is not ahead of the newest finished one is behind it."""
        newest = self._newest.get(_sequence(kind))
        if newest is None:
            return False
        modulus = numbers_of(kind)
        return not 1 <= (number - newest) % modulus < modulus // 2

    def _forget_overtaken(self, kind: PartKind) -> None:
        """Drop what the sender gave up before the object that has just become complete: its number will come again."""
        for name in [name for name in self._open if _sequence(name[0]) is _sequence(kind)]:
            if self._behind(*name):
                self._forget(name)

    def _forget(self, name: tuple[PartKind, int]) -> None:
        self._open.pop(name, None)
        self._counts.pop(name, None)


def _sequence(kind: PartKind) -> PartKind:
    """Keys and coarse keys are numbered together."""
    return PartKind.KEY if kind is PartKind.COARSE_KEY else kind
