"""Integer frequency tables: the probabilities of the bitstream, shipped with a model as `tables.bin`.

The file is little-endian: magic `SGCT`, version (u8), the dimensions of the symbol tables with the levels (6 × u8, u8),
those of the face's symbol tables (3 × u8, u8), then u16 arrays: inner cumulative counts of the symbol tables (…, 4),
counts of 0 of the keep tables (5, 2, 2, 2, 2, 2), of the flag "what is kept differs from the reference" (5), of the
rich flag (5, 2, 3, 3), of the flag "there is a face" (3) and, of its pose and of its symbols, of "as in the reference"
(5, 5), inner cumulative counts of the pose's differences (4, 15) and of the face's symbols (6, 5, 10, 8), counts of
"the face's home is as in the reference" (5), and inner cumulative counts of its reach (4, 2). Every symbol has at least
one count of 65536. No float decides how bits are read.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import blake2b
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streamgc.codec.arithmetic import TOTAL
from streamgc.codec.contexts import (
    AGES,
    DRIFTS,
    FACE_REACH,
    FACE_SHAPE,
    FACE_THERE,
    KEEP_SHAPE,
    POSE_ESCAPE,
    POSE_LARGEST,
    POSE_LEVELS,
    POSE_NUMBERS,
    RICH_SHAPE,
    SHAPE,
    STIRS,
)
from streamgc.codec.face import FACE_LARGEST, FACE_LEVELS, REACHES
from streamgc.codec.symbols import LARGEST, LEVELS
from streamgc.errors import ModelError

VERSION = 3
_MAGIC = b"SGCT"
_HEADER = _MAGIC + bytes((VERSION, *SHAPE, LEVELS, *FACE_SHAPE, FACE_LEVELS))
_SHAPES = {
    "symbols": (*SHAPE, LEVELS - 1),
    "keep": KEEP_SHAPE,
    "moved": (AGES,),
    "rich": RICH_SHAPE,
    "face_there": (FACE_THERE,),
    "face_moved": (AGES,),
    "face_stays": (AGES,),
    "face_pose": (POSE_NUMBERS, POSE_LEVELS - 1),
    "face_symbols": (*FACE_SHAPE, FACE_LEVELS - 1),
    "face_home": (AGES,),
    "face_reach": (FACE_REACH, REACHES - 1),
}
"""Every array of the file, in its order."""
_CUMULATIVE = ("symbols", "face_pose", "face_symbols", "face_reach")


@dataclass(frozen=True, eq=False)
class Tables:
    """Frequencies of symbols, keep bits, flags, and of the face. Raises ModelError when a symbol has no count."""

    symbols: npt.NDArray[np.uint16]
    """(8, 5, 6, 3, 5, 6, 4): cumulative counts before symbols -1, 0, 1, 2; strictly increasing in 1…65535."""
    keep: npt.NDArray[np.uint16]
    """(5, 2, 2, 2, 2, 2): counts of "not kept", 1…65535."""
    moved: npt.NDArray[np.uint16]
    """(5,): counts of "what is kept is as in the reference", by age bucket, 1…65535; the first is not used."""
    rich: npt.NDArray[np.uint16]
    """(5, 2, 3, 3): counts of "not rich", 1…65535."""
    face_there: npt.NDArray[np.uint16]
    """(3,): counts of "no face", 1…65535, with no reference, one without and one with a face."""
    face_moved: npt.NDArray[np.uint16]
    """(5,): counts of "the pose is as in the reference", by age bucket, 1…65535; the first is not used."""
    face_stays: npt.NDArray[np.uint16]
    """(5,): counts of "the face's symbols are as in the reference", by age bucket, 1…65535; the first is not used."""
    face_pose: npt.NDArray[np.uint16]
    """(4, 15): cumulative counts before the differences -6…7 of x, y, size and turn, and before the escape."""
    face_symbols: npt.NDArray[np.uint16]
    """(6, 5, 10, 8): cumulative counts before a face's symbols -3…4; strictly increasing in 1…65535."""
    face_home: npt.NDArray[np.uint16]
    """(5,): counts of "the face's home is as in the reference", by age bucket, 1…65535; the first is of references
    without a face, where it is "nobody knows it"."""
    face_reach: npt.NDArray[np.uint16]
    """(4, 2): cumulative counts before a face's reaches 1 and 2, by the reference's; the last where it has no home."""

    def __post_init__(self) -> None:
        for name, shape in _SHAPES.items():
            array = getattr(self, name)
            if array.dtype != np.uint16 or array.shape != shape:
                raise ModelError(f"tables: {name} is {array.dtype} {array.shape}; uint16 {shape} is needed")
            if not array.all():
                raise ModelError(f"tables: {name} gives a symbol no count")
            if name in _CUMULATIVE and (array[..., 1:] <= array[..., :-1]).any():
                raise ModelError(f"tables: cumulative counts of {name} do not increase")

    @cached_property
    def cumulative(self) -> npt.NDArray[np.int32]:
        """(contexts, 6) cumulative counts with 0 before and 65536 after."""
        return _complete(self.symbols)

    @cached_property
    def rows(self) -> list[list[int]]:
        """`cumulative` as lists, for the symbol-by-symbol loops."""
        return self.cumulative.tolist()  # type: ignore[no-any-return]

    @cached_property
    def bits(self) -> npt.NDArray[np.float64]:
        """(contexts, 5) ideal cost of each symbol in bits."""
        return 16 - np.log2(np.diff(self.cumulative))

    @cached_property
    def bit_rows(self) -> list[list[float]]:
        """`bits` as lists."""
        return self.bits.tolist()  # type: ignore[no-any-return]

    @cached_property
    def least_bits(self) -> npt.NDArray[np.float32]:
        """(contexts without drift and stir, 5): what each symbol costs at the least, whatever the cells around it turn
        out to be."""
        around = DRIFTS * STIRS
        least: npt.NDArray[np.float32] = self.bits.reshape(-1, around, LEVELS).min(axis=1).astype(np.float32)
        return least

    @cached_property
    def keep_zero(self) -> npt.NDArray[np.int32]:
        """(160,) counts of "not kept" by keep context."""
        return self.keep.reshape(-1).astype(np.int32)

    @cached_property
    def keep_rows(self) -> list[tuple[int, int, int]]:
        """The keep tables as lists."""
        return [(0, zero, TOTAL) for zero in self.keep_zero.tolist()]

    @cached_property
    def moved_rows(self) -> list[tuple[int, int, int]]:
        """The keep flag's tables as lists."""
        return [(0, zero, TOTAL) for zero in self.moved.tolist()]

    @cached_property
    def rich_zero(self) -> npt.NDArray[np.int32]:
        """(90,) counts of "not rich" by context."""
        return self.rich.reshape(-1).astype(np.int32)

    @cached_property
    def rich_rows(self) -> list[tuple[int, int, int]]:
        """The rich flag's tables as lists."""
        return [(0, zero, TOTAL) for zero in self.rich_zero.tolist()]

    @cached_property
    def rich_bits(self) -> list[tuple[float, float]]:
        """By context, ideal cost in bits of saying "not rich" and of saying "rich"."""
        zero = self.rich_zero
        return list(zip((16 - np.log2(zero)).tolist(), (16 - np.log2(TOTAL - zero)).tolist(), strict=True))

    @cached_property
    def face_there_rows(self) -> list[tuple[int, int, int]]:
        """The tables of the flag whether there is a face, as lists."""
        return [(0, zero, TOTAL) for zero in self.face_there.tolist()]

    @cached_property
    def face_moved_rows(self) -> list[tuple[int, int, int]]:
        """The tables of the flag whether the face's pose differs, as lists."""
        return [(0, zero, TOTAL) for zero in self.face_moved.tolist()]

    @cached_property
    def face_stays_rows(self) -> list[tuple[int, int, int]]:
        """The tables of the flag whether any of the face's symbols differs, as lists."""
        return [(0, zero, TOTAL) for zero in self.face_stays.tolist()]

    @cached_property
    def face_pose_rows(self) -> list[list[int]]:
        """The tables of the pose's differences as lists, with 0 before and 65536 after."""
        return _complete(self.face_pose).tolist()  # type: ignore[no-any-return]

    @cached_property
    def face_symbol_rows(self) -> list[list[int]]:
        """The tables of the face's symbols as lists, by context, with 0 before and 65536 after."""
        return _complete(self.face_symbols).tolist()  # type: ignore[no-any-return]

    @cached_property
    def face_stays_bits(self) -> list[tuple[float, float]]:
        """By age bucket, ideal cost in bits of saying that the face's symbols are as in the reference, and that they
        differ."""
        zero = self.face_stays.astype(np.int64)
        return list(zip((16 - np.log2(zero)).tolist(), (16 - np.log2(TOTAL - zero)).tolist(), strict=True))

    @cached_property
    def face_symbol_bits(self) -> npt.NDArray[np.float64]:
        """(contexts, 9) ideal cost of each symbol of a face in bits."""
        return 16 - np.log2(np.diff(_complete(self.face_symbols)))

    @cached_property
    def face_home_rows(self) -> list[tuple[int, int, int]]:
        """The tables of the flag whether the face's home differs, as lists."""
        return [(0, zero, TOTAL) for zero in self.face_home.tolist()]

    @cached_property
    def face_reach_rows(self) -> list[list[int]]:
        """The tables of the face's reach as lists, with 0 before and 65536 after."""
        return _complete(self.face_reach).tolist()  # type: ignore[no-any-return]

    def to_bytes(self) -> bytes:
        """The file's content."""
        parts = (getattr(self, name) for name in _SHAPES)
        return _HEADER + b"".join(part.astype("<u2").tobytes() for part in parts)

    @cached_property
    def hash(self) -> bytes:
        """8 bytes that name these tables (blake2b of the file)."""
        return blake2b(self.to_bytes(), digest_size=8).digest()

    def save(self, path: Path) -> None:
        """Write `tables.bin`."""
        temporary = path.with_name(path.name + ".part")
        temporary.write_bytes(self.to_bytes())
        temporary.replace(path)


