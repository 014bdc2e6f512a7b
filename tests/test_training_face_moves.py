"""A face's own eyes and mouth, moved in training samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("torch")

from streamgc.training.face_moves import LARGEST_GAZE, Expression, moved, some_expression

DISTANCE = 40.0


def face_of(turn: float = 0.0) -> NDArray[np.float32]:
    """Eyes 40 pixels apart around (128, 110), the mouth below, turned by so many radians."""
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    points = np.array([[-20, 0], [20, 0], [0, 42]]) @ matrix + [128, 110]
    return np.concatenate([points.ravel(), [DISTANCE]]).astype(np.float32)


def picture_of(face: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Light, with dark discs for irises and a dark ellipse for the mouth, along the line of the eyes."""
    rows, columns = np.mgrid[:256, :256].astype(np.float32)
    picture = np.full((256, 256), 200, np.float32)
    left, right, mouth = face[:6].reshape(3, 2)
    along = (right - left) / DISTANCE
    for (x, y), wide, high in ((left, 4, 4), (right, 4, 4), (mouth, 12, 4)):
        u = (columns - x) * along[0] + (rows - y) * along[1]
        v = (rows - y) * along[0] - (columns - x) * along[1]
        picture -= 150 / (1 + np.exp((16 * np.hypot(u / wide, v / high) - 16).clip(-30, 30)))
    return np.repeat(picture[..., None], 3, 2).round().astype(np.uint8)


def darkness(picture: NDArray[np.uint8], face: NDArray[np.float32], part: int) -> tuple[NDArray[np.float64], float]:
    """Centre (x, y) of what is dark around a part, and its mean square distance from the centre across the line of the
    eyes."""
    x, y = face[:6].reshape(3, 2)[part].round().astype(int)
    square = 200.0 - picture[y - 16 : y + 17, x - 16 : x + 17, 0]
    rows, columns = np.mgrid[y - 16 : y + 17, x - 16 : x + 17]
    places = np.stack([columns, rows], -1).reshape(-1, 2)
    weights = square.ravel() / square.sum()
    centre = weights @ places
    left, right, _ = face[:6].reshape(3, 2)
    across = np.array([-(right - left)[1], (right - left)[0]]) / DISTANCE
    return centre, float(weights @ ((places - centre) @ across) ** 2)


@pytest.mark.parametrize("turn", [0.0, 0.4, -1.2])
def test_irises_move_along_the_line_of_the_eyes_and_the_mouth_stays(turn: float) -> None:
    face = face_of(turn)
    picture = picture_of(face)
    made = moved(picture, face, Expression(gaze=(LARGEST_GAZE[0], 0)))
    along = np.array([np.cos(turn), np.sin(turn)])
    for eye in (0, 1):
        shift = darkness(made, face, eye)[0] - darkness(picture, face, eye)[0]
        assert 2.0 < shift @ along <= DISTANCE * LARGEST_GAZE[0] + 0.5
        assert abs(shift @ [-along[1], along[0]]) < 0.2
    assert np.abs(darkness(made, face, 2)[0] - darkness(picture, face, 2)[0]).max() < 0.1


@pytest.mark.parametrize(
    ("expression", "part", "factor"),
    [
        (Expression(lids=0.9), 0, (0, 0.75)),
        (Expression(lids=-0.4), 1, (1.3, 4)),
        (Expression(lips=0.6), 2, (1.3, 6)),
        (Expression(lips=-0.5), 2, (0, 0.75)),
    ],
)
def test_lids_and_lips_open_and_close(expression: Expression, part: int, factor: tuple[float, float]) -> None:
    face = face_of(0.3)
    picture = picture_of(face)
    before, after = (darkness(one, face, part)[1] for one in (picture, moved(picture, face, expression)))
    assert factor[0] < after / before < factor[1]


@given(st.integers(0, 10_000))
def test_nothing_but_the_face_changes_whatever_is_moved(seed: int) -> None:
    random = np.random.default_rng(seed)
    face = face_of(float(random.uniform(-0.5, 0.5)))
    picture = random.integers(0, 256, (256, 256, 3), dtype=np.uint8)
    expression = some_expression(random)
    made = moved(picture, face, expression)
    changed = np.argwhere((made != picture).any(2))[:, ::-1]
    assert len(changed) > 0
    distances = np.hypot(*(changed[:, None] - face[:6].reshape(3, 2)).transpose(2, 0, 1)).min(1)
    assert distances.max() < 1.8 * DISTANCE


def test_without_a_face_or_an_expression_nothing_changes() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    assert moved(picture, np.full(7, np.nan, np.float32), Expression(lids=0.9)) is picture
    assert np.array_equal(moved(picture, face_of(), Expression()), picture)


def test_a_face_at_the_edge_of_the_picture_is_moved_as_far_as_it_is_there() -> None:
    face = face_of()
    face[:6] -= np.tile([125, 105], 3).astype(np.float32)
    moved(np.full((256, 256, 3), 90, np.uint8), face, Expression((0.1, 0.04), 0.9, 0.6, 0.2))
    face[:6] += 2000
    picture = np.full((256, 256, 3), 90, np.uint8)
    assert np.array_equal(moved(picture, face, Expression(lids=0.9)), picture)
