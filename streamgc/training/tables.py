"""Fit the bitstream's tables to codes of training clips, and tell what they save.

Counts of full contexts are smoothed from coarse to fine: each level's distribution is its own counts plus the coarser
level's distribution, weighted as if it had been seen `prior` times. A context that never occurred gets the distribution
of its nearest coarser relative.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from streamgc.codec.arithmetic import TOTAL
from streamgc.codec.code import keep_bits
from streamgc.codec.contexts import (
    AGE_BUCKET,
    AGES,
    KEEP_SHAPE,
    RICH_SHAPE,
    SHAPE,
    keep_base,
    keep_contexts,
    reference_view,
    rich_contexts,
    symbol_contexts,
)
from streamgc.codec.symbols import LARGEST, LEVELS, MAX_CHANNELS, Code
from streamgc.codec.tables import Tables
from streamgc.errors import TrainingError

Sample = tuple[Code, Code | None, int]
"""A code, its reference or None, and the reference's age in frames (0 without one)."""

# Axes of the symbol tables: channel, age, state, gradient, drift, stir. Each level adds what tells most of what is
# left.
_LEVELS = ((2,), (0, 2), (0, 1, 2), (0, 1, 2, 5), (0, 1, 2, 4, 5), (0, 1, 2, 3, 4, 5))


@dataclass(frozen=True)
class TableReport:
    """Ideal bits of the same codes under two kinds of tables."""

    frames: int
    symbols: int
    """Symbols coded: those of kept cells."""
    context_bits: float
    """Bits of all symbols by the context tables."""
    static_bits: float
    """Bits of all symbols by the best table per channel for these very symbols, blind to the reference."""
    keep_bits: float
    """Bits that say what is kept, and which cells are rich."""

    @property
    def saving(self) -> float:
        """Share of the static tables' bits that the context tables save."""
        return 1 - self.context_bits / self.static_bits if self.static_bits else 0.0

    def __str__(self) -> str:
        frames, symbols = max(self.frames, 1), max(self.symbols, 1)
        return (
            f"{self.frames} frames, {self.symbols} symbols: {self.context_bits / symbols:.3f} bit/symbol by context, "
            f"{self.static_bits / symbols:.3f} by channel ({self.saving:.1%} saved); a frame "
            f"{self.context_bits / 8 / frames:.1f} B + {self.keep_bits / 8 / frames:.1f} B for what is kept"
        )


class TableCounts:
    """Counts of everything that is coded, gathered sample by sample, so that a data set need not be held at once."""

    def __init__(self) -> None:
        self.symbols: npt.NDArray[np.int64] = np.zeros((prod(SHAPE), LEVELS), np.int64)
        self.keep: npt.NDArray[np.int64] = np.zeros((prod(KEEP_SHAPE), 2), np.int64)
        self.moved: npt.NDArray[np.int64] = np.zeros((AGES, 2), np.int64)
        self.rich: npt.NDArray[np.int64] = np.zeros((prod(RICH_SHAPE), 2), np.int64)
        self.frames = 0

    def add(self, code: Code, reference: Code | None, age: int) -> None:
        """Count one code against its reference."""
        view = reference_view(reference, age, code.channels, code.grid)
        contexts = symbol_contexts(code, view)
        kept = code.keep.ravel()
        indices = code.symbols.reshape(code.channels, -1).T[kept] + LARGEST
        sent = code.present.reshape(code.channels, -1).T[kept]
        np.add.at(self.symbols, (contexts[sent], indices[sent]), 1)
        if code.rich is not None:
            np.add.at(self.rich, (rich_contexts(code, view), code.rich.ravel()[kept].astype(np.intp)), 1)
        same = reference is not None and np.array_equal(code.keep, reference.keep)
        if reference is not None:
            self.moved[AGE_BUCKET[age], int(not same)] += 1
        if not same:
            base = keep_base(reference.keep if reference else None, age, code.grid)
            keeps = keep_contexts(code.keep, base, age)
            np.add.at(self.keep, (keeps.ravel(), code.keep.ravel().astype(np.intp)), 1)
        self.frames += 1

    def fit(self, prior: float = 16.0) -> Tables:
        """Tables of these counts; `prior` is how many observations the coarser level counts for.

        Raises TrainingError when nothing was counted.
        """
        if not self.symbols.any():
            raise TrainingError("tables: there is no symbol to fit to")
        probabilities = _smooth(self.symbols.reshape(*SHAPE, LEVELS).astype(np.float64), _LEVELS, prior)
        keeps = _smooth(
            self.keep.reshape(*KEEP_SHAPE, 2).astype(np.float64),
            ((1,), (0, 1), (0, 1, 2, 3), tuple(range(len(KEEP_SHAPE)))),
            prior,
        )
        moved = (self.moved + np.array([4.0, 2.0])) / (self.moved + np.array([4.0, 2.0])).sum(axis=1, keepdims=True)
        flags = self.rich.reshape(*RICH_SHAPE, 2).astype(np.float64)
        rich = _smooth(flags, ((1,), (1, 2), (1, 2, 3), (0, 1, 2, 3)), prior)
        return Tables(
            _integers(probabilities), _integers(keeps)[..., 0], _integers(moved)[:, 0], _integers(rich)[..., 0]
        )


