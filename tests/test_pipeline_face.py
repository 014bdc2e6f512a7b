"""Faces cut out and painted back, and the face that a sender follows."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamgc.call.sources import packaged_clip
from streamgc.codec.face import FACE_SYMBOLS, FaceCode, FacePose, check_face
from streamgc.codec.symbols import Code
from streamgc.codec.tables import default_tables
from streamgc.evaluation.clips import load_clip
from streamgc.pipeline.background import BackgroundKeeper
from streamgc.pipeline.call_codec import CallCodec, LoadedModels
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
    pose_of,
)
from streamgc.pipeline.faces import LOOK_EVERY, FacePainter, FaceReader, FaceWatcher
from streamgc.pipeline.networks import NetworkOptions
from streamgc.pipeline.receiver import Receiver
from streamgc.pipeline.settings import BLANK, PictureFormat, SenderSettings
from streamgc.profiling.spans import Spans

GRID = 20, 24
HEIGHT, WIDTH = 16 * GRID[0], 16 * GRID[1]
PLACES = st.builds(
    Place,
    x=st.floats(60, WIDTH - 60),
    y=st.floats(60, HEIGHT - 60),
    distance=st.floats(11, 100),
    turn=st.floats(-0.7, 0.7),
)


def _eyes(place: Place) -> list[tuple[float, float]]:
    """Pixels, counted from the centre of the upper left one."""
    across = place.distance / 2 * math.cos(place.turn), place.distance / 2 * math.sin(place.turn)
    return [(place.x + side * across[0] - 0.5, place.y + side * across[1] - 0.5) for side in (-1, 1)]


def _spots(place: Place) -> NDArray[np.uint8]:
    """A picture with a bright spot on each eye, a tenth of their distance wide."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    picture = np.full((HEIGHT, WIDTH), float(BLANK))  # as beyond its edge
    for x, y in _eyes(place):
        picture += 100 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (0.1 * place.distance) ** 2)
    return np.repeat(picture.clip(0, 255).astype(np.uint8)[..., None], 3, -1)


def _centre(levels: NDArray[Any]) -> tuple[float, float]:
    """Of brightness, (x, y) in pixels from the upper left corner."""
    rows, columns = np.mgrid[0 : levels.shape[0], 0 : levels.shape[1]] + 0.5
    weight = levels.astype(float)
    return float((columns * weight).sum() / weight.sum()), float((rows * weight).sum() / weight.sum())


@settings(max_examples=30, deadline=None)
@given(PLACES)
def test_the_eyes_of_a_face_that_is_cut_out_are_in_their_places(place: Place) -> None:
    face = cut_out(_spots(place), place)[..., 0].astype(int).clip(BLANK + 5) - BLANK - 5
    half = FACE_SIDE // 2
    for part, x in ((face[:, :half], MIDDLE[0] - EYES_APART / 2), (face[:, half:], MIDDLE[0] + EYES_APART / 2 - half)):
        assert _centre(part) == pytest.approx((x, MIDDLE[1]), abs=0.6)


@settings(max_examples=30, deadline=None)
@given(PLACES, st.booleans())
def test_a_change_is_painted_where_it_was_cut_out(place: Place, right: bool) -> None:
    u = MIDDLE[0] + (1 if right else -1) * EYES_APART / 2
    rows, columns = np.mgrid[0:FACE_SIDE, 0:FACE_SIDE] + 0.5
    spot = 100 * np.exp(-((columns - u) ** 2 + (rows - MIDDLE[1]) ** 2) / 36)
    change = np.repeat((NO_CHANGE + spot).astype(np.uint8)[..., None], 3, -1)
    grey = np.full((HEIGHT, WIDTH, 4), 50, np.uint8)
    painted = paint(grey, place, change)
    x, y = _eyes(place)[right]
    assert _centre(painted[..., 1].astype(int) - 50) == pytest.approx((x + 0.5, y + 0.5), abs=0.06 * place.distance)
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
    assert abs(near.x - place.x) <= 1
    assert abs(near.y - place.y) <= 1
    assert near.distance / place.distance == pytest.approx(1, abs=0.051)
    assert near.turn == pytest.approx(place.turn, abs=0.053)


