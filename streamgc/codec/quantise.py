"""The sender's rate–distortion-optimised quantisation: which symbols to send for a latent, given what they cost.

Changes nothing in the format: a receiver decodes whatever symbols were chosen. λ is the fine rate knob; because
repeating the reference is cheap, it also keeps old symbols where a change is not worth its bits, which takes out
flicker.
"""

from operator import add
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streamgc.codec.code import keep_bits, symbol_bits
from streamgc.codec.contexts import DRIFT, DRIFTS, RICH_STRIDES, STIR, STIRS, ReferenceView, reference_view
from streamgc.codec.symbols import CHANNEL_COUNTS, LARGEST, LEAST_CHANNELS, MAX_CHANNELS, Code
from streamgc.codec.tables import Tables


class Quantised(NamedTuple):
    """Chosen symbols and what they cost."""

    code: Code
    bits: float
    """Ideal cost of the picture payload in bits, kept cells included, the face (`face_bits`) not."""


def quantise(
    latent: npt.NDArray[np.float32],
    keep: npt.NDArray[np.bool_],
    reference: Code | None,
    age: int,
    tables: Tables,
    strength: float,
    weight: npt.NDArray[np.float32] | float = 1.0,
    mixed: bool = False,
) -> Quantised:
    """Symbols that keep Σ weight · (latent − symbol)² + strength · bits small.

    Cells are taken in coding order, each with its true context; a cell that changes is also tried unchanged as a whole,
    and so is the picture. Beyond that, what a choice does to the contexts of later cells is not counted. In a mixed
    code a cell is rich where that is worth its bits; a channel that is not sent counts as a 0 that costs none. The code
    has no face; that is chosen apart (`choose_face_symbols`).

    Args:
        latent: (C, h, w), C = 2, 4 or 8, finite; about (-2.4, 2.4).
        keep: (h, w), true where the picture is sent.
        reference: what the receiver holds, `age` frames old; None with age 0.
        tables: the model's tables.
        strength: λ ≥ 0 in squared symbols a bit; 0 rounds.
        weight: importance, broadcast to (C, h, w), for example more on a face.
        mixed: whether cells may carry two channels or all eight, C = 8; otherwise all carry C.

    Raises ValueError when shapes do not fit or the latent is not finite.
    """
    if latent.ndim != 3 or latent.shape[0] not in CHANNEL_COUNTS or latent.shape[1:] != keep.shape:
        raise ValueError(f"latent {latent.shape} and keep {keep.shape} are not (2, 4 or 8, h, w) and (h, w)")
    if mixed and latent.shape[0] != MAX_CHANNELS:
        raise ValueError(f"a mixed code of {latent.shape[0]} channels; it needs {MAX_CHANNELS}")
    if not np.isfinite(latent).all() or strength < 0:
        raise ValueError("the latent is not finite, or the strength is negative")
    channels = latent.shape[0]
    view = reference_view(reference, age, channels, keep.shape)
    if strength == 0:
        rounded = np.clip(np.rint(latent), -LARGEST, LARGEST) * keep
        code = Code(rounded.astype(np.int8), keep.copy(), keep.copy() if mixed else None)
        return Quantised(code, symbol_bits(code, view, tables) + keep_bits(keep, reference, age, tables))
    levels = np.arange(-LARGEST, LARGEST + 1, dtype=np.float32)
    errors = (latent[..., None] - levels) ** 2
    errors *= (np.broadcast_to(np.asarray(weight, np.float32), latent.shape) / strength)[..., None]
    kept = np.flatnonzero(keep)
    by_cell = errors.reshape(channels, -1, len(levels)).transpose(1, 0, 2)[kept]
    chooser = _Chooser(view, tables, keep.shape, kept)
    code, bits = chooser.choose(by_cell, mixed)
    # Changes make more changes likely, which no single cell can know: the reference as a whole may still be better.
    still = _unchanged(view, keep, mixed)
    still_bits = symbol_bits(still, view, tables)
    if _error(by_cell, still) + still_bits <= _error(by_cell, code) + bits:
        code, bits = still, still_bits
    return Quantised(code, bits + keep_bits(keep, reference, age, tables))


