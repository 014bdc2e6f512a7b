"""Whether what comes into a call is shown, and how soon: a drawn cup before the chest, a second person beside the
first.

It comes in from the edge of the picture, rests, and stays to the end; it is laid over a clip, so that the same clip
without it is known. Shown is a frame whose difference from what was sent, where the thing is, has fallen to
`SHOWN_SHARE` of the difference between the clips with and without it, which is what a picture without it has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from streamgc.errors import InputError
from streamgc.evaluation.clips import Clip, Frame
from streamgc.evaluation.person import Mask
from streamgc.evaluation.rivals import ClipCodec

SHOWN_SHARE = 0.25
"""Part of the difference without the thing up to which it counts as shown."""
CUP_PART, PERSON_PART = 0.27, 0.6
"""Height of the thing in parts of the picture's."""
CUP_SECONDS, PERSON_SECONDS = 0.4, 0.55
"""How long the thing is on its way."""
SHOWN_BEYOND = 10.0
"""Grey levels of difference that count as shown in any case."""


class Newcomer(NamedTuple):
    """A clip into which something comes."""

    clip: str
    thing: str
    frames: list[Frame]
    places: list[NDArray[np.bool_] | None]  # (H, W): where the thing is, by frame
    absent: list[float]  # mean difference there, in grey levels, between the clips with and without it
    enters: int
    rests: int


class Arrival(NamedTuple):
    """How one call shows it; frames count from the clip's beginning, seconds from when the thing enters or rests."""

    clip: str
    thing: str
    kbps: float
    after_entering: float  # seconds until shown; inf: never
    after_rest: float
    shown_since: float  # share of the frames from then on in which it is shown
    payload_kbps: float  # from the third second to the end

    def __str__(self) -> str:
        if math.isinf(self.after_entering):
            return f"{self.clip}  {self.thing} at {self.kbps:g} kbit/s: never shown"
        return (
            f"{self.clip}  {self.thing} at {self.kbps:g} kbit/s: shown {self.after_entering:.2f} s after it enters, "
            f"{self.after_rest:.2f} s after it rests, then in {self.shown_since:.0%} of the frames; "
            f"{self.payload_kbps:.1f} kbit/s from the third second on"
        )


class _Thing(Protocol):
    """A thing's picture (h, w, 3) and its opacity (h, w) in 0…1 in the n-th frame."""

    def __call__(self, index: int) -> tuple[Frame, NDArray[np.float32]]: ...


