"""One frame message: what a packet of a call, or a record of a file, holds. The layout is in `docs/bitstream.md`.

The picture stays bytes here, because decoding it needs the reference: see `streamgc.codec.code`.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

from streamgc.codec.sections import (
    MAX_LENGTH,
    ByteReader,
    Crop,
    Feedback,
    Held,
    Part,
    write_parts,
    write_sized,
    write_varint,
)
from streamgc.codec.symbols import LAYOUTS
from streamgc.errors import BitstreamError

MAX_MESSAGE = MAX_LENGTH
"""Longest message in bytes; longer ones are refused on both sides."""
MAX_PREVIOUS = 4
MAX_HELD = 16


class Kind(IntEnum):
    """What a message says about the picture of its frame."""

    PICTURE = 0
    """Carries a coded picture."""
    SKIP = 1
    """The picture is that of the frame `age` frames before, with its key and its code."""
    NONE = 2
    """Says nothing about a picture; carries sections only."""


class Background(IntEnum):
    """Background modes, in the order of the design's table."""

    SYNTH = 0
    PRIVATE = 1
    REPLACE = 2
    MEMORY = 3


@dataclass(frozen=True)
class Message:
    """One frame message. Sections that are None, or empty, are not sent."""

    kind: Kind
    number: int
    """Frame number modulo 256."""
    background: Background
    age: int = 0
    """How many frames before this one its reference is, 1…7; 0 is none. A skip needs one."""
    key: int = 0
    """Number modulo 8 of the key picture that the picture is conditioned on; 0 unless the kind is PICTURE."""
    layout: int = 0
    """2, 4, 8 channels or `MIXED` for a picture, otherwise 0."""
    picture: bytes = b""
    """Payload of `encode_code`; may be empty."""
    feedback: Feedback | None = None
    crop: Crop | None = None
    report: bytes | None = None
    """The transport's own report; opaque here."""
    held: tuple[Held, ...] = ()
    """Long objects under way, with the slices that are held."""
    previous: tuple[bytes, ...] = ()
    """Earlier messages repeated verbatim, newest first, at most 4."""
    parts: tuple[Part, ...] = ()
    """Slices of long objects."""

    def pack(self) -> bytes:
        """The bytes. Raises ValueError when a field is out of its range."""
        self._check()
        body = bytearray((self.kind << 6 | self.background << 4 | self.age << 1, self.number))
        flags = (
            (self.crop is not None)
            | (self.report is not None) << 1
            | (len(self.held) > 0) << 2
            | (len(self.parts) > 0) << 3
        )
        is_picture = self.kind is Kind.PICTURE
        if is_picture or flags or self.feedback or self.previous:
            body[0] |= 1
            width = LAYOUTS.index(self.layout) if is_picture else 0
            body.append(
                self.key << 5 | width << 3 | (self.feedback is not None) << 2 | bool(self.previous) << 1 | bool(flags)
            )
        if flags:
            body.append(flags)
        self._write_sections(body)
        if is_picture:
            body += self.picture
        if len(body) > MAX_MESSAGE:
            raise ValueError(f"a message of {len(body)} bytes; {MAX_MESSAGE} are possible")
        return bytes(body)

    def _write_sections(self, body: bytearray) -> None:
        if self.feedback is not None:
            body += self.feedback.pack()
        if self.crop is not None:
            body += self.crop.pack()
        if self.report is not None:
            write_sized(body, self.report)
        if self.held:
            write_varint(body, len(self.held))
            for held in self.held:
                held.write(body)
        for index, message in enumerate(self.previous):
            write_varint(body, len(message) << 1 | (index + 1 < len(self.previous)))
            body += message
        if self.parts:
            write_parts(body, self.parts, last_runs_to_end=self.kind is not Kind.PICTURE)

    def _check(self) -> None:
        if not 0 <= self.number <= 255 or not 0 <= self.age <= 7 or not 0 <= self.key <= 7:
            raise ValueError("frame number, reference age or key number out of range")
        if self.kind is Kind.PICTURE:
            if self.layout not in LAYOUTS:
                raise ValueError(f"{self.layout} channels; 2, 4, 8 or mixed are possible")
        elif self.picture or self.layout or self.key:
            raise ValueError("a message without a picture has a payload, channels or a key number")
        if (self.kind is Kind.SKIP and self.age == 0) or (self.kind is Kind.NONE and self.age):
            raise ValueError("a skip needs a reference age, a message without a picture has none")
        if len(self.previous) > MAX_PREVIOUS or not all(self.previous):
            raise ValueError("at most 4 earlier messages can be repeated, none of them empty")
        if len(self.held) > MAX_HELD:
            raise ValueError("at most 16 objects can be under way")

    def essential(self) -> "Message":
        """What to repeat in later packets: picture and crop, without the sections that are sent anew or elsewhere."""
        return replace(self, feedback=None, report=None, held=(), previous=(), parts=())


def unpack(data: bytes) -> Message:
    """The message of some bytes. Raises BitstreamError on anything that `Message.pack` does not make."""
    if len(data) > MAX_MESSAGE:
        raise BitstreamError(f"a message of {len(data)} bytes; {MAX_MESSAGE} are possible")
    read = ByteReader(data)
    first = read.byte()
    number = read.byte()
    if first >> 6 > Kind.NONE:
        raise BitstreamError("a message of an unknown kind")
    kind = Kind(first >> 6)
    second = read.byte() if first & 1 else 0
    flags = read.byte() if second & 1 else 0
    if (kind is Kind.PICTURE and not first & 1) or flags >> 4 or (second & 1 and not flags):
        raise BitstreamError("a message with flags that do not exist")
    feedback = Feedback.read(read) if second & 4 else None
    crop = Crop.read(read) if flags & 1 else None
    report = read.sized() if flags & 2 else None
    held = tuple(Held.read(read) for _ in range(read.count(MAX_HELD))) if flags & 4 else ()
    previous = _read_previous(read) if second & 2 else ()
    parts = read.parts(last_runs_to_end=kind is not Kind.PICTURE) if flags & 8 else ()
    if kind is Kind.PICTURE:
        layout, picture = LAYOUTS[second >> 3 & 3], read.rest()
    else:
        layout, picture = 0, b""
    read.end()
    message = Message(
        kind=kind,
        number=number,
        background=Background(first >> 4 & 3),
        age=first >> 1 & 7,
        key=second >> 5,
        layout=layout,
        picture=picture,
        feedback=feedback,
        crop=crop,
        report=report,
        held=held,
        previous=previous,
        parts=parts,
    )
    _check_canonical(message, data)
    return message


def _check_canonical(message: Message, data: bytes) -> None:
    """One message has one spelling: a repeated or forged one cannot look different."""
    try:
        same = message.pack() == data
    except ValueError as error:
        raise BitstreamError(f"a message that cannot be: {error}") from error
    if not same:
        raise BitstreamError("a message that is not in its shortest form")


def _read_previous(read: ByteReader) -> tuple[bytes, ...]:
    previous: list[bytes] = []
    more = 1
    while more:
        if len(previous) == MAX_PREVIOUS:
            raise BitstreamError("a message repeats more than 4 earlier ones")
        size = read.varint()
        more = size & 1
        previous.append(read.take(size >> 1))
    return tuple(previous)
