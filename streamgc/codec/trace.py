"""The boundaries of a label map: lines between pixels, cut where three or more labels, or the map's sides, meet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Point = tuple[int, int]
"""(x, y) of a corner between pixels."""

_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""East, south, west, north."""


def trace(grid: NDArray[np.integer]) -> list[tuple[list[Point], int, int]]:
    """Every boundary of an (h, w) map as (corners along it, label on its left, label on its right).

    Boundaries follow each other where they can, so that one starts where the last ended. Closed ones end at their
    first corner.
    """
    lines = _Lines(grid)
    found = []
    for node in lines.nodes():
        start = node
        while (arc := lines.follow(start)) is not None:
            found.append(arc)
            start = arc[0][-1]
    while (corner := lines.any_left()) is not None:
        arc = lines.follow(corner)
        assert arc is not None
        found.append(arc)
    return found


class _Lines:
    """Unit lines between pixels of different labels that are not traced yet."""

    def __init__(self, grid: NDArray[np.integer]) -> None:
        height, width = grid.shape
        self._grid = np.full((height + 2, width + 2), -1, np.int64)
        self._grid[1:-1, 1:-1] = grid
        # east[y, x]: the line from corner (x, y) to (x + 1, y); south likewise. The map's sides are no lines.
        east = np.zeros((height + 1, width + 1), bool)
        south = np.zeros((height + 1, width + 1), bool)
        east[1:-1, :-1] = grid[1:] != grid[:-1]
        south[:-1, 1:-1] = grid[:, 1:] != grid[:, :-1]
        degree = east.astype(np.int8) + south
        degree[:, 1:] += east[:, :-1]
        degree[1:] += south[:-1]
        self._node = (degree != 2) & (degree > 0)
        self._left: set[tuple[int, int, bool]] = set()
        for is_south, lines in ((False, east), (True, south)):
            self._left.update((x, y, is_south) for y, x in np.argwhere(lines).tolist())
        self._order = sorted(self._left, key=lambda line: (line[1], line[0], line[2]), reverse=True)

    def nodes(self) -> list[Point]:
        """Corners at which boundaries end, row by row."""
        return [(x, y) for y, x in np.argwhere(self._node).tolist()]

    def any_left(self) -> Point | None:
        """A corner of a line that is not traced yet."""
        while self._order:
            line = self._order[-1]
            if line in self._left:
                return line[0], line[1]
            self._order.pop()
        return None

    def follow(self, start: Point) -> tuple[list[Point], int, int] | None:
        """Trace from a corner to the next node, or around to the start; None where no line is left."""
        step = self._next(start)
        if step is None:
            return None
        left, right = self._sides(start, step)
        points = [start]
        while step is not None:
            point = (points[-1][0] + step[0], points[-1][1] + step[1])
            points.append(point)
            if self._node[point[1], point[0]] or point == start:
                break
            step = self._next(point)
        return points, left, right

    def _next(self, point: Point) -> Point | None:
        x, y = point
        lines = ((x, y, False), (x, y, True), (x - 1, y, False), (x, y - 1, True))
        for step, line in zip(_STEPS, lines, strict=True):
            if line in self._left:
                self._left.remove(line)
                return step
        return None

    def _sides(self, point: Point, step: Point) -> tuple[int, int]:
        x, y = point
        # _grid is padded by one: the pixel south-east of the corner (x, y) is _grid[y + 1, x + 1].
        south_east, south_west = int(self._grid[y + 1, x + 1]), int(self._grid[y + 1, x])
        north_east, north_west = int(self._grid[y, x + 1]), int(self._grid[y, x])
        return {
            (1, 0): (north_east, south_east),
            (0, 1): (south_east, south_west),
            (-1, 0): (south_west, north_west),
            (0, -1): (north_west, north_east),
        }[step]
