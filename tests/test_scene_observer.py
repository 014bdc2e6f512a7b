"""scene.observer: one call a picture, mask and picture paired, odd pictures welcome."""

import numpy as np
import numpy.typing as npt
import pytest

from streamgc.scene.framing import FramingSettings
from streamgc.scene.instances import Instances
from streamgc.scene.observer import SceneObserver, SceneSettings, keep_everything
from streamgc.scene.policy import parse_policy
from streamgc.scene.segmenter import Segmenter
from tests.scene_pictures import PerfectNetwork, boxes_as_instances

STEADY = FramingSettings(enabled=False)


def bright(picture: npt.NDArray[np.uint8]) -> Instances:
    """A segmenter that takes what is brighter than grey for a person."""
    mask = (picture.mean(axis=2) > 128).astype(np.uint8) * 255
    found = boxes_as_instances([], *picture.shape[:2])
    if not mask.any():
        return found
    ys, xs = np.nonzero(mask)
    box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
    return boxes_as_instances([box], *picture.shape[:2])._replace(masks=mask[None])


def scene(x: int, height: int = 480, width: int = 640) -> npt.NDArray[np.uint8]:
    picture = np.full((height, width, 3), 40, np.uint8)
    picture[height // 4 :, x : x + width // 5] = 220
    return picture


@pytest.mark.parametrize("shape", [(480, 640, 3), (1280, 720, 3), (144, 176, 3), (101, 77), (333, 500, 1)])
def test_any_picture_becomes_one_of_the_coded_size(shape: tuple[int, ...]) -> None:
    observer = SceneObserver(Segmenter(PerfectNetwork([(60, 60, 200, 256)])))
    seen = observer.observe(np.zeros(shape, np.uint8))
    assert seen.picture.shape == (256, 256, 3)
    assert seen.kept.matte.shape == (256, 256)
    assert seen.kept.cells.shape == (16, 16)
    assert (seen.statistics.found, seen.statistics.kept) == (1, 1)


def test_picture_and_mask_stay_paired_while_person_and_crop_move() -> None:
    observer = SceneObserver(bright, SceneSettings(look_around=15))
    moves = 0
    for step in range(120):
        seen = observer.observe(scene(40 + 4 * step))
        shown = seen.picture.mean(axis=2) > 150
        assert not (shown & (seen.kept.matte == 0)).any(), step
        moves += seen.moved
    assert 0 < moves < 110


def test_the_mask_is_carried_between_when_only_every_third_picture_is_segmented() -> None:
    calls = 0

    def counted(picture: npt.NDArray[np.uint8]) -> Instances:
        nonlocal calls
        calls += 1
        return bright(picture)

    observer = SceneObserver(counted, SceneSettings(every=3, framing=STEADY))
    seen = [observer.observe(scene(250)) for _ in range(9)]
    assert calls == 3
    assert [s.statistics.carried for s in seen] == [False, True, True] * 3
    assert all((s.kept.cells == seen[0].kept.cells).all() for s in seen)
    observer.set_every(1)
    assert not observer.observe(scene(250)).statistics.carried


def test_the_call_goes_on_without_anyone() -> None:
    observer = SceneObserver(bright, SceneSettings(framing=STEADY))
    observer.observe(scene(250))
    empty = np.full((480, 640, 3), 40, np.uint8)
    seen = [observer.observe(empty) for _ in range(25)]
    assert seen[0].kept.cells.any()
    assert seen[0].statistics.found == 0
    assert not seen[-1].kept.cells.any()
    assert (seen[-1].statistics.strength, seen[-1].statistics.idle_frames) == (0, 25)


def test_the_policy_can_change_during_a_call() -> None:
    people = PerfectNetwork([(10, 100, 70, 256), (100, 40, 200, 256)], noise=1)
    observer = SceneObserver(Segmenter(people), SceneSettings(framing=STEADY))
    frame = np.zeros((256, 256, 3), np.uint8)
    assert observer.observe(frame).statistics.kept == 2
    observer.set_policy(parse_policy("main"))
    seen = observer.observe(frame)
    assert (seen.statistics.found, seen.statistics.kept) == (2, 1)
    for _ in range(6):
        seen = observer.observe(frame)
    assert not seen.kept.matte[:, :60].any()
    assert seen.kept.matte[200, 150] == 255


def test_someone_outside_the_crop_is_noticed_and_framed() -> None:
    def everyone(picture: npt.NDArray[np.uint8]) -> Instances:
        mask = picture.mean(axis=2) > 128
        boxes = []
        columns = np.flatnonzero(mask.any(axis=0))
        for part in np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1):
            if part.size:
                rows = np.flatnonzero(mask[:, part].any(axis=1))
                boxes.append((int(part[0]), int(rows[0]), int(part[-1]) + 1, int(rows[-1]) + 1))
        return boxes_as_instances(boxes, *picture.shape[:2])

    observer = SceneObserver(everyone)
    alone = np.full((720, 1280, 3), 40, np.uint8)
    alone[250:, 500:640] = 220
    for _ in range(150):
        before = observer.observe(alone)
    both = alone.copy()
    both[250:, 1000:1100] = 220
    for _ in range(80):
        after = observer.observe(both)
    assert before.statistics.found == 1
    assert after.statistics.found == 2


def test_a_screen_is_kept_whole() -> None:
    seen = SceneObserver(keep_everything, SceneSettings(framing=STEADY)).observe(np.zeros((256, 256, 3), np.uint8))
    assert (seen.kept.matte == 255).all()
    assert seen.kept.cells.all()