def fit_tables(samples: Iterable[Sample], prior: float = 16.0) -> tuple[Tables, TableReport]:
    """Tables fitted to samples, and what they cost on those same samples. Raises TrainingError without samples.

    For an honest figure report on other samples: `measure_tables(held_out, tables)`.
    """
    counts = TableCounts()
    kept: list[Sample] = []
    for sample in samples:
        counts.add(*sample)
        kept.append(sample)
    tables = counts.fit(prior)
    return tables, measure_tables(kept, tables)


def measure_tables(samples: Iterable[Sample], tables: Tables) -> TableReport:
    """Ideal bits of samples by `tables`, beside the static table per channel of the same symbols."""
    counts = TableCounts()
    what_is_kept = 0.0
    for code, reference, age in samples:
        counts.add(code, reference, age)
        what_is_kept += keep_bits(code.keep, reference, age, tables)
    by_channel = counts.symbols.reshape(MAX_CHANNELS, -1, LEVELS).sum(axis=1)
    totals = by_channel.sum(axis=1, keepdims=True)
    static = np.where(by_channel > 0, by_channel * np.log2(np.maximum(totals, 1) / np.maximum(by_channel, 1)), 0)
    return TableReport(
        frames=counts.frames,
        symbols=int(by_channel.sum()),
        context_bits=float((counts.symbols * tables.bits).sum()),
        static_bits=float(static.sum()),
        keep_bits=what_is_kept + float((counts.rich * np.array(tables.rich_bits)).sum()),
    )


def _smooth(
    counts: npt.NDArray[np.float64], levels: tuple[tuple[int, ...], ...], prior: float
) -> npt.NDArray[np.float64]:
    """Counts (…contexts, n) → probabilities of the same shape, each level backing off to the one before."""
    axes = range(counts.ndim - 1)
    alphabet = counts.shape[-1]
    estimate = np.full((1,) * (counts.ndim - 1) + (alphabet,), 1 / alphabet)
    for level in levels:
        seen = counts.sum(axis=tuple(axis for axis in axes if axis not in level), keepdims=True)
        estimate = (seen + prior * estimate) / (seen.sum(axis=-1, keepdims=True) + prior)
    return estimate


def _integers(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
    """Probabilities (…, n) → inner cumulative counts (…, n - 1) of 65536, every symbol at least one count."""
    levels = probabilities.shape[-1]
    before = np.cumsum(probabilities, axis=-1)[..., :-1]
    inner = np.floor(before * (TOTAL - levels)).astype(np.int64) + np.arange(1, levels)
    counts: npt.NDArray[np.uint16] = inner.astype(np.uint16)
    return counts
