"""`.sgc` files: one still picture, coded whole (GC) or where its heatmap keeps it (SC).

Layout: magic `SGCI`, version (u8), flags (u8: 1 context tables, 2 heatmap, 4 label map, 8 cells of 8 pixels instead of
16), channels (u8), model hash (8 bytes), width and height (varints); then, each only if its flag is set, the label map
and the heatmap (varint length, bytes); the symbols; and the CRC-32 of all that (4 bytes, little-endian).
"""

from __future__ import annotations

from typing import NamedTuple
from zlib import crc32

import numpy as np

from streamgc.codec.adaptive import BitCoder
from streamgc.codec.contours import Graphic, decode_graphic, encode_graphic
from streamgc.codec.sections import ByteReader, write_sized, write_varint
from streamgc.codec.still_planes import (
    Keep,
    Method,
    StillTables,
    Symbols,
    decode_still_symbols,
    encode_still_symbols,
)
from streamgc.codec.symbols import MAX_SIDE
from streamgc.codec.torchac_planes import Coder
from streamgc.errors import BitstreamError, ModelMismatch

MAGIC = b"SGCI"
VERSION = 0
HASH_SIZE = 8
MAX_PICTURE_SIDE = 16384
_CONTEXTS, _HEATMAP, _LABELS, _SMALL_CELLS = 1, 2, 4, 8


class StillCode(NamedTuple):
    """A coded picture: everything a generator needs."""

    width: int
    height: int
    """Size of the decoded picture in pixels, 1…16384."""
    symbols: Symbols
    """(C, h, w) in [-2, 2], 0 outside the kept cells."""
    keep: Keep | None = None
    """(h, w) heatmap m of SC; None: everything is kept."""
    labels: Graphic | None = None
    """Label map s as a vector graphic; None: the model needs none."""
    cell: int = 16

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of cells, so that the picture is covered in multiples of 16 pixels."""
        per = 16 // self.cell
        return -(-self.height // 16) * per, -(-self.width // 16) * per


class StillParts(NamedTuple):
    """Bytes of an .sgc file by what they are for."""

    header: int
    labels: int
    heatmap: int
    symbols: int


def encode_still_file(
    code: StillCode,
    tables: StillTables,
    model_hash: bytes,
    method: Method = "contexts",
    coder: Coder = "auto",
) -> tuple[bytes, StillParts]:
    """The file and the sizes of its parts. Raises ValueError for a code that cannot be, BackendMissing."""
    sides = (code.width, code.height)
    if not all(1 <= side <= MAX_PICTURE_SIDE for side in sides) or code.cell not in (8, 16):
        raise ValueError(f"a picture of {sides} in cells of {code.cell}; 1…{MAX_PICTURE_SIDE} and 8 or 16 are possible")
    if code.symbols.shape[1:] != code.grid or len(model_hash) != HASH_SIZE:
        raise ValueError(f"symbols {code.symbols.shape} and a hash of {len(model_hash)} bytes; the grid is {code.grid}")
    flags = _CONTEXTS * (method == "contexts") + _HEATMAP * (code.keep is not None)
    flags += _LABELS * (code.labels is not None) + _SMALL_CELLS * (code.cell == 8)
    body = bytearray(MAGIC + bytes((VERSION, flags, len(code.symbols))) + model_hash)
    write_varint(body, code.width)
    write_varint(body, code.height)
    header = len(body) + 4
    if code.labels is not None:
        write_sized(body, encode_graphic(code.labels))
    labels = len(body) + 4 - header
    if code.keep is not None:
        write_sized(body, encode_heatmap(code.keep))
    heatmap = len(body) + 4 - header - labels
    keep = np.ones(code.grid, bool) if code.keep is None else code.keep
    payload = encode_still_symbols(code.symbols, keep, tables, method, coder)
    body += payload
    body += crc32(body).to_bytes(4, "little")
    return bytes(body), StillParts(header, labels, heatmap, len(payload))


def decode_still_file(data: bytes, tables: StillTables, model_hash: bytes, coder: Coder = "auto") -> StillCode:
    """The code of a file.

    Raises BitstreamError when it is foreign, truncated or corrupted, ModelMismatch when another model made it,
    BackendMissing.
    """
    reader, flags, channels, theirs = _open(data)
    if theirs != model_hash:
        raise ModelMismatch(f"the file was made by model {theirs.hex()}; the one loaded is {model_hash.hex()}")
    width, height = (reader.varint() for _ in range(2))
    if not all(1 <= side <= MAX_PICTURE_SIDE for side in (width, height)):
        raise BitstreamError(f"a picture of {width}x{height} pixels cannot be")
    labels = decode_graphic(reader.take(reader.varint())) if flags & _LABELS else None
    cell = 8 if flags & _SMALL_CELLS else 16
    grid = StillCode(width, height, np.zeros((1, 1, 1), np.int8), cell=cell).grid
    if max(grid) > MAX_SIDE:
        raise BitstreamError(f"a picture of {width}x{height} pixels has too many cells")
    keep = decode_heatmap(reader.take(reader.varint()), grid) if flags & _HEATMAP else None
    method: Method = "contexts" if flags & _CONTEXTS else "static"
    kept = np.ones(grid, bool) if keep is None else keep
    symbols = decode_still_symbols(reader.rest(), channels, kept, tables, method, coder)
    return StillCode(width, height, symbols, keep, labels, cell)


def model_of(data: bytes) -> bytes:
    """The hash of the model that made a file. Raises BitstreamError."""
    return _open(data)[3]


def _open(data: bytes) -> tuple[ByteReader, int, int, bytes]:
    if data[:4] != MAGIC:
        raise BitstreamError("not an .sgc file")
    if len(data) < 4 + 3 + HASH_SIZE + 2 + 4:
        raise BitstreamError("the .sgc file is truncated")
    if data[4] != VERSION:
        raise BitstreamError(f"version {data[4]} of the .sgc format; this program reads {VERSION}")
    if crc32(data[:-4]).to_bytes(4, "little") != data[-4:]:
        raise BitstreamError("the .sgc file is truncated or corrupted (its checksum differs)")
    reader = ByteReader(data[5:-4])
    flags, channels = reader.byte(), reader.byte()
    if flags > 15:
        raise BitstreamError("the .sgc file has flags this program does not know")
    return reader, flags, channels, reader.take(HASH_SIZE)


def encode_heatmap(keep: Keep) -> bytes:
    """A binary map, each cell in the context of its left, upper left, upper and upper right neighbour."""
    coder = BitCoder()
    _code_heatmap(coder, keep.astype(int).tolist())
    return coder.finish()


def decode_heatmap(payload: bytes, grid: tuple[int, int]) -> Keep:
    """The map (h, w). Raises BitstreamError."""
    coder = BitCoder(payload)
    cells = _code_heatmap(coder, [[0] * grid[1] for _ in range(grid[0])])
    coder.finish()
    return np.array(cells, bool)


def _code_heatmap(coder: BitCoder, cells: list[list[int]]) -> list[list[int]]:
    result: list[list[int]] = []
    above = [0] * (len(cells[0]) + 2)
    for row in cells:
        line = [0]
        for column, value in enumerate(row, 1):
            slot = (line[-1], above[column - 1], above[column], above[column + 1])
            line.append(coder.bit(value, slot))
        result.append(line[1:])
        above = [*line, 0]
    return result
