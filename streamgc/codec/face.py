"""The face of a picture: a few numbers that say where its eyes are, and what eyes and mouth do."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FACE_SYMBOLS = 6
FACE_LARGEST = 4
"""A face's symbols are the integers -4…4."""
FACE_LEVELS = 2 * FACE_LARGEST + 1
FACE_STEP = 2
"""Pixels of the code picture in which the middle of the eyes is given."""
FACE_STEPS = 16 // FACE_STEP
"""Such steps in a cell's side."""
SIZES = 32
LARGEST_TURN = 7


class FacePose(NamedTuple):
    """Where the eyes are in the picture."""

    x: int
    """Middle of the eyes from the left, in steps of `FACE_STEP` pixels, 0 ≤ x < 8 · columns of the grid."""
    y: int
    """The same from above, 0 ≤ y < 8 · rows."""
    size: int
    """0…31; the eyes are 8 · 1.1^size pixels apart."""
    turn: int
    """-7…7, in steps of 6 degrees; positive is clockwise in the picture: the eye on its right is the lower one."""


class FaceCode(NamedTuple):
    """Where a face is and what it does."""

    pose: FacePose
    symbols: npt.NDArray[np.int8]
    """(6,) in [-4, 4]."""

    def equals(self, other: "FaceCode | None") -> bool:
        """Whether both have the same pose and symbols."""
        return other is not None and self.pose == other.pose and np.array_equal(self.symbols, other.symbols)


def pose_ranges(grid: tuple[int, int]) -> tuple[range, range, range, range]:
    """The values that x, y, size and turn of a pose may have on a (rows, columns) grid."""
    rows, columns = grid
    return range(FACE_STEPS * columns), range(FACE_STEPS * rows), range(SIZES), range(-LARGEST_TURN, LARGEST_TURN + 1)


def check_face(face: FaceCode, grid: tuple[int, int]) -> None:
    """Raise ValueError unless `face` is what the classes say, on a (rows, columns) grid."""
    for name, value, allowed in zip(FacePose._fields, face.pose, pose_ranges(grid), strict=True):
        if not isinstance(value, int | np.integer) or value not in allowed:
            raise ValueError(f"{name} of a face is {value}; {allowed[0]}…{allowed[-1]} are possible")
    symbols = face.symbols
    if symbols.dtype != np.int8 or symbols.shape != (FACE_SYMBOLS,):
        raise ValueError(f"symbols of a face are {symbols.dtype} {symbols.shape}; int8 ({FACE_SYMBOLS},) is needed")
    if symbols.min() < -FACE_LARGEST or symbols.max() > FACE_LARGEST:
        raise ValueError(f"a symbol of a face is outside [-{FACE_LARGEST}, {FACE_LARGEST}]")
