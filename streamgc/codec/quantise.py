"""The sender's rate–distortion-optimised quantisation: which symbols to send for a latent, given what they cost.

Changes nothing in the format: a receiver decodes whatever symbols were chosen. λ is the fine rate knob; because
repeating the reference is cheap, it also keeps old symbols where a change is not worth its bits, which takes out
flicker.
"""

from operator import add
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streamgc.codec.code import code_bits, keep_bits
from streamgc.codec.contexts import DRIFT, STIR, ReferenceView, reference_view, symbol_contexts
from streamgc.codec.symbols import CHANNEL_COUNTS, LARGEST, Code
from streamgc.codec.tables import Tables


class Quantised(NamedTuple):
    """Chosen symbols and what they cost."""

    code: Code
    bits: float
    """Ideal cost of the whole picture payload in bits, kept cells included."""


def quantise(
    latent: npt.NDArray[np.float32],
    keep: npt.NDArray[np.bool_],
    reference: Code | None,
    age: int,
    tables: Tables,
    strength: float,
    weight: npt.NDArray[np.float32] | float = 1.0,
) -> Quantised:
    """Symbols that keep Σ weight · (latent − symbol)² + strength · bits small.

    Cells are taken in coding order, each with its true context; a cell that changes is also tried unchanged as a whole,
    and so is the picture. Beyond that, what a choice does to the contexts of later cells is not counted.

    Args:
        latent: (C, h, w), C = 2, 4 or 8, finite; about (-2.4, 2.4).
        keep: (h, w), true where the picture is sent.
        reference: what the receiver holds, `age` frames old; None with age 0.
        tables: the model's tables.
        strength: λ ≥ 0 in squared symbols a bit; 0 rounds.
        weight: importance, broadcast to (C, h, w), for example more on a face.

    Raises ValueError when shapes do not fit or the latent is not finite.
    """
    if latent.ndim != 3 or latent.shape[0] not in CHANNEL_COUNTS or latent.shape[1:] != keep.shape:
        raise ValueError(f"latent {latent.shape} and keep {keep.shape} are not (2, 4 or 8, h, w) and (h, w)")
    if not np.isfinite(latent).all() or strength < 0:
        raise ValueError("the latent is not finite, or the strength is negative")
    channels = latent.shape[0]
    if strength == 0:
        rounded = np.clip(np.rint(latent), -LARGEST, LARGEST) * keep
        code = Code(rounded.astype(np.int8), keep.copy())
        return Quantised(code, code_bits(code, reference, age, tables))
    view = reference_view(reference, age, channels, keep.shape)
    levels = np.arange(-LARGEST, LARGEST + 1, dtype=np.float32)
    errors = (latent[..., None] - levels) ** 2
    errors *= (np.broadcast_to(np.asarray(weight, np.float32), latent.shape) / strength)[..., None]
    kept = np.flatnonzero(keep)
    by_cell = errors.reshape(channels, -1, len(levels)).transpose(1, 0, 2)[kept]
    symbols, bits = _choose(by_cell.tolist(), kept, keep.shape[1], view, tables.bit_rows)
    grid = np.zeros((keep.size, channels), np.int8)
    grid[kept] = symbols
    chosen = Code(np.ascontiguousarray(grid.T).reshape(latent.shape), keep.copy())
    # Changes make more changes likely, which no single cell can know: the reference as a whole may still be better.
    still = Code(np.ascontiguousarray(view.values.T).reshape(latent.shape) * keep, keep.copy())
    still_bits = float(tables.bits[symbol_contexts(still, view), view.values[kept] + LARGEST].sum())
    if _error(by_cell, view.values[kept]) + still_bits <= _error(by_cell, symbols) + bits:
        chosen, bits = still, still_bits
    return Quantised(chosen, bits + keep_bits(keep, reference, age, tables))


def _error(errors: npt.NDArray[np.float32], symbols: npt.NDArray[np.int8]) -> float:
    """Summed error of (cells, C) symbols, from `errors` (cells, C, 5)."""
    indices = symbols[..., None].astype(np.intp) + LARGEST
    return float(np.take_along_axis(errors, indices, axis=2).sum(dtype=np.float64))


def _choose(
    errors: list[list[list[float]]],
    kept: npt.NDArray[np.intp],
    width: int,
    view: ReferenceView,
    costs: list[list[float]],
) -> tuple[npt.NDArray[np.int8], float]:
    """(kept cells, C) symbols and their bits. `errors` are in bits: weighted squared error over λ."""
    stride = width + 2
    positions = (kept // width + 1) * stride + kept % width + 1
    size = int(positions[-1]) + 2 if len(kept) else 0
    channels = view.base.shape[1]
    differences = [[0] * channels] * size
    changed = [0] * size
    out = []
    total = 0.0
    cells = zip(errors, positions.tolist(), view.base[kept].tolist(), view.values[kept].tolist(), strict=True)
    for cell_errors, position, bases, values in cells:
        above = position - stride
        around = changed[position - 1] + changed[above] + changed[above + 1]
        stir = STIR[around]
        contexts = bases
        if around:
            sides = zip(bases, differences[position - 1], differences[above], differences[above + 1], strict=True)
            contexts = [base + DRIFT[left + over + right] for base, left, over, right in sides]
        count = 0
        here = []
        score = bits = 0.0
        for context, error, was in zip(contexts, cell_errors, values, strict=True):
            cost = costs[context + stir[count]]
            sums = list(map(add, error, cost))
            best = min(sums)
            index = sums.index(best)
            score += best
            bits += cost[index]
            difference = index - LARGEST - was
            here.append(difference)
            if difference:
                count += 1
        if count:
            quiet = stir[0]
            still = sum([costs[context + quiet][was + LARGEST] for context, was in zip(contexts, values, strict=True)])
            wrong = sum([error[was + LARGEST] for error, was in zip(cell_errors, values, strict=True)])
            if still + wrong <= score:
                here = [0] * channels
                bits = still
            else:
                differences[position] = here
                changed[position] = count
        out.append(here)
        total += bits
    chosen = np.array(out, np.int8).reshape(len(kept), channels) + view.values[kept]
    return chosen.astype(np.int8), total
