"""Hypothesis strategies for codes, references and tables."""

from functools import cache

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamgc.codec.contexts import FACE_SHAPE, KEEP_SHAPE, RICH_SHAPE, SHAPE
from streamgc.codec.face import FACE_SYMBOLS, REACHES, FaceCode, FacePose, pose_ranges
from streamgc.codec.symbols import LAYOUTS, MIXED, Code, make_code
from streamgc.codec.tables import Tables, cumulate, default_tables

quick = settings(deadline=None, max_examples=60)
"""Without a deadline: the machine of a test is busy at times."""

GRIDS = [(1, 1), (1, 7), (5, 1), (3, 4), (9, 16), (16, 9), (16, 16), (23, 40)]


def random_code(seed: int, grid: tuple[int, int], layout: int, busy: float, kept: float) -> Code:
    """A code whose symbols are non-zero with probability `busy`, in cells kept with probability `kept`; of a mixed code
    a third of the cells are rich."""
    rng = np.random.default_rng(seed)
    channels = 8 if layout == MIXED else layout
    symbols = np.where(rng.random((channels, *grid)) < busy, rng.integers(-2, 3, (channels, *grid)), 0)
    keep = rng.random(grid) < kept
    return make_code(symbols, keep, rng.random(grid) < 0.3 if layout == MIXED else None)


def random_face(seed: int, grid: tuple[int, int]) -> FaceCode:
    """A face anywhere on the grid, its corners and edges more often than by chance; a third has no home, a third one
    nearby."""
    rng = np.random.default_rng(seed)
    pose, other = (
        FacePose(*[int(rng.choice([allowed[0], allowed[-1], rng.choice(allowed)])) for allowed in pose_ranges(grid)])
        for _ in range(2)
    )
    face = FaceCode(pose, rng.integers(-4, 5, FACE_SYMBOLS).astype(np.int8))
    homes = None, other, moved_pose(pose, rng, grid, 3)
    return with_home(face, homes[rng.integers(3)], rng)


def with_home(face: FaceCode, home: FacePose | None, rng: np.random.Generator) -> FaceCode:
    """The same face with another home, and a reach drawn anew."""
    return face._replace(home=home, reach=0 if home is None else int(rng.integers(REACHES)))


def moved_pose(pose: FacePose, rng: np.random.Generator, grid: tuple[int, int], by: int) -> FacePose:
    """The same pose with all numbers moved by up to `by` each way."""
    return FacePose(
        *[
            int(np.clip(value + rng.integers(-by, by + 1), allowed[0], allowed[-1]))
            for value, allowed in zip(pose, pose_ranges(grid), strict=True)
        ]
    )


def altered_face(face: FaceCode, seed: int, grid: tuple[int, int], by: int) -> FaceCode:
    """The same face with its pose moved by up to `by` each way, and a fifth of its symbols drawn anew; half have
    another home, or lose theirs, or have another reach."""
    rng = np.random.default_rng(seed)
    moved = moved_pose(face.pose, rng, grid, by)
    symbols = np.where(rng.random(FACE_SYMBOLS) < 0.2, rng.integers(-4, 5, FACE_SYMBOLS), face.symbols)
    changed = face._replace(pose=moved, symbols=symbols.astype(np.int8))
    if rng.random() < 0.5:
        return changed
    homes = None, face.home, moved_pose(face.pose, rng, grid, by)
    return with_home(changed, homes[rng.integers(3)], rng)


def altered(code: Code, seed: int, share: float) -> Code:
    """The same code with a share of its symbols, kept and rich cells drawn anew."""
    rng = np.random.default_rng(seed)
    symbols = np.where(rng.random(code.symbols.shape) < share, rng.integers(-2, 3, code.symbols.shape), code.symbols)
    keep = code.keep ^ (rng.random(code.keep.shape) < share / 8)
    rich = None if code.rich is None else code.rich ^ (rng.random(code.keep.shape) < share)
    return make_code(symbols, keep, rich)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Code, Code | None, int]:
    """A code, a reference that may be alike, foreign or missing, and its age; with or without faces."""
    code, reference, age = draw(plain_cases())
    seed = draw(st.integers(0, 2**32 - 1))
    if draw(st.booleans()):
        code = code._replace(face=random_face(seed, code.grid))
    if reference is not None:
        kind = draw(st.sampled_from(["none", "same", "near", "far", "foreign"]))
        if kind == "foreign" or (kind != "none" and code.face is None):
            reference = reference._replace(face=random_face(seed + 1, code.grid))
        elif kind == "same":
            reference = reference._replace(face=code.face)
        elif code.face is not None and kind != "none":
            by = 2 if kind == "near" else 12
            reference = reference._replace(face=altered_face(code.face, seed + 1, code.grid, by))
    return code, reference, age


@st.composite
def plain_cases(draw: st.DrawFn) -> tuple[Code, Code | None, int]:
    """The same without faces."""
    grid = draw(st.sampled_from(GRIDS))
    layout = draw(st.sampled_from(LAYOUTS))
    seed = draw(st.integers(0, 2**32 - 1))
    busy, kept = draw(st.sampled_from([0.0, 0.05, 0.4, 1.0])), draw(st.sampled_from([0.0, 0.1, 0.6, 1.0]))
    code = random_code(seed, grid, layout, busy, kept)
    kind = draw(st.sampled_from(["none", "same", "alike", "foreign"]))
    if kind == "none":
        return code, None, 0
    age = draw(st.integers(1, 7))
    if kind == "same":
        return code, code, age
    if kind == "alike":
        return code, altered(code, seed + 1, draw(st.sampled_from([0.01, 0.1]))), age
    return code, random_code(seed + 2, grid, draw(st.sampled_from(LAYOUTS)), 0.5, 0.5), age


@cache
def all_tables() -> list[Tables]:
    """Default tables, flat ones, and random ones with the least and largest counts in them."""
    rng = np.random.default_rng(0)
    wild = [rng.integers(1, 1 << 20, (*shape, n)) >> rng.integers(0, 20, (*shape, n)) for shape, n in _SHAPES]
    flat = [np.ones((*shape, n), np.int64) for shape, n in _SHAPES]
    return [default_tables(), *(_tables([np.maximum(part, 1) for part in weights]) for weights in (wild, flat))]


_SHAPES = (
    (SHAPE, 5),
    (KEEP_SHAPE, 2),
    ((5,), 2),
    (RICH_SHAPE, 2),
    ((3,), 2),
    ((5,), 2),
    ((5,), 2),
    ((4,), 16),
    (FACE_SHAPE, 9),
    ((5,), 2),
    ((4,), 3),
)


def _tables(weights: list[np.ndarray]) -> Tables:
    arrays = [cumulate(part) for part in weights]
    return Tables(*[array[..., 0] if array.shape[-1] == 1 else array for array in arrays])


def reach_bits(tables: Tables) -> NDArray[np.float64]:
    """(4, 3) ideal cost in bits of each reach of a face, by its context."""
    return 16 - np.log2(np.diff(np.array(tables.face_reach_rows)))
