"""Numbers of side information as adaptive bits: one object that writes or reads, so that one function describes both.

Each bit has a slot – any hashable name of its context – whose counts both sides keep while they go, in integers.
"""

from __future__ import annotations

from collections.abc import Hashable

from streamgc.codec.arithmetic import TOTAL, Decoder, Encoder
from streamgc.errors import BitstreamError

_LIMIT = 255
"""Sum of the counts of a slot at which both are halved: old pictures of a contour matter less than new ones."""
_STEP = 2
_MAX_CLASS = 20
"""Numbers have at most this many bits."""
_EVEN = (0, TOTAL // 2, TOTAL)


class BitCoder:
    """Writes when made without a payload, reads otherwise.

    Every method takes the value to write – ignored when reading – and gives the value written or read. Reading raises
    BitstreamError for what no writer writes; missing bytes count as zero, so it always comes to an end.
    """

    def __init__(self, payload: bytes | None = None) -> None:
        self._payload = payload
        self._encoder = Encoder()
        self._decoder = Decoder(payload or b"")
        self._counts: dict[Hashable, list[int]] = {}

    @property
    def reading(self) -> bool:
        """Whether values come from a payload."""
        return self._payload is not None

    def bit(self, value: int, slot: Hashable) -> int:
        """One adaptive bit."""
        counts = self._counts.get(slot)
        if counts is None:
            counts = self._counts[slot] = [1, 1]
        zero = counts[0] * TOTAL // (counts[0] + counts[1])
        value = self._code(value, (0, zero, TOTAL))
        counts[value] += _STEP
        if counts[0] + counts[1] > _LIMIT:
            counts[0], counts[1] = counts[0] + 1 >> 1, counts[1] + 1 >> 1
        return value

    def _code(self, value: int, table: tuple[int, int, int]) -> int:
        if self.reading:
            return self._decoder.decode(table)
        self._encoder.encode(value, table)
        return value

    def number(self, value: int, slot: Hashable) -> int:
        """A number ≥ 0: its bit length in unary, then its bits below the leading one, the first of them adaptive."""
        if self._payload is not None and self._decoder.bits_used() > 8 * len(self._payload) + 64:
            raise BitstreamError("side information ends too early")
        length = 0
        wanted = (value + 1).bit_length() - 1
        while self.bit(int(length < wanted), (slot, length)):
            length += 1
            if length > _MAX_CLASS:
                raise BitstreamError("a number of the side information is too large")
        result = 1
        for position in range(length - 1, -1, -1):
            bit = (value + 1) >> position & 1
            first = position == length - 1
            result = result << 1 | (self.bit(bit, (slot, length, "top")) if first else self._code(bit, _EVEN))
        return result - 1

    def signed(self, value: int, slot: Hashable, sign: Hashable = None) -> int:
        """A number of either sign; ``sign`` names the context of the sign."""
        size = self.number(abs(value), slot)
        if size == 0:
            return 0
        return -size if self.bit(int(value < 0), (slot, "sign", sign)) else size

    def choice(self, value: int, count: int, slot: Hashable) -> int:
        """One of 0 … count - 1, each bit in the context of those above it."""
        prefix = 1
        for position in range((count - 1).bit_length() - 1, -1, -1):
            prefix = prefix << 1 | self.bit(value >> position & 1, (slot, prefix))
        result = prefix - (1 << (count - 1).bit_length())
        if result >= count:
            raise BitstreamError("a value of the side information is out of range")
        return result

    def finish(self) -> bytes:
        """The payload written; when reading, raises BitstreamError if there is more than was read."""
        if self._payload is None:
            return self._encoder.finish(shortest=True)
        if self._payload.endswith(b"\0") or len(self._payload) > self._decoder.bits_used() // 8 + 1:
            raise BitstreamError("side information is longer than what it says")
        return self._payload
