"""evaluation.scene_passing: identities kept and lost are counted as such."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch", reason="the [train] extra is not installed")

from streamgc.evaluation.scene_passing import Moment, draw_clip, evaluate_passing
from streamgc.scene.instances import Instances, mask_box
from streamgc.scene.observer import Segment
from streamgc.training.segmenter_data import Item
from streamgc.training.segmenter_scenes import SceneMaker
from tests.scene_pictures import boxes_as_instances


class DrawnPeople:
    """Two "people" (bright ellipses) and an empty room."""

    def __init__(self) -> None:
        kinds = [("ccp", "truth"), ("ccp", "truth"), ("houses", "empty")]
        self.index: list[dict[str, Any]] = [{"source": source, "kind": kind} for source, kind in kinds]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Item:
        ys, xs = np.mgrid[:160, :80]
        person = (((ys - 90) / 65) ** 2 + ((xs - 40) / 25) ** 2 < 1).astype(np.uint8) * 255
        person *= self.index[number]["kind"] == "truth"
        picture = np.full((160, 80, 3), 60 + 40 * number, np.uint8)
        picture[person > 0] += 90
        labels = np.zeros((160, 80), np.uint8)
        return Item(self.index[number]["source"], "truth", True, picture, person, (person > 0).astype(np.uint8), labels)


def told(moments: list[Moment], confuse: bool = False) -> Segment:
    """A segmenter that is told who is where; when it confuses people, they are one while they touch."""
    coming = iter(moments)

    def segment(picture: npt.NDArray[np.uint8]) -> Instances:
        moment = next(coming)
        np.testing.assert_array_equal(picture, moment.frame)
        masks = [mask for mask in (moment.stayer, moment.walker) if mask.sum() > 200]
        if confuse and len(masks) == 2 and (np.any(masks[0], axis=0) & np.any(masks[1], axis=0)).any():
            masks = [masks[0] | masks[1]]
        boxes = [tuple(int(v) for v in mask_box(mask) or (0, 0, 1, 1)) for mask in masks]
        found = boxes_as_instances([(x0, y0, x1, y1) for x0, y0, x1, y1 in boxes])
        return found._replace(masks=np.stack(masks).astype(np.uint8) * 255)

    return segment


@pytest.mark.parametrize("confuse", [False, True])
def test_people_who_pass_stay_themselves_where_they_are_told_apart(confuse: bool) -> None:
    moments = list(draw_clip(SceneMaker(DrawnPeople(), limit_to_truth=True), np.random.default_rng(4), 40))
    result = evaluate_passing(told(moments, confuse), DrawnPeople(), clips=1, frames=40, seed=4)
    assert result.main_flips == 0
    if confuse:
        assert result.both_found < 0.8
        assert result.main_kept < 0.97
    else:
        assert result.both_found == 1
        assert result.stayer_switches == 0
        assert result.main_kept > 0.97
