"""Where pictures go: a video file, raw frames, a sheet of stills. Files appear under their name only when they are
complete."""

import fractions
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw

from streamgc.errors import InputError
from streamgc.rtc.opus import SAMPLE_RATE, Samples
from streamgc.rtc.pictures import Picture

LABEL_HEIGHT = 20
_CLOCK = 90_000
_SOUND_BITS = 64_000


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; the file gets its real name when the block ends well, and goes when it does
    not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def require_video_path(path: Path) -> None:
    """Raises InputError where no video of that name can be written."""
    temporary = _temporary(path)
    try:
        with av.open(str(temporary), "w") as container:
            container.add_stream("libx264", rate=15)
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")


def _unwritable(path: Path, error: OSError | ValueError) -> InputError:
    reason = (
        error.strerror
        if isinstance(error, OSError)
        else "its name does not say a format that takes H.264, such as .mp4 or .mkv"
    )
    return InputError(f"cannot write {path}: {reason or error}")


class VideoFile:
    """An H.264 file (mp4 or mkv by its name) of RGB pictures, each at its time, and AAC if it is to have sound.

    `with VideoFile(path, width, height, fps) as video: video.add(picture)`; raises `InputError` when it cannot be
    written.
    """

    def __init__(self, path: Path, width: int, height: int, fps: float, crf: int = 18, sound: bool = False) -> None:
        self._path, self._size, self._fps, self._crf = path, (width, height), fps, crf
        self._last = -1
        self._with_sound = sound
        self._heard = 0  # samples

    def __enter__(self) -> "VideoFile":
        self._appearing = appearing(self._path)
        try:
            self._temporary = self._appearing.__enter__()
            self._container = av.open(str(self._temporary), "w")
            rate = fractions.Fraction(self._fps).limit_denominator(1001)
            self._stream: Any = self._container.add_stream("libx264", rate=rate)
        except (OSError, ValueError) as error:  # ValueError: a name that says no format, or one without H.264
            raise _unwritable(self._path, error) from error
        self._stream.width, self._stream.height = (side - side % 2 for side in self._size)
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": str(self._crf), "preset": "veryfast"}
        self._stream.time_base = self._stream.codec_context.time_base = fractions.Fraction(1, _CLOCK)
        if self._with_sound:
            self._sound: Any = self._container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
            self._sound.bit_rate = _SOUND_BITS
        return self

    def add_sound(self, samples: Samples, at_s: float) -> None:
        """Append 48 kHz mono at `at_s` seconds; what is missing before it is filled with silence."""
        missing = round(at_s * SAMPLE_RATE) - self._heard
        if missing < -len(samples) // 2:
            return  # before the beginning
        if missing > SAMPLE_RATE // 20:  # less is the player's pace
            samples = np.concatenate([np.zeros(missing, np.int16), samples])
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, self._heard, fractions.Fraction(1, SAMPLE_RATE)
        self._heard += len(samples)
        self._container.mux(self._sound.encode(frame))

    def add(self, picture: Picture, at_s: float | None = None) -> None:
        """Append a picture (H, W, 3), at `at_s` seconds, or one frame after the last."""
        wanted = self._last + round(_CLOCK / self._fps) if at_s is None else round(at_s * _CLOCK)
        self._last = max(wanted, self._last + 1, 0)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts, frame.time_base = self._last, fractions.Fraction(1, _CLOCK)
        plain = frame.reformat(self._stream.width, self._stream.height, format="yuv420p")
        self._container.mux(self._stream.encode(plain))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._container.mux(self._stream.encode(None))
            if self._with_sound:
                self._container.mux(self._sound.encode(None))
        self._container.close()
        self._appearing.__exit__(kind, error, trace)


class RawFrames:
    """Pictures of one size as they are, one after the other: cheap enough to write during a call."""

    def __init__(self, path: Path, limit: int) -> None:
        self._file = path.open("wb")
        self._limit = limit
        self.count = 0

    def add(self, picture: Picture) -> int | None:
        """Append; returns the picture's place, or None when the limit is reached."""
        if self.count >= self._limit:
            return None
        self._file.write(np.ascontiguousarray(picture).data)
        self.count += 1
        return self.count - 1

    def close(self) -> None:
        self._file.close()


def read_raw(path: Path, height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """What `RawFrames` wrote, (N, H, W, 3) mapped from the file; empty when there is none."""
    count = path.stat().st_size // (height * width * 3) if path.is_file() else 0
    if not count:
        return np.zeros((0, height, width, 3), np.uint8)
    return np.memmap(path, np.uint8, "r", shape=(count, height, width, 3))


def side_by_side(pictures: Sequence[Picture], labels: Sequence[str]) -> Picture:
    """Pictures of one size beside each other, each under its label."""
    height, width = pictures[0].shape[:2]
    canvas = Image.new("RGB", (width * len(pictures), height + LABEL_HEIGHT), (24, 24, 24))
    draw = ImageDraw.Draw(canvas)
    for column, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        canvas.paste(Image.fromarray(picture), (column * width, LABEL_HEIGHT))
        draw.text((column * width + 6, 4), label, fill=(235, 235, 235))
    return np.asarray(canvas)


def write_sheet(path: Path, rows: Iterable[Picture]) -> None:
    """Rows of one width one below the other as a PNG."""
    stacked = np.concatenate(list(rows))
    with appearing(path) as temporary:
        Image.fromarray(stacked).save(temporary, format="PNG")


def write_bytes(path: Path, data: bytes) -> None:
    """A whole file at once."""
    with appearing(path) as temporary:
        temporary.write_bytes(data)
