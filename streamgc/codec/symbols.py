"""The code of a picture: symbols and what is kept."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LARGEST = 2
"""Symbols are the integers -2…2."""
LEVELS = 2 * LARGEST + 1
MAX_CHANNELS = 8
CHANNEL_COUNTS = (2, 4, 8)
"""Channel counts a picture may be sent with; each is the beginning of the next."""
MAX_SIDE = 1024
"""Largest number of rows or columns of a cell grid."""


class Code(NamedTuple):
    """The symbols of one picture. Symbols of cells that are not kept are 0 and are not sent."""

    symbols: npt.NDArray[np.int8]
    """(C, h, w) in [-2, 2], C = 2, 4 or 8; channels that were not sent are not there."""
    keep: npt.NDArray[np.bool_]
    """(h, w); true where the picture is sent, false where the receiver synthesises it."""

    @property
    def channels(self) -> int:
        """Number of channels that are there."""
        return int(self.symbols.shape[0])

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns)."""
        return int(self.keep.shape[0]), int(self.keep.shape[1])

    def first(self, channels: int) -> "Code":
        """The same code with its first 2, 4 or 8 channels only."""
        return Code(self.symbols[:channels], self.keep)

    def equals(self, other: "Code | None") -> bool:
        """Whether both have the same channels, symbols and kept cells."""
        return (
            other is not None and np.array_equal(self.symbols, other.symbols) and np.array_equal(self.keep, other.keep)
        )


def make_code(symbols: npt.ArrayLike, keep: npt.ArrayLike) -> Code:
    """A valid `Code` of whatever holds integers: symbols outside the kept cells are set to 0.

    Raises ValueError when shapes do not fit, the channel count is not 2, 4 or 8, or a symbol is outside [-2, 2].
    """
    mask = np.asarray(keep, bool)
    values = np.asarray(symbols)
    if mask.ndim != 2 or values.ndim != 3 or values.shape[1:] != mask.shape:
        raise ValueError(f"symbols {values.shape} and keep {mask.shape} are not (C, h, w) and (h, w)")
    code = Code(np.where(mask, values, 0).astype(np.int8), mask)
    if not np.array_equal(code.symbols, np.where(mask, values, 0)):
        raise ValueError("symbols are not integers")
    check_code(code)
    return code


def check_code(code: Code) -> None:
    """Raise ValueError unless `code` is what the class says; what every coder here relies on."""
    symbols, keep = code
    if symbols.dtype != np.int8 or keep.dtype != np.bool_:
        raise ValueError(f"symbols are {symbols.dtype}, keep {keep.dtype}; int8 and bool are needed")
    if symbols.ndim != 3 or keep.ndim != 2 or symbols.shape[1:] != keep.shape:
        raise ValueError(f"symbols {symbols.shape} and keep {keep.shape} are not (C, h, w) and (h, w)")
    if symbols.shape[0] not in CHANNEL_COUNTS:
        raise ValueError(f"{symbols.shape[0]} channels; 2, 4 or 8 are possible")
    check_grid(code.grid)
    if symbols.size and (symbols.min() < -LARGEST or symbols.max() > LARGEST):
        raise ValueError("a symbol is outside [-2, 2]")
    if (symbols * ~keep).any():
        raise ValueError("a symbol outside the kept cells is not 0")


def check_grid(grid: tuple[int, int]) -> None:
    """Raise ValueError unless both sides are 1…1024."""
    if not all(1 <= side <= MAX_SIDE for side in grid):
        raise ValueError(f"a grid of {grid[0]} × {grid[1]} cells; 1…{MAX_SIDE} a side are possible")
