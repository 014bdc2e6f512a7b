"""Faces that are moved by known amounts, and whether what is shown follows."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")

from streamgc.call.sources import packaged_clip
from streamgc.errors import BackendMissing, InputError
from streamgc.evaluation.clips import Clip, Frame, load_clip
from streamgc.evaluation.faces import FaceFinder, FacePoints
from streamgc.evaluation.known_moves import GAZE, LIDS, LIPS, _following, judge_moves, move_at, strip_of, with_moves
from tests.test_evaluation_expression import eyes, face


class Still:
    """A finder that sees the drawn face of `eyes` in every picture, except where it is told that nobody is there."""

    def __init__(self, absent: tuple[int, ...] = ()) -> None:
        self.asked, self.absent = 0, absent

    def largest(self, picture: Frame) -> Any:
        self.asked += 1
        return None if self.asked - 1 in self.absent else "box"

    def points(self, picture: Frame, box: Any) -> FacePoints:
        return FacePoints(np.array([80.0, 100]), np.array([120.0, 100]), np.array([100.0, 145]), 40.0)

    def contours(self, picture: Frame, box: Any) -> NDArray[np.float64]:
        return face()


def coded(choose: Any) -> Any:
    """A codec that shows what ``choose`` makes of the frames, in messages of 25 bytes."""
    return SimpleNamespace(encode=lambda frames, fps, kbps, ack: (choose(frames), [25] * len(frames), None, None))


def drawn(count: int = 75) -> Clip:
    return Clip("drawn", "digest", [eyes(0.5)] * count, 15)


def test_the_moves_go_as_far_as_is_said_and_not_together() -> None:
    moves = [move_at(n / 15) for n in range(150)]
    parts = np.array([[move.gaze[0], move.lids, move.lips] for move in moves])
    assert parts.max(0) == pytest.approx([GAZE, LIDS, LIPS], rel=0.02)
    assert parts.min(0) == pytest.approx([-GAZE, 0, 0], abs=0.002)
    assert np.abs(np.corrcoef(parts.T) - np.eye(3)).max() < 0.2


def test_a_codec_that_changes_nothing_follows_and_one_that_stands_still_does_not() -> None:
    finder = Still()
    made = with_moves(drawn(), finder)  # type: ignore[arg-type]
    found, shown = judge_moves(made, finder, coded(list), 15, 3)  # type: ignore[arg-type]
    assert found.gaze.sent == found.gaze.shown > 0.9
    assert found.gaze.reach == 1
    assert found.payload_kbps == pytest.approx(3)
    assert found.frames == 60
    assert "gaze" in str(found)
    frozen, _ = judge_moves(made, finder, coded(lambda frames: [frames[0]] * len(frames)), 15, 3)  # type: ignore[arg-type]
    assert (frozen.gaze.shown, frozen.gaze.reach) == (0, 0)
    assert frozen.gaze.sent == found.gaze.sent
    half, _ = judge_moves(
        made,
        finder,  # type: ignore[arg-type]
        coded(lambda frames: [((frame.astype(int) + frames[0]) // 2).astype(np.uint8) for frame in frames]),
        15,
        3,
    )
    assert 0.2 < half.gaze.reach < 0.8
    assert strip_of(made, shown, 15).shape == (400, 1600, 3)


def test_what_a_face_does_by_itself_counts_neither_way() -> None:
    random = np.random.default_rng(3)
    moves, own = random.normal(0, 1, 60), random.normal(0, 3, 60)
    still, only_own, half = (_following(list(moves), own, moves + own, shown) for shown in (0 * own, own, moves / 2))
    assert (still.shown, still.reach) == (0, 0)
    assert abs(only_own.reach) < 1e-9, "whoever shows the face's own motion alone does not follow the moves"
    assert (half.sent, half.shown, half.reach) == pytest.approx((1, 1, 0.5))


def test_frames_without_a_face_are_left_as_they_are_and_not_measured() -> None:
    finder = Still(absent=(20, 21))
    made = with_moves(drawn(), finder)  # type: ignore[arg-type]
    assert np.array_equal(made.frames[20], eyes(0.5))
    assert not np.array_equal(made.frames[22], eyes(0.5))
    assert judge_moves(made, finder, coded(list), 15, 3)[0].frames == 58  # type: ignore[arg-type]
    with pytest.raises(InputError, match="fewer than 20"):
        with_moves(drawn(30), Still())  # type: ignore[arg-type]


def test_a_real_face_is_seen_to_move() -> None:
    try:
        finder = FaceFinder()
    except BackendMissing as error:
        pytest.skip(str(error))
    clip = load_clip(packaged_clip(), 256, 15, 40)
    made = with_moves(clip, finder)
    found, _ = judge_moves(made, finder, coded(list), 15, 3)
    assert found.lips.sent > 0.4
    assert found.lids.sent > 0.3
