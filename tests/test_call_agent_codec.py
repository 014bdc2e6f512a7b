"""The agent's codec between two pictures: what the page asks for holds for every way the pictures leave."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from streamgc.call.agent_codec import AgentCodec, LookedAt
from streamgc.pipeline.settings import PictureFormat
from streamgc.profiling.spans import Spans
from streamgc.scene.instances import Instances, nobody
from tests.rtc_fakes import FakeCodec
from tests.scene_pictures import boxes_as_instances

Picture = npt.NDArray[np.uint8]
PICTURE = np.zeros((64, 64, 3), np.uint8)


def test_a_click_where_nobody_is_finds_nobody() -> None:
    eyes = LookedAt(lambda frame: nobody(64, 64, None), PictureFormat(64, 64), "all", False)
    assert eyes.person_at(0.5, 0.5) is None  # nothing has been looked at
    eyes.look(PICTURE)
    assert eyes.person_at(0.5, 0.5) is None


def test_a_click_on_somebody_finds_them() -> None:
    def segment(frame: Picture) -> Instances:
        return boxes_as_instances([(0, 0, 30, 64), (34, 0, 64, 64)], 64, 64)

    eyes = LookedAt(segment, PictureFormat(64, 64), "all", False)
    eyes.look(PICTURE)
    left, right = eyes.person_at(0.2, 0.5), eyes.person_at(0.8, 0.5)
    assert {left, right} == {0, 1}
    assert eyes.person_at(0.5, 0.5) is None


def test_pictures_for_vp8_follow_background_and_policy() -> None:
    class Counting(FakeCodec):
        made = 0

        def conventional(self) -> Callable[[Picture], Picture]:
            self.made += 1
            return lambda picture: picture

    inner = Counting(shape=(64, 64))
    codec = AgentCodec(inner, "memory", "all", False)
    fit = codec.conventional()
    assert fit is not None
    fit(PICTURE)
    fit(PICTURE)
    codec.set_preserve("main")
    fit(PICTURE)
    codec.set_background("private")
    fit(PICTURE)
    fit(PICTURE)
    assert inner.made == 3


def test_people_keep_their_ids_over_a_reconnection() -> None:
    boxes = [(0, 0, 30, 64), (34, 0, 64, 64)]

    def segment(frame: Picture) -> Instances:
        return boxes_as_instances(boxes, 64, 64)

    eyes = LookedAt(segment, PictureFormat(64, 64), "all", False)
    for _ in range(3):
        eyes.look(PICTURE)
    left, right = eyes.person_at(0.2, 0.5), eyes.person_at(0.8, 0.5)
    eyes.renew(f"id:{right}", Spans(enabled=False))
    boxes.reverse()  # a segmenter's order says nothing
    for _ in range(3):
        kept = eyes.look(PICTURE)
    assert (eyes.person_at(0.2, 0.5), eyes.person_at(0.8, 0.5)) == (left, right)
    assert kept.matte[32, 50] > 128 > kept.matte[32, 10], "the one who was picked is kept, and nobody else"
