"""The sections of a frame message: feedback, framing crop, slices of long objects, and how their bytes are read."""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from streamgc.errors import BitstreamError

MAX_LENGTH = 1 << 16
"""Longest message, and so longest section, in bytes."""
MAX_SLICES = 4096
"""Most slices of one long object."""
NO_KEY = 8
"""Key number in a feedback before any key is complete."""
_OLDER = 4


class PartKind(IntEnum):
    """Long objects that travel in slices."""

    KEY = 0
    COARSE_KEY = 1
    ROOM = 2
    LABELS = 3
    STYLE = 4


class Part(NamedTuple):
    """One slice of a long object."""

    kind: PartKind
    object_id: int
    """0…15; of a key its number modulo 8, of other objects a counter modulo 16."""
    slice_index: int
    """Which slice, 0…slice_count - 1."""
    slice_count: int
    """How many slices the object has, 1…4096."""
    payload: bytes


class Held(NamedTuple):
    """Which slices of a long object under way are held. All of them held: the object is complete."""

    kind: PartKind
    object_id: int
    first: int
    """So many slices from the beginning are held without a gap; the next one is missing."""
    mask: int
    """Bit k is set when slice `first + 1 + k` is held; at most 64 bits."""

    def write(self, body: bytearray) -> None:
        """Append the section's entry. Raises ValueError when a field is out of range."""
        if not 0 <= self.object_id <= 15 or not 0 <= self.first <= MAX_SLICES or not 0 <= self.mask < 1 << 64:
            raise ValueError("a field of the held slices is out of range")
        body.append(self.kind << 4 | self.object_id)
        write_varint(body, self.first)
        write_varint(body, self.mask)

    @classmethod
    def read(cls, read: "ByteReader") -> "Held":
        """The next entry. Raises BitstreamError."""
        kind, object_id = read.object_name()
        first, mask = read.varint(), read.varint(10)
        if first > MAX_SLICES or mask >= 1 << 64:
            raise BitstreamError("more slices than an object has")
        return cls(kind, object_id, first, mask)


class Feedback(NamedTuple):
    """What this side holds of the other's frames: 2 bytes."""

    newest: int
    """Number modulo 256 of the newest frame whose symbols are held."""
    older: int
    """Bit k is set when the symbols of frame `newest - 1 - k` are held, k = 0…3."""
    key: int | None
    """Number modulo 8 of the newest complete key picture; None before the first."""

    def holds(self, number: int) -> bool:
        """Whether this feedback confirms the symbols of the frame of that number modulo 256."""
        distance = (self.newest - number) % 256
        return distance == 0 or (distance <= _OLDER and bool(self.older >> (distance - 1) & 1))

    def pack(self) -> bytes:
        """The 2 bytes. Raises ValueError when a field is out of range."""
        key = NO_KEY if self.key is None else self.key
        if not 0 <= self.newest <= 255 or not 0 <= self.older < 1 << _OLDER or not 0 <= key <= NO_KEY:
            raise ValueError("a field of the feedback is out of range")
        return bytes((self.newest, self.older << 4 | key))

    @classmethod
    def read(cls, read: "ByteReader") -> "Feedback":
        """The next 2 bytes. Raises BitstreamError."""
        newest, rest = read.byte(), read.byte()
        if rest & 15 > NO_KEY:
            raise BitstreamError("a feedback with an unknown key number")
        return cls(newest, rest >> 4, None if rest & 15 == NO_KEY else rest & 15)


class Crop(NamedTuple):
    """The part of the source picture that is sent: 4 bytes. Its height follows from the sent picture's aspect ratio."""

    x: int
    """Left edge in 1/2048 of the source's width, 0…2047."""
    y: int
    """Upper edge in 1/2048 of the source's height, 0…2047."""
    size: int
    """Width in 1/1024 of the source's width, 1…1024."""

    def pack(self) -> bytes:
        """The 4 bytes. Raises ValueError when a field is out of range."""
        if not 0 <= self.x < 2048 or not 0 <= self.y < 2048 or not 1 <= self.size <= 1024:
            raise ValueError(f"a crop of {tuple(self)} is out of range")
        return (self.x << 21 | self.y << 10 | self.size - 1).to_bytes(4, "big")

    @classmethod
    def read(cls, read: "ByteReader") -> "Crop":
        """The next 4 bytes. Raises BitstreamError."""
        bits = int.from_bytes(read.take(4), "big")
        return cls(bits >> 21, bits >> 10 & 2047, (bits & 1023) + 1)


