"""scene.framing: a crop of the right aspect that follows people seldom and smoothly."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgc.errors import InputError
from streamgc.scene.framing import Crop, Framer, FramingSettings, largest_crop

Boxes = npt.NDArray[np.float32]
WIDE = (720, 1280)


def boxes(*values: tuple[float, float, float, float]) -> Boxes:
    return np.array(values, np.float32).reshape(-1, 4)


def settle(framer: Framer, where: Boxes, source: tuple[int, int], frames: int = 150) -> list[Crop]:
    return [framer.update(where, source) for _ in range(frames)]


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(64, 1300), st.integers(64, 1300)),
    st.sampled_from([(256, 256), (384, 640), (640, 384)]),
    st.lists(st.tuples(*[st.floats(-100, 1400)] * 4), max_size=3),
)
def test_a_crop_lies_inside_and_has_the_codes_aspect(
    source: tuple[int, int], coded: tuple[int, int], people: list[tuple[float, float, float, float]]
) -> None:
    framer = Framer(coded)
    for _ in range(4):
        crop = framer.update(boxes(*people), source)
        assert crop.left >= 0
        assert crop.top >= 0
        assert crop.left + crop.width <= source[1]
        assert crop.top + crop.height <= source[0]
        assert abs(crop.width * coded[0] - crop.height * coded[1]) <= max(coded)


def test_off_is_the_largest_crop_whoever_moves() -> None:
    framer = Framer((256, 256), FramingSettings(enabled=False))
    crops = {framer.update(boxes((x, 100, x + 100, 400)), WIDE) for x in range(0, 1000, 100)}
    assert crops == {largest_crop(WIDE, (256, 256))} == {Crop(280, 0, 720, 720)}


def test_a_portrait_source_gives_its_upper_part() -> None:
    crop = largest_crop((1280, 720), (256, 256))
    assert (crop.width, crop.height, crop.left) == (720, 720, 0)
    assert 0 < crop.top < 280


def test_a_small_person_is_followed_until_they_fill_the_crop_and_then_it_rests() -> None:
    framer = Framer((256, 256))
    person = boxes((900, 300, 1060, 720))
    crops = settle(framer, person, WIDE, 200)
    assert crops[-1].width < 0.85 * crops[0].width
    assert crops[-1].left <= 900
    assert crops[-1].left + crops[-1].width >= 1060
    assert len(set(crops[-60:])) == 1


def test_small_movements_move_nothing() -> None:
    framer = Framer((256, 256))
    rng = np.random.default_rng(0)
    centre = boxes((500, 150, 780, 720))
    settle(framer, centre, WIDE, 200)
    crops = [framer.update((centre + rng.normal(0, 8, 4)).astype(np.float32), WIDE) for _ in range(200)]
    assert len(set(crops)) <= 2


def test_a_walking_person_stays_inside_and_the_crop_glides() -> None:
    framer = Framer((256, 256))
    settle(framer, boxes((300, 250, 480, 720)), WIDE, 200)
    lefts, outside = [], 0
    for step in range(80):
        x = 300 + 8 * step
        crop = framer.update(boxes((x, 250, x + 180, 720)), WIDE)
        lefts.append(crop.left)
        outside += x < crop.left - 60 or x + 180 > crop.left + crop.width + 60
    assert lefts[-1] > lefts[0] + 200
    assert crop.left < x
    assert x + 180 < crop.left + crop.width
    assert max(abs(np.diff(lefts))) < 80
    assert outside == 0


def test_a_second_person_widens_it() -> None:
    framer = Framer((256, 256))
    alone = settle(framer, boxes((560, 300, 700, 700)), WIDE, 200)[-1]
    both = settle(framer, boxes((560, 300, 700, 700), (900, 300, 1040, 700)), WIDE, 100)[-1]
    assert both.width > alone.width
    assert both.left + both.width >= 1040


def test_nobody_widens_it_again() -> None:
    framer = Framer((256, 256))
    settle(framer, boxes((560, 300, 700, 700)), WIDE, 200)
    assert settle(framer, boxes(), WIDE, 200)[-1] == largest_crop(WIDE, (256, 256))


def test_boxes_and_pictures_go_there_and_back() -> None:
    crop = Crop(100, 50, 300, 300)
    where = boxes((120, 60, 200, 300))
    np.testing.assert_allclose(crop.to_source(crop.to_coded(where, 256, 256), 256, 256), where, atol=1e-3)
    ys, xs = np.mgrid[:400, :600]
    picture = np.stack([ys / 2, xs / 3, (ys + xs) / 5], 2).astype(np.uint8)
    back = crop.paste(crop.cut(picture, 256, 256), picture)
    assert np.abs(back.astype(int) - picture).max() <= 2
    np.testing.assert_array_equal(back[:, :100], picture[:, :100])


def test_a_new_camera_size_starts_with_its_largest_crop() -> None:
    framer = Framer((256, 256))
    settle(framer, boxes((560, 300, 700, 700)), WIDE, 200)
    assert framer.current((480, 640)) == largest_crop((480, 640), (256, 256))


def test_a_picture_too_small_is_an_input_error() -> None:
    with pytest.raises(InputError, match="too small"):
        Framer((256, 256)).current((8, 100))
