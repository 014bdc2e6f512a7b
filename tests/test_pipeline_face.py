"""Faces cut out and painted back."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgc.codec.face import FACE_SYMBOLS, LARGEST_TURN, SIZES, FaceCode, FacePose, check_face
from streamgc.pipeline.face import (
    EYES_APART,
    FACE_SIDE,
    MIDDLE,
    NO_CHANGE,
    Place,
    cut_out,
    paint,
    place_at,
    place_of,
    place_within,
    pose_of,
)
from streamgc.pipeline.settings import BLANK
from tests.face_fakes import GRID, HEIGHT, WIDTH, centre, eyes, spots

PLACES = st.builds(
    Place,
    x=st.floats(60, WIDTH - 60),
    y=st.floats(60, HEIGHT - 60),
    distance=st.floats(11, 100),
    turn=st.floats(-0.7, 0.7),
)


@settings(max_examples=30, deadline=None)
@given(PLACES)
def test_the_eyes_of_a_face_that_is_cut_out_are_in_their_places(place: Place) -> None:
    face = cut_out(spots(place), place)[..., 0].astype(int).clip(BLANK + 5) - BLANK - 5
    half = FACE_SIDE // 2
    for part, x in ((face[:, :half], MIDDLE[0] - EYES_APART / 2), (face[:, half:], MIDDLE[0] + EYES_APART / 2 - half)):
        assert centre(part) == pytest.approx((x, MIDDLE[1]), abs=0.6)


@settings(max_examples=30, deadline=None)
@given(PLACES, st.booleans())
def test_a_change_is_painted_where_it_was_cut_out(place: Place, right: bool) -> None:
    u = MIDDLE[0] + (1 if right else -1) * EYES_APART / 2
    rows, columns = np.mgrid[0:FACE_SIDE, 0:FACE_SIDE] + 0.5
    spot = 100 * np.exp(-((columns - u) ** 2 + (rows - MIDDLE[1]) ** 2) / 36)
    change = np.repeat((NO_CHANGE + spot).astype(np.uint8)[..., None], 3, -1)
    grey = np.full((HEIGHT, WIDTH, 4), 50, np.uint8)
    painted = paint(grey, place, change)
    x, y = eyes(place)[right]
    assert centre(painted[..., 1].astype(int) - 50) == pytest.approx((x + 0.5, y + 0.5), abs=0.06 * place.distance)
    assert (painted[..., 3] == 50).all()
    assert (grey == 50).all()


@settings(max_examples=40, deadline=None)
@given(
    st.builds(
        Place,
        x=st.floats(-80, WIDTH + 80),
        y=st.floats(-80, HEIGHT + 80),
        distance=st.floats(8, 150),
        turn=st.floats(-3, 3),
    )
)
def test_no_change_changes_nothing_wherever_the_face_is(place: Place) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
    assert np.array_equal(paint(picture, place, np.full((FACE_SIDE, FACE_SIDE, 3), NO_CHANGE, np.uint8)), picture)
    assert cut_out(np.ascontiguousarray(picture[..., :3]), place).shape == (FACE_SIDE, FACE_SIDE, 3)


@given(PLACES)
def test_a_pose_is_near_its_place_and_valid(place: Place) -> None:
    pose = pose_of(place, HEIGHT, WIDTH)
    check_face(FaceCode(pose, np.zeros(FACE_SYMBOLS, np.int8)), GRID)
    near = place_at(pose)
    assert abs(near.x - place.x) <= 0.5
    assert abs(near.y - place.y) <= 0.5
    assert near.distance / place.distance == pytest.approx(1, abs=0.0151)
    assert near.turn == pytest.approx(place.turn, abs=math.radians(1.001))


@given(
    st.builds(
        FacePose,
        x=st.integers(0, WIDTH - 1),
        y=st.integers(0, HEIGHT - 1),
        size=st.integers(0, SIZES - 1),
        turn=st.integers(-LARGEST_TURN, LARGEST_TURN),
    )
)
def test_each_pose_is_that_of_its_place(pose: FacePose) -> None:
    assert pose_of(place_at(pose), HEIGHT, WIDTH) == pose


def test_a_place_outside_the_picture_has_a_pose_inside() -> None:
    for x, y in ((-50, 5000), (5000, -50)):
        check_face(FaceCode(pose_of(Place(x, y, 500, 2.0), HEIGHT, WIDTH), np.zeros(FACE_SYMBOLS, np.int8)), GRID)


def test_landmarks_count_from_the_centre_of_a_pixel() -> None:
    place = place_of(np.array([10.0, 20.0]), np.array([40.0, 20.0]))
    assert place == Place(25.5, 20.5, 30.0, 0.0)


OTHERS = st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2), st.floats(-0.2, 0.2), st.floats(-0.25, 0.25))
"""How far a face is from where it is looked for: across and down in distances of the eyes, logarithm of the size, turn
in radians."""


def _beside(place: Place, by: tuple[float, float, float, float]) -> Place:
    across, down, size, turn = by
    distance = place.distance
    return Place(place.x + across * distance, place.y + down * distance, distance * math.exp(size), place.turn + turn)


@given(PLACES, OTHERS)
def test_eyes_in_a_cut_out_are_mapped_back_to_the_picture(at: Place, by: tuple[float, float, float, float]) -> None:
    face, scale = _beside(at, by), EYES_APART / at.distance
    back = np.array([[math.cos(at.turn), math.sin(at.turn)], [-math.sin(at.turn), math.cos(at.turn)]])
    left, right = (scale * back @ (np.add(eye, 0.5) - (at.x, at.y)) + MIDDLE for eye in eyes(face))
    found = place_within(at, left, right)
    assert found == pytest.approx(face, abs=1e-6)
    assert place_within(face, *np.array([[36.0, 36.0], [84.0, 36.0]])) == pytest.approx(face)


@settings(max_examples=40, deadline=None)
@given(PLACES.map(lambda place: place._replace(distance=min(45.0, place.distance))), OTHERS)
def test_what_is_seen_in_a_cut_out_is_where_it_was_drawn(at: Place, by: tuple[float, float, float, float]) -> None:
    face = _beside(at, by)
    levels = cut_out(spots(face), at)[..., 0].astype(int).clip(BLANK + 5) - BLANK - 5
    half = FACE_SIDE // 2
    left, right = np.array([centre(levels[:, :half]), np.add(centre(levels[:, half:]), (half, 0))])
    found = place_within(at, left, right)
    assert math.hypot(found.x - face.x, found.y - face.y) < 0.05 * face.distance
    assert found.distance == pytest.approx(face.distance, rel=0.05)
    assert found.turn == pytest.approx(face.turn, abs=0.04)
