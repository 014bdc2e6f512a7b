"""The face's share of a picture payload, after the cells' symbols, and the choice of a face's symbols.

A flag says whether there is a face. Where the reference has one too, a second flag says whether the pose differs, and
if so each number of the pose follows as its difference, -7…7, or as an escape and the number itself; where the
reference has none, the numbers follow as they are. Then a flag whether the home differs from the reference's, none
where that has none or no face; if so, whether there is one, unless the reference had none, and its numbers as
differences to the picture's own pose. Where there is a home, the reach follows. Then, where the reference has a face, a
flag whether any symbol differs, and if so, or without it, the symbols, each in the context of the reference's. A face
has one spelling: what is said to differ does, and what fits a difference is not escaped.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from streamgc.codec.arithmetic import TOTAL, Encoder
from streamgc.codec.contexts import (
    AGE_BUCKET,
    POSE_ESCAPE,
    POSE_LARGEST,
    face_contexts,
    face_home_context,
    face_reach_context,
    face_there_context,
)
from streamgc.codec.face import FACE_LARGEST, FACE_SYMBOLS, FaceCode, FacePose, pose_ranges
from streamgc.codec.tables import Tables
from streamgc.errors import BitstreamError

Decode = Callable[[Sequence[int]], int]
"""decode(table) → the next symbol, as `Decoder.decode`."""

_EVEN = (0, TOTAL // 2, TOTAL)


def encode_face(
    encoder: Encoder, face: FaceCode | None, reference: FaceCode | None, age: int, tables: Tables, grid: tuple[int, int]
) -> None:
    """Code a valid face, or that there is none. `reference` is the face of the reference, if it has one; `age` is 0
    where the picture has no reference.
    """
    intervals = _intervals(face, reference, age, tables, grid)
    encoder.encode_intervals([start for start, _ in intervals], [end for _, end in intervals])


def decode_face(
    decode: Decode, reference: FaceCode | None, age: int, tables: Tables, grid: tuple[int, int]
) -> FaceCode | None:
    """What `encode_face` coded. Raises BitstreamError for a pose or home outside the grid, or not in its one
    spelling."""
    if not decode(tables.face_there_rows[face_there_context(reference, age)]):
        return None
    if reference is None:
        pose = FacePose(*[_decode_number(decode, allowed) for allowed in pose_ranges(grid)])
    elif decode(tables.face_moved_rows[AGE_BUCKET[age]]):
        pose = _decode_near(decode, reference.pose, tables, grid)
        if pose == reference.pose:
            raise BitstreamError("the pose of a face is said to differ from the reference's and does not")
    else:
        pose = reference.pose
    home, reach = _decode_home(decode, pose, reference, age, tables, grid)
    if reference is not None and not decode(tables.face_stays_rows[AGE_BUCKET[age]]):
        return FaceCode(pose, reference.symbols, home, reach)
    rows = tables.face_symbol_rows
    symbols = [decode(rows[context]) - FACE_LARGEST for context in face_contexts(reference, age).tolist()]
    face = FaceCode(pose, np.array(symbols, np.int8), home, reach)
    if reference is not None and np.array_equal(face.symbols, reference.symbols):
        raise BitstreamError("the symbols of a face are said to differ from the reference's and do not")
    return face


def face_bits(
    face: FaceCode | None, reference: FaceCode | None, age: int, tables: Tables, grid: tuple[int, int]
) -> float:
    """Ideal cost in bits of a face, or of saying that there is none; arguments as of `encode_face`."""
    intervals = np.array(_intervals(face, reference, age, tables, grid))
    return float((16 - np.log2(intervals[:, 1] - intervals[:, 0])).sum())


def choose_face_symbols(
    latent: npt.NDArray[np.float32],
    reference: FaceCode | None,
    age: int,
    tables: Tables,
    strength: float,
    weight: npt.NDArray[np.float32],
) -> npt.NDArray[np.int8]:
    """(6,) symbols, each the one with the least weight · (latent − symbol)² + strength · bits, or all of them as in the
    reference, where that is less in sum.

    Args:
        latent: (6,), finite; about (-4.4, 4.4).
        reference: the face of the reference, if it has one.
        age: of the reference in frames; 0 with none.
        tables: the model's tables.
        strength: λ ≥ 0 in squared symbols a bit; 0 rounds.
        weight: (6,), importance of each symbol.

    Raises ValueError when shapes do not fit, the latent is not finite, or the strength is negative.
    """
    if latent.shape != (FACE_SYMBOLS,) or weight.shape != (FACE_SYMBOLS,):
        raise ValueError(f"latent {latent.shape} and weight {weight.shape} of a face are not ({FACE_SYMBOLS},)")
    if not np.isfinite(latent).all() or strength < 0:
        raise ValueError("the latent of a face is not finite, or the strength is negative")
    levels = np.arange(-FACE_LARGEST, FACE_LARGEST + 1, dtype=np.float64)
    errors = weight[:, None] * (latent[:, None] - levels) ** 2
    costs = tables.face_symbol_bits[face_contexts(reference, age)]
    sums = errors + strength * costs
    chosen: npt.NDArray[np.int8] = (np.argmin(sums, axis=1) - FACE_LARGEST).astype(np.int8)
    if reference is None or np.array_equal(chosen, reference.symbols):
        return chosen
    stays = tables.face_stays_bits[AGE_BUCKET[age]]
    still = float(np.take_along_axis(errors, reference.symbols[:, None].astype(np.intp) + FACE_LARGEST, 1).sum())
    return reference.symbols if still + strength * stays[0] <= sums.min(1).sum() + strength * stays[1] else chosen


def pose_symbols(pose: FacePose, other: FacePose) -> list[int]:
    """x, y, size and turn as differences -7…7 to another pose, counted from 0; `POSE_ESCAPE` for those that do not
    fit."""
    differences = [int(value) - int(was) for value, was in zip(pose, other, strict=True)]
    return [change + POSE_LARGEST if abs(change) <= POSE_LARGEST else POSE_ESCAPE for change in differences]


def _intervals(
    face: FaceCode | None, reference: FaceCode | None, age: int, tables: Tables, grid: tuple[int, int]
) -> list[tuple[int, int]]:
    """The intervals of everything that is coded, in order."""
    there = tables.face_there_rows[face_there_context(reference, age)]
    if face is None:
        return [_of(0, there)]
    intervals = [_of(1, there)]
    if reference is None:
        for value, allowed in zip(face.pose, pose_ranges(grid), strict=True):
            intervals += _number(value, allowed)
    else:
        moved = face.pose != reference.pose
        intervals.append(_of(int(moved), tables.face_moved_rows[AGE_BUCKET[age]]))
        if moved:
            intervals += _near(face.pose, reference.pose, tables, grid)
    intervals += _home(face, reference, age, tables, grid)
    if reference is not None:
        stays = np.array_equal(face.symbols, reference.symbols)
        intervals.append(_of(int(not stays), tables.face_stays_rows[AGE_BUCKET[age]]))
        if stays:
            return intervals
    indices = (face.symbols.astype(np.intp) + FACE_LARGEST).tolist()
    rows = tables.face_symbol_rows
    contexts = face_contexts(reference, age).tolist()
    return intervals + [_of(index, rows[context]) for index, context in zip(indices, contexts, strict=True)]


def _near(pose: FacePose, other: FacePose, tables: Tables, grid: tuple[int, int]) -> list[tuple[int, int]]:
    """The intervals of a pose as differences to another one."""
    intervals = []
    symbols = pose_symbols(pose, other)
    for row, symbol, value, allowed in zip(tables.face_pose_rows, symbols, pose, pose_ranges(grid), strict=True):
        intervals.append(_of(symbol, row))
        if symbol == POSE_ESCAPE:
            intervals += _number(value, allowed)
    return intervals


def _home(
    face: FaceCode, reference: FaceCode | None, age: int, tables: Tables, grid: tuple[int, int]
) -> list[tuple[int, int]]:
    """The intervals of a face's home and reach."""
    home, was = face.home, reference.home if reference else None
    intervals = [_of(int(home != was), tables.face_home_rows[face_home_context(reference, age)])]
    if home != was and was is not None:
        intervals.append(_of(int(home is None), _EVEN))
    if home is None:
        return intervals
    if home != was:
        # A new key mostly shows the face about where it is now, wherever it was in the key before.
        intervals += _near(home, face.pose, tables, grid)
    return [*intervals, _of(face.reach, tables.face_reach_rows[face_reach_context(reference)])]


