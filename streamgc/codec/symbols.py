"""The code of a picture: symbols, what is kept, and what the face does."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streamgc.codec.face import FaceCode, check_face

LARGEST = 2
"""Symbols are the integers -2…2."""
LEVELS = 2 * LARGEST + 1
MAX_CHANNELS = 8
CHANNEL_COUNTS = (2, 4, 8)
"""Channel counts a picture may be sent with; each is the beginning of the next."""
LEAST_CHANNELS = CHANNEL_COUNTS[0]
"""Channels of every kept cell."""
MIXED = 1
"""Stands for a channel count where cells differ: two channels in most of them, all eight in the rich ones."""
LAYOUTS = (*CHANNEL_COUNTS, MIXED)
"""How the channels of a picture may lie: that many in every kept cell, or `MIXED`."""
MAX_SIDE = 1024
"""Largest number of rows or columns of a cell grid."""


class Code(NamedTuple):
    """The symbols of one picture. Symbols that are not sent are 0: those of cells that are not kept and, of a mixed
    code, those from the third channel on of cells that are not rich."""

    symbols: npt.NDArray[np.int8]
    """(C, h, w) in [-2, 2], C = 2, 4 or 8; channels that were not sent anywhere are not there."""
    keep: npt.NDArray[np.bool_]
    """(h, w); true where the picture is sent, false where the receiver synthesises it."""
    rich: npt.NDArray[np.bool_] | None = None
    """(h, w); of a mixed code, which kept cells carry all eight channels; None: all cells carry the same."""
    face: FaceCode | None = None
    """Where a face is and what it does; None: nothing is said of a face."""

    @property
    def channels(self) -> int:
        """Number of channels that are there."""
        return int(self.symbols.shape[0])

    @property
    def layout(self) -> int:
        """One of `LAYOUTS`."""
        return self.channels if self.rich is None else MIXED

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns)."""
        return int(self.keep.shape[0]), int(self.keep.shape[1])

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """(C, h, w); true where a symbol is sent."""
        present = np.repeat(self.keep[None], self.channels, axis=0)
        if self.rich is not None:
            present[LEAST_CHANNELS:] &= self.rich
        return present

    def first(self, channels: int) -> "Code":
        """The same code with its first 2, 4 or 8 channels only, and its face."""
        return Code(self.symbols[:channels], self.keep, face=self.face)

    def equals(self, other: "Code | None") -> bool:
        """Whether both have the same channels, symbols, kept and rich cells, and face."""
        if other is None or self.layout != other.layout:
            return False
        if not (other.face is None if self.face is None else self.face.equals(other.face)):
            return False
        same = np.array_equal(self.symbols, other.symbols) and np.array_equal(self.keep, other.keep)
        return same and (self.rich is None or np.array_equal(self.rich, np.asarray(other.rich)))


def make_code(
    symbols: npt.ArrayLike, keep: npt.ArrayLike, rich: npt.ArrayLike | None = None, face: FaceCode | None = None
) -> Code:
    """A valid `Code` of whatever holds integers: symbols that are not sent are set to 0, and cells outside the kept
    ones are not rich.

    Raises ValueError when shapes do not fit, the channel count is not 2, 4 or 8, a symbol is outside [-2, 2], or the
    face is not valid.
    """
    mask = np.asarray(keep, bool)
    values = np.asarray(symbols)
    if mask.ndim != 2 or values.ndim != 3 or values.shape[1:] != mask.shape:
        raise ValueError(f"symbols {values.shape} and keep {mask.shape} are not (C, h, w) and (h, w)")
    code = Code(values, mask, None if rich is None else np.asarray(rich, bool) & mask, face)
    sent = np.where(code.present, values, 0)
    code = code._replace(symbols=sent.astype(np.int8))
    if not np.array_equal(code.symbols, sent):
        raise ValueError("symbols are not integers")
    check_code(code)
    return code


def check_code(code: Code) -> None:
    """Raise ValueError unless `code` is what the class says; what every coder here relies on."""
    symbols, keep, rich, face = code
    if symbols.dtype != np.int8 or keep.dtype != np.bool_:
        raise ValueError(f"symbols are {symbols.dtype}, keep {keep.dtype}; int8 and bool are needed")
    if symbols.ndim != 3 or keep.ndim != 2 or symbols.shape[1:] != keep.shape:
        raise ValueError(f"symbols {symbols.shape} and keep {keep.shape} are not (C, h, w) and (h, w)")
    if symbols.shape[0] not in CHANNEL_COUNTS:
        raise ValueError(f"{symbols.shape[0]} channels; 2, 4 or 8 are possible")
    if rich is not None:
        if symbols.shape[0] != MAX_CHANNELS or rich.dtype != np.bool_ or rich.shape != keep.shape:
            raise ValueError(f"rich cells {rich.dtype} {rich.shape} of a code of {symbols.shape}")
        if (rich & ~keep).any():
            raise ValueError("a cell is rich and not kept")
    check_grid(code.grid)
    if symbols.size and (symbols.min() < -LARGEST or symbols.max() > LARGEST):
        raise ValueError("a symbol is outside [-2, 2]")
    if (symbols * ~code.present).any():
        raise ValueError("a symbol that is not sent is not 0")
    if face is not None:
        check_face(face, code.grid)


def check_grid(grid: tuple[int, int]) -> None:
    """Raise ValueError unless both sides are 1…1024."""
    if not all(1 <= side <= MAX_SIDE for side in grid):
        raise ValueError(f"a grid of {grid[0]} × {grid[1]} cells; 1…{MAX_SIDE} a side are possible")
