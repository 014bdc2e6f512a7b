"""How the person is put before a background."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgc.pipeline.background import CRISP, SEAM, composite, grow, over_room


def disc(size: int, radius: float) -> np.ndarray:
    """A person of RGB 200 whose alpha falls over a few pixels at the edge of a disc; the rim around it is RGB 90."""
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    distance = np.hypot(rows, columns)
    alpha = np.clip((radius - distance) / 6 + 0.5, 0, 1)
    colour = np.where(distance[..., None] < radius, 200, 90)
    return np.dstack((np.broadcast_to(colour, (size, size, 3)), alpha * 255)).astype(np.uint8)


@given(st.integers(0, 2**32 - 1), st.integers(0, 4))
def test_growing_takes_the_largest_value_around(seed: int, pixels: int) -> None:
    alpha = np.random.default_rng(seed).integers(0, 256, (9, 13), np.uint8)
    padded = np.pad(alpha, pixels)
    span = 2 * pixels + 1
    expected = np.lib.stride_tricks.sliding_window_view(padded, (span, span)).max((2, 3))
    assert np.array_equal(grow(alpha, pixels), expected)


def test_crisp_alpha_is_nothing_below_and_all_above() -> None:
    assert CRISP[:13].max() == 0
    assert CRISP[115:].min() == 255
    assert (np.diff(CRISP.astype(int)) >= 0).all()


@pytest.mark.parametrize("real", [False, True])
def test_far_from_the_edge_person_and_background_are_untouched(real: bool) -> None:
    person, room = disc(64, 20), np.full((64, 64, 3), 30, np.uint8)
    shown = over_room(person, room, real)
    assert (shown[32, 32] == 200).all()
    assert (shown[0, 0] == 30).all()


def test_before_another_room_the_person_brings_no_rim_along() -> None:
    person, room = disc(64, 20), np.full((64, 64, 3), 30, np.uint8)
    rims = [(np.abs(over_room(person, room, real).astype(int) - 90) < 5).all(-1).sum() for real in (False, True)]
    assert rims[0] < rims[1]
    assert rims[1] >= 2 * np.pi * 20 * (SEAM - 1)


def test_what_the_blank_coloured_at_the_margins_end_is_hardly_shown() -> None:
    person = np.zeros((40, 40, 4), np.uint8)
    person[:, :20] = 200, 200, 200, 255
    person[:, 20 : 20 + SEAM] = 90, 90, 90, 0
    person[:, 20 + SEAM :] = 255, 255, 255, 0
    shown = over_room(person, np.full((40, 40, 3), 30, np.uint8), real=True)[20, :, 0]
    assert shown[19 : 20 + SEAM].tolist() == [200, *[90] * SEAM]
    assert 30 < shown[20 + SEAM] < 30 + 0.4 * (255 - 30)
    assert (shown[21 + SEAM :] == 30).all()


def test_composite_is_exact_at_both_ends() -> None:
    person = np.zeros((2, 2, 4), np.uint8)
    person[..., :3] = 77
    person[0, :, 3] = 255
    shown = composite(person, np.full((2, 2, 3), 11, np.uint8))
    assert (shown[0] == 77).all()
    assert (shown[1] == 11).all()
