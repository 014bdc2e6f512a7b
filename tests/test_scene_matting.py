"""scene.matting: the matte follows the picture's edges, and stays where the picture has none."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgc.scene.matting import refine_matte
from streamgc.scene.segmenter import Segmenter
from tests.scene_pictures import PerfectNetwork

Mask = npt.NDArray[np.uint8]

SIDE = 128


def _disc(radius: float, side: int = SIDE) -> npt.NDArray[np.float32]:
    """How far inside a disc in the middle each pixel is, in pixels, f32 (side, side)."""
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    return np.asarray(radius - np.hypot(rows, columns), np.float32)


def _soft(inside: npt.NDArray[np.float32], width: float) -> Mask:
    return np.asarray(255 * np.clip(inside / width + 0.5, 0, 1) + 0.5, np.uint8)


def _painted(alpha: Mask, person: tuple[int, int, int], room: tuple[int, int, int], noise: float) -> Mask:
    share = alpha[..., None] / 255
    picture = share * np.array(person) + (1 - share) * np.array(room)
    grain = np.random.default_rng(3).normal(0, noise, picture.shape)
    return np.asarray((picture + grain).round().clip(0, 255), np.uint8)


def _iou(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("off", [-2.0, 2.0])
@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_a_border_two_pixels_off_moves_to_the_edge(off: float, noise: float) -> None:
    truth = _disc(40)
    frame = _painted(_soft(truth, 1), (180, 120, 100), (60, 90, 70), noise)
    said = _soft(truth + off, 5)
    found = refine_matte(frame, said)
    before, after = _iou(said > 127, truth > 0), _iou(found > 127, truth > 0)
    assert before < 0.92
    assert 1 - after < 0.35 * (1 - before)


def test_a_soft_border_becomes_as_sharp_as_the_edge() -> None:
    truth = _disc(40)
    said = _soft(truth, 8)
    found = refine_matte(_painted(_soft(truth, 1), (180, 120, 100), (60, 90, 70), 2.0), said)
    soft, was = (((matte > 25) & (matte < 230)).sum() for matte in (found, said))
    assert soft < 0.8 * was
    assert _iou(found > 127, truth > 0) > 0.99


def test_colours_that_tell_nothing_leave_the_matte_alone() -> None:
    said = _soft(_disc(40), 5)
    assert np.array_equal(refine_matte(np.full((SIDE, SIDE, 3), 90, np.uint8), said), said)
    grain = np.random.default_rng(1).integers(86, 95, (SIDE, SIDE, 3), np.uint8)
    assert np.abs(refine_matte(grain, said).astype(int) - said).mean() < 1.0


def test_an_edge_that_two_colours_share_only_in_hue_is_found() -> None:
    """Same brightness on both sides: red, green and blue say it, their mean does not."""
    truth = _disc(40)
    frame = _painted(_soft(truth, 1), (150, 90, 90), (80, 130, 120), 1.0)
    assert abs(frame[:10].mean() - frame[60:68, 60:68].mean()) < 1
    said = _soft(truth - 2, 5)
    assert _iou(refine_matte(frame, said) > 127, truth > 0) > 0.97 > _iou(said > 127, truth > 0)


def test_grey_pictures_are_as_good_as_coloured_ones() -> None:
    truth = _disc(40)
    said = _soft(truth - 2, 5)
    found = refine_matte(_painted(_soft(truth, 1), (255, 255, 255), (0, 0, 0), 0.0), said)
    other = refine_matte(_painted(_soft(truth, 1), (255, 254, 253), (0, 1, 3), 0.0), said)
    assert _iou(found > 127, truth > 0) > 0.97
    assert np.abs(found.astype(int) - other).mean() < 1


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    value=st.sampled_from([0, 255]),
    grey=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_picture_keeps_what_is_certain(height: int, width: int, value: int, grey: bool, seed: int) -> None:
    frame = np.random.default_rng(seed).integers(0, 256, (4 * height, 4 * width, 3), np.uint8)
    if grey:
        frame[:] = frame[..., :1]
    found = refine_matte(frame, np.full(frame.shape[:2], value, np.uint8))
    assert found.dtype == np.uint8
    assert np.all(found == value)


def test_the_segmenter_gives_masks_that_follow_the_edges() -> None:
    network = PerfectNetwork([(60, 40, 190, 256)])
    frame = np.full((256, 256, 3), (50, 70, 60), np.uint8)
    frame[42:, 62:188] = (190, 150, 120)
    mask = Segmenter(network)(frame).masks[0] > 127
    truth = np.zeros((256, 256), bool)
    truth[42:, 62:188] = True
    assert _iou(mask, truth) > _iou(network.owners(256, 256) == 1, truth)
