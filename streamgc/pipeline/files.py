"""Clips to ``.sgcv`` files and back: what ``streamgc encode`` and ``streamgc decode`` do."""

from __future__ import annotations

import fractions
import shutil
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamgc.errors import InputError
from streamgc.pipeline.call_codec import Options, load_codec
from streamgc.pipeline.clips import fit, read_clip, reason
from streamgc.pipeline.networks import NetworkOptions
from streamgc.pipeline.offline import Stream, decode_file, encode_file, over_original

Picture = NDArray[np.uint8]
VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".webm")


def square_up(pictures: Iterator[Picture], width: int, height: int) -> Iterator[Picture]:
    """The middle of each picture in another shape."""
    for picture in pictures:
        yield fit(picture, width, height)


def encode_clip(clip: Path, stream: Path, options: Options, ack_delay_ms: float, limit: int = 0) -> list[int]:
    """Code ``clip`` into ``stream``; the bytes of each message. Without framing the middle of the picture is coded."""
    pictures = read_clip(clip, options.fps, limit)
    first = next(pictures)  # a bad clip is told before models are loaded
    codec = load_codec(options)
    whole = _chain(first, pictures)
    shown = codec.settings.shown
    return encode_file(whole if options.framing else square_up(whole, *shown), stream, codec, ack_delay_ms)


def decode_stream(
    stream: Path, target: Path, model: str, choice: NetworkOptions, original_background: Path | None = None
) -> int:
    """Decode ``stream`` into a folder of PNG files or a video; the number of pictures.

    Nothing is left behind when the stream turns out to be damaged. Raises BitstreamError, ModelMismatch, InputError.
    """
    opened = decode_file(stream, model, choice)
    pictures = _pictures(opened, original_background)
    if target.suffix.lower() in VIDEO_SUFFIXES:
        return write_video(target, pictures, opened.width, opened.height, opened.fps)
    return write_pngs(target, pictures)


def write_video(target: Path, pictures: Iterator[Picture], width: int, height: int, fps: float) -> int:
    """Write pictures as H.264, near lossless; the file appears when it is whole."""
    temporary = target.with_name(f".{target.stem}.partial{target.suffix}")
    count = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(temporary), "w") as container:
            rate = fractions.Fraction(fps).limit_denominator(1001)
            video = container.add_stream("libx264", rate=rate, options={"crf": "12", "preset": "veryfast"})
            video.width, video.height, video.pix_fmt = width, height, "yuv420p"
            for picture in pictures:
                container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                count += 1
            container.mux(video.encode(None))
        temporary.replace(target)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {reason(error)}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return count


def write_pngs(folder: Path, pictures: Iterator[Picture]) -> int:
    """Write 000000.png … into ``folder``, which must be new or empty; it appears when it is whole."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder")
    temporary = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    count = 0
    try:
        temporary.mkdir(parents=True)
        for picture in pictures:
            Image.fromarray(picture).save(temporary / f"{count:06d}.png")
            count += 1
        if folder.exists():
            folder.rmdir()
        temporary.replace(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {reason(error)}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return count


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all. Raises InputError."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {reason(error)}") from None


def _pictures(stream: Stream, original: Path | None) -> Iterator[Picture]:
    if original is None:
        for shown in stream.pictures:
            yield shown.picture
        return
    rooms = square_up(read_clip(original, stream.fps), stream.width, stream.height)
    for shown in stream.pictures:
        room = next(rooms, None)
        yield shown.picture if room is None else over_original(shown, room)


def _chain(first: Picture, rest: Iterator[Picture]) -> Iterator[Picture]:
    yield first
    yield from rest
