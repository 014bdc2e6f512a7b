"""A still picture's code to bytes and back: static frequencies per channel (the paper's), or integer context tables.

Channels are coded one after the other, each in raster order, kept cells only. The context of a symbol is two weighted
sums of what is known – six neighbours in its own channel and the 3×3 surroundings in the channels before it – one of
their values, one of their sizes, each cut into bins. Weights, bins and tables are integers that ship with the model, so
that every machine reads the same symbols.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streamgc.codec.arithmetic import TOTAL, Decoder, Encoder
from streamgc.codec.symbols import LARGEST, LEVELS, MAX_SIDE
from streamgc.codec.torchac_planes import Coder, decode_planes, encode_planes, torchac_wanted
from streamgc.errors import BitstreamError, ModelError

Method = Literal["static", "contexts"]
OWN = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0))
"""(row, column) offsets in the own channel: left, above, above left, above right, two left, two above."""
AROUND = tuple((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1))
VALUE_BINS, SIZE_BINS = 24, 6
MAX_CODE_CHANNELS = 32
_MAGIC = b"SGST"
VERSION = 0
_PAD = 2

Symbols = NDArray[np.int8]
Keep = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class StillTables:
    """Integer tables of one model of C channels. Raises ModelError when they do not fit each other."""

    static: NDArray[np.uint16]
    """(C, 4): inner cumulative counts of 65536, strictly increasing in 1…65535."""
    contexts: NDArray[np.uint16]
    """(C, VALUE_BINS, SIZE_BINS, 4): likewise."""
    weights: NDArray[np.int16]
    """(C, 2, F) of the sum of values and of the sum of sizes; F = 6 + 9 · (C - 1), unused ones 0."""
    value_edges: NDArray[np.int32]
    """(C, VALUE_BINS - 1), not decreasing."""
    size_edges: NDArray[np.int32]
    """(C, SIZE_BINS - 1), not decreasing."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.static) <= MAX_CODE_CHANNELS:
            raise ModelError(f"still tables: {len(self.static)} channels; 1…{MAX_CODE_CHANNELS} are possible")
        for name, (dtype, shape) in _layout(len(self.static)).items():
            array = getattr(self, name)
            if array.dtype != np.dtype(dtype) or array.shape != shape:
                raise ModelError(f"still tables: {name} is {array.dtype} {array.shape}; {dtype} {shape} is needed")
        for table in (self.static, self.contexts):
            if not table.all() or (table[..., 1:] <= table[..., :-1]).any():
                raise ModelError("still tables: cumulative counts do not increase")
        for edges in (self.value_edges, self.size_edges):
            if (edges[:, 1:] < edges[:, :-1]).any():
                raise ModelError("still tables: the edges of the bins decrease")

    @property
    def channels(self) -> int:
        """C."""
        return len(self.static)

    @cached_property
    def static_full(self) -> NDArray[np.int32]:
        """(C, 6) with 0 before and 65536 after."""
        return _full(self.static)

    @cached_property
    def contexts_full(self) -> NDArray[np.int32]:
        """(C, bins, 6) with 0 before and 65536 after."""
        return _full(self.contexts.reshape(self.channels, -1, LEVELS - 1))

    def to_bytes(self) -> bytes:
        """The file's content: magic, version, C, then the arrays in order, little-endian."""
        arrays = [
            getattr(self, name).astype(np.dtype(kind).newbyteorder("<")) for name, (kind, _) in _layout(1).items()
        ]
        return _MAGIC + bytes((VERSION, self.channels)) + b"".join(array.tobytes() for array in arrays)


