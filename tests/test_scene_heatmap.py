"""scene.heatmap: cells that stand still on a still person, follow a moving one at once, and fade when nobody is
there."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgc.scene.heatmap import Heatmap, HeatmapSettings, Kept, cell_shares, dilate, spread_cells
from streamgc.scene.instances import Instances
from streamgc.scene.labels import Label
from streamgc.scene.policy import KeepPolicy, Selector
from tests.scene_pictures import boxes_as_instances


def disc(x: float, y: float, radius: float, size: int = 256) -> npt.NDArray[np.uint8]:
    """A soft-edged disc, u8 (size, size)."""
    ys, xs = np.mgrid[:size, :size]
    return np.asarray(np.clip((radius - np.hypot(ys - y, xs - x)) * 60 + 128, 0, 255), np.uint8)


def instance(mask: npt.NDArray[np.uint8]) -> Instances:
    return boxes_as_instances([(0, 0, mask.shape[1], mask.shape[0])], *mask.shape)._replace(masks=mask[None])


class Run:
    """Heatmap and selector together, as the observer runs them."""

    def __init__(self, **options: int) -> None:
        self.heatmap = Heatmap(HeatmapSettings(**options))
        self.selector = Selector(KeepPolicy(hold_frames=3, fade_frames=4))

    def __call__(self, instances: Instances) -> Kept:
        return self.heatmap.update(instances, self.selector.select(instances))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 45), st.integers(0, 2**32 - 1))
def test_dilation_is_the_chebyshev_neighbourhood(height: int, width: int, margin: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.03
    ys, xs = np.nonzero(mask)
    rows, columns = np.mgrid[:height, :width]
    expected = np.zeros(mask.shape, bool)
    for y, x in zip(ys, xs, strict=True):
        expected |= np.maximum(abs(rows - y), abs(columns - x)) <= margin
    np.testing.assert_array_equal(dilate(mask, margin), expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_cell_shares_count_pixels(height: int, width: int, density: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < density
    shares = cell_shares(mask)
    for row, column in np.ndindex(shares.shape):
        block = mask[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        assert shares[row, column] == pytest.approx(block.sum() / 256)


def test_on_a_still_person_under_a_dancing_border_under_one_per_cent_of_the_cells_change() -> None:
    rng = np.random.default_rng(3)
    run = Run()
    kept = [run(instance(disc(128, 140, 70 + rng.normal(0, 0.8)))) for _ in range(60)]
    changes = [(a.cells != b.cells).mean() for a, b in pairwise(kept[5:])]
    assert np.mean(changes) < 0.002
    raw = [cell_shares(instance(disc(128, 140, 70 + rng.normal(0, 0.8))).masks[0] > 127) > 0 for _ in range(60)]
    assert np.mean([(a != b).mean() for a, b in pairwise(raw)]) > 0.01


def test_a_moving_hand_is_never_late() -> None:
    run = Run()
    for step in range(30):
        mask = disc(40 + 6 * step, 128, 24)
        kept = run(instance(mask))
        assert not ((mask > 127) & (kept.matte == 0)).any(), step
        assert ((kept.alpha > 127) & (mask < 20)).sum() < 0.05 * (mask > 127).sum(), step


def test_the_mask_reaches_no_farther_than_its_margin() -> None:
    mask = np.zeros((128, 128), np.uint8)
    mask[50:80, 40:70] = 255
    kept = Run(margin=5)(instance(mask))
    np.testing.assert_array_equal(kept.matte > 0, dilate(mask > 0, 5))
    assert kept.matte.dtype == np.uint8
    assert set(np.unique(kept.matte)) == {0, 255}


@settings(max_examples=20, deadline=None)
@given(st.integers(16, 90), st.integers(16, 90), st.integers(0, 2**32 - 1))
def test_nothing_is_kept_outside_kept_cells(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    run = Run()
    for _ in range(4):
        mask = (rng.random((height, width)) < rng.random() * 0.2).astype(np.uint8) * 255
        kept = run(instance(mask))
        assert not (kept.matte > 0)[~spread_cells(kept.cells, height, width)].any()
        assert kept.cells.shape == kept.labels.shape == (-(-height // 16), -(-width // 16))
        assert (kept.labels[kept.cells] == Label.PERSON).all()
        assert (kept.alpha <= kept.matte).all()


def test_what_was_kept_last_is_held_fades_and_is_gone() -> None:
    run = Run()
    full = run(instance(disc(128, 128, 60)))
    gone = [run(boxes_as_instances([])) for _ in range(8)]
    assert [k.strength for k in gone] == [1, 1, 1, 0.75, 0.5, 0.25, 0, 0]
    assert (gone[2].cells == full.cells).all()
    assert not gone[-1].cells.any()
    assert not gone[-1].matte.any()
    areas = [int((k.matte > 0).sum()) for k in gone]
    assert areas == sorted(areas, reverse=True)


def test_labels_of_the_room_change_only_when_they_stay_changed() -> None:
    run = Run()
    plain = boxes_as_instances([])
    flicker = plain._replace(labels=np.full((16, 16), Label.SOFA, np.uint8))
    run(plain)
    for step in range(20):
        assert (run(flicker if step % 2 else plain).labels == Label.ROOM).all()
    for _ in range(10):
        last = run(flicker)
    assert (last.labels == Label.SOFA).all()


def test_another_frame_size_starts_anew() -> None:
    run = Run()
    run(instance(disc(128, 128, 60)))
    assert run(boxes_as_instances([(10, 10, 40, 60)], 96, 64)).matte.shape == (96, 64)


def test_reset_forgets_who_was_there() -> None:
    run = Run()
    run(instance(disc(128, 128, 60)))
    run.heatmap.reset()
    assert not run(boxes_as_instances([])).cells.any()


def test_a_cell_between_the_thresholds_stays_for_as_long_as_it_is_there_and_no_longer() -> None:
    heatmap = Heatmap(HeatmapSettings(cell_on=0.5, cell_off=0.2, cell_patience=2))
    for share in [0.6] + [0.3] * 40_000:  # three quarters of an hour: longer than 16 bits count
        heatmap._cells = heatmap._settle(np.full((1, 1), share, np.float32))
    assert heatmap._cells is not None
    assert heatmap._cells.all()
    assert not heatmap._settle(np.full((1, 1), 0.1, np.float32)).any()