def _of(symbol: int, table: Sequence[int]) -> tuple[int, int]:
    return table[symbol], table[symbol + 1]


def _number(value: int, allowed: range) -> list[tuple[int, int]]:
    """The intervals of a number's even bits, the top one first."""
    distance = int(value) - allowed.start
    return [_of(distance >> shift & 1, _EVEN) for shift in reversed(range(_width(allowed)))]


def _width(allowed: range) -> int:
    return (len(allowed) - 1).bit_length()


def _decode_number(decode: Decode, allowed: range) -> int:
    distance = 0
    for _ in range(_width(allowed)):
        distance = distance << 1 | decode(_EVEN)
    return _inside(distance + allowed.start, allowed)


def _decode_home(
    decode: Decode, pose: FacePose, reference: FaceCode | None, age: int, tables: Tables, grid: tuple[int, int]
) -> tuple[FacePose | None, int]:
    """Home and reach of a face at `pose`."""
    home = was = reference.home if reference else None
    if decode(tables.face_home_rows[face_home_context(reference, age)]):
        lost = was is not None and decode(_EVEN)
        home = None if lost else _decode_near(decode, pose, tables, grid)
        if home == was:
            raise BitstreamError("the home of a face is said to differ from the reference's and does not")
    return home, 0 if home is None else decode(tables.face_reach_rows[face_reach_context(reference)])


def _decode_near(decode: Decode, other: FacePose, tables: Tables, grid: tuple[int, int]) -> FacePose:
    """A pose that is coded as differences to another one."""
    values = []
    for row, was, allowed in zip(tables.face_pose_rows, other, pose_ranges(grid), strict=True):
        symbol = decode(row)
        if symbol == POSE_ESCAPE:
            value = _decode_number(decode, allowed)
            if abs(value - was) <= POSE_LARGEST:
                raise BitstreamError("a number of a face's pose or home is escaped where its difference fits")
        else:
            value = _inside(int(was) + symbol - POSE_LARGEST, allowed)
        values.append(value)
    return FacePose(*values)


def _inside(value: int, allowed: range) -> int:
    if value not in allowed:
        raise BitstreamError(f"a face's pose or home has {value}; {allowed[0]}…{allowed[-1]} are possible")
    return value
