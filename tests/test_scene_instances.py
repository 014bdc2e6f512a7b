"""scene.instances: the common form of segmentations, and the checks that name what is wrong."""

import numpy as np
import pytest

from streamgc.errors import SceneError
from streamgc.scene.instances import check_instances, grid_of, mask_box, nobody, pick, require


def test_nobody_is_valid_at_odd_sizes() -> None:
    empty = check_instances(nobody(101, 67))
    assert (empty.number, empty.size, empty.labels.shape) == (0, (101, 67), (7, 5))
    assert grid_of(256, 257) == (16, 17)


def test_a_wrong_part_is_named() -> None:
    good = nobody(64, 64)
    with pytest.raises(SceneError, match="'labels'"):
        check_instances(good._replace(labels=np.zeros((3, 4), np.uint8)))
    with pytest.raises(SceneError, match="'boxes'"):
        check_instances(good._replace(boxes=np.zeros((1, 4), np.float32)))
    with pytest.raises(SceneError, match="id 14"):
        check_instances(good._replace(labels=np.full((4, 4), 14, np.uint8)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(bad: float) -> None:
    array = np.zeros((1, 8, 8), np.float32)
    array[0, 3, 3] = bad
    with pytest.raises(SceneError, match="'centre' holds NaN"):
        require("centre", array, (1, 8, 8))


def test_pick_keeps_the_labels() -> None:
    three = nobody(32, 32)._replace(
        masks=np.arange(3, dtype=np.uint8)[:, None, None] * np.ones((1, 32, 32), np.uint8),
        boxes=np.zeros((3, 4), np.float32),
        scores=np.array([0.9, 0.5, 0.1], np.float32),
        classes=np.zeros(3, np.int32),
        ids=np.array([4, 5, 6], np.int32),
    )
    chosen = pick(three, np.array([True, False, True]))
    assert chosen.ids.tolist() == [4, 6]
    assert chosen.masks[1, 0, 0] == 2
    assert chosen.labels is three.labels


def test_mask_box_is_tight_and_none_when_empty() -> None:
    mask = np.zeros((20, 30), bool)
    assert mask_box(mask) is None
    mask[4:9, 7:21] = True
    assert mask_box(mask) == (7, 4, 21, 9)
