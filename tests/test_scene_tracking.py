"""scene.tracking: people keep their ids while they move, pass each other and are hidden."""

import numpy as np

from streamgc.scene.tracking import Tracker
from tests.scene_pictures import boxes_as_instances


def test_ids_stay_with_people_who_pass_each_other() -> None:
    tracker = Tracker()
    first: dict[str, int] = {}
    for step in range(40):
        left, right = (10 + 4 * step, 40, 70 + 4 * step, 250), (180 - 4 * step, 60, 240 - 4 * step, 250)
        # The answer's order says nothing about who is who.
        order = [left, right] if step % 2 else [right, left]
        ids = tracker.update(boxes_as_instances(order)).ids
        now = {"left": int(ids[order.index(left)]), "right": int(ids[order.index(right)])}
        first = first or now
        assert now == first, step
    assert first["left"] != first["right"]


def test_who_is_hidden_for_a_second_comes_back_as_the_same() -> None:
    tracker = Tracker(memory=30)
    seen = tracker.update(boxes_as_instances([(50, 50, 120, 250)])).ids[0]
    for _ in range(15):
        assert tracker.update(boxes_as_instances([])).number == 0
    assert tracker.update(boxes_as_instances([(58, 52, 128, 250)])).ids[0] == seen


def test_after_long_absence_it_is_someone_new_and_ids_are_never_used_twice() -> None:
    tracker = Tracker(memory=5)
    ids = [int(tracker.update(boxes_as_instances([(50, 50, 120, 250)])).ids[0])]
    for _ in range(3):
        for _ in range(7):
            tracker.update(boxes_as_instances([]))
        ids.append(int(tracker.update(boxes_as_instances([(50, 50, 120, 250)])).ids[0]))
    assert len(set(ids)) == 4


def test_a_chair_does_not_become_a_person() -> None:
    tracker = Tracker()
    person = tracker.update(boxes_as_instances([(50, 50, 120, 250)])).ids[0]
    chair = boxes_as_instances([(50, 50, 120, 250)])._replace(classes=np.array([56], np.int32))
    assert tracker.update(chair).ids[0] != person


def test_boxes_in_the_sources_pixels_survive_a_moving_crop() -> None:
    tracker = Tracker()
    source = np.array([[300, 100, 400, 400]], np.float32)
    one = tracker.update(boxes_as_instances([(10, 10, 60, 200)]), source).ids[0]
    assert tracker.update(boxes_as_instances([(180, 10, 230, 200)]), source + 2).ids[0] == one
