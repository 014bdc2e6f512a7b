"""Which table codes which symbol: the integer context of a symbol, the same for encoder, decoder, fitter and quantiser.

The context of the symbol of channel c in a cell is six small integers, mixed into one row number of the tables:

- channel c, 0…7;
- age of the reference: none, 1, 2, 3, 4 and more frames;
- state of the same channel and cell in the reference: absent, or one of the five symbols;
- gradient: whether its four neighbours in the reference lie below, at, or above it;
- drift: by how much the cells to the left, above and above right differ from the reference in this channel, summed,
  -2…2;
- stir: how many earlier channels of this cell differ from the reference (0, 1, more), and whether any of those three
  cells does.

In a mixed code a flag after the second symbol of a cell says whether it is rich, that is, has the other six channels.
Its context: age of the reference as above, whether the reference was rich there, how many of the two symbols differ
from the reference, and how many of the cells to the left and above are rich (`RICH_SHAPE`).

A symbol of the face has the context (slot 0…5, age of the reference as above, state: no face in the reference, or one
of the nine symbols in the same slot there; `FACE_SHAPE`). Whether its home is as in the reference has the age, 0 where
the reference has no face; its reach has the reach in the reference, or 3 where no home is known there.

Without a reference, "differs from the reference" means "is not zero". The first four come from the reference and are
computed for the whole picture by `reference_view`; the last two depend on what was decoded and are looked up in `DRIFT`
and `STIR`.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streamgc.codec.face import FACE_LARGEST, FACE_LEVELS, FACE_SYMBOLS, REACHES, FaceCode
from streamgc.codec.symbols import LARGEST, LEAST_CHANNELS, LEVELS, MAX_CHANNELS, Code

MAX_AGE = 7
AGES = 5
STATES = LEVELS + 1
GRADIENTS = 3
DRIFTS = 5
STIRS = 6
SHAPE = (MAX_CHANNELS, AGES, STATES, GRADIENTS, DRIFTS, STIRS)
"""Dimensions of the symbol tables; a context is an index into them, flattened."""

_DRIFT_STRIDE = STIRS
_GRADIENT_STRIDE = DRIFTS * _DRIFT_STRIDE
_STATE_STRIDE = GRADIENTS * _GRADIENT_STRIDE
_AGE_STRIDE = STATES * _STATE_STRIDE
_CHANNEL_STRIDE = AGES * _AGE_STRIDE

_LARGEST_DRIFT = 3 * 2 * LARGEST
# Negative sums index from the end, in lists as in arrays: entry k and entry k - 25 are the same one.
DRIFT = [
    _DRIFT_STRIDE * min(max(total if total <= _LARGEST_DRIFT else total - 2 * _LARGEST_DRIFT - 1, -2), 2)
    for total in range(2 * _LARGEST_DRIFT + 1)
]
"""What the summed differences (-12…12) of the three decoded neighbours in this channel add to the context."""

STIR = [
    [2 * min(earlier, 2) + min(around, 1) for earlier in range(MAX_CHANNELS)] for around in range(3 * MAX_CHANNELS + 1)
]
"""Share of the context: `STIR[n][k]`, n channels changed in the three neighbours, k earlier ones in this cell."""

KEEP_SHAPE = (AGES, 2, 2, 2, 2, 2)
"""Dimensions of the keep tables: age, same cell, left, above, right, below; see `keep_contexts`."""

RICH_SHAPE = (AGES, 2, 3, 3)
"""Dimensions of the tables of the rich flag: age, rich in the reference, changed symbols, rich neighbours."""
RICH_STRIDES = (18, 9, 3, 1)
"""What each of them adds to the context."""

FACE_THERE = 3
"""Contexts of the flag whether there is a face: no reference, a reference without a face, one with a face."""

POSE_NUMBERS = 4
POSE_LARGEST = 7
POSE_ESCAPE = 2 * POSE_LARGEST + 1
"""What stands for a difference of the face's pose outside -7…7; the number itself follows."""
POSE_LEVELS = POSE_ESCAPE + 1

FACE_SHAPE = (FACE_SYMBOLS, AGES, FACE_LEVELS + 1)
"""Dimensions of the tables of the face's symbols: slot, age, state."""

FACE_REACH = REACHES + 1
"""Contexts of a face's reach: that in the reference, or none there."""

AGE_BUCKET = (0, 1, 2, 3, 4, 4, 4, 4)
"""Bucket by reference age in frames; 0 is no reference."""


class ReferenceView(NamedTuple):
    """What a reference says about each cell, for all h·w cells in raster order."""

    base: npt.NDArray[np.int32]
    """(h·w, C): the context as far as the reference decides it, with a drift and stir of nothing."""
    values: npt.NDArray[np.int8]
    """(h·w, C): symbols of the reference, 0 where it has none."""
    rich: npt.NDArray[np.int32]
    """(h·w,): the context of the rich flag as far as the reference decides it."""


