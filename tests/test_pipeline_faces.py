"""The face that a sender follows, and the one that a receiver paints."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamgc.call.sources import packaged_clip
from streamgc.codec.face import FACE_SYMBOLS, FaceCode, FacePose
from streamgc.codec.symbols import Code
from streamgc.codec.tables import default_tables
from streamgc.evaluation.clips import load_clip
from streamgc.pipeline.alignment import Aligned, align, displacement
from streamgc.pipeline.background import BackgroundKeeper
from streamgc.pipeline.call_codec import CallCodec, LoadedModels
from streamgc.pipeline.face import FACE_SIDE, NO_CHANGE, Place, cut_out, place_at, pose_of
from streamgc.pipeline.faces import (
    HOMES,
    LOOK_EVERY,
    NEARLY,
    SMALLEST,
    SMALLEST_HOME,
    STRAYED,
    FacePainter,
    FaceReader,
    FaceWatcher,
)
from streamgc.pipeline.networks import EncoderNetwork, GeneratorNetwork, NetworkOptions
from streamgc.pipeline.receiver import Receiver
from streamgc.pipeline.sender import Sender
from streamgc.pipeline.settings import PictureFormat, SenderSettings
from streamgc.profiling.spans import Spans
from tests import pipeline_fakes as fakes
from tests.face_fakes import GRID, HEIGHT, WIDTH, FakeLocator, FakeReader, spots

PICTURE = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
KEY = PICTURE.copy()
"""It has its face where the locator finds one in any picture."""
MATTE = np.full((HEIGHT, WIDTH), 255, np.uint8)
FACE = place_at(FacePose(150, 120, 54, 0))
"""Eyes 39 pixels apart."""
ONE = (0.9, FACE)


def _watch(*faces: tuple[float, Place]) -> tuple[FaceWatcher, FakeLocator, FakeReader]:
    locator, reader = FakeLocator(*faces), FakeReader()
    return FaceWatcher(FaceReader(locator, reader)), locator, reader


def _seen(
    watcher: FaceWatcher,
    picture: NDArray[np.uint8] = PICTURE,
    reference: Code | None = None,
    strength: float = 0.01,
    key: NDArray[np.uint8] = KEY,
) -> FaceCode | None:
    """What is coded of a picture."""
    aligned = watcher.look(picture, MATTE, key)
    return watcher.code(aligned, reference, 2 if reference else 0, default_tables(), strength)


def _searched(watcher: FaceWatcher, reference: Code | None = None, strength: float = 0.01) -> FaceCode | None:
    """After as many pictures as pass between two searches."""
    for _ in range(LOOK_EVERY - 1):
        _seen(watcher, PICTURE, reference, strength)
    return _seen(watcher, PICTURE, reference, strength)


def _pose(code: FaceCode | None) -> FacePose:
    assert code is not None
    return code.pose


def test_the_locator_s_faces_are_read_each_once() -> None:
    near, far = Place(100.3, 90.2, 40.0, 0.1), Place(300.0, 200.0, 24.0, -0.2)
    found = FaceReader(FakeLocator((0.9, near), (0.7, far)), FakeReader()).places(PICTURE)
    assert len(found) == 2
    for (sure, place), wanted in zip(found, ((0.9, near), (0.7, far)), strict=True):
        assert sure == pytest.approx(wanted[0], abs=0.01)
        assert place == pytest.approx(wanted[1], abs=0.05)


def test_a_face_that_is_read_says_where_it_is() -> None:
    reader = FaceReader(FakeLocator(), FakeReader())
    at, face = Place(150, 120, 40, 0.2), Place(155, 113, 43, 0.28)
    read = reader.read(spots(face), at)
    assert np.array_equal(read.numbers, np.linspace(-3, 3, FACE_SYMBOLS, dtype=np.float32))
    assert math.hypot(read.place.x - face.x, read.place.y - face.y) < 0.5
    assert read.place[2:] == pytest.approx(face[2:], rel=0.05)
    assert reader.read(PICTURE, at).place == pytest.approx(at)


@pytest.mark.parametrize(
    "face", [(0.25, Place(100, 90, 40, 0)), (0.9, Place(100, 90, 0.8 * SMALLEST, 0)), (0.9, Place(100, 90, 40, 1.2))]
)
def test_a_face_that_is_doubtful_tiny_or_lies_is_not_coded(face: tuple[float, Place]) -> None:
    assert _searched(_watch(face)[0]) is None


def test_the_surest_face_is_followed_until_another_is_much_surer() -> None:
    watcher, locator, _ = _watch((0.5, Place(100, 90, 30, 0)), (0.6, Place(300, 200, 34, 0)))
    assert _pose(_searched(watcher)).x == 300
    locator.faces = [(0.4, Place(100, 90, 40, 0)), (0.28, Place(302, 200, 34, 0))]
    assert _pose(_searched(watcher)).x == 300
    locator.faces[0] = (0.6, Place(100, 90, 40, 0))
    assert _pose(_searched(watcher)).x == 100
    locator.faces = []
    assert _searched(watcher) is None
    locator.faces = [(0.2, Place(100, 90, 40, 0))]
    assert _searched(watcher) is None  # one that appears must be surer


@pytest.mark.parametrize(
    ("kept", "changed"),
    [
        (FACE._replace(x=FACE.x + 0.7 * NEARLY[0] * FACE.distance), FACE._replace(x=FACE.x + 2 * FACE.distance / 10)),
        (FACE._replace(distance=1.03 * FACE.distance), FACE._replace(distance=1.12 * FACE.distance)),
        (FACE._replace(turn=0.6 * NEARLY[2]), FACE._replace(turn=0.18)),
    ],
)
def test_a_pose_is_kept_while_it_is_nearly_right(kept: Place, changed: Place) -> None:
    watcher, _, _ = _watch(ONE)
    first = _pose(_seen(watcher, spots(FACE)))
    assert place_at(first) == pytest.approx(FACE)
    assert _pose(_seen(watcher, spots(kept))) == first
    second = _pose(_seen(watcher, spots(changed)))
    assert second != first
    apart = np.subtract(place_at(second), changed)
    assert np.abs(apart).max() < 2
    assert abs(apart[3]) < 0.04


def test_a_face_that_has_moved_is_read_again_where_it_is_now() -> None:
    watcher, _, reader = _watch(ONE)
    _seen(watcher, spots(FACE))
    reader.seen.clear()
    moved = spots(FACE._replace(x=FACE.x + 6))
    pose = _pose(_seen(watcher, moved))
    assert [np.array_equal(face[0], cut_out(moved, place_at(pose))) for face in reader.seen] == [False, True]
    assert _pose(_seen(watcher, moved)) == pose
    assert len(reader.seen) == 3  # one that rests is read once


def test_a_face_that_rests_is_searched_for_now_and_then() -> None:
    watcher, locator, reader = _watch(ONE)
    for _ in range(9 * LOOK_EVERY):
        assert _seen(watcher) is not None
    assert locator.searches(PICTURE) == 9
    assert len(reader.seen) == 9 * LOOK_EVERY + 2  # where it was found, and once in the key


def test_a_face_that_moves_slowly_is_followed_without_a_search() -> None:
    watcher, locator, _ = _watch(ONE)
    pictures = []
    for step in range(3 * LOOK_EVERY):
        place = Place(FACE.x + 4 * step, FACE.y + 2 * step, FACE.distance * 1.01**step, 0.01 * step)
        if step % LOOK_EVERY == 0:
            locator.faces = [(0.9, place)]
        pictures.append(spots(place))
        pose = _pose(_seen(watcher, pictures[-1]))
        at = place_at(pose)
        assert math.hypot(at.x - place.x, at.y - place.y) < (NEARLY[0] + 0.03) * place.distance
        assert at.distance == pytest.approx(place.distance, rel=0.08)
        assert at.turn == pytest.approx(place.turn, abs=NEARLY[2] + 0.03)
    assert [locator.searches(picture) for picture in pictures] == ([1] + [0] * (LOOK_EVERY - 1)) * 3


def test_of_a_pose_only_what_is_off_changes() -> None:
    watcher, _, _ = _watch(ONE)
    before = _pose(_seen(watcher, spots(FACE)))
    there = FACE._replace(x=FACE.x + 2 * NEARLY[0] * FACE.distance, distance=FACE.distance * (1 + 0.3 * NEARLY[1]))
    after = _pose(_seen(watcher, spots(there)))
    assert after.x != before.x
    assert (after.size, after.turn) == (before.size, before.turn)


def test_two_eyes_at_one_place_are_no_face() -> None:
    watcher, _, reader = _watch(ONE)
    reader.run = lambda feeds: {  # type: ignore[method-assign]
        "numbers": np.zeros((1, FACE_SYMBOLS), np.float32),
        "centres": np.full((1, 3, 2), (60, 36), np.float32),
    }
    assert _seen(watcher) is not None  # where it was found


def test_what_a_face_says_of_its_place_counts_more_than_what_a_search_does() -> None:
    watcher, locator, _ = _watch((0.9, FACE._replace(x=FACE.x + 6, y=FACE.y - 3)))
    picture = spots(FACE)
    for _ in range(LOOK_EVERY + 2):
        assert place_at(_pose(_seen(watcher, picture))) == pytest.approx(FACE, abs=1.01)
    assert locator.searches(picture) == 2


def test_a_face_that_has_jumped_is_searched_in_the_same_picture() -> None:
    watcher, locator, reader = _watch(ONE)
    for _ in range(2):
        _seen(watcher, spots(FACE))
    there = FACE._replace(y=FACE.y + 2 * STRAYED[0] * FACE.distance)
    locator.faces = [(0.9, there)]
    picture = spots(there)
    pose = _pose(_seen(watcher, picture))
    assert place_at(pose) == pytest.approx(there, abs=1.01)
    assert locator.searches(picture) == 1
    assert np.array_equal(reader.seen[-1][0], cut_out(picture, place_at(pose)))  # its numbers are of there
    again = spots(there)
    assert _pose(_seen(watcher, again)) == pose
    assert locator.searches(again) == 0


def test_a_face_that_has_gone_is_lost_at_the_next_search() -> None:
    watcher, locator, reader = _watch(ONE)
    assert _seen(watcher) is not None
    locator.faces = []
    pictures = [PICTURE.copy() for _ in range(2 * LOOK_EVERY)]
    codes = [_seen(watcher, picture) for picture in pictures]
    there = LOOK_EVERY - 1
    assert [code is not None for code in codes] == [True] * there + [False] * (LOOK_EVERY + 1)
    assert [locator.searches(picture) for picture in pictures] == [0] * there + [1] * (LOOK_EVERY + 1)
    assert watcher.look(PICTURE, MATTE, KEY).picture is KEY
    locator.faces = [ONE]
    assert _seen(watcher) is not None  # and found as soon as it is back
    reader.lost, locator.faces = True, []
    assert _seen(watcher) is None  # what is no face any more is not waited for


def test_a_face_that_grows_small_is_left_to_the_code() -> None:
    watcher, locator, _ = _watch((0.9, FACE._replace(distance=22)))
    assert _seen(watcher, spots(FACE._replace(distance=22))) is not None
    small = FACE._replace(distance=0.9 * SMALLEST)
    locator.faces = [(0.9, small)]
    assert _seen(watcher, spots(small)) is None


def test_a_key_s_face_is_looked_for_once() -> None:
    watcher, locator, _ = _watch(ONE)
    keys = [KEY.copy() for _ in range(HOMES + 1)]
    for key in (keys[0], keys[1], keys[0], keys[1], keys[0]):
        assert watcher.look(PICTURE, MATTE, key).home == pose_of(FACE, HEIGHT, WIDTH)
    assert [locator.searches(key) for key in keys[:3]] == [1, 1, 0]
    for key in keys[2:]:
        watcher.look(PICTURE, MATTE, key)
    watcher.look(PICTURE, MATTE, keys[1])
    assert [locator.searches(key) for key in keys] == [1] * (HOMES + 1)
    watcher.look(PICTURE, MATTE, keys[0])
    assert locator.searches(keys[0]) == 2  # long out of use


@pytest.mark.parametrize(
    ("face", "there"),
    [
        ((0.9, FACE._replace(distance=(SMALLEST + SMALLEST_HOME) / 2)), True),
        ((0.9, FACE._replace(distance=0.9 * SMALLEST_HOME)), False),
        ((0.25, FACE), False),
        ((0.9, FACE._replace(turn=1.2)), False),
    ],
)
def test_a_key_s_face_may_be_smaller_but_not_doubtful(face: tuple[float, Place], there: bool) -> None:
    watcher, locator, _ = _watch(ONE)
    locator.others = [(KEY, [face])]
    code = _seen(watcher)
    assert code is not None
    assert code.home == (pose_of(face[1], HEIGHT, WIDTH) if there else None)
    if not there:
        assert code.reach == 0
        assert watcher.look(PICTURE, MATTE, KEY) == Aligned(KEY, None, 0)


def test_the_key_is_moved_to_the_face_and_the_code_says_so() -> None:
    home = place_at(FacePose(154, 117, 54, 2))
    key, locator = spots(home), FakeLocator(ONE)
    watcher = FaceWatcher(FaceReader(locator, FakeReader()))
    picture = spots(FACE)
    aligned = watcher.look(picture, MATTE, key)
    assert aligned.home is not None
    assert place_at(aligned.home) == pytest.approx(home, abs=1.01)  # as its face says: the locator says otherwise
    assert aligned.reach > 0
    code = watcher.code(aligned, None, 0, default_tables(), 0.01)
    assert code is not None
    assert (code.home, code.reach) == (aligned.home, aligned.reach)
    assert np.array_equal(aligned.picture, align(key, code.pose, aligned.home, aligned.reach))
    apart = [np.abs(of.astype(int) - picture).mean() for of in (aligned.picture, key)]
    assert apart[0] < 0.4 * apart[1]


def test_numbers_stay_as_the_receiver_has_them_where_a_change_is_not_worth_its_bits() -> None:
    watcher, _, reader = _watch(ONE)
    first = _searched(watcher)
    assert first is not None
    assert np.array_equal(first.symbols, np.rint(reader.numbers))
    reader.numbers = reader.numbers + 0.55
    reference = Code(np.zeros((2, *GRID), np.int8), np.zeros(GRID, bool), face=first)
    assert (held := _seen(watcher, reference=reference, strength=0.3)) is not None
    assert np.array_equal(held.symbols, first.symbols)
    assert (fine := _seen(watcher, reference=reference, strength=0.0)) is not None
    assert not np.array_equal(fine.symbols, first.symbols)


def test_what_is_no_number_is_coded_as_nothing() -> None:
    watcher, _, reader = _watch(ONE)
    reader.numbers[:] = np.nan
    face = _searched(watcher)
    assert face is not None
    assert not face.symbols.any()
    reader.lost = True
    face = _searched(watcher)  # the locator still finds one there
    assert face is not None
    assert face.pose == pose_of(FACE, HEIGHT, WIDTH)


class _Noting:
    """A network that keeps what it is fed."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.feeds: dict[str, NDArray[Any]] = {}

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.feeds = dict(feeds)
        result: dict[str, NDArray[Any]] = self.network.run(feeds)
        return result


