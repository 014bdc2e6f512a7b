"""Other people's eyes and mouths in training samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamgc.training.face_swaps import LARGEST_SHIFT, Parts, mirrored, some_parts, swapped

FACE = np.array([100, 100, 140, 100, 120, 145, 40], np.float32)
"""Eyes on one line, the mouth below."""


def face_at(x: float, y: float, scale: float = 1.0, turn: float = 0.0) -> NDArray[np.float32]:
    points = (FACE[:6].reshape(3, 2) - [120, 115]) * scale
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return np.concatenate([(points @ matrix + [x, y]).ravel(), [40 * scale]]).astype(np.float32)


def picture_of(face: NDArray[np.float32], eyes: int, mouth: int) -> NDArray[np.uint8]:
    """Grey, with a square of two by two grey levels for each part, so that its middle is dark and its mean is not."""
    picture = np.full((256, 256, 3), 120, np.uint8)
    for (x, y), level in zip(face[:6].reshape(3, 2).astype(int), (eyes, eyes, mouth), strict=True):
        picture[y - 4 : y + 5, x - 4 : x + 5] = level
    return picture


def at(picture: NDArray[np.uint8], face: NDArray[np.float32], part: int) -> float:
    x, y = face[:6].reshape(3, 2)[part].astype(int)
    return float(picture[y - 1 : y + 2, x - 1 : x + 2].mean())


@pytest.mark.parametrize(
    ("parts", "changed"), [((True, False), (0, 1)), ((False, True), (2,)), ((True, True), (0, 1, 2))]
)
def test_parts_of_the_donor_lie_where_the_own_ones_were(parts: tuple[bool, bool], changed: tuple[int, ...]) -> None:
    own, other = face_at(110, 130), face_at(140, 120, 0.8, 0.2)
    picture, donor = picture_of(own, 120, 120), picture_of(other, 20, 40)
    made = swapped(picture, own, donor, other, Parts(*parts))
    for part in range(3):
        if part in changed:
            assert at(made, own, part) < 80
        else:
            assert at(made, own, part) == pytest.approx(120, abs=2)
    assert np.array_equal(made[:60], picture[:60]), "nothing beyond the face changes"
    assert np.array_equal(made[:, :40], picture[:, :40])


def test_what_is_laid_over_has_the_tint_of_what_it_covers() -> None:
    face = face_at(120, 120)
    dark, light = np.full((256, 256, 3), 90, np.uint8), np.full((256, 256, 3), 130, np.uint8)
    assert np.abs(swapped(dark, face, light, face, Parts(True, True)).astype(int) - 90).max() <= 1
    white = np.full((256, 256, 3), 255, np.uint8)
    made = swapped(dark, face, white, face, Parts(True, True))
    assert made.max() == pytest.approx(255 - LARGEST_SHIFT, abs=2), "but is not tinted beyond recognition"


def test_an_unknown_face_or_one_of_other_proportions_changes_nothing() -> None:
    own, nowhere = face_at(120, 120), np.full(7, np.nan, np.float32)
    picture, donor = picture_of(own, 120, 120), picture_of(own, 0, 0)
    aside = own.copy()
    aside[[0, 2]] = 118, 124  # the eyes of a profile
    line = own.copy()
    line[5] = 100
    for first, second in ((own, nowhere), (nowhere, own), (own, aside), (line, own)):
        assert swapped(picture, first, donor, second, Parts(True, True)) is picture


@given(st.floats(-40, 300), st.floats(-40, 300), st.floats(0.1, 3), st.floats(-3, 3))
def test_a_face_that_reaches_beyond_the_picture_is_no_error(x: float, y: float, scale: float, turn: float) -> None:
    picture = np.full((64, 96, 3), 77, np.uint8)
    made = swapped(picture, face_at(x, y, scale, turn), picture_of(FACE, 0, 255)[:80], FACE, Parts(True, True))
    assert made.shape == picture.shape
    assert made.dtype == np.uint8


def test_mirrored_twice_is_as_before_and_left_stays_left() -> None:
    picture, face = picture_of(FACE, 10, 200), face_at(90, 120, 1, 0.3)
    turned, its_face = mirrored(picture, face)
    assert its_face[0] < its_face[2]
    back, its_own = mirrored(turned, its_face)
    assert np.array_equal(back, picture)
    np.testing.assert_allclose(its_own, face, atol=1e-3)


def test_some_parts_are_always_one_at_least() -> None:
    random = np.random.default_rng(1)
    drawn = {tuple(some_parts(random)) for _ in range(200)}
    assert drawn == {(True, False), (False, True), (True, True)}
