"""A label map as a vector graphic: its boundaries as polylines on a grid, arithmetic coded.

    label map ─▶ sampled on a grid ─▶ boundaries traced between junctions ─▶ simplified ─▶ coded
    bytes ─▶ polylines with the label on either side ─▶ painted at any size

The grid has a fixed number of steps along the long side, so the bytes depend on the scene and not on the picture size.
Every boundary is coded once, with both labels; vertices are relative to the one before. The decoder gives exactly the
simplified polylines. Painting is in integers: the labels' winding counts along each row of pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgc.codec.adaptive import BitCoder
from streamgc.codec.trace import trace
from streamgc.errors import BitstreamError

MAX_STEPS = 4096
"""Most grid steps a side."""
MAX_ARCS, MAX_VERTICES = 1 << 16, 1 << 18
MAX_VALUES = 4096
"""Most different values of a map."""

LabelMap = NDArray[np.integer]
Point = tuple[int, int]
"""(x, y) in grid steps."""


class Arc(NamedTuple):
    """A boundary: its vertices, and the labels (numbers of the palette) on its left and right, as seen along it."""

    points: tuple[Point, ...]
    left: int
    right: int


class Graphic(NamedTuple):
    """A label map as polylines on a grid of ``columns`` × ``rows`` steps; ``corner`` is the label at the top left."""

    columns: int
    rows: int
    palette: tuple[int, ...]
    corner: int
    arcs: tuple[Arc, ...]


def grid_size(height: int, width: int, steps: int) -> tuple[int, int]:
    """(rows, columns) of a grid with ``steps`` along the longer side of a map, no finer than its pixels."""
    longer = max(height, width)
    steps = min(steps, longer)
    return max(1, round(height * steps / longer)), max(1, round(width * steps / longer))


def vectorise(labels: LabelMap, *, steps: int = 1024, tolerance: float = 0.75, least_area: int = 4) -> Graphic:
    """The graphic of a map (H, W) of values 0…65535.

    ``steps``: grid steps along the longer side. ``tolerance``: how far, in steps, a boundary may be from where it was.
    ``least_area``: islands of fewer grid cells are left out. Raises ValueError for a map that cannot be coded.
    """
    if labels.ndim != 2 or not labels.size or labels.min() < 0 or labels.max() > 65535:
        raise ValueError(f"a label map is (H, W) of 0…65535, not {labels.dtype} {labels.shape}")
    if not 1 <= steps <= MAX_STEPS or tolerance < 0:
        raise ValueError(f"{steps} steps and a tolerance of {tolerance}; 1…{MAX_STEPS} and at least 0 are possible")
    rows, columns = grid_size(labels.shape[0], labels.shape[1], steps)
    down = (np.arange(rows) * 2 + 1) * labels.shape[0] // (2 * rows)
    across = (np.arange(columns) * 2 + 1) * labels.shape[1] // (2 * columns)
    palette, sampled = np.unique(labels[np.ix_(down, across)], return_inverse=True)
    if len(palette) > MAX_VALUES:
        raise ValueError(f"a label map of {len(palette)} values; at most {MAX_VALUES} are possible")
    grid = sampled.reshape(rows, columns)
    arcs = []
    for points, left, right in trace(grid):
        closed = points[0] == points[-1]
        if closed and abs(_area(points)) < least_area:
            continue
        simple = simplify(points, tolerance)
        if len(simple) > (3 if closed else 1):
            arcs.append(Arc(tuple(simple), left, right))
    return Graphic(columns, rows, tuple(palette.tolist()), int(grid[0, 0]), tuple(arcs))


def simplify(points: list[Point], tolerance: float) -> list[Point]:
    """Douglas and Peucker's: keep, by halving, the vertices without which one is further off than ``tolerance``."""
    array = np.array(points, np.float64)
    kept = np.zeros(len(points), bool)
    kept[[0, -1]] = True
    todo = [(0, len(points) - 1)]
    if points[0] == points[-1]:
        far = int(((array - array[0]) ** 2).sum(1).argmax())
        kept[far] = True
        todo = [(0, far), (far, len(points) - 1)]
    while todo:
        first, last = todo.pop()
        if last - first < 2:
            continue
        base = array[last] - array[first]
        offset = array[first + 1 : last] - array[first]
        length = float(np.hypot(*base))
        if length == 0:
            distance = np.hypot(offset[:, 0], offset[:, 1])
        else:
            distance = np.abs(base[0] * offset[:, 1] - base[1] * offset[:, 0]) / length
        worst = int(distance.argmax())
        if distance[worst] > tolerance:
            middle = first + 1 + worst
            kept[middle] = True
            todo += [(first, middle), (middle, last)]
    return [point for point, keep in zip(points, kept.tolist(), strict=True) if keep]


