"""Codecs behind one interface, and the conventional ones in the settings a real-time call would use.

None of them is held back: no frame may wait for a later one (zero latency, no B frames, no look-ahead), beyond
that each runs at the slowest preset that encodes 256 x 256 within our own milliseconds on one thread, with one key
picture at the start and rate control free to spend bits where it likes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import NamedTuple, Protocol, cast

import av
import numpy as np
from PIL import Image

from streamgc.errors import BackendMissing, InputError
from streamgc.evaluation.clips import Frame
from streamgc.evaluation.person import Mask
from streamgc.evaluation.ratio import payload_rate


class Coded(NamedTuple):
    """A coded clip: one picture a source frame, the bytes of every message, and milliseconds a frame where known."""

    frames: list[Frame]
    sizes: list[int]
    encode_ms: float | None = None
    decode_ms: float | None = None


class ClipCodec(Protocol):
    """Anything that can code a clip; SGC's own implementation lives in the pipeline."""

    def encode(
        self, frames: list[Frame], fps: int, kbps: float, ack_delay_ms: float
    ) -> Coded | tuple[list[Frame], list[int]]:
        """Decoded pictures and message sizes in bytes, one each a frame; `Coded` also tells the milliseconds."""


class Settings(NamedTuple):
    """One conventional codec: FFmpeg's encoder and decoder with the options that are passed to the encoder."""

    encoder: str
    decoder: str
    options: dict[str, str]


_VPX = {"deadline": "realtime", "lag-in-frames": "0", "auto-alt-ref": "0", "error-resilient": "0", "threads": "1"}

CONVENTIONAL = {
    "svtav1": Settings("libsvtav1", "libdav1d", {"preset": "6", "svtav1-params": "pred-struct=1:rc=2"}),
    "vp9": Settings("libvpx-vp9", "vp9", {**_VPX, "cpu-used": "5", "aq-mode": "3"}),
    "vp8": Settings("libvpx", "vp8", {**_VPX, "cpu-used": "-1"}),
    "x265": Settings(
        "libx265",
        "hevc",
        {"preset": "slow", "tune": "zerolatency", "x265-params": "pools=1:frame-threads=1:log-level=none"},
    ),
    "x264": Settings("libx264", "h264", {"preset": "medium", "tune": "zerolatency", "threads": "1"}),
}


class ConventionalCodec:
    """A `ClipCodec` over FFmpeg's encoders inside the PyAV wheel."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def _encoder(self, frame: Frame, fps: int, kbps: float) -> av.VideoCodecContext:
        try:
            encoder = cast(av.VideoCodecContext, av.CodecContext.create(self.settings.encoder, "w"))
        except av.FFmpegError as error:
            raise BackendMissing(f"this PyAV has no {self.settings.encoder}: {error}") from error
        encoder.height, encoder.width = frame.shape[:2]
        encoder.pix_fmt = "yuv420p"
        encoder.time_base = Fraction(1, fps)
        encoder.framerate = Fraction(fps, 1)
        encoder.bit_rate = int(kbps * 1000)
        encoder.gop_size = 3000
        encoder.options = self.settings.options
        return encoder

    def encode(self, frames: list[Frame], fps: int, kbps: float, ack_delay_ms: float = 0) -> Coded:
        """Codes and decodes a clip; `ack_delay_ms` does not matter to codecs that predict from what they sent.

        Raises BackendMissing (encoder not in this build) or InputError (settings it refuses).
        """
        encoder = self._encoder(frames[0], fps, kbps)
        decoder = cast(av.VideoCodecContext, av.CodecContext.create(self.settings.decoder, "r"))
        pictures: list[Frame] = []
        sizes: list[int] = []
        encode_time = decode_time = 0.0
        try:
            for index in range(len(frames) + 1):
                picture = _to_yuv(frames[index], index, encoder.time_base) if index < len(frames) else None
                started = time.perf_counter()
                packets = list(encoder.encode(picture))
                encode_time += time.perf_counter() - started
                sizes.extend(packet.size for packet in packets)
                started = time.perf_counter()
                decoded = [frame for packet in packets for frame in decoder.decode(packet)]
                decoded += decoder.decode(None) if picture is None else []
                decode_time += time.perf_counter() - started
                pictures.extend(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in decoded)
        except av.FFmpegError as error:
            raise InputError(f"{self.settings.encoder} at {kbps:g} kbps: {error}") from error
        per_frame = 1000 / len(frames)
        return Coded(pictures, sizes, encode_time * per_frame, decode_time * per_frame)


def coded_at(
    codec: ClipCodec, frames: list[Frame], fps: int, kbps: float, ack_delay_ms: float = 0, tries: int = 6
) -> tuple[Coded, float]:
    """The coding whose actual payload comes nearest to `kbps`, and the rate the codec was asked for to get it.

    At a few kbit/s every conventional rate control misses its target, so it is asked again until within 5 %, at
    most `tries` times. What no target reaches (a codec's coarsest quantiser) is left at the nearest found, and a
    target it refuses or meets only by dropping frames ends the search. Raises what the codec raises at `kbps`.
    """
    asked = kbps
    found: list[tuple[float, float, Coded]] = []
    for _ in range(tries):
        try:
            coded = Coded(*codec.encode(frames, fps, asked, ack_delay_ms))
            actual = payload_rate(coded.sizes, fps).kbps
        except InputError:
            if not found:
                raise
            break
        if len(coded.frames) != len(frames) and found:
            break
        miss = abs(math.log(max(actual, 0.01) / kbps))
        found.append((miss, round(asked, 3), coded))
        if miss < 0.05:
            break
        asked *= min(3.0, max(1 / 3, kbps / max(actual, 0.01)))
    _, best_asked, best = min(found, key=lambda entry: entry[0])
    return best, best_asked


def _to_yuv(frame: Frame, index: int, time_base: Fraction) -> av.VideoFrame:
    picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
    picture.pts = index
    picture.time_base = time_base
    return picture


def _resized(frame: Frame, size: int) -> Frame:
    return np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.LANCZOS))


class Variant(NamedTuple):
    """What a conventional codec is given of a clip, and how its pictures become pictures of the clip's size."""

    frames: list[Frame]
    restore: Callable[[Frame], Frame]


def variants(frames: list[Frame], masks: Iterable[Mask]) -> dict[str, Variant]:
    """AV1 with our information: the raw frames, the person over a flat background, and that at 192 x 192."""
    flat = [np.where(mask[..., None], frame, np.uint8(128)) for frame, mask in zip(frames, masks, strict=True)]
    size = frames[0].shape[0]
    return {
        "raw": Variant(frames, lambda picture: picture),
        "person-only": Variant(flat, lambda picture: picture),
        "person-only-192": Variant([_resized(f, 192) for f in flat], lambda picture: _resized(picture, size)),
    }


def conventional(name: str, preset: int | None = None) -> ConventionalCodec:
    """One of `CONVENTIONAL` by name, SVT-AV1 at another preset if asked; raises InputError for an unknown name."""
    if name not in CONVENTIONAL:
        raise InputError(f"unknown codec {name!r}; known: sgc, {', '.join(CONVENTIONAL)}")
    settings = CONVENTIONAL[name]
    if name == "svtav1" and preset is not None:
        settings = settings._replace(options={**settings.options, "preset": str(preset)})
    return ConventionalCodec(settings)
