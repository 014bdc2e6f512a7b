"""Fit a still model's integer tables on the codes of training pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgc.codec.still_planes import (
    OWN,
    SIZE_BINS,
    VALUE_BINS,
    StillTables,
    Symbols,
    contexts_of,
    features_before,
    features_own,
)
from streamgc.codec.symbols import LARGEST, LEVELS
from streamgc.codec.tables import cumulate
from streamgc.errors import TrainingError

WEIGHT_UNIT = 512
"""What a weight of 1 is stored as."""
PRIOR = 12.0
"""Symbols' worth of the coarser table that a context table starts from."""
Integers = NDArray[np.int64]


def fit_still_tables(codes: Sequence[Symbols], masks: Sequence[NDArray[np.bool_]] | None = None) -> StillTables:
    """Tables for codes (C, h, w) of one channel count, of kept cells only. Raises TrainingError without any."""
    if not codes or len({len(code) for code in codes}) != 1:
        raise TrainingError("still tables need codes of one channel count, and at least one")
    keeps = [np.ones(code.shape[1:], bool) for code in codes] if masks is None else list(masks)
    channels = len(codes[0])
    features = len(OWN) + 9 * (channels - 1)
    static = np.zeros((channels, LEVELS), np.int64)
    weights = np.zeros((channels, 2, features), np.int16)
    edges = [np.zeros((channels, bins - 1), np.int32) for bins in (VALUE_BINS, SIZE_BINS)]
    for channel in range(channels):
        known, target = _samples(codes, keeps, channel)
        static[channel] = np.bincount(target + LARGEST, minlength=LEVELS) + 1
        used = known.shape[1]
        weights[channel, 0, :used] = _regress(known, target)
        values = known @ weights[channel, 0, :used].astype(np.int64)
        # How far off the first sum is, is what the second one tells from the sizes around.
        off = np.abs(target - _expected(values, target))
        weights[channel, 1, :used] = _regress(np.abs(known), off)
        sizes = np.abs(known) @ weights[channel, 1, :used].astype(np.int64)
        for found, sums in zip(edges, (values, sizes), strict=True):
            count = found.shape[1] + 1
            found[channel] = np.quantile(sums, np.arange(1, count) / count, method="nearest").astype(np.int32)
    flat = np.broadcast_to(cumulate(static)[:, None, None], (channels, VALUE_BINS, SIZE_BINS, LEVELS - 1))
    draft = StillTables(cumulate(static), flat.astype(np.uint16), weights, edges[0], edges[1])
    contexts = np.stack([_context_table(codes, keeps, channel, draft) for channel in range(channels)])
    return StillTables(cumulate(static), contexts, weights, edges[0], edges[1])


def _samples(codes: Sequence[Symbols], keeps: Sequence[NDArray[np.bool_]], channel: int) -> tuple[Integers, Integers]:
    """(n, F) what is known and (n,) the symbol, over all kept cells."""
    known = [
        np.concatenate([features_own(code[channel]), features_before(code, channel)], -1)[keep]
        for code, keep in zip(codes, keeps, strict=True)
    ]
    target = [code[channel][keep] for code, keep in zip(codes, keeps, strict=True)]
    return np.concatenate(known).astype(np.int64), np.concatenate(target).astype(np.int64)


def _regress(known: Integers, target: NDArray[Any]) -> NDArray[np.int16]:
    """Ridge regression about the means, in units of `WEIGHT_UNIT`; a constant is what the edges of the bins absorb."""
    centred = known - known.mean(0)
    matrix = centred.T @ centred + 10.0 * np.eye(known.shape[1])
    solution = np.linalg.solve(matrix, centred.T @ (target - target.mean()))
    rounded: NDArray[np.int16] = np.clip(np.round(solution * WEIGHT_UNIT), -32768, 32767).astype(np.int16)
    return rounded


def _expected(values: Integers, target: Integers) -> NDArray[np.float64]:
    """The mean symbol in each of fifty bins of the first sum."""
    bins = np.searchsorted(np.quantile(values, np.arange(1, 50) / 50), values, side="right")
    sums = np.bincount(bins, weights=target, minlength=50)
    return (sums / np.maximum(np.bincount(bins, minlength=50), 1))[bins]


def _context_table(
    codes: Sequence[Symbols], keeps: Sequence[NDArray[np.bool_]], channel: int, tables: StillTables
) -> NDArray[np.uint16]:
    counts = np.zeros((VALUE_BINS * SIZE_BINS, LEVELS))
    for code, keep in zip(codes, keeps, strict=True):
        where = contexts_of(code, channel, tables)[keep]
        np.add.at(counts, (where, code[channel][keep].astype(np.int64) + LARGEST), 1)
    shaped = counts.reshape(VALUE_BINS, SIZE_BINS, LEVELS)
    whole = shaped.sum((0, 1)) + 0.5
    by_value = shaped.sum(1) + PRIOR * whole / whole.sum()
    blended = shaped + PRIOR * (by_value / by_value.sum(-1, keepdims=True))[:, None]
    return cumulate(np.maximum(1, np.round(blended * 64)).astype(np.int64))