def with_cup(clip: Clip, at: float) -> Newcomer:
    """A red cup that rises before the chest ``at`` so many seconds. Raises InputError where that is not in the clip."""
    height, width = clip.frames[0].shape[:2]
    side = round(CUP_PART * height)
    picture = Image.new("RGB", (side, side))
    draw = ImageDraw.Draw(picture)
    red, unit = (200, 40, 30), side / 70
    draw.rectangle([round(unit * v) for v in (8, 5, 48, 64)], fill=red)
    draw.ellipse([round(unit * v) for v in (40, 18, 66, 48)], outline=red, width=round(7 * unit))
    draw.ellipse([round(unit * v) for v in (16, 22, 40, 46)], fill=(240, 240, 230))
    drawn = np.asarray(picture)
    opacity = (drawn.sum(2) > 0).astype(np.float32)
    steps = max(1, round(CUP_SECONDS * clip.fps))
    left, rise = (width - side) // 2, side * 15 // 14
    path = [(left, height - rise * min(n + 1, steps) // steps) for n in range(len(clip.frames))]
    return _laid_over(clip, "cup", lambda index: (drawn, opacity), path, at, steps)


def with_person(clip: Clip, second: Clip, selfie: Callable[[Frame], Mask], at: float) -> Newcomer:
    """The person of a ``second`` clip comes in from the right, smaller. Raises InputError as above."""
    height, width = clip.frames[0].shape[:2]
    side = round(PERSON_PART * height)

    def person(index: int) -> tuple[Frame, NDArray[np.float32]]:
        last = len(second.frames) - 1
        turn = index % max(1, 2 * last)  # there and back: no jump where the clip ends
        frame = second.frames[min(turn, 2 * last - turn)]
        mask = Image.fromarray(selfie(frame).astype(np.uint8) * 255).resize((side, side), Image.Resampling.BILINEAR)
        smaller = Image.fromarray(frame).resize((side, side), Image.Resampling.BILINEAR)
        return np.asarray(smaller), np.asarray(mask, np.float32) / np.float32(255)

    steps = max(1, round(PERSON_SECONDS * clip.fps))
    path = [(width - side * 3 * min(n + 1, steps) // (4 * steps), height - side) for n in range(len(clip.frames))]
    return _laid_over(clip, "person", person, path, at, steps)


def judge(
    newcomer: Newcomer, codec: ClipCodec, fps: int, kbps: float, ack_delay_ms: float = 130
) -> tuple[Arrival, list[Frame]]:
    """Code the clip: when the thing is shown, and the pictures that were."""
    coded = codec.encode(newcomer.frames, fps, kbps, ack_delay_ms)
    pictures, sizes = coded[0], coded[1]
    shown = [
        place is not None
        and float(np.abs(picture[place].astype(np.int16) - frame[place]).mean())
        <= max(SHOWN_BEYOND, SHOWN_SHARE * absent)
        for picture, frame, place, absent in zip(
            pictures, newcomer.frames, newcomer.places, newcomer.absent, strict=True
        )
    ]
    first = next((n for n in range(newcomer.enters, len(shown)) if shown[n]), None)
    steady = sizes[round(2 * fps) :]
    payload = sum(steady) * 8 * fps / 1000 / max(1, len(steady))
    if first is None:
        times = (math.inf, math.inf, 0.0)
    else:
        times = (
            (first - newcomer.enters) / fps,
            max(0, first - newcomer.rests) / fps,
            float(np.mean(shown[first:])),
        )
    return Arrival(newcomer.clip, newcomer.thing, kbps, *times, payload), pictures


def strip(newcomer: Newcomer, shown: Sequence[Frame], fps: int) -> Frame:
    """What was sent above what was shown, from when the thing enters: an RGB picture."""
    numbers = [newcomer.enters + round(seconds * fps) for seconds in (0.0, 0.3, 0.6, 1.0, 1.5, 2.5)]
    numbers = [n for n in numbers if n < len(shown)]
    return np.vstack([np.hstack([frames[n] for n in numbers]) for frames in (newcomer.frames, shown)])


def write_picture(path: Path, strips: Sequence[Frame]) -> None:
    """Strips under each other, as a PNG, through a temporary name; short clips' are filled up with black."""
    part = path.with_suffix(".part.png")
    widest = max(one.shape[1] for one in strips)
    Image.fromarray(np.vstack([np.pad(one, ((0, 0), (0, widest - one.shape[1]), (0, 0))) for one in strips])).save(part)
    part.replace(path)


def _laid_over(
    clip: Clip, thing: str, picture_of: _Thing, path: Sequence[tuple[int, int]], at: float, steps: int
) -> Newcomer:
    enters = round(at * clip.fps)
    if enters < 0:
        raise InputError(f"nothing can come in before the clip begins, after {at:g} seconds")
    if enters + steps >= len(clip.frames):
        raise InputError(f"{clip.name} ends before anything could come in after {at:g} seconds")
    frames = list(clip.frames)
    places: list[NDArray[np.bool_] | None] = [None] * len(frames)
    absent = [0.0] * len(frames)
    for number in range(enters, len(frames)):
        picture, opacity = picture_of(number - enters)
        left, top = path[number - enters]
        before = frames[number]
        inside = (slice(top, top + opacity.shape[0]), slice(left, left + opacity.shape[1]))
        height, width = before[inside].shape[:2]  # what lies beyond the edge is not seen
        part = opacity[:height, :width, None]
        after = before.copy()
        after[inside] = np.round(before[inside] * (1 - part) + picture[:height, :width] * part).astype(np.uint8)
        place = np.zeros(before.shape[:2], np.bool_)
        place[inside] = part[..., 0] > 0.5
        if place.any():
            places[number] = place
            absent[number] = float(np.abs(after[place].astype(np.int16) - before[place]).mean())
        frames[number] = after
    return Newcomer(clip.name, thing, frames, places, absent, enters, enters + steps - 1)
