"""Drawn faces, and stand-ins for the face's networks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgc.codec.face import FACE_SYMBOLS
from streamgc.pipeline.face import FACE_SIDE, Place
from streamgc.pipeline.settings import BLANK

GRID = 20, 24
HEIGHT, WIDTH = 16 * GRID[0], 16 * GRID[1]
USUAL = ((36.0, 36.0), (84.0, 36.0), (60.0, 88.0))
"""Eyes and mouth of a face that is where it was cut out."""
Faces = list[tuple[float, Place]]


def eyes(place: Place) -> list[tuple[float, float]]:
    """Pixels, counted from the centre of the upper left one."""
    across = place.distance / 2 * math.cos(place.turn), place.distance / 2 * math.sin(place.turn)
    return [(place.x + side * across[0] - 0.5, place.y + side * across[1] - 0.5) for side in (-1, 1)]


def spots(place: Place, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """A picture with a bright spot on each eye, a tenth of their distance wide."""
    rows, columns = np.mgrid[0:height, 0:width]
    picture = np.full((height, width), float(BLANK))  # as beyond its edge
    for x, y in eyes(place):
        picture += 100 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (0.1 * place.distance) ** 2)
    return np.repeat(picture.clip(0, 255).astype(np.uint8)[..., None], 3, -1)


def centre(levels: NDArray[Any]) -> tuple[float, float]:
    """Of brightness, (x, y) in pixels from the upper left corner."""
    rows, columns = np.mgrid[0 : levels.shape[0], 0 : levels.shape[1]] + 0.5
    weight = levels.astype(float)
    return float((columns * weight).sum() / weight.sum()), float((rows * weight).sum() / weight.sum())


class FakeLocator:
    """Says where faces are, as the network does: (sure, place) each; of some pictures, what is said of them."""

    def __init__(self, *faces: tuple[float, Place]) -> None:
        self.faces: Faces = list(faces)
        self.others: list[tuple[NDArray[np.uint8], Faces]] = []
        self.seen: list[NDArray[Any]] = []

    def searches(self, picture: NDArray[np.uint8]) -> int:
        """How often this array was searched."""
        return sum(np.shares_memory(seen, picture) for seen in self.seen)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        picture = feeds["picture"]
        self.seen.append(picture)
        faces = next((faces for other, faces in self.others if np.shares_memory(other, picture)), self.faces)
        height, width = (side // 8 for side in picture.shape[1:3])
        out = np.zeros((1, 5, height, width), np.float32)
        out[0, 0] = -9
        for sure, place in faces:
            column, row = int(place.x / 8), int(place.y / 8)
            for j in range(max(0, row - 1), min(height, row + 2)):
                for i in range(max(0, column - 1), min(width, column + 2)):
                    logit = math.log(sure / (1 - sure)) - (0 if (j, i) == (row, column) else 3)
                    size = math.log(place.distance / 32)
                    out[0, :, j, i] = logit, place.x / 8 - i - 0.5, place.y / 8 - j - 0.5, size, place.turn
        return {"places": out}


class FakeReader:
    """Says always the same numbers, where bright spots are, without any where faces usually are, and remembers what it
    was shown."""

    def __init__(self) -> None:
        self.seen: list[NDArray[Any]] = []
        self.numbers = np.linspace(-3, 3, FACE_SYMBOLS, dtype=np.float32)
        self.lost = False
        """Says nonsense."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.seen.append(feeds["face"])
        centres = np.array([USUAL], np.float32)
        levels = feeds["face"][0, ..., 0].astype(int).clip(BLANK + 5) - BLANK - 5
        half = FACE_SIDE // 2
        for eye, part in enumerate((levels[:, :half], levels[:, half:])):
            if part.any():
                centres[0, eye] = np.add(centre(part), (eye * half, 0))
        return {"numbers": self.numbers[None], "centres": np.full_like(centres, np.nan) if self.lost else centres}