def reference_view(reference: Code | None, age: int, channels: int, shape: tuple[int, int]) -> ReferenceView:
    """The reference's share of the contexts of a code of `channels` channels on a (rows, columns) grid."""
    rows, columns = shape
    values = np.zeros((channels, rows + 2, columns + 2), np.int8)
    inner = values[:, 1:-1, 1:-1]
    base = np.empty((channels, rows, columns), np.int32)
    starts = np.arange(channels, dtype=np.int32) * _CHANNEL_STRIDE + AGE_BUCKET[age] * _AGE_STRIDE
    base[:] = (starts + 2 * _DRIFT_STRIDE)[:, None, None]
    rich = np.full(rows * columns, AGE_BUCKET[age] * RICH_STRIDES[0], np.int32)
    if reference is None:
        base += _GRADIENT_STRIDE
        return ReferenceView(base.reshape(channels, -1).T, inner.reshape(channels, -1).T, rich)
    shared = min(channels, reference.symbols.shape[0])
    present = reference.present[:shared]
    if reference.channels > LEAST_CHANNELS:
        rich += reference.present[LEAST_CHANNELS].ravel() * np.int32(RICH_STRIDES[1])
    inner[:shared] = reference.symbols[:shared] * present
    around = values[:, :-2, 1:-1] + values[:, 2:, 1:-1] + values[:, 1:-1, :-2] + values[:, 1:-1, 2:]
    slope = around - 4 * inner
    # Next to a zero one different neighbour tells; a lone symbol has four, and only most of them tell.
    threshold = np.where(inner == 0, 1, 3)
    base += ((slope >= threshold).astype(np.int32) - (slope <= -threshold) + 1) * _GRADIENT_STRIDE
    base[:shared] += (inner[:shared] + (LARGEST + 1)) * (present * np.int32(_STATE_STRIDE))
    return ReferenceView(base.reshape(channels, -1).T, inner.reshape(channels, -1).T, rich)


def symbol_contexts(code: Code, view: ReferenceView) -> npt.NDArray[np.int32]:
    """(kept cells, C) context of every symbol of a code that is known whole, in coding order: cell by cell, channels
    inside. Those of symbols that a mixed code does not send (`Code.present`) mean nothing.
    """
    channels, rows, columns = code.symbols.shape
    values = view.values.T.reshape(channels, rows, columns)
    difference = np.zeros((channels, rows + 1, columns + 2), np.int16)
    difference[:, 1:, 1:-1] = (code.symbols - values) * code.present
    changed = difference != 0
    drift = difference[:, 1:, :-2] + difference[:, :-1, 1:-1] + difference[:, :-1, 2:]
    count = changed.sum(axis=0, dtype=np.int16)
    around = count[1:, :-2] + count[:-1, 1:-1] + count[:-1, 2:]
    here = changed[:, 1:, 1:-1]
    earlier = np.cumsum(here, axis=0, dtype=np.int16) - here
    kept = code.keep.ravel()
    contexts: npt.NDArray[np.int32] = view.base[kept] + np.array(DRIFT, np.int32)[drift].reshape(channels, -1).T[kept]
    contexts += np.array(STIR, np.int32)[around[None], earlier].reshape(channels, -1).T[kept]
    return contexts


def rich_contexts(code: Code, view: ReferenceView) -> npt.NDArray[np.int32]:
    """(kept cells,) context of the rich flag of every kept cell of a mixed code, in coding order."""
    assert code.rich is not None
    rows, columns = code.grid
    neighbours = np.zeros((rows + 1, columns + 1), np.int32)
    neighbours[1:, 1:] = code.rich
    around = neighbours[1:, :-1] + neighbours[:-1, 1:]
    values = view.values.T.reshape(code.symbols.shape)
    changed = (code.symbols[:LEAST_CHANNELS] != values[:LEAST_CHANNELS]).sum(axis=0, dtype=np.int32)
    own = changed * RICH_STRIDES[2] + around * RICH_STRIDES[3]
    contexts: npt.NDArray[np.int32] = (view.rich + own.ravel())[code.keep.ravel()]
    return contexts


def keep_base(reference_keep: npt.NDArray[np.bool_] | None, age: int, shape: tuple[int, int]) -> npt.NDArray[np.int32]:
    """(h, w) share of the keep contexts that the reference decides: same cell 16, right of it 2, below it 1, age 32."""
    rows, columns = shape
    base = np.full((rows, columns), AGE_BUCKET[age] * 32, np.int32)
    if reference_keep is not None:
        base += 16 * reference_keep
        base[:, :-1] += 2 * reference_keep[:, 1:]
        base[:-1] += reference_keep[1:]
    return base


def keep_contexts(keep: npt.NDArray[np.bool_], base: npt.NDArray[np.int32], age: int) -> npt.NDArray[np.int32]:
    """(h, w) context of every keep bit: `base` + 8 × left + 4 × above; with no reference also 16 × above left, 2 ×
    above right.
    """
    rows, columns = keep.shape
    known = np.zeros((rows + 1, columns + 2), np.int32)
    known[1:, 1:-1] = keep
    contexts: npt.NDArray[np.int32] = base + 8 * known[1:, :-2] + 4 * known[:-1, 1:-1]
    if AGE_BUCKET[age] == 0:
        contexts += 16 * known[:-1, :-2] + 2 * known[:-1, 2:]
    return contexts


def face_there_context(reference: FaceCode | None, age: int) -> int:
    """Context of the flag whether there is a face; `reference` is the face of the reference, if it has one."""
    return 0 if age == 0 else 1 if reference is None else 2


def face_home_context(reference: FaceCode | None, age: int) -> int:
    """Context of the flag whether a face's home differs: a reference without a face is as none."""
    return 0 if reference is None else AGE_BUCKET[age]


def face_reach_context(reference: FaceCode | None) -> int:
    """Context of a face's reach."""
    return REACHES if reference is None or reference.home is None else reference.reach


def face_contexts(reference: FaceCode | None, age: int) -> npt.NDArray[np.intp]:
    """(6,) context of every symbol of a face. Raises ValueError for a reference's face without a reference."""
    if not 0 <= age <= MAX_AGE or (age == 0 and reference is not None):
        raise ValueError(f"reference age {age} {'without' if reference is None else 'with'} a face in the reference")
    _, ages, states = FACE_SHAPE
    contexts = np.arange(FACE_SYMBOLS, dtype=np.intp) * (ages * states) + AGE_BUCKET[age] * states
    if reference is not None:
        contexts += reference.symbols.astype(np.intp) + (FACE_LARGEST + 1)
    return contexts