def _area(points: list[Point]) -> float:
    array = np.array(points, np.int64)
    x, y = array[:, 0], array[:, 1]
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) / 2


def encode_graphic(graphic: Graphic) -> bytes:
    """The bytes of a graphic."""
    coder = BitCoder()
    _code(coder, graphic)
    return coder.finish()


def decode_graphic(payload: bytes) -> Graphic:
    """The graphic of the bytes, exactly. Raises BitstreamError."""
    coder = BitCoder(payload)
    graphic = _code(coder, Graphic(1, 1, (0,), 0, ()))
    coder.finish()
    return graphic


def encode_contours(labels: LabelMap, *, steps: int = 1024, tolerance: float = 0.75, least_area: int = 4) -> bytes:
    """`vectorise` and `encode_graphic`."""
    return encode_graphic(vectorise(labels, steps=steps, tolerance=tolerance, least_area=least_area))


def decode_contours(payload: bytes, height: int, width: int) -> NDArray[np.uint16]:
    """The map at ``height`` × ``width`` pixels. Raises BitstreamError."""
    return paint(decode_graphic(payload), height, width)


def _code(coder: BitCoder, graphic: Graphic) -> Graphic:
    """Write ``graphic``, or read one and give it back."""
    columns, rows = (coder.number(side - 1, "side") + 1 for side in (graphic.columns, graphic.rows))
    if max(columns, rows) > MAX_STEPS:
        raise BitstreamError("the grid of a label map is too fine")
    count = coder.number(len(graphic.palette) - 1, "palette") + 1
    if count > MAX_VALUES:
        raise BitstreamError("a label map has too many values")
    palette = [coder.number(graphic.palette[0], "value")]
    for index in range(1, count):
        step = 0 if coder.reading else graphic.palette[index] - graphic.palette[index - 1] - 1
        palette.append(palette[-1] + 1 + coder.number(step, "value"))
    if palette[-1] > 65535:
        raise BitstreamError("a label of the map is too large")
    corner = coder.choice(graphic.corner, count, "corner")
    arcs = _code_arcs(coder, list(graphic.arcs), count, (columns, rows))
    return Graphic(columns, rows, tuple(palette), corner, tuple(arcs))


_OPEN, _AGAIN, _NEW = 0, 1, 2
"""Where an arc starts: where the last one ended, at another vertex that arcs end at, or somewhere new."""


def _code_arcs(coder: BitCoder, arcs: list[Arc], labels: int, size: Point) -> list[Arc]:
    result: list[Arc] = []
    known: list[Point] = []
    seen: set[Point] = set()
    last: Point = (0, 0)
    begun: Point = (0, 0)
    vertices = 0
    while coder.bit(int(len(result) < len(arcs)), "more"):
        if len(result) == MAX_ARCS:
            raise BitstreamError("a label map has too many boundaries")
        arc = Arc(((0, 0),), 0, 0) if coder.reading else arcs[len(result)]
        start, begun = _code_start(coder, arc.points[0], known, last, begun)
        left = coder.choice(arc.left, labels, ("left", result[-1].left if result else -1))
        right = coder.choice(arc.right, labels, ("right", left))
        points = _code_points(coder, arc.points, start)
        vertices += len(points)
        if vertices > MAX_VERTICES:
            raise BitstreamError("a label map has too many vertices")
        if any(not (0 <= x <= size[0] and 0 <= y <= size[1]) for x, y in points):
            raise BitstreamError("a vertex of a label map lies outside the grid")
        last = points[-1]
        for end in (points[0], last):
            if end not in seen:
                seen.add(end)
                known.append(end)
        result.append(Arc(tuple(points), left, right))
    return result


def _code_start(coder: BitCoder, point: Point, known: list[Point], last: Point, begun: Point) -> tuple[Point, Point]:
    """(first vertex of an arc, the newest vertex that was coded by itself)."""
    where = _NEW
    if not coder.reading and known:
        where = _OPEN if point == last else _AGAIN if point in known else _NEW
    if known:
        where = coder.choice(where, 3, "where")
    if where == _OPEN:
        return last, begun
    if where == _AGAIN:
        back = 0 if coder.reading else known[::-1].index(point)
        back = coder.number(back, "known")
        if back >= len(known):
            raise BitstreamError("a boundary of a label map starts nowhere")
        return known[len(known) - 1 - back], begun
    x = begun[0] + coder.signed(point[0] - begun[0], "start x")
    y = begun[1] + coder.signed(point[1] - begun[1], "start y")
    return (x, y), (x, y)