def parse_tables(data: bytes) -> Tables:
    """Tables from a file's content. Raises ModelError."""
    sizes = [prod(shape) for shape in _SHAPES.values()]
    if data[:4] != _MAGIC:
        raise ModelError("tables: not a tables file")
    if data[: len(_HEADER)] != _HEADER:
        raise ModelError("tables: of another version of the format")
    if len(data) != len(_HEADER) + 2 * sum(sizes):
        raise ModelError("tables: the file is truncated or too long")
    values = np.frombuffer(data, "<u2", offset=len(_HEADER)).astype(np.uint16)
    parts = np.split(values, np.cumsum(sizes[:-1]))
    return Tables(*[part.reshape(shape) for part, shape in zip(parts, _SHAPES.values(), strict=True)])


def load_tables(path: Path) -> Tables:
    """Read `tables.bin`. Raises ModelError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"tables: {path} cannot be read: {error.strerror}") from error
    return parse_tables(data)


def cumulate(weights: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Positive integer weights (…, n) → inner cumulative counts (…, n - 1) of 65536, every symbol ≥ 1 count. Integers
    only.
    """
    levels = weights.shape[-1]
    before = np.cumsum(weights.astype(np.int64), axis=-1)
    inner = before[..., :-1] * (TOTAL - levels) // before[..., -1:] + np.arange(1, levels)
    counts: npt.NDArray[np.uint16] = inner.astype(np.uint16)
    return counts