def _layout(channels: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    features = len(OWN) + len(AROUND) * (channels - 1)
    return {
        "static": ("uint16", (channels, LEVELS - 1)),
        "contexts": ("uint16", (channels, VALUE_BINS, SIZE_BINS, LEVELS - 1)),
        "weights": ("int16", (channels, 2, features)),
        "value_edges": ("int32", (channels, VALUE_BINS - 1)),
        "size_edges": ("int32", (channels, SIZE_BINS - 1)),
    }


def _full(inner: NDArray[np.uint16]) -> NDArray[np.int32]:
    full = np.zeros((*inner.shape[:-1], LEVELS + 1), np.int32)
    full[..., 1:-1] = inner
    full[..., -1] = TOTAL
    return full


def parse_still_tables(data: bytes) -> StillTables:
    """Tables of a file's content. Raises ModelError."""
    if data[:4] != _MAGIC or len(data) < 6:
        raise ModelError("still tables: not a still tables file")
    if data[4] != VERSION or not 1 <= data[5] <= MAX_CODE_CHANNELS:
        raise ModelError("still tables: of another version of the format")
    arrays = {}
    position = 6
    for name, (kind, shape) in _layout(data[5]).items():
        dtype = np.dtype(kind).newbyteorder("<")
        count = int(np.prod(shape))
        if len(data) < position + count * dtype.itemsize:
            raise ModelError("still tables: the file is truncated")
        arrays[name] = np.frombuffer(data, dtype, count, position).astype(kind).reshape(shape)
        position += count * dtype.itemsize
    if position != len(data):
        raise ModelError("still tables: the file is too long")
    return StillTables(**arrays)


def features_before(symbols: Symbols, channel: int) -> NDArray[np.int32]:
    """(h, w, 9 · channel): the 3×3 surroundings of every cell in the channels before ``channel``."""
    height, width = symbols.shape[1:]
    padded = np.pad(symbols[:channel], ((0, 0), (_PAD, _PAD), (_PAD, _PAD))).astype(np.int32)
    planes = [
        padded[earlier, _PAD + row : _PAD + row + height, _PAD + column : _PAD + column + width]
        for earlier in range(channel)
        for row, column in AROUND
    ]
    return np.stack(planes, -1) if planes else np.zeros((height, width, 0), np.int32)


def features_own(plane: Symbols) -> NDArray[np.int32]:
    """(h, w, 6): the causal neighbours of every cell in its own channel."""
    height, width = plane.shape
    padded = np.pad(plane, _PAD).astype(np.int32)
    return np.stack(
        [padded[_PAD + row : _PAD + row + height, _PAD + column : _PAD + column + width] for row, column in OWN], -1
    )


def _bases(symbols: Symbols, channel: int, tables: StillTables) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """What the channels before say of both sums, (h, w) each."""
    known = features_before(symbols, channel)
    used = slice(len(OWN), len(OWN) + known.shape[-1])
    weights = tables.weights[channel].astype(np.int32)
    return known @ weights[0, used], np.abs(known) @ weights[1, used]


def contexts_of(symbols: Symbols, channel: int, tables: StillTables) -> NDArray[np.int64]:
    """(h, w) number of the context table of every symbol of a channel."""
    own = features_own(symbols[channel])
    values, sizes = _bases(symbols, channel, tables)
    weights = tables.weights[channel].astype(np.int32)[:, : len(OWN)]
    values = values + own @ weights[0]
    sizes = sizes + np.abs(own) @ weights[1]
    bins = np.searchsorted(tables.value_edges[channel], values, side="right") * SIZE_BINS
    return np.asarray(bins + np.searchsorted(tables.size_edges[channel], sizes, side="right"), np.int64)


def intervals(
    symbols: Symbols, keep: Keep, tables: StillTables, method: Method
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(table, symbol index) of every symbol in the order of coding: (n, 6) cumulative counts and (n,) 0…4."""
    rows, indices = [], []
    for channel, plane in enumerate(symbols):
        if method == "static":
            rows.append(np.broadcast_to(tables.static_full[channel], (int(keep.sum()), LEVELS + 1)))
        else:
            rows.append(tables.contexts_full[channel][contexts_of(symbols, channel, tables)[keep]])
        indices.append(plane[keep].astype(np.int32) + LARGEST)
    return np.concatenate(rows), np.concatenate(indices)


def encode_still_symbols(
    symbols: Symbols, keep: Keep, tables: StillTables, method: Method = "contexts", coder: Coder = "auto"
) -> bytes:
    """The payload of (C', h, w) symbols in [-2, 2], C' ≤ C, 0 outside the kept cells; the same by every ``coder``.

    Raises ValueError for other symbols, BackendMissing when ``coder`` asks for what cannot be had.
    """
    check_still_symbols(symbols, keep, tables)
    rows, indices = intervals(symbols, keep, tables, method)
    if torchac_wanted(coder, len(indices)):
        return encode_planes(rows, indices)
    encoder = Encoder()
    which = np.arange(len(indices))
    encoder.encode_intervals(rows[which, indices].tolist(), rows[which, indices + 1].tolist())
    return encoder.finish(shortest=True)


def ideal_bits(symbols: Symbols, keep: Keep, tables: StillTables, method: Method) -> float:
    """Cost in bits by the tables; the payload comes within a byte of it."""
    rows, indices = intervals(symbols, keep, tables, method)
    which = np.arange(len(indices))
    return float((16 - np.log2(rows[which, indices + 1] - rows[which, indices])).sum())


def check_still_symbols(symbols: Symbols, keep: Keep, tables: StillTables) -> None:
    """Raise ValueError unless the symbols are what `encode_still_symbols` takes."""
    if symbols.dtype != np.int8 or keep.dtype != np.bool_ or symbols.ndim != 3 or symbols.shape[1:] != keep.shape:
        raise ValueError(f"symbols {symbols.dtype} {symbols.shape} and keep {keep.dtype} {keep.shape} do not fit")
    if not 1 <= len(symbols) <= tables.channels or not all(1 <= side <= MAX_SIDE for side in keep.shape):
        raise ValueError(f"{symbols.shape} symbols; at most {tables.channels} channels of {MAX_SIDE} cells a side")
    if (np.abs(symbols) > LARGEST).any() or (symbols * ~keep).any():
        raise ValueError("a symbol is outside [-2, 2], or not 0 where nothing is kept")


def decode_still_symbols(
    payload: bytes,
    channels: int,
    keep: Keep,
    tables: StillTables,
    method: Method = "contexts",
    coder: Coder = "auto",
) -> Symbols:
    """The symbols (channels, h, w) of a payload; of context tables, whoever the ``coder``, by our own.

    Raises BitstreamError when the bytes cannot be theirs, BackendMissing.
    """
    if not 1 <= channels <= tables.channels:
        raise BitstreamError(f"a code of {channels} channels, and the model has {tables.channels}")
    if payload.endswith(b"\0"):
        raise BitstreamError("a still payload ends in a zero byte")
    if method == "static" and torchac_wanted(coder, channels * int(keep.sum())):
        return _decode_static_planes(payload, channels, keep, tables)
    decoder = Decoder(payload)
    symbols = np.zeros((channels, *keep.shape), np.int8)
    for channel in range(channels):
        if method == "static":
            table = tables.static_full[channel].tolist()
            found = [decoder.decode(table) - LARGEST for _ in range(int(keep.sum()))]
            symbols[channel][keep] = np.array(found, np.int8)
        else:
            symbols[channel] = _decode_plane(decoder, symbols, channel, keep, tables)
    if len(payload) > decoder.bits_used() // 8 + 1:
        raise BitstreamError("a still payload is longer than its symbols")
    return symbols


def _decode_static_planes(payload: bytes, channels: int, keep: Keep, tables: StillTables) -> Symbols:
    rows = np.repeat(tables.static_full[:channels], int(keep.sum()), 0)
    indices = decode_planes(rows, payload)
    # torchac does not say how much it read: symbols that give the same bytes have used them all.
    if encode_planes(rows, indices) != payload:
        raise BitstreamError("a still payload is longer than its symbols")
    symbols = np.zeros((channels, *keep.shape), np.int8)
    symbols[:, keep] = (indices - LARGEST).reshape(channels, -1)
    return symbols


def _decode_plane(decoder: Decoder, symbols: Symbols, channel: int, keep: Keep, tables: StillTables) -> Symbols:
    height, width = keep.shape
    # The own channel with two cells of 0 around it, in one list: neighbours are at fixed distances.
    stride = width + 2 * _PAD
    plane = [0] * ((height + 2 * _PAD) * stride)
    weights = tables.weights[channel].astype(int).tolist()
    taps = [
        (row * stride + column, a, b)
        for (row, column), a, b in zip(OWN, *[w[: len(OWN)] for w in weights], strict=True)
    ]
    values, sizes = _bases(symbols, channel, tables)
    value_edges, size_edges = tables.value_edges[channel].tolist(), tables.size_edges[channel].tolist()
    rows = tables.contexts_full[channel].tolist()
    cells = np.flatnonzero(keep)
    places = ((cells // width + _PAD) * stride + cells % width + _PAD).tolist()
    decode = decoder.decode
    for place, value, size in zip(places, values[keep].tolist(), sizes[keep].tolist(), strict=True):
        for offset, a, b in taps:
            near = plane[place + offset]
            if near:
                value += a * near
                size += b * abs(near)
        context = bisect_right(value_edges, value) * SIZE_BINS + bisect_right(size_edges, size)
        plane[place] = decode(rows[context]) - LARGEST
    grid = np.array(plane, np.int8).reshape(height + 2 * _PAD, stride)
    return grid[_PAD:-_PAD, _PAD:-_PAD]
