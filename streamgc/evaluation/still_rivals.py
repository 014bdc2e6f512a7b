"""Conventional still codecs at a quality: bytes and the decoded picture.

HEVC intra stands for BPG: 4:2:2, x265 at preset slow, no settings message; of its bytes the slices count, and
15 for what BPG's header holds (4 magic, 2 format, 2 + 2 size, 5 parameter sets) in place of the parameter sets.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from io import BytesIO
from typing import Any, NamedTuple

import av
import numpy as np
from PIL import Image, features

from streamgc.errors import BackendMissing, InputError
from streamgc.evaluation.clips import Frame

BPG_HEADER = 15
_PARAMETER_SETS = (32, 33, 34)
"""NAL unit types of HEVC's video, sequence and picture parameter sets."""


class CodedStill(NamedTuple):
    """What a picture costs in bytes, and what it then looks like."""

    size: int
    picture: Frame


class StillRival(NamedTuple):
    """A codec and the qualities that span 0.02 to 1 bit a pixel."""

    encode: Callable[[Frame, float], CodedStill]
    qualities: tuple[float, ...]


def hevc_intra(picture: Frame, quality: float) -> CodedStill:
    """BPG's equivalent at a quantiser (0…51). Raises BackendMissing without x265."""
    height, width = picture.shape[:2]
    even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    try:
        encoder = av.CodecContext.create("libx265", "w")
    except av.FFmpegError as error:
        raise BackendMissing(f"this PyAV has no libx265: {error}") from error
    encoder.height, encoder.width = even.shape[:2]
    encoder.pix_fmt = "yuv422p"
    encoder.time_base = Fraction(1, 25)
    parameters = f"qp={quality:g}:keyint=1:info=0:pools=1:frame-threads=1:log-level=none:range=full"
    encoder.options = {"preset": "slow", "x265-params": parameters}
    frame = av.VideoFrame.from_ndarray(even, format="rgb24").reformat(format="yuv422p", dst_color_range="JPEG")
    data = b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
    decoder = av.CodecContext.create("hevc", "r")
    frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    shown = np.asarray(frames[0].reformat(format="rgb24", src_color_range="JPEG").to_ndarray(), np.uint8)
    return CodedStill(_slice_bytes(data) + BPG_HEADER, shown[:height, :width])


def halved(codec: Callable[[Frame, float], CodedStill]) -> Callable[[Frame, float], CodedStill]:
    """A codec on pictures of half the size (Lanczos), shown at full size (bicubic): for rates below its own."""

    def encode(picture: Frame, quality: float) -> CodedStill:
        height, width = picture.shape[:2]
        half = (-(-width // 2), -(-height // 2))
        coded = codec(np.asarray(Image.fromarray(picture).resize(half, Image.Resampling.LANCZOS)), quality)
        shown = Image.fromarray(coded.picture).resize((width, height), Image.Resampling.BICUBIC)
        return CodedStill(coded.size, np.asarray(shown))

    return encode


def _slice_bytes(data: bytes) -> int:
    """Bytes of the NAL units that are no parameter sets, without start codes."""
    units = [unit.rstrip(b"\0") for unit in data.split(b"\0\0\1") if unit.strip(b"\0")]
    return sum(len(unit) for unit in units if unit[0] >> 1 & 63 not in _PARAMETER_SETS)


def _pillow(kind: str, **options: Any) -> Callable[[Frame, float], CodedStill]:
    def encode(picture: Frame, quality: float) -> CodedStill:
        settings = dict(options)
        if kind == "JPEG2000":
            settings |= {"quality_mode": "rates", "quality_layers": [quality], "irreversible": True}
        else:
            settings["quality"] = round(quality)
        buffer = BytesIO()
        try:
            Image.fromarray(picture).save(buffer, kind, **settings)
        except (OSError, KeyError) as error:
            raise BackendMissing(f"this Pillow cannot write {kind}: {error}") from error
        with Image.open(buffer) as image:
            return CodedStill(buffer.getbuffer().nbytes, np.asarray(image.convert("RGB")))

    return encode


RIVALS: dict[str, StillRival] = {
    "hevc": StillRival(hevc_intra, (51, 48, 45, 42, 39, 36, 33)),
    "hevc/2": StillRival(halved(hevc_intra), (51, 48, 45, 42, 39, 36)),
    "webp": StillRival(_pillow("WEBP", method=6), (0, 2, 5, 10, 20, 35, 50)),
    "jpeg2000": StillRival(_pillow("JPEG2000"), (960, 480, 320, 240, 160, 80, 40)),
    "avif": StillRival(_pillow("AVIF", speed=6, subsampling="4:2:0", max_threads=1), (0, 5, 10, 15, 22, 30, 40)),
    "jpeg": StillRival(_pillow("JPEG", optimize=True), (1, 3, 5, 8, 12, 20, 30)),
}


def rival(name: str) -> StillRival:
    """One of `RIVALS`. Raises InputError for an unknown name, BackendMissing for what this Pillow lacks."""
    if name not in RIVALS:
        raise InputError(f"unknown still codec {name!r}; there are: {', '.join(RIVALS)}")
    needed = {"webp": "webp", "avif": "avif", "jpeg2000": "jpg_2000"}.get(name)
    if needed is not None and not features.check(needed):
        raise BackendMissing(f"this Pillow was built without {name}")
    return RIVALS[name]
