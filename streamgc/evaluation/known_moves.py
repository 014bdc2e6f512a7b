"""Do eyes and mouth go where the sender's go, when these move by known amounts?

In most clips eyes move by half a pixel, and a correlation over them says little. Here a clip's own face is moved: the
irises to and fro, lids that blink, lips that open and close, each at a pace of its own (`training/face_moves.py`,
on which a model may have been trained, with other people). What is sent and what is shown are measured as
in `expression.py` and laid against the moves, what goes with the face's own motion left out of both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgc.errors import InputError
from streamgc.evaluation.clips import Clip, Frame
from streamgc.evaluation.expression import Expression, expression
from streamgc.evaluation.faces import FaceFinder
from streamgc.evaluation.ratio import payload_rate
from streamgc.evaluation.rivals import ClipCodec
from streamgc.training.face_moves import Expression as Move
from streamgc.training.face_moves import moved

Floats = NDArray[np.float64]
GAZE, LIPS, LIDS = 0.09, 0.55, 0.85
"""How far irises move to either side, in distances of the eyes; how far lips open, and lids close (`face_moves`)."""
GAZE_S, LIPS_S, BLINK_S, BLINK_LASTS_S = 2.3, 0.9, 1.7, 0.3
"""Seconds from one to the next, and how long a blink lasts: no two go together."""
SETTLED_S = 1.0
"""The first second is the start's; what is shown in it is not measured."""
HEARD = 0.3
"""Where what was sent goes together with the moves by less, nothing can be said of what is shown."""
LEAST = 20
"""Fewer frames with a face say nothing."""


class Following(NamedTuple):
    """How one part goes with the moves."""

    sent: float
    """Correlation of the moves with what is measured in what was sent: the most that can be hoped for."""
    shown: float
    """The same in what is shown."""
    reach: float
    """How far what is shown goes, in parts of how far what was sent goes (the ratio of the slopes over the moves)."""

    def __str__(self) -> str:
        if self.sent < HEARD:
            return f"not measurable ({self.sent:.2f} in what was sent)"
        return f"{self.shown:.2f} of {self.sent:.2f} ({self.reach:.0%} as far)"


class MovedFaces(NamedTuple):
    """A clip whose face has been moved."""

    clip: str
    frames: list[Frame]
    moves: list[Move]
    faces: list[object]  # dlib's rectangle in each frame, None where there is no face
    own: list[Expression | None]  # of the face before it was moved


class Judgement(NamedTuple):
    """Of one clip at one rate."""

    clip: str
    kbps: float
    payload_kbps: float
    frames: int
    gaze: Following
    lids: Following
    lips: Following

    def __str__(self) -> str:
        parts = ", ".join(
            f"{name} {part}" for name, part in (("gaze", self.gaze), ("lids", self.lids), ("lips", self.lips))
        )
        return f"{self.clip} at {self.kbps:g} ({self.payload_kbps:.1f}) kbit/s, {self.frames} faces: {parts}"


def move_at(seconds: float) -> Move:
    """What a face does at a time."""
    blink = seconds % BLINK_S
    lids = LIDS * math.sin(math.pi * blink / BLINK_LASTS_S) if blink < BLINK_LASTS_S else 0.0
    lips = LIPS * (0.5 - 0.5 * math.cos(2 * math.pi * seconds / LIPS_S))
    return Move(gaze=(GAZE * math.sin(2 * math.pi * seconds / GAZE_S), 0.0), lids=lids, lips=lips)


def with_moves(clip: Clip, finder: FaceFinder) -> MovedFaces:
    """The clip's largest face, moved. Raises InputError where too few frames after the first second show one."""
    frames, moves, faces = [], [], []
    own: list[Expression | None] = []
    for number, frame in enumerate(clip.frames):
        move, box = move_at(number / clip.fps), finder.largest(frame)
        moves.append(move)
        faces.append(box)
        own.append(None if box is None else expression(frame, finder.contours(frame, box)))
        if box is None:
            frames.append(frame)
            continue
        found = finder.points(frame, box)
        numbers = np.array([*found.left_eye, *found.right_eye, *found.mouth, found.eye_distance], np.float32)
        frames.append(moved(frame, numbers, move))
    if sum(box is not None for box in faces[round(SETTLED_S * clip.fps) :]) < LEAST:
        raise InputError(f"{clip.name} shows a face in fewer than {LEAST} frames after the first second")
    return MovedFaces(clip.name, frames, moves, faces, own)


def judge_moves(
    made: MovedFaces, finder: FaceFinder, codec: ClipCodec, fps: int, kbps: float, ack_delay_ms: float = 130
) -> tuple[Judgement, list[Frame]]:
    """Code it: how eyes and mouth follow, and the pictures that were shown."""
    coded = codec.encode(made.frames, fps, kbps, ack_delay_ms)
    pictures, sizes = coded[0], coded[1]
    numbers = [n for n in range(round(SETTLED_S * fps), len(pictures)) if made.faces[n] is not None]
    sent, shown = (
        [expression(frames[n], finder.contours(frames[n], made.faces[n])) for n in numbers]
        for frames in (made.frames, pictures)
    )
    moves, own = [made.moves[n] for n in numbers], [made.own[n] for n in numbers]
    asked = {"gaze": [m.gaze[0] for m in moves], "lids": [-m.lids for m in moves], "lips": [m.lips for m in moves]}
    parts = [_following(asked[part], _of(own, part), _of(sent, part), _of(shown, part)) for part in asked]
    return Judgement(made.clip, kbps, payload_rate(sizes, fps).kbps, len(numbers), *parts), pictures


def _of(faces: Sequence[Expression | None], part: str) -> Floats:
    return np.array([float(getattr(face, part)) for face in faces])


def _following(moves: list[float], own: Floats, sent: Floats, shown: Floats) -> Following:
    asked = _without(np.asarray(moves), own)
    (first, slope), (second, other) = _against(asked, _without(sent, own)), _against(asked, _without(shown, own))
    return Following(first, second, other / slope if abs(slope) > 1e-6 else math.nan)


def _without(values: Floats, own: Floats) -> Floats:
    """What is left of values when their mean and what goes together with the face's own motion are taken out."""
    values, own = values - values.mean(), own - own.mean()
    return values - own * float(values @ own) / max(1e-12, float(own @ own))


def _against(asked: Floats, seen: Floats) -> tuple[float, float]:
    """Correlation with the moves, and slope over them."""
    together = float(asked @ seen)
    length = float(asked @ asked)
    return together / max(1e-12, math.sqrt(length * float(seen @ seen))), together / max(1e-12, length)


def strip_of(made: MovedFaces, shown: Sequence[Frame], fps: int) -> Frame:
    """What was sent above what was shown, eight moments of two and a half seconds: an RGB picture."""
    start = min(round(2 * SETTLED_S * fps), max(0, len(shown) - 1))
    numbers = [n for n in (start + round(index * 0.32 * fps) for index in range(8)) if n < len(shown)]
    return np.vstack([np.hstack([frames[n] for n in numbers]) for frames in (made.frames, shown)])
