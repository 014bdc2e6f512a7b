"""Integer arithmetic coder whose bytes are those of torchac.

The coder is the one of Witten, Neal and Cleary (1987) as torchac 0.9.3 computes it (`torchac_backend.cpp`): 32-bit
interval ends, 16-bit cumulative counts, pending bits for the near-convergence case. torchac shifts one bit at a time;
here all shifts of a symbol are made at once, which gives the same bits. Unlike torchac, symbols go in and come out one
by one, so that the table of a symbol may depend on the symbols before it, and no compiler is needed.

A table is a sequence of cumulative counts `0 = c[0] < c[1] < … < c[n] = 65536`; symbol k owns `[c[k], c[k + 1])`.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence

TOTAL = 1 << 16
"""Sum of the counts of every table."""

_TOP = 0xFFFFFFFF
_HALF = 0x80000000
_LOWER = 0x7FFFFFFF
_WORD = 64
"""Bits that are moved between integers and bytes at once."""


class Encoder:
    """Collects coded symbols; `finish` gives the bytes. One instance codes one payload."""

    __slots__ = ("_bits", "_count", "_high", "_low", "_out", "_pending")

    def __init__(self) -> None:
        self._low = 0
        self._high = _TOP
        self._pending = 0
        self._bits = 0
        self._count = 0
        self._out = bytearray()

    def encode(self, symbol: int, table: Sequence[int]) -> None:
        """Code one symbol, 0 ≤ symbol < len(table) - 1, by its table of cumulative counts."""
        self.encode_intervals((table[symbol],), (table[symbol + 1],))

    def encode_intervals(self, starts: Iterable[int], ends: Iterable[int]) -> None:
        """Code a run of symbols, each given as its interval [start, end) of 65536, start < end."""
        low, high, pending, bits, count = self._low, self._high, self._pending, self._bits, self._count
        for start, end in zip(starts, ends, strict=True):
            span = high - low + 1
            high = low + (span * end >> 16) - 1
            low += span * start >> 16
            if high - low >= _HALF:
                continue
            shift = 32 - (low ^ high).bit_length()
            if shift:
                # The leading bits on which both ends agree are settled; the pending ones follow the first, inverted.
                leading = low >> (32 - shift)
                if pending:
                    first = leading >> (shift - 1)
                    run = 1 << pending if first else (1 << pending) - 1
                    bits = bits << (pending + 1) | run
                    count += pending + 1
                    pending = 0
                    leading &= (1 << (shift - 1)) - 1
                    bits = bits << (shift - 1) | leading
                    count += shift - 1
                else:
                    bits = bits << shift | leading
                    count += shift
                low = low << shift & _TOP
                high = (high << shift | (1 << shift) - 1) & _TOP
                if count >= _WORD:
                    bits, count = self._spill(bits, count)
            # low = 01…1x and high = 10…0y: the bits after the first say nothing yet.
            if low & ~high & 0x40000000:
                shift = 31 - (~(low & ~high) & _LOWER).bit_length()
                pending += shift
                low = low << shift & _LOWER
                high = high << shift & _LOWER | _HALF | (1 << shift) - 1
        self._low, self._high, self._pending, self._bits, self._count = low, high, pending, bits, count

    def _spill(self, bits: int, count: int) -> tuple[int, int]:
        """Move the whole bytes of the bit buffer to the output."""
        rest = count & 7
        self._out += (bits >> rest).to_bytes(count >> 3, "big")
        return bits & ((1 << rest) - 1), rest

    def finish(self, shortest: bool = False) -> bytes:
        """End the payload.

        With `shortest` false these are exactly torchac's bytes. With `shortest` true it is the shortest byte string
        that decodes to the same symbols when the bytes after its end count as zero – for carriers that know the length;
        torchac decodes that too.
        """
        bits, count, pending = self._bits, self._count, self._pending
        if not shortest:
            if self._low < 0x40000000:
                bits = bits << (pending + 2) | ((1 << (pending + 1)) - 1)
            else:
                bits = bits << (pending + 2) | 1 << (pending + 1)
            count += pending + 2
        elif self._low or pending:
            # The middle, 1000…, always lies inside the interval, and its zeros need not be sent.
            bits = bits << 1 | 1
            count += 1
        padding = -count & 7
        data = bytes(self._out) + (bits << padding).to_bytes((count + padding) >> 3, "big")
        return data.rstrip(b"\0") if shortest else data


class Decoder:
    """Reads symbols from a payload. Missing bytes count as zero, so any bytes decode to something, in bounded time."""

    __slots__ = ("bits_used", "decode")

    decode: Callable[[Sequence[int]], int]
    """decode(table) → the next symbol."""
    bits_used: Callable[[], int]
    """How many bits the symbols so far have settled."""

    def __init__(self, data: bytes) -> None:
        self.decode, self.bits_used = _start_decoding(data)


def _start_decoding(data: bytes) -> tuple[Callable[[Sequence[int]], int], Callable[[], int]]:
    """The decoder as a closure: its state in cell variables is read and written faster than attributes."""
    low = 0
    span = TOTAL * TOTAL
    # Only the distance of the read value from `low` matters: every renormalisation shifts both alike.
    distance = int.from_bytes(data[:4].ljust(4, b"\0"), "big")
    position = 4
    buffer = 0
    available = 0
    used = 0

    def decode(table: Sequence[int]) -> int:
        nonlocal low, span, distance, position, buffer, available, used
        symbol = bisect_right(table, ((distance + 1 << 16) - 1) // span) - 1
        start = span * table[symbol] >> 16
        low += start
        distance -= start
        span = (span * table[symbol + 1] >> 16) - start
        if span > _HALF:
            return symbol
        high = low + span - 1
        shift = 32 - (low ^ high).bit_length()
        if shift:
            low = low << shift & _TOP
            high = (high << shift | (1 << shift) - 1) & _TOP
        if low & ~high & 0x40000000:
            more = 31 - (~(low & ~high) & _LOWER).bit_length()
            low = low << more & _LOWER
            shift += more
        if shift:
            span <<= shift
            if available < shift:
                buffer = buffer << _WORD | int.from_bytes(data[position : position + 8].ljust(8, b"\0"), "big")
                position += 8
                available += _WORD
            available -= shift
            distance = distance << shift | buffer >> available
            buffer &= (1 << available) - 1
            used += shift
        return symbol

    def bits_used() -> int:
        return used

    return decode, bits_used