def _complete(inner: npt.NDArray[np.uint16]) -> npt.NDArray[np.int32]:
    """Inner cumulative counts (…, n - 1) → (contexts, n + 1) with 0 before and 65536 after."""
    levels = inner.shape[-1] + 1
    full = np.zeros((inner.size // (levels - 1), levels + 1), np.int32)
    full[:, 1:-1] = inner.reshape(-1, levels - 1)
    full[:, -1] = TOTAL
    return full


@cache
def default_tables() -> Tables:
    """Tables by formula, for use before a model is trained: most symbols repeat the reference, or are 0 where it has
    none.
    """
    _, age, state, gradient, drift, stir = np.indices(SHAPE, np.int64, sparse=True)
    centre = np.where(state == 0, 0, state - 1 - LARGEST)
    pull = np.clip(drift - 2 + gradient - 1, -2, 2)
    # Weights fall by 2^-sharpness a step from the centre: less so with age, and where things change.
    sharpness = np.where(state == 0, 3, np.maximum(5 - age, 2)) - stir // 2 - stir % 2 + (stir == 0)
    sharpness = np.clip(sharpness, 1, 5)
    weights = []
    for value in range(-LARGEST, LARGEST + 1):
        distance = value - centre
        weight = (1 << 24) >> (sharpness * np.abs(distance))
        towards = np.where(distance * pull > 0, 1 + np.abs(pull), 1)
        weights.append(np.broadcast_to(weight * towards + (value == 0) * 256 + 16, SHAPE))
    kept = np.indices(KEEP_SHAPE[1:], np.int64)
    votes = (6 * kept[0] + 2 * kept[1] + 2 * kept[2] + kept[3] + kept[4])[None]
    old = np.broadcast_to(votes, KEEP_SHAPE)
    new = np.broadcast_to((3 * kept[0] + 5 * kept[1] + 5 * kept[2] + kept[3])[None], KEEP_SHAPE)
    ages = np.arange(AGES).reshape(-1, 1, 1, 1, 1, 1)
    likely = np.where(ages == 0, np.clip(new * 12 // 14, 4, 9), old)
    keep = cumulate(np.stack([np.int64(1) << (12 - likely), np.int64(1) << likely], axis=-1))[..., 0]
    moved = cumulate(np.array([[1, 1], [9, 1], [8, 2], [7, 3], [6, 4]]))[..., 0]
    # A cell is rich that was, that changes, or that has rich neighbours; 2 of 64 at least, 58 at most.
    _, was, changed, around = np.indices(RICH_SHAPE, np.int64, sparse=True)
    chance = np.broadcast_to(np.clip(2 + 40 * was + 6 * changed + 8 * around, 2, 58), RICH_SHAPE)
    rich = cumulate(np.stack([64 - chance, chance], axis=-1))[..., 0]
    return Tables(
        cumulate(np.stack(weights, axis=-1)),
        np.ascontiguousarray(keep),
        moved,
        np.ascontiguousarray(rich),
        # There is a face where the reference has one; without a reference nobody knows.
        cumulate(np.array([[1, 1], [49, 1], [1, 49]]))[..., 0],
        moved,
        moved,
        _default_pose(),
        _default_face_symbols(),
        # A home changes with the key only; a first face mostly has one.
        cumulate(np.array([[1, 9], *[[49, 1]] * (AGES - 1)]))[..., 0],
        # How far the key is moved stays; without a home in the reference nobody knows.
        cumulate(np.vstack([1 + 47 * np.eye(REACHES, dtype=np.int64), np.ones((1, REACHES), np.int64)])),
    )


def _default_pose() -> npt.NDArray[np.uint16]:
    """Weights of the pose's differences fall by half a step; an escape is as likely as one of the farthest."""
    distance = np.abs(np.arange(POSE_LEVELS) - POSE_LARGEST)
    distance[POSE_ESCAPE] = POSE_LARGEST
    return cumulate(np.broadcast_to(np.int64(1) << (POSE_LARGEST - distance), (POSE_NUMBERS, POSE_LEVELS)))


def _default_face_symbols() -> npt.NDArray[np.uint16]:
    """A face's symbols are as in the reference, or 0; weights fall to a quarter a step after one frame, to a half after
    four and where no reference shows a face.
    """
    _, age, state, symbol = np.indices((*FACE_SHAPE, FACE_LEVELS), np.int64)
    centre = np.where(state == 0, FACE_LARGEST, state - 1)
    distance = np.abs(symbol - centre)
    twelfths = np.where(state == 0, 6, 2 + np.maximum(age, 1))
    return cumulate(twelfths**distance * 12 ** (2 * FACE_LARGEST - distance))