def _unchanged(view: ReferenceView, keep: npt.NDArray[np.bool_], mixed: bool) -> Code:
    """What the reference shows, where it is kept."""
    symbols = np.ascontiguousarray(view.values.T).reshape(-1, *keep.shape) * keep
    if not mixed:
        return Code(symbols, keep.copy())
    rich = (view.rich.reshape(keep.shape) % RICH_STRIDES[0] > 0) & keep
    symbols[LEAST_CHANNELS:] *= rich
    return Code(symbols, keep.copy(), rich)


def _error(errors: npt.NDArray[np.float32], code: Code) -> float:
    """Summed error of a code's kept cells, from `errors` (cells, C, 5)."""
    symbols = code.symbols.reshape(code.channels, -1).T[code.keep.ravel()]
    indices = symbols[..., None].astype(np.intp) + LARGEST
    return float(np.take_along_axis(errors, indices, axis=2).sum(dtype=np.float64))


class _Tried(NamedTuple):
    """Differences from the reference of some channels of a cell, what they cost, and how many are not 0."""

    differences: list[int]
    score: float  # bits and error
    bits: float
    changed: int


class _Upper(NamedTuple):
    """The last six channels of a cell of a mixed code, before anything around it is known."""

    errors: npt.NDArray[np.float32]  # (6, 5)
    absent: float  # their error when they are not sent
    gain: float  # what sending them could bring at the most, flag apart