def pack_feedback(feedback: Feedback, held: Sequence[Held] = ()) -> bytes:
    """A feedback on its own, for carriers such as RTCP: 2 bytes, then the held slices up to the end."""
    body = bytearray(feedback.pack())
    for entry in held:
        entry.write(body)
    return bytes(body)


def parse_feedback(data: bytes) -> tuple[Feedback, tuple[Held, ...]]:
    """What `pack_feedback` made. Raises BitstreamError."""
    read = ByteReader(data[:MAX_LENGTH])
    feedback = Feedback.read(read)
    held = []
    while read.left:
        held.append(Held.read(read))
    return feedback, tuple(held)


def write_varint(body: bytearray, value: int) -> None:
    """Append an unsigned integer, seven bits a byte, low ones first, the top bit set on all bytes but the last."""
    while value > 127:
        body.append(value & 127 | 128)
        value >>= 7
    body.append(value)


def write_sized(body: bytearray, data: bytes) -> None:
    """Append a length and so many bytes."""
    write_varint(body, len(data))
    body += data


def write_parts(body: bytearray, parts: Sequence[Part], last_runs_to_end: bool) -> None:
    """Append a count and the slices. Raises ValueError when a field is out of range."""
    write_varint(body, len(parts))
    for position, part in enumerate(parts):
        if not 0 <= part.object_id <= 15 or not 0 <= part.slice_index < part.slice_count <= MAX_SLICES:
            raise ValueError("a field of a slice is out of range")
        body.append(part.kind << 4 | part.object_id)
        write_varint(body, part.slice_index)
        write_varint(body, part.slice_count)
        if last_runs_to_end and position + 1 == len(parts):
            body += part.payload
        else:
            write_sized(body, part.payload)


class ByteReader:
    """Reads a message from its beginning; every method raises BitstreamError when the bytes do not suffice."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return len(self._data) - self._position

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if count > self.left:
            raise BitstreamError("the bytes end too early")
        self._position += count
        return self._data[self._position - count : self._position]

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def rest(self) -> bytes:
        """All bytes that are left."""
        return self.take(self.left)

    def varint(self, longest: int = 5) -> int:
        """An unsigned integer of at most `longest` bytes."""
        value = 0
        for position in range(longest):
            byte = self.byte()
            value |= (byte & 127) << (7 * position)
            if byte < 128:
                return value
        raise BitstreamError("a number is too long")

    def count(self, most: int) -> int:
        """A varint from 1 to `most`."""
        value = self.varint()
        if not 1 <= value <= most:
            raise BitstreamError(f"{value} entries; 1…{most} are possible")
        return value

    def sized(self) -> bytes:
        """A length and so many bytes."""
        return self.take(self.varint())

    def object_name(self) -> tuple[PartKind, int]:
        """Kind and number of a long object, one byte."""
        byte = self.byte()
        if byte >> 4 > max(PartKind):
            raise BitstreamError("a slice of an unknown kind of object")
        return PartKind(byte >> 4), byte & 15

    def parts(self, last_runs_to_end: bool) -> tuple[Part, ...]:
        """What `write_parts` wrote."""
        count = self.count(self.left)
        parts = []
        for position in range(count):
            kind, object_id = self.object_name()
            index, slices = self.varint(), self.varint()
            if not index < slices <= MAX_SLICES:
                raise BitstreamError(f"slice {index} of {slices}")
            to_end = last_runs_to_end and position + 1 == count
            parts.append(Part(kind, object_id, index, slices, self.rest() if to_end else self.sized()))
        return tuple(parts)

    def end(self) -> None:
        """Raise unless everything was read."""
        if self.left:
            raise BitstreamError(f"{self.left} bytes too many")
