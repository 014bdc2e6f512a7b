"""Sender's own view and receiver on different engines and precisions: the same picture for as long as a call lasts."""

from __future__ import annotations

from itertools import cycle, islice

import numpy as np
import pytest

from streamgc.call.sources import packaged_clip
from streamgc.codec.message import Background
from streamgc.pipeline.call_codec import CallCodec, LoadedModels
from streamgc.pipeline.clips import read_clip
from streamgc.pipeline.files import square_up
from streamgc.pipeline.networks import NetworkOptions
from streamgc.pipeline.offline import encode_pictures
from streamgc.pipeline.settings import BLANK, PictureFormat, SenderSettings
from streamgc.profiling.spans import Spans

FORMAT = PictureFormat(256, 256)
FPS, SECONDS = 15, 60
EVERY = 8
"""Pictures between two that are compared."""


@pytest.mark.slow
def test_a_minute_on_different_engines_stays_together() -> None:
    pytest.importorskip("onnxruntime")
    clip = list(square_up(read_clip(packaged_clip(), FPS, 150), FORMAT.width, FORMAT.height))
    there_and_back = cycle([*clip, *clip[-2:0:-1]])
    settings = SenderSettings(FORMAT, FPS, 6.0, Background.REPLACE, framing=False)
    quiet = Spans(enabled=False)
    ours = CallCodec(LoadedModels("lite", FORMAT, NetworkOptions("openvino", "int8")), settings)
    theirs = CallCodec(LoadedModels("lite", FORMAT, NetworkOptions("onnxruntime", "fp32")), settings)
    near, far = ours.receiver(quiet), theirs.receiver(quiet)
    frames = encode_pictures(
        islice(there_and_back, FPS * SECONDS), ours.sender(quiet, live=False), ours.receiver(quiet), FPS, 130
    )
    apart: list[float] = []
    for number, frame in enumerate(frames):
        near.receive(frame.message)
        far.receive(frame.message)
        if number % EVERY:
            continue
        here, there = near.render(), far.render()
        assert here is not None
        assert there is not None
        inside = (frame.kept != BLANK).any(-1)
        apart.append(decibels(here.person, frame.kept, inside) - decibels(there.person, frame.kept, inside))
    differences = np.array(apart)
    assert abs(differences.mean()) <= 0.2
    # No trend: a straight line through the differences moves by less than 0.2 dB from the first to the last second.
    slope = np.polyfit(np.linspace(0, 1, len(differences)), differences, 1)[0]
    assert abs(slope) <= 0.2


def decibels(person: np.ndarray, truth: np.ndarray, inside: np.ndarray) -> float:
    """PSNR of the person layer (H, W, 4) where the sender kept the picture."""
    error = (person[..., :3].astype(float) - truth)[inside]
    return float(10 * np.log10(255**2 / np.square(error).mean()))
