"""Fit the bitstream's tables to codes of training clips, and tell what they save.

Counts of full contexts are smoothed from coarse to fine: each level's distribution is its own counts plus the coarser
level's distribution, weighted as if it had been seen `prior` times. A context that never occurred gets the distribution
of its nearest coarser relative. The face's tables start from the default ones, and stay these where nothing was
counted.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import numpy.typing as npt

from streamgc.codec.arithmetic import TOTAL
from streamgc.codec.code import keep_bits
from streamgc.codec.contexts import (
    AGE_BUCKET,
    AGES,
    FACE_REACH,
    FACE_SHAPE,
    FACE_THERE,
    KEEP_SHAPE,
    POSE_LEVELS,
    POSE_NUMBERS,
    RICH_SHAPE,
    SHAPE,
    face_contexts,
    face_home_context,
    face_reach_context,
    face_there_context,
    keep_base,
    keep_contexts,
    reference_view,
    rich_contexts,
    symbol_contexts,
)
from streamgc.codec.face import FACE_LARGEST, FACE_LEVELS, REACHES, FaceCode
from streamgc.codec.face_coding import face_bits, pose_symbols
from streamgc.codec.symbols import LARGEST, LEVELS, MAX_CHANNELS, Code
from streamgc.codec.tables import Tables, default_tables
from streamgc.errors import TrainingError

Sample = tuple[Code, Code | None, int]
"""A code, its reference or None, and the reference's age in frames (0 without one)."""
FaceSample = tuple[FaceCode, FaceCode | None, int]
"""A face, the reference's face or None, and the reference's age in frames (0 without a reference)."""

# Axes of the symbol tables: channel, age, state, gradient, drift, stir. Each level adds what tells most of what is
# left.
_LEVELS = ((2,), (0, 2), (0, 1, 2), (0, 1, 2, 5), (0, 1, 2, 4, 5), (0, 1, 2, 3, 4, 5))
# Of the face's symbol tables: slot, age, state.
_FACE_LEVELS = ((2,), (0, 2), (0, 1, 2))


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
    face_bits: float = 0.0
    """Bits of faces, and of saying that there is none."""

    @property
    def saving(self) -> float:
        """Share of the static tables' bits that the context tables save."""
        return 1 - self.context_bits / self.static_bits if self.static_bits else 0.0

    def __str__(self) -> str:
        frames, symbols = max(self.frames, 1), max(self.symbols, 1)
        face_bytes = self.face_bits / 8 / frames
        return (
            f"{self.frames} frames, {self.symbols} symbols: {self.context_bits / symbols:.3f} bit/symbol by context, "
            f"{self.static_bits / symbols:.3f} by channel ({self.saving:.1%} saved); a frame "
            f"{self.context_bits / 8 / frames:.1f} B + {self.keep_bits / 8 / frames:.1f} B for what is kept"
            + (f" + {face_bytes:.1f} B for the face" if face_bytes >= 0.05 else "")
        )


class FaceCounts:
    """Counts of what is coded of faces."""

    def __init__(self) -> None:
        self.there: npt.NDArray[np.int64] = np.zeros((FACE_THERE, 2), np.int64)
        self.moved: npt.NDArray[np.int64] = np.zeros((AGES, 2), np.int64)
        self.stays: npt.NDArray[np.int64] = np.zeros((AGES, 2), np.int64)
        self.pose: npt.NDArray[np.int64] = np.zeros((POSE_NUMBERS, POSE_LEVELS), np.int64)
        self.symbols: npt.NDArray[np.int64] = np.zeros((prod(FACE_SHAPE), FACE_LEVELS), np.int64)
        self.home: npt.NDArray[np.int64] = np.zeros((AGES, 2), np.int64)
        self.reach: npt.NDArray[np.int64] = np.zeros((FACE_REACH, REACHES), np.int64)

    def add(self, face: FaceCode | None, reference: FaceCode | None, age: int) -> None:
        """Count one picture's face, or that it has none, against the face of its reference."""
        self.there[face_there_context(reference, age), int(face is not None)] += 1
        if face is None:
            return
        if reference is not None:
            moved = face.pose != reference.pose
            self.moved[AGE_BUCKET[age], int(moved)] += 1
            if moved:
                self.pose[np.arange(POSE_NUMBERS), pose_symbols(face.pose, reference.pose)] += 1
        self._add_home(face, reference, age)
        if reference is not None:
            stays = np.array_equal(face.symbols, reference.symbols)
            self.stays[AGE_BUCKET[age], int(not stays)] += 1
            if stays:
                return
        self.symbols[face_contexts(reference, age), face.symbols.astype(np.intp) + FACE_LARGEST] += 1

    def _add_home(self, face: FaceCode, reference: FaceCode | None, age: int) -> None:
        changed = face.home != (reference.home if reference else None)
        self.home[face_home_context(reference, age), int(changed)] += 1
        if face.home is None:
            return
        if changed:
            self.pose[np.arange(POSE_NUMBERS), pose_symbols(face.home, face.pose)] += 1
        self.reach[face_reach_context(reference), face.reach] += 1

    def fit(self, tables: Tables, prior: float) -> Tables:
        """`tables` with their arrays of faces fitted, as far as there are counts of faces."""
        if not self.there[:, 1].any():
            return tables
        there = _towards(default_tables().face_there[:, None], self.there, ((0,),), prior)[:, 0]
        return replace(self.fit_content(tables, prior), face_there=there)

    def fit_content(self, tables: Tables, prior: float) -> Tables:
        """The same without whether there is a face."""
        start = default_tables()
        moved, stays, pose, symbols = tables.face_moved, tables.face_stays, tables.face_pose, tables.face_symbols
        home, reach = tables.face_home, tables.face_reach
        if self.moved.any():
            moved = _towards(start.face_moved[:, None], self.moved, ((0,),), prior)[:, 0]
            stays = _towards(start.face_stays[:, None], self.stays, ((0,),), prior)[:, 0]
        if self.pose.any():
            pose = _towards(start.face_pose, self.pose, ((0,),), prior)
        if self.symbols.any():
            symbols = _towards(start.face_symbols, self.symbols, _FACE_LEVELS, prior)
        if self.home.any():
            home = _towards(start.face_home[:, None], self.home, ((0,),), prior)[:, 0]
        if self.reach.any():
            reach = _towards(start.face_reach, self.reach, ((0,),), prior)
        return replace(
            tables,
            face_moved=moved,
            face_stays=stays,
            face_pose=pose,
            face_symbols=symbols,
            face_home=home,
            face_reach=reach,
        )