def test_a_place_outside_the_picture_has_a_pose_inside() -> None:
    for x, y in ((-50, 5000), (5000, -50)):
        check_face(FaceCode(pose_of(Place(x, y, 500, 2.0), HEIGHT, WIDTH), np.zeros(FACE_SYMBOLS, np.int8)), GRID)


def test_landmarks_count_from_the_centre_of_a_pixel() -> None:
    place = place_of(np.array([10.0, 20.0]), np.array([40.0, 20.0]))
    assert place == Place(25.5, 20.5, 30.0, 0.0)


class _Locator:
    """Says where faces are, as the network does: (sure, place) each."""

    def __init__(self, *faces: tuple[float, Place]) -> None:
        self.faces = list(faces)
        self.runs = 0

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.runs += 1
        height, width = (side // 8 for side in feeds["picture"].shape[1:3])
        out = np.zeros((1, 5, height, width), np.float32)
        out[0, 0] = -9
        for sure, place in self.faces:
            column, row = int(place.x / 8), int(place.y / 8)
            for j in range(max(0, row - 1), min(height, row + 2)):
                for i in range(max(0, column - 1), min(width, column + 2)):
                    logit = math.log(sure / (1 - sure)) - (0 if (j, i) == (row, column) else 3)
                    size = math.log(place.distance / 32)
                    out[0, :, j, i] = logit, place.x / 8 - i - 0.5, place.y / 8 - j - 0.5, size, place.turn
        return {"places": out}


class _Reader:
    """Says always the same numbers, and remembers what it was shown."""

    def __init__(self) -> None:
        self.seen: list[NDArray[Any]] = []
        self.numbers = np.linspace(-3, 3, FACE_SYMBOLS, dtype=np.float32)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.seen.append(feeds["face"])
        return {"numbers": self.numbers[None]}


PICTURE = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)


def _watch(*faces: tuple[float, Place]) -> tuple[FaceWatcher, _Locator, _Reader]:
    locator, reader = _Locator(*faces), _Reader()
    return FaceWatcher(FaceReader(locator, reader)), locator, reader


def _code(watcher: FaceWatcher, reference: Code | None = None, strength: float = 0.01) -> FaceCode | None:
    """After as many pictures as pass between two searches."""
    for _ in range(LOOK_EVERY - 1):
        watcher.code(PICTURE, reference, 2 if reference else 0, default_tables(), strength)
    return watcher.code(PICTURE, reference, 2 if reference else 0, default_tables(), strength)


def test_the_locator_s_faces_are_read_each_once() -> None:
    near, far = Place(100.3, 90.2, 40.0, 0.1), Place(300.0, 200.0, 24.0, -0.2)
    found = FaceReader(_Locator((0.9, near), (0.7, far)), _Reader()).places(PICTURE)
    assert len(found) == 2
    for (sure, place), wanted in zip(found, ((0.9, near), (0.7, far)), strict=True):
        assert sure == pytest.approx(wanted[0], abs=0.01)
        assert place == pytest.approx(wanted[1], abs=0.05)


@pytest.mark.parametrize(
    "face", [(0.25, Place(100, 90, 40, 0)), (0.9, Place(100, 90, 15, 0)), (0.9, Place(100, 90, 40, 1.2))]
)
def test_a_face_that_is_doubtful_tiny_or_lies_is_not_coded(face: tuple[float, Place]) -> None:
    assert _code(_watch(face)[0]) is None


def test_the_surest_face_is_followed_until_another_is_much_surer() -> None:
    watcher, locator, _ = _watch((0.5, Place(100, 90, 30, 0)), (0.6, Place(300, 200, 34, 0)))
    first = _code(watcher)
    assert first is not None
    assert first.pose.x == 150
    locator.faces = [(0.4, Place(100, 90, 40, 0)), (0.28, Place(302, 200, 34, 0))]
    second = _code(watcher)
    assert second is not None
    assert second.pose.x == 150
    locator.faces[0] = (0.6, Place(100, 90, 40, 0))
    third = _code(watcher)
    assert third is not None
    assert third.pose.x == 50
    locator.faces = []
    assert _code(watcher) is None
    locator.faces = [(0.2, Place(100, 90, 40, 0))]
    assert _code(watcher) is None  # one that appears must be surer