class _Chooser:
    """Goes through the kept cells in coding order and takes for each what costs least, in bits and error."""

    def __init__(self, view: ReferenceView, tables: Tables, grid: tuple[int, int], kept: npt.NDArray[np.intp]) -> None:
        height, width = grid
        self._view, self._tables, self._grid, self._kept = view, tables, grid, kept
        self._stride = width + 2
        self._channels = view.base.shape[1]
        cells = (height + 1) * self._stride + 1
        self._differences = [[0] * self._channels] * cells
        self._changed, self._rich = [0] * cells, [0] * cells

    def choose(self, errors: npt.NDArray[np.float32], mixed: bool) -> tuple[Code, float]:
        """The code and the bits of its symbols. `errors` (cells, C, 5) are in bits: weighted squared error over λ."""
        width = self._grid[1]
        view, kept = self._view, self._kept
        positions = (kept // width + 1) * self._stride + kept % width + 1
        lower = errors[:, :LEAST_CHANNELS] if mixed else errors
        upper = self._upper(errors[:, LEAST_CHANNELS:]) if mixed else [None] * len(kept)
        out, total = [], 0.0
        for error, higher, position, bases, values, flag in zip(
            lower.tolist(),
            upper,
            positions.tolist(),
            view.base[kept].tolist(),
            view.values[kept].tolist(),
            view.rich[kept].tolist(),
            strict=True,
        ):
            above = position - self._stride
            contexts = bases
            around = self._changed[position - 1] + self._changed[above] + self._changed[above + 1]
            if around:
                sides = zip(*(self._differences[side] for side in (position - 1, above, above + 1)), strict=True)
                contexts = [base + DRIFT[sum(side)] for base, side in zip(bases, sides, strict=True)]
            if higher is not None:
                bits, here = self._mixed_cell(error, higher, position, contexts, values, flag, STIR[around])
            else:
                tried = self._best(error, contexts, values, STIR[around], 0)
                here, bits = tried.differences, tried.bits
                if tried.changed:
                    still = self._as_before(error, contexts, values, STIR[around][0])
                    if still.score <= tried.score:
                        here, bits = still.differences, still.bits
                self._note(position, here)
            out.append(here)
            total += bits
        return self._code(out, mixed), total

    def _upper(self, errors: npt.NDArray[np.float32]) -> list[_Upper]:
        """What is known beforehand of the last six channels of every cell, from their `errors` (cells, 6, 5)."""
        contexts = self._view.base[self._kept, LEAST_CHANNELS:] // (DRIFTS * STIRS)
        sent = (errors + self._tables.least_bits[contexts]).min(axis=2)
        absent = errors[:, :, LARGEST]
        gain = (absent - sent).sum(axis=1)
        return list(map(_Upper, errors, absent.sum(axis=1).tolist(), gain.tolist()))

    def _mixed_cell(
        self,
        error: list[list[float]],
        upper: _Upper,
        position: int,
        contexts: list[int],
        values: list[int],
        flag: int,
        stir: list[int],
    ) -> tuple[float, list[int]]:
        """Bits and differences of a cell that may be rich or not; notes what is taken."""
        few = LEAST_CHANNELS
        was_rich = flag % RICH_STRIDES[0] > 0
        flag += (self._rich[position - 1] + self._rich[position - self._stride]) * RICH_STRIDES[3]
        costs = self._tables.rich_bits
        tried = self._best(error, contexts, values, stir, 0)
        still = self._as_before(error, contexts, values, stir[0]) if tried.changed or was_rich else tried
        base = tried if tried.score < still.score else still
        poor, rich = costs[flag + base.changed * RICH_STRIDES[2]]
        score, bits, lower, higher = base.score + upper.absent + poor, base.bits + poor, base, None
        if upper.gain > rich - poor:
            sent = self._best(upper.errors.tolist(), contexts[few:], values[few:], stir, base.changed)
            if base.score + sent.score + rich < score:
                score, bits, higher = base.score + sent.score + rich, base.bits + sent.bits + rich, sent
        rich = costs[flag][1]
        if was_rich and still.score + upper.absent - upper.gain + rich < score:
            kept = self._as_before(upper.errors.tolist(), contexts[few:], values[few:], stir[0])
            if still.score + kept.score + rich < score:
                bits, lower, higher = still.bits + kept.bits + rich, still, kept
        here = lower.differences + (higher.differences if higher else [0] * (self._channels - few))
        self._rich[position] = int(higher is not None)
        self._note(position, here)
        return bits, here

    def _best(
        self, errors: list[list[float]], contexts: list[int], values: list[int], stir: list[int], changed: int
    ) -> _Tried:
        """The best symbols of some channels, one after the other; `changed` earlier ones of the cell differ from the
        reference."""
        rows = self._tables.bit_rows
        here = []
        score = bits = 0.0
        for error, context, was in zip(errors, contexts, values, strict=False):
            cost = rows[context + stir[changed]]
            sums = list(map(add, error, cost))
            best = min(sums)
            index = sums.index(best)
            score += best
            bits += cost[index]
            difference = index - LARGEST - was
            here.append(difference)
            if difference:
                changed += 1
        return _Tried(here, score, bits, changed)

    def _as_before(self, errors: list[list[float]], contexts: list[int], values: list[int], quiet: int) -> _Tried:
        """The same channels as in the reference."""
        rows = self._tables.bit_rows
        cells = list(zip(errors, contexts, values, strict=False))
        bits = sum([rows[context + quiet][was + LARGEST] for _, context, was in cells])
        wrong = sum([error[was + LARGEST] for error, _, was in cells])
        return _Tried([0] * len(errors), bits + wrong, bits, 0)

    def _note(self, position: int, differences: list[int]) -> None:
        changed = len(differences) - differences.count(0)
        if changed:
            self._differences[position] = differences
            self._changed[position] = changed

    def _code(self, out: list[list[int]], mixed: bool) -> Code:
        height, width = self._grid
        grid = np.zeros((height * width, self._channels), np.int8)
        grid[self._kept] = np.array(out, np.int8).reshape(-1, self._channels) + self._view.values[self._kept]
        keep = np.zeros(height * width, bool)
        keep[self._kept] = True
        symbols = np.ascontiguousarray(grid.T).reshape(-1, height, width)
        if not mixed:
            return Code(symbols, keep.reshape(height, width))
        at = np.arange(height * width)
        padded = np.array(self._rich, bool)[(at // width + 1) * self._stride + at % width + 1]
        rich = padded.reshape(height, width)
        symbols[LEAST_CHANNELS:] *= rich
        return Code(symbols, keep.reshape(height, width), rich)