class TableCounts:
    """Counts of everything that is coded, gathered sample by sample, so that a data set need not be held at once."""

    def __init__(self) -> None:
        self.symbols: npt.NDArray[np.int64] = np.zeros((prod(SHAPE), LEVELS), np.int64)
        self.keep: npt.NDArray[np.int64] = np.zeros((prod(KEEP_SHAPE), 2), np.int64)
        self.moved: npt.NDArray[np.int64] = np.zeros((AGES, 2), np.int64)
        self.rich: npt.NDArray[np.int64] = np.zeros((prod(RICH_SHAPE), 2), np.int64)
        self.faces = FaceCounts()
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
        self.faces.add(code.face, reference.face if reference else None, age)
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
        tables = replace(
            default_tables(),
            symbols=_integers(probabilities),
            keep=_integers(keeps)[..., 0],
            moved=_integers(moved)[:, 0],
            rich=_integers(rich)[..., 0],
        )
        return self.faces.fit(tables, prior)


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


def with_faces(tables: Tables, samples: Iterable[FaceSample], prior: float = 16.0) -> Tables:
    """The same tables with those of a face's pose, home, reach and symbols fitted to samples; all else stays, as
    whether there is a face. Raises TrainingError without samples.
    """
    counts = FaceCounts()
    for sample in samples:
        counts.add(*sample)
    if not counts.symbols.any():
        raise TrainingError("tables: there is no face to fit to")
    return counts.fit_content(tables, prior)


def measure_tables(samples: Iterable[Sample], tables: Tables) -> TableReport:
    """Ideal bits of samples by `tables`, beside the static table per channel of the same symbols."""
    counts = TableCounts()
    what_is_kept = faces = 0.0
    for code, reference, age in samples:
        counts.add(code, reference, age)
        what_is_kept += keep_bits(code.keep, reference, age, tables)
        faces += face_bits(code.face, reference.face if reference else None, age, tables, code.grid)
    by_channel = counts.symbols.reshape(MAX_CHANNELS, -1, LEVELS).sum(axis=1)
    totals = by_channel.sum(axis=1, keepdims=True)
    static = np.where(by_channel > 0, by_channel * np.log2(np.maximum(totals, 1) / np.maximum(by_channel, 1)), 0)
    return TableReport(
        frames=counts.frames,
        symbols=int(by_channel.sum()),
        context_bits=float((counts.symbols * tables.bits).sum()),
        static_bits=float(static.sum()),
        keep_bits=what_is_kept + float((counts.rich * np.array(tables.rich_bits)).sum()),
        face_bits=faces,
    )


def _smooth(
    counts: npt.NDArray[np.float64],
    levels: tuple[tuple[int, ...], ...],
    prior: float,
    start: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float64]:
    """Counts (…contexts, n) → probabilities of the same shape, each level backing off to the one before, the first to
    `start`, of the same shape; None: to even ones."""
    axes = range(counts.ndim - 1)
    alphabet = counts.shape[-1]
    estimate = np.full((1,) * (counts.ndim - 1) + (alphabet,), 1 / alphabet) if start is None else start
    for level in levels:
        seen = counts.sum(axis=tuple(axis for axis in axes if axis not in level), keepdims=True)
        estimate = (seen + prior * estimate) / (seen.sum(axis=-1, keepdims=True) + prior)
    return estimate


def _towards(
    start: npt.NDArray[np.uint16], counts: npt.NDArray[np.int64], levels: tuple[tuple[int, ...], ...], prior: float
) -> npt.NDArray[np.uint16]:
    """Counts, backing off to tables: inner cumulative counts (…, n - 1) of the same shape as `start`."""
    shares: npt.NDArray[np.float64] = np.diff(start / TOTAL, axis=-1, prepend=0, append=1)
    return _integers(_smooth(counts.reshape(shares.shape).astype(np.float64), levels, prior, shares))


def _integers(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
    """Probabilities (…, n) → inner cumulative counts (…, n - 1) of 65536, every symbol at least one count."""
    levels = probabilities.shape[-1]
    before = np.cumsum(probabilities, axis=-1)[..., :-1]
    inner = np.floor(before * (TOTAL - levels)).astype(np.int64) + np.arange(1, levels)
    counts: npt.NDArray[np.uint16] = inner.astype(np.uint16)
    return counts
