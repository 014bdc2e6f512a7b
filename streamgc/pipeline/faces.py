"""The face of a call: the sender says what its eyes and mouth do, the receiver paints it.

It is the face that is seen most surely, followed while it is there. Its pose is coded coarsely and kept while it is
nearly right: the networks have learned from faces that are cut out a little beside their place.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from streamgc.codec.face import FaceCode, FacePose
from streamgc.codec.face_coding import choose_face_symbols
from streamgc.codec.symbols import Code
from streamgc.codec.tables import Tables
from streamgc.pipeline.face import LEAST_SIZE, Place, cut_out, paint, place_at, pose_of
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
SMALLEST, MOST_TURNED = 20.0, 0.75
"""Pixels between the eyes, and radians, beyond which a face is left to the code."""
NEARLY = (0.17, 0.14, 0.15)
"""A pose is kept while it is no further off: in distances of the eyes, in the logarithm of that distance, in
radians."""
LOOK_EVERY = 3
"""Pictures from one search for the face to the next while it rests; when it has moved, the next picture is searched."""
MOST_STRENGTH = 0.25
"""λ for numbers is no more: what is painted by numbers of long ago is worse than what G makes without them."""
NUMBER_WEIGHTS = (0.6, 0.2, 0.35, 0.1, 0.35, 0.12)
"""What a squared error of each number weighs, where one of a symbol of the code weighs 1 in the mean: gaze, gaze down,
lids, their difference, lips, width of the mouth."""
USUAL_SIZE = 40.0
"""That holds for faces whose eyes are at least so many pixels apart; in a smaller one they weigh less, as its area."""


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

    def read(self, picture: Picture, place: Place) -> Floats:
        """The six numbers, unrounded, of the face at a place of a blanked picture."""
        out = self._reader.run({"face": cut_out(picture, place)[None]})
        return np.asarray(np.nan_to_num(out["numbers"][0]), np.float32)


class FaceWatcher:
    """Follows one face through a sender's pictures. Not thread-safe: one sender owns it."""

    def __init__(self, networks: FaceReader) -> None:
        self._networks = networks
        self._pose: FacePose | None = None
        self._unsearched = LOOK_EVERY

    def code(self, kept: Picture, reference: Code | None, age: int, tables: Tables, strength: float) -> FaceCode | None:
        """Of the face in a blanked picture (H, W, 3), against what the receiver holds; None where there is none.
        ``strength``: λ as in `quantise`."""
        self._unsearched += 1
        if self._unsearched >= LOOK_EVERY:
            self._search(kept)
        if self._pose is None:
            return None
        place = place_at(self._pose)
        latent = self._networks.read(kept, place)
        before = None if reference is None else reference.face
        weight = np.array(NUMBER_WEIGHTS, np.float32) * min(1.0, place.distance / USUAL_SIZE) ** 2
        symbols = choose_face_symbols(latent, before, age, tables, min(strength, MOST_STRENGTH), weight)
        return FaceCode(self._pose, symbols)

    def _search(self, kept: Picture) -> None:
        """Where the face is now."""
        self._unsearched = 0
        place = self._followed(self._networks.places(kept))
        if place is None:
            self._pose = None
        elif self._pose is None or not _nearly(place_at(self._pose), place):
            self._pose = pose_of(place, *kept.shape[:2])
            self._unsearched = LOOK_EVERY

    def _followed(self, places: list[tuple[float, Place]]) -> Place | None:
        """The surest; rather the one that was followed."""
        best, surest = None, 0.0
        for sure, place in places:
            same = self._pose is not None and _same(place_at(self._pose), place)
            value = sure * (FOLLOWED if same else 1.0)
            if value > surest and (same or sure >= APPEARS):
                best, surest = place, value
        # Where the surest is too small none is coded, rather than a less sure one: a shirt that is printed with a face.
        good = best is not None and best.distance >= SMALLEST and abs(best.turn) <= MOST_TURNED
        return best if good else None


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


def _nearly(pose: Place, place: Place) -> bool:
    """Whether a pose still says where a face is."""
    off, size, turn = NEARLY
    near = math.hypot(pose.x - place.x, pose.y - place.y) <= off * place.distance
    return near and abs(math.log(pose.distance / place.distance)) <= size and abs(pose.turn - place.turn) <= turn


def _same(before: Place, place: Place) -> bool:
    """Whether a face may be the one that was there a picture ago."""
    near = math.hypot(before.x - place.x, before.y - place.y) <= 0.7 * before.distance
    return near and 0.6 <= place.distance / before.distance <= 1.6
