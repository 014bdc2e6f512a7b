"""Clips as pictures: the one rule by which frames are sampled and cut, so that all figures speak of the same frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import av.error
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamgc.errors import InputError

Picture = NDArray[np.uint8]
SMALL = 1e-9
"""Seconds; against rounding when frames fall due."""


def read_clip(path: str | Path, fps: float, limit: int = 0) -> Iterator[Picture]:
    """RGB pictures (H, W, 3) of a video, sampled at ``fps``, at most ``limit`` of them (0 = all).

    The n-th is the first whose nominal time is not before n / ``fps``; a slower source gives all its frames.
    Raises InputError for what is no video or has no frame.
    """
    if not Path(path).is_file():
        raise InputError(f"no such file: {path}")
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"not a video: {path} ({reason(error)})") from None
    with container:
        if not container.streams.video:
            raise InputError(f"not a video: {path} (no video in it)")
        video = container.streams.video[0]
        source = float(video.average_rate or 25)
        due, taken = 0.0, 0
        try:
            for index, frame in enumerate(container.decode(video)):
                if index / source + SMALL >= due:
                    yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                    taken += 1
                    due += 1 / fps
                    if taken == limit:
                        return
        except av.error.FFmpegError as error:
            raise InputError(f"{path} is damaged after {taken} frames: {reason(error)}") from None
        if not taken:
            raise InputError(f"a video without frames: {path}")


def fit(picture: Picture, width: int, height: int) -> Picture:
    """The largest middle part of a picture (H, W, 3) in the shape asked for, scaled by Lanczos."""
    image = Image.fromarray(picture)
    factor = min(image.width / width, image.height / height)
    across, down = int(width * factor), int(height * factor)
    left, top = (image.width - across) // 2, (image.height - down) // 2
    part = image.crop((left, top, left + across, top + down))
    return np.asarray(part.resize((width, height), Image.Resampling.LANCZOS))


def reason(error: Exception) -> str:
    """What went wrong, without the path that PyAV repeats."""
    return str(getattr(error, "strerror", None) or error)
