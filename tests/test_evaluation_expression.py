"""Whether what is shown moves as the original does."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from streamgc.evaluation.expression import LEAST_FRAMES, Expression, expression, follows


def face(lips: float = 0.1, lids: float = 0.15, turn: float = 0.0) -> NDArray[np.float64]:
    """68 points: eyes 40 pixels apart at (80, 100) and (120, 100), 16 wide; all others in the middle."""
    points = np.full((68, 2), 100.0)
    for start, x in ((36, 80.0), (42, 120.0)):
        up = 40 * lids / 2
        points[start : start + 6] = [
            (x - 8, 100),
            (x - 3, 100 - up),
            (x + 3, 100 - up),
            (x + 8, 100),
            (x + 3, 100 + up),
            (x - 3, 100 + up),
        ]
    points[30] = 100 + 40 * turn, 125
    points[62], points[66] = (100, 145), (100, 145 + 40 * lips)
    return points


def eyes(gaze: float) -> NDArray[np.uint8]:
    picture = np.full((200, 200, 3), 200, np.uint8)
    for x in (80, 120):
        at = round(x - 8 + 16 * gaze)
        picture[96:105, at - 2 : at + 3] = 20
    return picture


def test_an_expression_is_measured_in_distances_of_the_eyes() -> None:
    found = expression(eyes(0.5), face(0.2, 0.25, 0.3))
    assert found.lips == pytest.approx(0.2)
    assert found.lids == pytest.approx(0.25)
    assert found.turn == pytest.approx((0.3, 25 / 40))
    assert found.gaze == pytest.approx(0.5, abs=0.05)
    aside = expression(eyes(0.3), face())
    assert aside.gaze == pytest.approx(0.3, abs=0.05)
    larger = expression(np.repeat(np.repeat(eyes(0.3), 2, 0), 2, 1), 2 * face(0.2))
    assert larger.lips == pytest.approx(0.2)
    assert larger.gaze == pytest.approx(aside.gaze, abs=0.05)


def test_eyes_outside_the_picture_look_straight_ahead() -> None:
    assert expression(eyes(0.3), face() + 500).gaze == 0.5


def spoken(opening: list[float]) -> list[Expression]:
    return [Expression(lips, 0.2, 0.5, (0.0, 0.6)) for lips in opening]


def test_lips_that_open_together_follow_and_others_do_not() -> None:
    sent = [0.1 + 0.1 * math.sin(n) for n in range(20)]
    assert follows(spoken(sent), spoken(sent))["lips_follow"] == pytest.approx(1)
    assert follows(spoken(sent), spoken([0.05 + value / 2 for value in sent]))["lips_follow"] == pytest.approx(1)
    assert follows(spoken(sent), spoken([0.3 - value for value in sent]))["lips_follow"] == pytest.approx(-1)
    assert follows(spoken(sent), spoken([0.1] * 20))["lips_follow"] == pytest.approx(0, abs=1e-3)


def test_turning_counts_both_ways() -> None:
    sent = [Expression(0, 0.2, 0.5, (0.1 * math.sin(n), 0.1 * math.cos(n))) for n in range(12)]
    shown = [Expression(0, 0.2, 0.5, (0.1 * math.sin(n), 0.0)) for n in range(12)]
    assert follows(sent, sent)["turn_follow"] == pytest.approx(1)
    assert 0.5 < follows(sent, shown)["turn_follow"] < 0.8


def test_what_does_not_move_or_is_too_short_is_not_measured() -> None:
    still = spoken([0.1] * 20)
    assert all(math.isnan(value) for value in follows(still, still).values())
    short = spoken([0.1, 0.5] * ((LEAST_FRAMES - 1) // 2))
    assert math.isnan(follows(short, short)["lips_follow"])
    assert set(follows([], [])) == {"lips_follow", "lids_follow", "gaze_follow", "turn_follow"}
