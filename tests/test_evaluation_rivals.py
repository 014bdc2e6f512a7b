"""Conventional codecs in their real-time settings, through PyAV."""

import os

import numpy as np
import pytest

from streamgc.errors import InputError
from streamgc.evaluation.clips import Frame
from streamgc.evaluation.metrics import psnr
from streamgc.evaluation.ratio import payload_rate
from streamgc.evaluation.rivals import CONVENTIONAL, Coded, coded_at, conventional, variants
from tests.evaluation_clips import ToyCodec, person, scene


@pytest.mark.parametrize("name", sorted(CONVENTIONAL))
def test_each_gives_a_picture_and_a_message_for_every_frame(name: str) -> None:
    frames = scene(8)
    coded = conventional(name).encode(frames, 15, 100)
    assert len(coded.frames) == len(coded.sizes) == len(frames)
    assert min(coded.sizes) > 0
    assert {picture.shape for picture in coded.frames} == {frames[0].shape}
    scores = [psnr(a, b) for a, b in zip(frames, coded.frames, strict=True)]
    assert min(scores) > 20
    assert scores[5] > psnr(frames[5], coded.frames[2]), "pictures come in the order of the frames"
    assert coded.encode_ms is not None
    assert coded.encode_ms > 0


def test_more_bits_buy_a_better_picture() -> None:
    frames = scene(8)
    low, high = (conventional("svtav1").encode(frames, 15, kbps) for kbps in (10, 200))
    assert sum(low.sizes) < sum(high.sizes)
    assert psnr(frames[6], low.frames[6]) < psnr(frames[6], high.frames[6])


def test_the_environment_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SVT_LOG", raising=False)
    conventional("svtav1").encode(scene(2), 15, 20)
    assert "SVT_LOG" not in os.environ
    monkeypatch.setenv("SVT_LOG", "2")
    conventional("svtav1").encode(scene(2), 15, 20)
    assert os.environ["SVT_LOG"] == "2"


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(InputError, match="vp7"):
        conventional("vp7")


def test_another_preset_of_av1() -> None:
    assert conventional("svtav1", 9).settings.options["preset"] == "9"
    assert CONVENTIONAL["svtav1"].options["preset"] == "6"


def test_av1_gets_our_information_too() -> None:
    frames = scene(2)
    given = variants(frames, [person(frame) for frame in frames])
    assert given["raw"].frames is frames
    flat, mask = given["person-only"].frames[0], person(frames[0])
    assert np.array_equal(flat[mask], frames[0][mask])
    assert set(np.unique(flat[~mask])) == {128}
    small = given["person-only-192"]
    assert small.frames[0].shape == (192, 192, 3)
    assert small.restore(np.zeros((96, 96, 3), np.uint8)).shape == frames[0].shape


class Overshooting:
    """Spends twice what it is asked for, plus a floor; refuses less than 0.5 kbit/s."""

    def __init__(self, floor: float) -> None:
        self.floor = floor
        self.asked: list[float] = []

    def encode(self, frames: list[Frame], fps: int, kbps: float, ack_delay_ms: float) -> Coded:
        self.asked.append(kbps)
        if kbps < 0.5:
            raise InputError("too little")
        return Coded(frames, [round((2 * kbps + self.floor) * 125 / fps)] * len(frames))


def test_a_codec_that_overshoots_is_asked_for_less() -> None:
    codec = Overshooting(1)
    coded, asked = coded_at(codec, scene(4), 15, 10)
    assert payload_rate(coded.sizes, 15).kbps == pytest.approx(10, rel=0.06)
    assert asked == pytest.approx(4.5, rel=0.1)


def test_a_floor_that_no_target_passes_gives_the_nearest() -> None:
    codec = Overshooting(8)
    coded, asked = coded_at(codec, scene(4), 15, 3)
    assert codec.asked == pytest.approx([3, 1, 1 / 3])
    assert asked == 1
    assert payload_rate(coded.sizes, 15).kbps == pytest.approx(10, rel=0.02)


def test_a_codec_that_refuses_at_once_says_so() -> None:
    with pytest.raises(InputError, match="too little"):
        coded_at(Overshooting(0), scene(4), 15, 0.4)


def test_a_plain_pair_is_a_coding() -> None:
    coded, asked = coded_at(ToyCodec(), scene(4), 15, 6)
    assert asked == 6
    assert coded.sizes == [50] * 4
    assert coded.encode_ms is None
