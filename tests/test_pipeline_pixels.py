"""The quick ways over pixels give what the plain formulas give."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamgc.pipeline.background import blend, composite
from streamgc.pipeline.sender import blanked
from streamgc.pipeline.settings import BLANK

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(SHAPES, st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.1, 1.0]))
def test_blending_is_the_rounded_mean(shape: tuple[int, int], seed: int, edge: float) -> None:
    random = np.random.default_rng(seed)
    person = random.integers(0, 256, (*shape, 4), dtype=np.uint8)
    sharp = random.random(shape) >= edge
    person[..., 3] = np.where(sharp, np.where(random.random(shape) < 0.5, 255, 0), person[..., 3])
    under = random.integers(0, 256, (*shape, 3), dtype=np.uint8)
    share = person[..., 3:].astype(np.int64)
    plain = (person[..., :3] * share + under * (255 - share) + 127) // 255
    before = under.copy()
    np.testing.assert_array_equal(composite(person, under), plain)
    np.testing.assert_array_equal(blend(person, np.full(shape, 255, np.uint8), under), person[..., :3])
    np.testing.assert_array_equal(under, before)


@given(SHAPES, st.integers(0, 2**32 - 1))
def test_blanking_leaves_nothing_of_what_is_not_kept(shape: tuple[int, int], seed: int) -> None:
    random = np.random.default_rng(seed)
    picture = random.integers(0, 256, (*shape, 3), dtype=np.uint8)
    matte = np.where(random.random(shape) < 0.5, np.uint8(255), np.uint8(0))
    plain = np.where(matte[..., None] > 0, picture, np.uint8(BLANK))
    np.testing.assert_array_equal(blanked(picture, matte), plain)
