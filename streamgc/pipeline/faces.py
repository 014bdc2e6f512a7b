"""The face of a call: the sender says what its eyes and mouth do, the receiver paints it.

It is the face that is seen most surely, followed while it is there. Its pose is kept while it is nearly right: the
networks have learned from faces that are cut out a little beside their place. The same face is looked for in the key,
which E and G see with it at the picture's pose (`alignment`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgc.codec.face import FACE_SYMBOLS, FaceCode, FacePose
from streamgc.codec.face_coding import choose_face_symbols
from streamgc.codec.symbols import Code
from streamgc.codec.tables import Tables
from streamgc.pipeline.alignment import Aligned, Aligner
from streamgc.pipeline.face import LEAST_SIZE, Place, cut_out, paint, place_at, place_within, pose_of
from streamgc.pipeline.networks import Picture, Runs

Floats = NDArray[np.float32]
LOCATOR, READER, PAINTER = "face_locator", "face_encoder", "face_painter"
"""Roles of the networks in a call model; one without them codes no face."""
PLACE_SIDE, USUAL_DISTANCE = 8, 32.0
"""The locator says for each square of so many pixels whether a face's middle is there, and of which size, beside one
with so many pixels between the eyes."""
APPEARS, STAYS = 0.3, 0.15
"""A face is there that the locator is so sure of; one that was followed, at less."""
FOLLOWED = 1.6
"""Of another face the locator must be so many times surer than of the one that is followed."""
SMALLEST, MOST_TURNED = 14.0, 0.75
"""Pixels between the eyes, and radians, beyond which a face is left to the code."""
SMALLEST_HOME = 12.0
"""A face in a key may be smaller: it is only moved."""
HOMES = 8
"""So many keys are remembered; two or three are in use."""
NEARLY = (0.06, 0.05, 0.06)
"""A pose is kept while it is no further off: in distances of the eyes, in the logarithm of that distance, in radians;
and of one that is not, what is off by less than half of this."""
LEAST_OFF = 2.0
"""So many pixels are no matter, of however small a face."""
LOOK_EVERY = 6
"""Pictures from one search for faces to the next; between them the one that is followed says itself where it is."""
STRAYED = (0.25, 0.2, 0.25)
"""A face that has moved further than this from one picture to the next, in the units of `NEARLY`, is searched."""
MOST_STRENGTH = 0.12
"""λ for numbers is no more: what is painted by numbers of long ago is worse than what G makes without them."""
NUMBER_WEIGHTS = (0.6, 0.2, 0.35, 0.1, 0.35, 0.12)
"""What a squared error of each number weighs, where one of a symbol of the code weighs 1 in the mean: gaze, gaze down,
lids, their difference, lips, width of the mouth."""
USUAL_SIZE = 30.0
"""That holds for faces whose eyes are at least so many pixels apart; in a smaller one they weigh less, as its area."""


class Read(NamedTuple):
    """What a face does, and where it is."""

    numbers: Floats
    """(6,), unrounded."""
    place: Place


class FaceReader:
    """The sender's networks."""

    def __init__(self, locator: Runs, reader: Runs) -> None:
        self._locator, self._reader = locator, reader

    def places(self, picture: Picture) -> list[tuple[float, Place]]:
        """Where in a blanked picture (H, W, 3) faces may be, and how sure that is, 0..1; each face once."""
        out = np.asarray(self._locator.run({"picture": picture[None]})["places"][0], np.float32)
        sure = 1 / (1 + np.exp(-out[0].clip(-30, 30)))
        found = []
        while sure.max() >= STAYS:
            row, column = (int(at) for at in np.unravel_index(int(sure.argmax()), sure.shape))
            height = float(sure[row, column])
            place = _place(out, row, column, sure)
            reach = max(1, round(place.distance / PLACE_SIDE))
            sure[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1] = 0
            found.append((height, place))
        return found

    def read(self, picture: Picture, place: Place) -> Read:
        """What the face does, and where it is, that was looked for at a place of a blanked picture."""
        out = self._reader.run({"face": cut_out(picture, place)[None]})
        left, right, _ = np.asarray(np.nan_to_num(out["centres"][0]), np.float64)
        return Read(np.asarray(np.nan_to_num(out["numbers"][0]), np.float32), place_within(place, left, right))


