"""A label map at the cell grid to a few bytes and back, alone or against the one before it.

Every cell is guessed from its surroundings: the map before (if any), left, above, above right, above left – each
different label once. A bit says for each guess in turn whether it is right; when none is, the label's four bits follow.
The bits' tables are counts that both sides keep while they go, in integers, so nothing is shipped for this. A label map
travels in the slices of a long object of kind LABELS; a difference refers to the object numbered one lower.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from streamgc.codec.arithmetic import TOTAL, Decoder, Encoder
from streamgc.codec.symbols import check_grid
from streamgc.errors import BitstreamError

MAX_LABELS = 16
"""Labels are 0…15."""

_LIMIT = 1024
"""Sum of the counts of a bit at which both are halved."""
_STEP = 32
_EVEN = (0, TOTAL // 2, TOTAL)
_NONE = -1

Coder = Callable[[int, tuple[int, int, int]], int]
"""Codes one bit by a table and gives it back; a decoder ignores the bit it is given."""


def encode_labels(labels: npt.NDArray[np.uint8], previous: npt.NDArray[np.uint8] | None = None) -> bytes:
    """The bytes of an (h, w) label map. Raises ValueError for labels above 15 or a `previous` of another shape."""
    if labels.ndim != 2 or labels.dtype != np.uint8 or (previous is not None and previous.shape != labels.shape):
        raise ValueError(f"a label map of {labels.dtype} {labels.shape}, or an earlier one that does not fit it")
    check_grid((labels.shape[0], labels.shape[1]))
    if labels.max() >= MAX_LABELS:
        raise ValueError(f"label {labels.max()}; 0…{MAX_LABELS - 1} are possible")
    encoder = Encoder()

    def code(bit: int, table: tuple[int, int, int]) -> int:
        encoder.encode(bit, table)
        return bit

    code(int(previous is not None), _EVEN)
    _code_map(code, labels.tolist(), None if previous is None else previous.tolist())
    return encoder.finish(shortest=True)


def decode_labels(
    payload: bytes, shape: tuple[int, int], previous: npt.NDArray[np.uint8] | None = None
) -> npt.NDArray[np.uint8]:
    """The (h, w) uint8 map of the bytes. `previous` is the map numbered one lower, if it is held.

    Raises BitstreamError when the bytes cannot come from `encode_labels`, or need a `previous` that is not there.
    """
    try:
        check_grid(shape)
    except ValueError as error:
        raise BitstreamError(str(error)) from error
    if payload.endswith(b"\0"):
        raise BitstreamError("a label map ends in a zero byte")
    decoder = Decoder(payload)
    if decoder.decode(_EVEN):
        if previous is None or previous.shape != shape:
            raise BitstreamError("a label map needs the one before it, which is not held")
    else:
        previous = None
    grid = [[_NONE] * shape[1] for _ in range(shape[0])]
    _code_map(lambda _, table: decoder.decode(table), grid, None if previous is None else previous.tolist())
    if len(payload) > decoder.bits_used() // 8 + 1:
        raise BitstreamError("a label map is longer than its labels")
    return np.array(grid, np.uint8)


def uses_previous(payload: bytes) -> bool:
    """Whether a label map's bytes need the map before it."""
    return bool(Decoder(payload).decode(_EVEN))


def _code_map(code: Coder, grid: list[list[int]], previous: list[list[int]] | None) -> None:
    """Code all cells of `grid` in raster order; a decoder fills it in."""
    counts: dict[tuple[int, int, int], list[int]] = {}
    width = len(grid[0])
    above = [_NONE] * (width + 2)
    for row, line in enumerate(grid):
        current = [_NONE]
        for column in range(width):
            around = (current[column], above[column + 1], above[column + 2], above[column])
            before = _NONE if previous is None else previous[row][column]
            line[column] = _code_cell(code, line[column], before, around, counts)
            current.append(line[column])
        current.append(_NONE)
        above = current


def _code_cell(
    code: Coder, label: int, before: int, around: tuple[int, ...], counts: dict[tuple[int, int, int], list[int]]
) -> int:
    guesses = [guess for guess in dict.fromkeys((before, *around)) if guess != _NONE]
    # How far the surroundings agree with the first guess says how sure it is.
    agree = sum(label_around == guesses[0] for label_around in around) if guesses else 0
    for position, guess in enumerate(guesses):
        count = counts.setdefault((int(before != _NONE), position, agree), [_STEP, 7 * _STEP])
        right = code(int(label == guess), (0, count[0] * TOTAL // (count[0] + count[1]), TOTAL))
        count[right] += _STEP
        if count[0] + count[1] > _LIMIT:
            count[0] = count[0] + 1 >> 1
            count[1] = count[1] + 1 >> 1
        if right:
            return guess
    value = 0
    for shift in (3, 2, 1, 0):
        value = value << 1 | code(label >> shift & 1, _EVEN)
    return value
