"""A picture's code to bytes and back, given the reference both sides hold.

One arithmetic payload: with a reference a flag whether what is kept differs from it; if so, or without a reference, a
keep bit for every cell in raster order; then for every kept cell in raster order its symbols, channel by channel. In a
mixed code a flag follows on a cell's second symbol, and the other six only where it is set. The face ends it
(`face_coding`). Trailing zero bytes are not sent.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from streamgc.codec.arithmetic import TOTAL, Decoder, Encoder
from streamgc.codec.contexts import (
    AGE_BUCKET,
    DRIFT,
    MAX_AGE,
    RICH_STRIDES,
    STIR,
    ReferenceView,
    keep_base,
    keep_contexts,
    reference_view,
    rich_contexts,
    symbol_contexts,
)
from streamgc.codec.face_coding import decode_face, encode_face, face_bits
from streamgc.codec.symbols import (
    LARGEST,
    LAYOUTS,
    LEAST_CHANNELS,
    MAX_CHANNELS,
    MIXED,
    Code,
    check_code,
    check_grid,
)
from streamgc.codec.tables import Tables
from streamgc.errors import BitstreamError


def encode_code(code: Code, reference: Code | None, age: int, tables: Tables) -> bytes:
    """The payload of `code` against `reference`, which is `age` frames old (1…7; 0 with no reference).

    Raises ValueError when the code is not valid or the reference does not fit.
    """
    check_code(code)
    _check_reference(reference, age, code.grid)
    encoder = Encoder()
    _encode_keep(encoder, code.keep, reference, age, tables)
    view = reference_view(reference, age, code.channels, code.grid)
    contexts = symbol_contexts(code, view)
    indices = _by_cell(code).astype(np.intp) + LARGEST
    low, high = tables.cumulative[contexts, indices], tables.cumulative[contexts, indices + 1]
    if code.rich is None:
        encoder.encode_intervals(low.ravel().tolist(), high.ravel().tolist())
    else:
        flags = code.rich[code.keep]
        zero = tables.rich_zero[rich_contexts(code, view)]
        low = np.insert(low, LEAST_CHANNELS, np.where(flags, zero, 0), axis=1)
        high = np.insert(high, LEAST_CHANNELS, np.where(flags, TOTAL, zero), axis=1)
        sent = np.arange(low.shape[1])[None] <= np.where(flags, MAX_CHANNELS, LEAST_CHANNELS)[:, None]
        encoder.encode_intervals(low[sent].tolist(), high[sent].tolist())
    encode_face(encoder, code.face, reference.face if reference else None, age, tables, code.grid)
    return encoder.finish(shortest=True)


def decode_code(
    payload: bytes, shape: tuple[int, int], layout: int, reference: Code | None, age: int, tables: Tables
) -> Code:
    """The code of a payload. `shape` (rows, columns) comes from the session, `layout` and `age` from the message.

    Raises BitstreamError when the bytes cannot come from `encode_code` or the reference does not fit; memory and time
    are bounded by the grid, whatever the bytes are.
    """
    if layout not in LAYOUTS:
        raise BitstreamError(f"{layout} channels; 2, 4, 8 or mixed are possible")
    try:
        check_grid(shape)
        _check_reference(reference, age, shape)
    except ValueError as error:
        raise BitstreamError(str(error)) from error
    if payload.endswith(b"\0"):
        raise BitstreamError("a picture payload ends in a zero byte")
    decoder = Decoder(payload)
    keep = _decode_keep(decoder, reference, age, tables, shape)
    view = reference_view(reference, age, MAX_CHANNELS if layout == MIXED else layout, shape)
    code = _decode_symbols(decoder.decode, keep, view, tables, layout == MIXED)
    face = decode_face(decoder.decode, reference.face if reference else None, age, tables, shape)
    # The encoder ends at most one bit after what the symbols settle.
    if len(payload) > decoder.bits_used() // 8 + 1:
        raise BitstreamError("a picture payload is longer than its symbols")
    return code if face is None else code._replace(face=face)


def code_bits(code: Code, reference: Code | None, age: int, tables: Tables) -> float:
    """Ideal cost of `code` in bits, kept cells, symbols and face; `encode_code` comes within a byte of it."""
    view = reference_view(reference, age, code.channels, code.grid)
    face = face_bits(code.face, reference.face if reference else None, age, tables, code.grid)
    return symbol_bits(code, view, tables) + keep_bits(code.keep, reference, age, tables) + face


def symbol_bits(code: Code, view: ReferenceView, tables: Tables) -> float:
    """Ideal cost in bits of the symbols of the kept cells, and of saying which of them are rich."""
    bits = tables.bits[symbol_contexts(code, view), _by_cell(code).astype(np.intp) + LARGEST]
    if code.rich is None:
        return float(bits.sum())
    flags = code.rich[code.keep].astype(np.intp)
    costs = np.array(tables.rich_bits)[rich_contexts(code, view), flags]
    return float(bits[:, :LEAST_CHANNELS].sum() + bits[flags > 0, LEAST_CHANNELS:].sum() + costs.sum())


def _by_cell(code: Code) -> npt.NDArray[np.int8]:
    """(kept cells, C) symbols in coding order."""
    return code.symbols.reshape(code.channels, -1).T[code.keep.ravel()]


def keep_bits(keep: npt.NDArray[np.bool_], reference: Code | None, age: int, tables: Tables) -> float:
    """Ideal cost in bits of saying what is kept."""
    same = reference is not None and np.array_equal(keep, reference.keep)
    flag = int(tables.moved[AGE_BUCKET[age]])
    bits = 0.0 if reference is None else 16 - float(np.log2(flag if same else TOTAL - flag))
    if same:
        return bits
    zero = tables.keep_zero[keep_contexts(keep, keep_base(reference.keep if reference else None, age, keep.shape), age)]
    return bits + float((16 - np.log2(np.where(keep, TOTAL - zero, zero))).sum())


def _check_reference(reference: Code | None, age: int, shape: tuple[int, int]) -> None:
    if not 0 <= age <= MAX_AGE or (reference is None) != (age == 0):
        raise ValueError(f"reference age {age} {'without' if reference is None else 'with'} a reference")
    if reference is not None and reference.keep.shape != shape:
        raise ValueError(f"the reference has {reference.keep.shape} cells, the picture {shape}")


def _encode_keep(
    encoder: Encoder, keep: npt.NDArray[np.bool_], reference: Code | None, age: int, tables: Tables
) -> None:
    same = reference is not None and np.array_equal(keep, reference.keep)
    if reference is not None:
        encoder.encode(int(not same), tables.moved_rows[AGE_BUCKET[age]])
    if same:
        return
    base = keep_base(reference.keep if reference else None, age, keep.shape)
    zero = tables.keep_zero[keep_contexts(keep, base, age)]
    encoder.encode_intervals(np.where(keep, zero, 0).ravel().tolist(), np.where(keep, TOTAL, zero).ravel().tolist())


def _decode_keep(
    decoder: Decoder, reference: Code | None, age: int, tables: Tables, shape: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    if reference is not None and not decoder.decode(tables.moved_rows[AGE_BUCKET[age]]):
        return reference.keep.copy()
    columns = shape[1]
    base = keep_base(reference.keep if reference else None, age, shape).tolist()
    corner = 0 if reference else 1
    decode, rows = decoder.decode, tables.keep_rows
    above = [0] * (columns + 2)
    grid = []
    for line in base:
        current = [0]
        left = 0
        for column, context in enumerate(line, 1):
            context += 8 * left + 4 * above[column] + corner * (16 * above[column - 1] + 2 * above[column + 1])
            left = decode(rows[context])
            current.append(left)
        current.append(0)
        grid.append(current[1:-1])
        above = current
    return np.array(grid, bool)


def _decode_symbols(
    decode: Callable[[Sequence[int]], int],
    keep: npt.NDArray[np.bool_],
    view: ReferenceView,
    tables: Tables,
    mixed: bool,
) -> Code:
    """The code, with the contexts of `contexts.symbol_contexts` and `rich_contexts` built as the neighbours become
    known."""
    height, width = keep.shape
    channels = view.base.shape[1]
    rows, rich_rows = tables.rows, tables.rich_rows
    kept = np.flatnonzero(keep)
    # Cells with a border of unchanged ones to the left, right and above, so that every neighbour is there.
    stride = width + 2
    positions = (kept // width + 1) * stride + kept % width + 1
    still = [0] * channels
    differences = [still] * ((height + 1) * stride)
    changed = [0] * ((height + 1) * stride)
    rich = [0] * ((height + 1) * stride)
    flags = []
    out = []
    for position, bases, references, context in zip(
        positions.tolist(), view.base[kept].tolist(), view.values[kept].tolist(), view.rich[kept].tolist(), strict=True
    ):
        above = position - stride
        around = changed[position - 1] + changed[above] + changed[above + 1]
        stir = STIR[around]
        if around:
            sides = zip(bases, differences[position - 1], differences[above], differences[above + 1], strict=True)
            bases = [base + DRIFT[left + over + right] for base, left, over, right in sides]
        count = 0
        here: list[int] = []
        for base, was in zip(bases, references, strict=True):
            if mixed and len(here) == LEAST_CHANNELS:
                context += count * RICH_STRIDES[2] + (rich[position - 1] + rich[above]) * RICH_STRIDES[3]
                rich[position] = decode(rich_rows[context])
                flags.append(rich[position])
                if not rich[position]:
                    break
            difference = decode(rows[base + stir[count]]) - LARGEST - was
            here.append(difference)
            if difference:
                count += 1
        here += still[len(here) :]
        if count:
            differences[position] = here
            changed[position] = count
        out.append(here)
    symbols = np.zeros((height * width, channels), np.int8)
    if out:
        symbols[kept] = np.array(out, np.int8) + view.values[kept]
    grid = np.ascontiguousarray(symbols.T).reshape(channels, height, width)
    if not mixed:
        return Code(grid, keep)
    plane = np.zeros((height, width), bool)
    plane[keep] = flags
    grid[LEAST_CHANNELS:] *= plane
    return Code(grid, keep, plane)