class FaceWatcher:
    """Follows one face through a sender's pictures. Not thread-safe: one sender owns it."""

    def __init__(self, networks: FaceReader) -> None:
        self._networks = networks
        self._pose: FacePose | None = None
        self._numbers = np.zeros(FACE_SYMBOLS, np.float32)
        self._unsearched = LOOK_EVERY
        self._homes: list[tuple[Picture, FacePose | None]] = []
        self._aligner = Aligner()

    def look(self, kept: Picture, matte: NDArray[np.uint8], key: Picture) -> Aligned:
        """Find the face in a blanked picture (H, W, 3) with its ``matte`` (H, W), and in the ``key`` (H, W, 3), the
        same array for the same key; the key with its face where the picture's is."""
        self._unsearched += 1
        searched = self._pose is None or self._unsearched >= LOOK_EVERY
        if searched:
            self._search(kept)
        if self._pose is not None and not self._follow(kept) and not searched:
            self._search(kept)
            if self._pose is not None:
                self._follow(kept)
        if self._pose is None:
            return Aligned(key, None, 0)
        return self._aligner.choose(kept, matte, self._pose, self._home(key, place_at(self._pose)), key)

    def code(self, key: Aligned, reference: Code | None, age: int, tables: Tables, strength: float) -> FaceCode | None:
        """Of the picture that was looked at last, coded with ``key``, against what the receiver holds; None where there
        is no face. ``strength``: λ as in `quantise`."""
        if self._pose is None:
            return None
        size = place_at(self._pose).distance
        before = None if reference is None else reference.face
        weight = np.array(NUMBER_WEIGHTS, np.float32) * min(1.0, size / USUAL_SIZE) ** 2
        symbols = choose_face_symbols(self._numbers, before, age, tables, min(strength, MOST_STRENGTH), weight)
        return FaceCode(self._pose, symbols, key.home, key.reach)

    def _follow(self, kept: Picture) -> bool:
        """Read the face where it was, or where it says that it is now; whether it was there."""
        assert self._pose is not None
        shape = kept.shape[:2]
        was = place_at(self._pose)
        self._numbers, place = self._networks.read(kept, was)
        if _within(was, place, NEARLY):
            return True
        if not _within(was, place, STRAYED) or not _codable(place, SMALLEST):
            return False
        self._pose = _moved(self._pose, was, place, shape)
        self._numbers, _ = self._networks.read(kept, place_at(self._pose))
        return True

    def _home(self, key: Picture, now: Place) -> FacePose | None:
        """Where the face that is at a place now is in a key: of several there the nearest."""
        for known, home in self._homes:
            if known is key:
                return home
        found = self._networks.places(key)
        faces = [place for sure, place in found if sure >= APPEARS and _codable(place, SMALLEST_HOME)]
        nearest = min(faces, key=lambda place: math.hypot(place.x - now.x, place.y - now.y), default=None)
        home = None if nearest is None else pose_of(self._refined(key, nearest), *key.shape[:2])
        self._homes = [(key, home), *self._homes[: HOMES - 1]]
        return home

    def _refined(self, picture: Picture, place: Place) -> Place:
        """Where a face is that was found: as it says itself, as the face that is followed does."""
        itself = self._networks.read(picture, place).place
        return itself if _within(place, itself, STRAYED) else place

    def _search(self, kept: Picture) -> None:
        """Where the face is now."""
        self._unsearched = 0
        place = self._followed(self._networks.places(kept))
        if place is None:
            self._pose = None
        elif self._pose is None or not _within(place_at(self._pose), place, STRAYED):
            if self._pose is None or not _same(place_at(self._pose), place):
                self._homes = []  # of another face
            self._pose = pose_of(self._refined(kept, place), *kept.shape[:2])

    def _followed(self, places: list[tuple[float, Place]]) -> Place | None:
        """The surest; rather the one that was followed."""
        best, surest = None, 0.0
        for sure, place in places:
            same = self._pose is not None and _same(place_at(self._pose), place)
            value = sure * (FOLLOWED if same else 1.0)
            if value > surest and (same or sure >= APPEARS):
                best, surest = place, value
        # Where the surest is too small none is coded, rather than a less sure one: a shirt that is printed with a face.
        return best if best is not None and _codable(best, SMALLEST) else None