def _code_points(coder: BitCoder, points: tuple[Point, ...], start: Point) -> list[Point]:
    """The vertices after the first, each relative to the one before, in the context of the direction so far."""
    count = coder.number(len(points) - 2, "vertices") + 1
    if count > MAX_VERTICES:
        raise BitstreamError("a boundary has too many vertices")
    result = [start]
    heading = (0, 0)
    for index in range(1, count + 1):
        dx = dy = 0
        if not coder.reading:
            dx, dy = (b - a for a, b in zip(points[index - 1], points[index], strict=True))
        dx = coder.signed(dx, ("x", heading[0] != 0), heading)
        dy = coder.signed(dy, ("y", min(abs(dx).bit_length(), 4)), (heading, (dx > 0) - (dx < 0)))
        heading = ((dx > 0) - (dx < 0), (dy > 0) - (dy < 0))
        result.append((result[-1][0] + dx, result[-1][1] + dy))
    return result


def paint(graphic: Graphic, height: int, width: int) -> NDArray[np.uint16]:
    """The graphic at a size in pixels: (height, width) of its values.

    A boundary that crosses a row of pixel centres ends one label and begins another; a pixel has the label that has
    begun more often than it has ended. So boundaries that cross each other spoil no more than the places in between.
    """
    labels = len(graphic.palette)
    begins = np.zeros((labels, height), np.int32)
    begins[graphic.corner] = 1
    crossings = []
    for arc in graphic.arcs:
        crossings += _crossings(arc, graphic, height, width)
        _follow_left_side(arc, graphic, begins)
    result = np.full((height, width), -1, np.int32)
    if crossings:
        changes = np.concatenate(crossings, 1)
        order = np.argsort(changes[0], kind="stable")
        changes = changes[:, order]
        bounds = np.searchsorted(changes[0], np.arange(labels + 1))
    for label in range(labels):
        count = np.zeros((height, width + 1), np.int32)
        count[:, 0] = begins[label]
        if crossings:
            _, rows, columns, step = changes[:, bounds[label] : bounds[label + 1]]
            np.add.at(count, (rows, columns), step)
        result[np.cumsum(count, 1)[:, :width] > 0] = label
    _fill_from_left(result)
    return np.array(graphic.palette, np.uint16)[result]


def _crossings(arc: Arc, graphic: Graphic, height: int, width: int) -> list[NDArray[np.int64]]:
    """(label, row, column, ±1) of every change of label along rows of pixel centres, (4, n) per segment."""
    found = []
    for (x0, y0), (x1, y1) in zip(arc.points, arc.points[1:], strict=False):
        if y0 == y1:
            continue
        east, west = (arc.left, arc.right) if y1 > y0 else (arc.right, arc.left)
        if y1 < y0:
            x0, y0, x1, y1 = x1, y1, x0, y0
        # Row r has its centre at (2r + 1) · grid rows / 2 · height; the segment owns y0 ≤ centre < y1.
        first, end = (-((graphic.rows - 2 * height * y) // (2 * graphic.rows)) for y in (y0, y1))
        rows = np.arange(first, end, dtype=np.int64)
        if not rows.size:
            continue
        scale = 2 * height * (y1 - y0)
        x = x0 * scale + ((2 * rows + 1) * graphic.rows - 2 * height * y0) * (x1 - x0)
        # The first column whose centre is not left of x / scale.
        columns = -((graphic.columns * scale - 2 * width * x) // (2 * graphic.columns * scale))
        columns = columns.clip(0, width)
        for label, step in ((east, 1), (west, -1)):
            found.append(np.stack([np.full_like(rows, label), rows, columns, np.full_like(rows, step)]))
    return found


def _follow_left_side(arc: Arc, graphic: Graphic, begins: NDArray[np.int32]) -> None:
    """Where an arc meets the picture's left side, the label of the rows below changes."""
    height = begins.shape[1]
    for point, above, below in ((arc.points[0], arc.left, arc.right), (arc.points[-1], arc.right, arc.left)):
        if point[0] == 0:
            first = -((graphic.rows - 2 * height * point[1]) // (2 * graphic.rows))
            begins[below, max(0, first) :] += 1
            begins[above, max(0, first) :] -= 1


def _fill_from_left(result: NDArray[np.int32]) -> None:
    """Pixels that no label claims take that of the nearest one to their left, or else to their right."""
    if (result >= 0).all():
        return
    for _ in range(2):
        columns = np.where(result >= 0, np.arange(result.shape[1]), 0)
        np.maximum.accumulate(columns, 1, out=columns)
        result[:] = np.take_along_axis(result, columns, 1)[:, ::-1]
    np.maximum(result, 0, out=result)
