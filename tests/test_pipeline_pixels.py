"""The quick ways over pixels give what the plain formulas give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgc.pipeline.background import blend, composite
from streamgc.pipeline.importance import FACE_ATTENTION, LARGEST_WEIGHT, cared_for, importance, key_error
from streamgc.pipeline.looking import View
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


def seen(keep: np.ndarray) -> View:
    height, width = keep.shape
    matte = np.repeat(np.repeat(keep, 16, 0), 16, 1).astype(np.uint8) * 255
    picture = np.full((height * 16, width * 16, 3), 100, np.uint8)
    return View(picture, matte, keep, np.zeros(keep.shape, np.uint8), None, 1)


def test_a_cell_weighs_what_it_differs_from_the_key() -> None:
    keep = np.zeros((6, 7), np.bool_)
    keep[1:5, 2:6] = True
    view = seen(keep)
    key = view.picture.copy()
    key[32:48, 48:64] += 60
    weight = importance(view.keep, view.picture, key)
    assert weight.shape == (1, 6, 7)
    assert weight.dtype == np.float32
    assert weight[0][keep].mean() == pytest.approx(1)
    assert weight[0].argmax() == 2 * 7 + 3
    assert weight.max() <= LARGEST_WEIGHT * LARGEST_WEIGHT * weight[0][keep].min() * 1.001
    assert weight.min() > 0
    # Every second pixel each way is looked at; a change elsewhere does not count.
    key[::2, ::2] = view.picture[::2, ::2]
    np.testing.assert_allclose(importance(view.keep, view.picture, key)[0][keep], 1, rtol=1e-5)


def test_where_nothing_differs_or_nobody_is_all_cells_weigh_the_same() -> None:
    for keep in (np.ones((3, 4), np.bool_), np.zeros((3, 4), np.bool_)):
        view = seen(keep)
        weight = importance(view.keep, view.picture, view.picture)
        assert np.isfinite(weight).all()
        np.testing.assert_allclose(weight, weight.flat[0])


def test_eyes_and_mouth_weigh_more_even_where_they_are_as_in_the_key() -> None:
    weight, keep = np.full((1, 2, 3), 0.2, np.float32), np.ones((2, 3), np.bool_)
    attention = np.full((2, 3), FACE_ATTENTION, np.float32)
    np.testing.assert_allclose(cared_for(weight, keep, attention, 12), 1, rtol=1e-6, err_msg="a cheek is no mouth")
    attention[1, 2], attention[0, 1] = 1.0, FACE_ATTENTION + 0.1
    cared = cared_for(weight, keep, attention, 12)
    assert cared.dtype == np.float32
    assert cared.mean() == pytest.approx(1)
    assert cared[0, 1, 2] == pytest.approx(5 * (1 + 12) * cared[0, 1, 1], rel=1e-4)
    assert cared[0, 0, 1] > 1.5 * cared[0, 1, 1]
    assert np.isfinite(cared_for(weight, np.zeros((2, 3), np.bool_), attention, 12)).all()


def test_a_key_with_the_wrong_mouth_is_farther_than_one_with_the_wrong_sleeve() -> None:
    view = seen(np.ones((4, 5), np.bool_))
    mouth, sleeve = view.picture.copy(), view.picture.copy()
    mouth[16:32, 32:48] += 40
    sleeve[48:64, 0:16] += 50
    nowhere, there = np.zeros((4, 5), np.float32), np.zeros((4, 5), np.float32)
    there[1, 2] = 0.9
    assert key_error(view.matte, view.picture, mouth, nowhere, 8) == pytest.approx(40 / 20)
    assert key_error(view.matte, view.picture, sleeve, nowhere, 8) == pytest.approx(50 / 20)
    assert key_error(view.matte, view.picture, mouth, there, 8) > 3 * key_error(
        view.matte, view.picture, sleeve, there, 8
    )
    assert key_error(view.matte * 0, view.picture, mouth, there, 8) == 0
