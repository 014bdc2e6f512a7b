"""Clips as the evaluation sees them: a centre square, resized by Lanczos, sampled at the call's frame rate."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamgc.errors import InputError
from streamgc.pipeline.clips import fit, read_clip

Frame = NDArray[np.uint8]
"""RGB picture, uint8 (H, W, 3)."""

VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".mpg", ".webm", ".avi", ".y4m", ".264", ".h264", ".ivf"})


class Clip(NamedTuple):
    """A loaded clip: `frames` are RGB uint8 (size, size, 3), `fps` frames of them a second."""

    name: str
    digest: str
    frames: list[Frame]
    fps: int


def read_frames(path: str | Path, size: int = 256, fps: int = 15, limit: int = 150) -> list[Frame]:
    """The first `limit` frames of a video, sampled at `fps` by the source's nominal rate (25 where it states none).

    The n-th frame taken is the first whose nominal time is not before n / fps, so a source slower than `fps` gives
    all its frames. Raises InputError where the file cannot be opened or holds no picture.
    """
    return [fit(picture, size, size) for picture in read_clip(path, fps, limit)]


def load_clip(path: str | Path, size: int = 256, fps: int = 15, limit: int = 150) -> Clip:
    """`read_frames` with the file's name and the first 16 hex digits of its SHA-256; raises InputError."""
    frames = read_frames(path, size, fps, limit)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    return Clip(Path(path).name, digest, frames, fps)


def read_decoded(path: str | Path, size: int = 256, fps: int = 15, limit: int = 150) -> list[Frame]:
    """A codec's pictures: a video, or a folder of PNG files in the order of their names; raises InputError."""
    source = Path(path)
    if not source.is_dir():
        return read_frames(source, size, fps, limit)
    files = sorted(source.glob("*.png"))
    if not files:
        raise InputError(f"{path}: no PNG files in it")
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


def write_video(path: Path, frames: list[Frame], fps: int, **options: Any) -> None:
    """Writes RGB frames with even sides as nearly transparent H.264 (CRF 16), through a temporary name."""
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    with av.open(str(temporary), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "16", "preset": "veryfast", **options})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    temporary.replace(path)
