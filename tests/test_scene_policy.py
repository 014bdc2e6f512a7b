"""scene.policy: who is kept, who is the main person, and what happens when nobody is there."""

import numpy as np
import pytest

from streamgc.errors import InputError
from streamgc.scene.policy import Keep, KeepPolicy, Selector, parse_policy
from tests.scene_pictures import Box, boxes_as_instances

NEAR: Box = (70, 40, 190, 256)
FAR: Box = (200, 120, 240, 220)


def kept(selector: Selector, boxes: list[Box], ids: list[int]) -> list[int]:
    instances = boxes_as_instances(boxes)._replace(ids=np.array(ids, np.int32))
    chosen: list[int] = instances.ids[selector.select(instances).kept].tolist()
    return chosen


def test_all_keeps_everyone_and_main_only_the_large_one_in_the_middle() -> None:
    assert kept(Selector(KeepPolicy()), [FAR, NEAR], [0, 1]) == [0, 1]
    assert kept(Selector(KeepPolicy(Keep.MAIN)), [FAR, NEAR], [0, 1]) == [1]


def test_the_main_person_does_not_flip_for_a_passer_by() -> None:
    selector = Selector(KeepPolicy(Keep.MAIN))
    assert kept(selector, [NEAR], [0]) == [0]
    passer: Box = (40, 0, 220, 256)
    for _ in range(10):
        assert kept(selector, [NEAR, passer], [0, 1]) == [0]
    for _ in range(5):
        assert kept(selector, [NEAR], [0]) == [0]
    for _ in range(10):
        assert kept(selector, [NEAR, passer], [0, 1]) == [0]


def test_the_main_person_changes_once_when_another_leads_for_long() -> None:
    selector = Selector(KeepPolicy(Keep.MAIN, switch_frames=8))
    small: Box = (100, 100, 150, 200)
    kept(selector, [small], [0])
    history = [kept(selector, [small, NEAR], [0, 1])[0] for _ in range(20)]
    assert history == [0] * 7 + [1] * 13


def test_a_main_person_who_left_is_replaced_after_the_same_patience() -> None:
    selector = Selector(KeepPolicy(Keep.MAIN, switch_frames=4))
    kept(selector, [NEAR], [0])
    assert [kept(selector, [FAR], [7]) for _ in range(5)] == [[], [], [], [7], [7]]


def test_ids_and_classes_are_chosen() -> None:
    assert kept(Selector(parse_policy("id:1")), [FAR, NEAR], [0, 1]) == [1]
    instances = boxes_as_instances([FAR, NEAR])._replace(classes=np.array([63, 0], np.int32))
    assert Selector(parse_policy("laptop")).select(instances).kept.tolist() == [True, False]
    assert Selector(parse_policy("person, laptop")).select(instances).kept.tolist() == [True, True]


def test_weak_instances_are_nobody() -> None:
    assert not Selector(KeepPolicy()).select(boxes_as_instances([NEAR], scores=0.1)).kept.any()


def test_when_nobody_is_there_the_strength_is_held_and_then_falls_to_zero() -> None:
    selector = Selector(KeepPolicy(hold_frames=3, fade_frames=4))
    kept(selector, [NEAR], [0])
    gone = [selector.select(boxes_as_instances([])) for _ in range(9)]
    assert [s.strength for s in gone] == [1, 1, 1, 0.75, 0.5, 0.25, 0, 0, 0]
    assert gone[-1].idle_frames == 9
    assert (gone[-1].found, gone[-1].kept.tolist()) == (0, [])
    assert selector.select(boxes_as_instances([NEAR])).strength == 1


@pytest.mark.parametrize("text", ["", "id:x", "unicorn", "person,unicorn", ","])
def test_a_choice_that_cannot_be_read_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match="--preserve"):
        parse_policy(text)
