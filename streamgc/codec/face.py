"""The face of a picture: a few numbers that say where its eyes are, and what eyes and mouth do; and where the same face
is in the key picture, and how far around it the key is moved to lie where the face is now.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FACE_SYMBOLS = 6
FACE_LARGEST = 4
"""A face's symbols are the integers -4…4."""
FACE_LEVELS = 2 * FACE_LARGEST + 1
FACE_STEP = 1
"""Pixels of the code picture in which the middle of the eyes is given."""
FACE_STEPS = 16 // FACE_STEP
"""Such steps in a cell's side."""
SIZES = 96
LARGEST_TURN = 22
REACHES = 3
"""How far around a face the key is moved: 0, not at all, or 1, or 2."""


class FacePose(NamedTuple):
    """Where the eyes are in the picture."""

    x: int
    """Middle of the eyes from the left, in steps of `FACE_STEP` pixels, 0 ≤ x < 16 · columns of the grid."""
    y: int
    """The same from above, 0 ≤ y < 16 · rows."""
    size: int
    """0…95; the eyes are 8 · 1.03^size pixels apart."""
    turn: int
    """-22…22, in steps of 2 degrees; positive is clockwise in the picture: the eye on its right is the lower one."""


class FaceCode(NamedTuple):
    """Where a face is and what it does."""

    pose: FacePose
    symbols: npt.NDArray[np.int8]
    """(6,) in [-4, 4]."""
    home: FacePose | None = None
    """Where the same face is in the key picture; None: nobody knows."""
    reach: int = 0
    """0…2: how far around the face the key is moved so that `home` comes to lie at `pose`; 0: it is not moved. Always 0
    where `home` is None."""

    def equals(self, other: "FaceCode | None") -> bool:
        """Whether both have the same pose, symbols, home and reach."""
        if other is None or not np.array_equal(self.symbols, other.symbols):
            return False
        return (self.pose, self.home, self.reach) == (other.pose, other.home, other.reach)


def pose_ranges(grid: tuple[int, int]) -> tuple[range, range, range, range]:
    """The values that x, y, size and turn of a pose may have on a (rows, columns) grid."""
    rows, columns = grid
    return range(FACE_STEPS * columns), range(FACE_STEPS * rows), range(SIZES), range(-LARGEST_TURN, LARGEST_TURN + 1)


def check_face(face: FaceCode, grid: tuple[int, int]) -> None:
    """Raise ValueError unless `face` is what the classes say, on a (rows, columns) grid."""
    _check_pose(face.pose, "a face", grid)
    if face.home is not None:
        _check_pose(face.home, "a face's home", grid)
    _check_number(face.reach, "reach of a face", range(REACHES))
    if face.home is None and face.reach:
        raise ValueError(f"reach of a face is {face.reach} where nobody knows its home; only 0 is possible")
    symbols = face.symbols
    if symbols.dtype != np.int8 or symbols.shape != (FACE_SYMBOLS,):
        raise ValueError(f"symbols of a face are {symbols.dtype} {symbols.shape}; int8 ({FACE_SYMBOLS},) is needed")
    if symbols.min() < -FACE_LARGEST or symbols.max() > FACE_LARGEST:
        raise ValueError(f"a symbol of a face is outside [-{FACE_LARGEST}, {FACE_LARGEST}]")


def _check_pose(pose: FacePose, whose: str, grid: tuple[int, int]) -> None:
    for name, value, allowed in zip(FacePose._fields, pose, pose_ranges(grid), strict=True):
        _check_number(value, f"{name} of {whose}", allowed)


def _check_number(value: int, name: str, allowed: range) -> None:
    if not isinstance(value, int | np.integer) or value not in allowed:
        raise ValueError(f"{name} is {value}; {allowed[0]}…{allowed[-1]} are possible")
