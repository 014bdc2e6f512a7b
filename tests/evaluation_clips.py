"""A small made-up clip and its person, for the tests of the evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamgc.evaluation.clips import Clip, Frame, write_video

SIZE = 176


def scene(count: int = 6) -> list[Frame]:
    """A textured, slowly swaying head and shoulders before a steady room; RGB uint8 (176, 176, 3)."""
    random = np.random.default_rng(3)
    room = random.integers(60, 200, (11, 11, 3)).repeat(16, 0).repeat(16, 1)
    body = random.integers(0, 255, (88, 64, 3)).astype(np.float64)
    for _ in range(3):
        body = (body + np.roll(body, 1, 0) + np.roll(body, 1, 1) + np.roll(body, (1, 1), (0, 1))) / 4
    frames = []
    for index in range(count):
        frame = room.copy()
        left = 56 + round(6 * np.sin(index / 2))
        frame[88:, left : left + 64] = body
        frames.append(frame.astype(np.uint8))
    return frames


def person(frame: Frame) -> NDArray[np.bool_]:
    """A fixed box that holds the swaying body."""
    mask = np.zeros(frame.shape[:2], bool)
    height, width = frame.shape[:2]
    mask[height // 2 :, width * 5 // 16 : width * 11 // 16] = True
    return mask


def clip() -> Clip:
    """`scene` as a loaded clip."""
    return Clip("made-up.mp4", "0123456789abcdef", scene(), 15)


def clip_file(folder: Path, name: str = "made-up.mp4") -> Path:
    """`scene` as a file, at 15 frames a second."""
    write_video(folder / name, scene(), 15)
    return folder / name


class ToyCodec:
    """Quantises every picture the coarser the fewer kbit/s it gets, and claims exactly the bytes it was granted."""

    def encode(self, frames: list[Frame], fps: int, kbps: float, ack_delay_ms: float) -> tuple[list[Frame], list[int]]:
        step = max(2, round(200 / kbps))
        shown = [(frame // step * step + step // 2).astype(np.uint8) for frame in frames]
        return shown, [round(kbps * 125 / fps)] * len(frames)