def test_e_reads_the_key_as_it_is_moved_and_g_is_told_how() -> None:
    encoder, generator = _Noting(fakes.FakeEncoder()), _Noting(fakes.FakeGenerator())
    faces = FaceReader(FakeLocator((0.9, Place(80, 56, 24, 0))), FakeReader())
    settings, spans = SenderSettings(fakes.FORMAT, framing=False), Spans()
    sender = Sender(settings, fakes.BoxEyes(), EncoderNetwork(encoder), fakes.TABLES, spans, faces=faces)
    network = GeneratorNetwork(fakes.FakeReference(), generator)
    receiver = Receiver(fakes.FORMAT, network, fakes.TABLES, fakes.keeper())
    moved = 0
    for number in range(24):
        place = Place(80 + 5 * math.sin(number / 4), 56, 24, 0.0)
        sent = sender.encode(spots(place, fakes.FORMAT.height, fakes.FORMAT.width), number)
        sender.feedback(receiver.receive(sent.message).feedback)
        assert receiver.render() is not None
        found = receiver._history.get(number)
        assert found is not None
        face, key = found[0].face, generator.feeds["key"][0]
        assert face is not None
        assert np.array_equal(generator.feeds["moved"][0], displacement(face, *key.shape[:2]))
        if face.home not in (None, face.pose) and face.reach:
            assert face.home is not None
            moved += 1
            assert np.array_equal(encoder.feeds["key"][0], align(key, face.pose, face.home, face.reach))
            assert not np.array_equal(encoder.feeds["key"][0], key)
        else:
            assert np.array_equal(encoder.feeds["key"][0], key)
    assert moved >= 5
    stages = [span.stage for span in spans.drain() if span.frame == 20]
    assert stages.index("key") < stages.index("align") < stages.index("encode")


def test_the_painter_sees_the_face_and_the_numbers_and_changes_no_alpha() -> None:
    class Painter:
        def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            self.feeds = feeds
            return {"change": np.full((1, FACE_SIDE, FACE_SIDE, 3), NO_CHANGE + 20, np.uint8)}

    network = Painter()
    person = np.full((HEIGHT, WIDTH, 4), 100, np.uint8)
    face = FaceCode(FacePose(120, 100, 28, 0), np.arange(FACE_SYMBOLS, dtype=np.int8) - 2)
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


def test_of_two_faces_in_a_key_the_one_that_is_followed_is_its_home() -> None:
    other = Place(300, 220, 44, 0)
    watcher, locator, _ = _watch(ONE)
    key = np.maximum(spots(FACE), spots(other))
    locator.others = [(key, [(0.95, other), (0.8, FACE)])]
    assert watcher.look(spots(FACE), MATTE, key).home == pose_of(FACE, HEIGHT, WIDTH)
    locator.faces = [(0.9, other)]
    for _ in range(LOOK_EVERY):  # the first has gone, and the other one is followed
        found = watcher.look(spots(other), MATTE, key).home
    assert found == pose_of(other, HEIGHT, WIDTH)