class FacePainter:
    """The receiver's network."""

    def __init__(self, painter: Runs) -> None:
        self._painter = painter

    def paint(self, person: NDArray[np.uint8], face: FaceCode) -> NDArray[np.uint8]:
        """A copy of what G made, (H, W, 4), whose face does what its code says."""
        place = place_at(face.pose)
        shown = cut_out(np.ascontiguousarray(person[..., :3]), place)
        feeds: dict[str, NDArray[np.generic]] = {"face": shown[None], "numbers": face.symbols[None].astype(np.float32)}
        return paint(person, place, np.asarray(self._painter.run(feeds)["change"][0], np.uint8))


def _place(out: Floats, row: int, column: int, sure: Floats) -> Place:
    """Mean of what the squares around one say of the same face."""
    rows = slice(max(0, row - 1), row + 2)
    columns = slice(max(0, column - 1), column + 2)
    weight = sure[rows, columns] + 1e-6
    j, i = np.mgrid[rows, columns][:, : weight.shape[0], : weight.shape[1]].astype(np.float32)
    x, y = (i + 0.5 + out[1, rows, columns]) * PLACE_SIDE, (j + 0.5 + out[2, rows, columns]) * PLACE_SIDE
    parts = np.stack([x, y, out[3, rows, columns], out[4, rows, columns]])
    x_mean, y_mean, size, turn = ((parts * weight).sum((1, 2)) / weight.sum()).tolist()
    distance = USUAL_DISTANCE * math.exp(min(2.5, max(-2.5, size)))
    return Place(x_mean, y_mean, max(LEAST_SIZE, distance), turn)


def _moved(pose: FacePose, was: Place, place: Place, shape: tuple[int, int]) -> FacePose:
    """The pose of a place; of the pose before, which ``was`` there, what is still nearly right: it costs nothing."""
    new = pose_of(place, *shape)
    off, size, turn = (most / 2 for most in NEARLY)
    shifted = math.hypot(was.x - place.x, was.y - place.y) > max(off * place.distance, LEAST_OFF / 2)
    x, y = (new.x, new.y) if shifted else (pose.x, pose.y)
    sized, turned = abs(math.log(was.distance / place.distance)) > size, abs(was.turn - place.turn) > turn
    return FacePose(x, y, new.size if sized else pose.size, new.turn if turned else pose.turn)


def _within(pose: Place, place: Place, most: tuple[float, float, float]) -> bool:
    """Whether a face is no further from a pose than ``most``, in the units of `NEARLY`."""
    off, size, turn = most
    near = math.hypot(pose.x - place.x, pose.y - place.y) <= max(off * place.distance, LEAST_OFF)
    return near and abs(math.log(pose.distance / place.distance)) <= size and abs(pose.turn - place.turn) <= turn


def _codable(place: Place, smallest: float) -> bool:
    return place.distance >= smallest and abs(place.turn) <= MOST_TURNED


def _same(before: Place, place: Place) -> bool:
    """Whether a face may be the one that was there a picture ago."""
    near = math.hypot(before.x - place.x, before.y - place.y) <= 0.7 * before.distance
    return near and 0.6 <= place.distance / before.distance <= 1.6
