"""Scenes with known answers for the scene tests: drawn people, and a network that gives exactly what a perfect one
would."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from streamgc.scene.affinity import EMBEDDING
from streamgc.scene.instances import Instances, grid_of

Box = tuple[int, int, int, int]


def boxes_as_instances(boxes: list[Box], height: int = 256, width: int = 256, scores: float = 0.9) -> Instances:
    """Instances whose masks are full rectangles x0, y0, x1, y1."""
    masks = np.zeros((len(boxes), height, width), np.uint8)
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        masks[number, max(0, y0) : y1, max(0, x0) : x1] = 255
    return Instances(
        masks,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(len(boxes), scores, np.float32),
        np.zeros(len(boxes), np.int32),
        np.full(len(boxes), -1, np.int32),
        np.zeros(grid_of(height, width), np.uint8),
    )


class PerfectNetwork:
    """An engine that ignores the frame and answers for people who are the given boxes, later ones in front.

    noise: deviation of the offsets in pixels. twin: each person gets a second, false peak of the centre map.
    """

    def __init__(self, people: list[Box], noise: float = 0.0, twin: bool = False) -> None:
        self.people = people
        self.noise = noise
        self.twin = twin
        self.asked: list[tuple[int, ...]] = []

    def owners(self, height: int, width: int) -> npt.NDArray[np.uint8]:
        """Who is where, 0 = nobody, k = k-th box."""
        owner = np.zeros((height, width), np.uint8)
        for number, (x0, y0, x1, y1) in enumerate(self.people, 1):
            owner[y0:y1, x0:x1] = number
        return owner

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        frame = feeds["frame"]
        self.asked.append(frame.shape)
        _, height, width, _ = frame.shape
        owner = self.owners(height, width)
        grid = owner[2::4, 2::4]
        ys, xs = np.mgrid[: height // 4, : width // 4].astype(np.float32) * 4 + 1.5
        centre = np.zeros(grid.shape, np.float32)
        offset = np.random.default_rng(0).normal(0, self.noise or 1e-9, (*grid.shape, 2)).astype(np.float32)
        embedding = np.zeros((*grid.shape, EMBEDDING), np.float32)
        for number in range(1, len(self.people) + 1):
            mine = grid == number
            if not mine.any():
                continue
            embedding[mine, (number - 1) % EMBEDDING] = 3
            y, x = ys[mine].mean(), xs[mine].mean()
            for shift, strength in ((0.0, 0.9), (30.0, 0.7)) if self.twin else ((0.0, 0.9),):
                bump = np.exp(-((ys - y - shift) ** 2 + (xs - x) ** 2) / 200)
                centre = np.maximum(centre, strength * bump)
            offset[mine, 0] += y - ys[mine]
            offset[mine, 1] += x - xs[mine]
        return {
            "matte": (owner > 0).astype(np.uint8)[None, :, :, None] * 255,
            "centre": centre[None, :, :, None].astype(np.float32),
            "offset": offset[None],
            "labels": np.zeros((1, height // 16, width // 16), np.uint8),
            "embedding": embedding[None],
            "query": np.pad(embedding[::2, ::2], ((0, 0), (0, 0), (0, 1)), constant_values=-2.0)[None],
        }