def test_a_pose_is_kept_while_it_is_nearly_right() -> None:
    watcher, locator, reader = _watch((0.9, Place(100, 90, 40, 0)))
    first = _code(watcher)
    locator.faces = [(0.9, Place(103.5, 91.5, 42, 0.05))]
    assert first is not None
    assert (second := _code(watcher)) is not None
    assert second.pose == first.pose
    locator.faces = [(0.9, Place(109, 90, 40, 0))]
    assert (third := _code(watcher)) is not None
    assert third.pose != first.pose
    assert len(reader.seen) == 3 * LOOK_EVERY


def test_a_face_that_rests_is_searched_for_now_and_then_and_one_that_moves_in_every_picture() -> None:
    watcher, locator, _ = _watch((0.9, Place(100, 90, 40, 0)))
    locator.runs = 0
    for _ in range(9 * LOOK_EVERY):
        watcher.code(PICTURE, None, 0, default_tables(), 0.01)
    assert locator.runs <= 11
    locator.runs = 0
    for step in range(9):
        locator.faces = [(0.9, Place(100 + 8 * step, 90, 40, 0))]
        watcher.code(PICTURE, None, 0, default_tables(), 0.01)
    assert locator.runs >= 7


def test_numbers_stay_as_the_receiver_has_them_where_a_change_is_not_worth_its_bits() -> None:
    watcher, _, reader = _watch((0.9, Place(100, 90, 40, 0)))
    first = _code(watcher)
    assert first is not None
    assert np.array_equal(first.symbols, np.rint(reader.numbers))
    reader.numbers = reader.numbers + 0.55
    reference = Code(np.zeros((2, *GRID), np.int8), np.zeros(GRID, bool), face=first)
    assert (held := _code(watcher, reference, 0.3)) is not None
    assert np.array_equal(held.symbols, first.symbols)
    assert (fine := _code(watcher, reference, 0.0)) is not None
    assert not np.array_equal(fine.symbols, first.symbols)


def test_what_is_no_number_is_coded_as_nothing() -> None:
    watcher, _, reader = _watch((0.9, Place(100, 90, 40, 0)))
    reader.numbers[:] = np.nan
    face = _code(watcher)
    assert face is not None
    assert not face.symbols.any()


def test_the_painter_sees_the_face_and_the_numbers_and_changes_no_alpha() -> None:
    class Painter:
        def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            self.feeds = feeds
            return {"change": np.full((1, FACE_SIDE, FACE_SIDE, 3), NO_CHANGE + 20, np.uint8)}

    network = Painter()
    person = np.full((HEIGHT, WIDTH, 4), 100, np.uint8)
    face = FaceCode(FacePose(60, 50, 17, 0), np.arange(FACE_SYMBOLS, dtype=np.int8) - 2)
    painted = FacePainter(network).paint(person, face)
    assert network.feeds["numbers"].dtype == np.float32
    assert network.feeds["face"].shape == (1, FACE_SIDE, FACE_SIDE, 3)
    assert (painted[95:105, 115:125, :3] == 120).all()
    assert (painted[..., 3] == 100).all()
    assert (painted[:20] == 100).all()


def test_what_a_call_says_of_the_face_is_painted_there_and_nowhere_else() -> None:
    picture_format = PictureFormat(256, 256)
    models = LoadedModels("lite", picture_format, NetworkOptions(threads=1))
    codec, quiet = CallCodec(models, SenderSettings(picture_format, framing=False)), Spans(enabled=False)
    sender, painting = codec.sender(quiet, live=False), codec.receiver(quiet)
    room = BackgroundKeeper(picture_format, lambda labels, seed: np.zeros((256, 256, 3), np.uint8))
    plain = Receiver(picture_format, models.generator(), models.tables, room)
    painted = 0
    for number, picture in enumerate(load_clip(packaged_clip()).frames[:24]):
        message = sender.encode(picture, number).message
        for receiver in (painting, plain):
            sender.feedback(receiver.receive(message).feedback)
        with_face, without = painting.render(), plain.render()
        assert with_face is not None
        assert without is not None
        rows, columns = np.nonzero((with_face.person != without.person).any(-1))
        if len(rows):
            painted += 1
            assert np.ptp(rows) < 150
            assert np.ptp(columns) < 150
        # What is steadied follows its surroundings, alpha among them.
        assert np.abs(with_face.person[..., 3].astype(int) - without.person[..., 3]).max() < 16
    assert painted >= 5
