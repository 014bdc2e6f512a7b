"""The shipped segmenter behind `Instances`: any frame in, people told apart, labels of the cells out.

The network (`engines/segmenter/segmenter.onnx`) takes `frame` u8 (1, H, W, 3), H and W multiples of 16, and gives
`matte` u8 (1, H, W, 1), `centre` f32 (1, H/4, W/4, 1), `offset` f32 (1, H/4, W/4, 2) in pixels and `labels` u8 (1,
H/16, W/16). People are told apart as in Panoptic-DeepLab: each pixel of a person points to a centre and belongs to the
peak nearest to where it points.
"""

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from streamgc.errors import SceneError
from streamgc.scene.instances import CELL, UNTRACKED, Instances, grid_of, mask_box, nobody, require
from streamgc.scene.labels import COCO_PERSON, LABEL_COUNT

Mask = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]

SOLID = 110
"""Matte value above which a pixel surely is person."""
PEAK = 0.2
"""Value of the centre map from which a peak is a person."""
REACH = 4
"""Cells at /4 around a peak in which no second one is."""
MOST = 12
"""People told apart at most."""
APART = 1.8
"""Distance of two groups' mean votes, in sums of their deviations, from which they are two people."""
SMALLEST = 20
"""Cells at /4 (of 16 pixels each) below which a person is noise."""


class Runs(Protocol):
    """What a compiled network must do: `streamgc.runtime` engines do it."""

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Named arrays in, named arrays out."""
        ...


def network_size(height: int, width: int, area: int = 256 * 256) -> tuple[int, int]:
    """The size, multiples of 16, at which a frame is looked at: its own when that fits and is not much larger than
    `area`, else one of about that area and its aspect."""
    if height % CELL == 0 and width % CELL == 0 and 0.4 * area <= height * width <= 1.5 * area:
        return height, width
    scale = math.sqrt(area / (height * width))
    return max(4, round(height * scale / CELL)) * CELL, max(4, round(width * scale / CELL)) * CELL


def as_rgb(frame: npt.NDArray[Any]) -> Mask:
    """A frame u8 (H, W, 3), (H, W, 1) or grey (H, W) as RGB u8 (H, W, 3); raises SceneError on anything else."""
    if frame.dtype != np.uint8:
        raise SceneError(f"a frame must be uint8, not {frame.dtype}")
    if frame.ndim == 2:
        frame = frame[..., None]
    if frame.ndim != 3 or frame.shape[2] not in (1, 3) or 0 in frame.shape:
        raise SceneError(f"a frame must be (H, W, 3) or (H, W), not {frame.shape}")
    return frame if frame.shape[2] == 3 else np.repeat(frame, 3, axis=2)


def resize_mask(mask: npt.NDArray[Any], height: int, width: int, smooth: bool = True) -> Mask:
    """A u8 mask resized, between pixels when `smooth`, else by the nearest."""
    if mask.shape == (height, width):
        return mask
    method = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(np.ascontiguousarray(mask)).resize((width, height), method), np.uint8)


class Segmenter:
    """Frames to instances through an engine. size: the fixed (H, W) the engine was compiled for; None lets it vary with
    the frame."""

    def __init__(self, engine: Runs, size: tuple[int, int] | None = None) -> None:
        if size is not None and (size[0] % CELL or size[1] % CELL):
            raise SceneError(f"the segmenter's size must be multiples of {CELL}, not {size[1]}x{size[0]}")
        self._engine = engine
        self._size = size

    def __call__(self, frame: npt.NDArray[Any]) -> Instances:
        """Instances of a frame u8 (H, W, 3) RGB or (H, W) grey, of any size; raises SceneError when the network's
        answer is unusable."""
        rgb = as_rgb(frame)
        height, width = rgb.shape[:2]
        rows, columns = self._size or network_size(height, width)
        if (rows, columns) != (height, width):
            image = Image.fromarray(np.ascontiguousarray(rgb))
            rgb = np.asarray(image.resize((columns, rows), Image.Resampling.BILINEAR, reducing_gap=2.0))
        answer = self._engine.run({"frame": np.ascontiguousarray(rgb)[None]})
        matte, centre, offset, labels = unpack(answer, rows, columns)
        if (rows, columns) != (height, width):
            labels = resize_mask(labels, *grid_of(height, width), smooth=False)
        owners, scores = group(matte, centre, offset)
        if not len(scores):
            return nobody(height, width, labels)
        return _assemble(matte, owners, scores, labels, (height, width))


def unpack(answer: Mapping[str, npt.NDArray[Any]], height: int, width: int) -> tuple[Mask, Plane, Plane, Mask]:
    """matte u8 (H, W), centre f32 (H/4, W/4), offset f32 (H/4, W/4, 2), labels u8 (H/16, W/16), checked; raises
    SceneError naming the tensor that is missing, has a wrong shape or type, or holds NaN."""
    for name in ("matte", "centre", "offset", "labels"):
        if name not in answer:
            raise SceneError(f"the segmenter has no output {name!r}")
    matte, centre, offset, labels = (answer[n] for n in ("matte", "centre", "offset", "labels"))
    require("matte", matte, (1, height, width, 1))
    require("centre", centre, (1, height // 4, width // 4, 1))
    require("offset", offset, (1, height // 4, width // 4, 2))
    if labels.ndim == 4:
        require("labels", labels, (1, height // CELL, width // CELL, LABEL_COUNT))
        labels = labels.argmax(axis=3)
    require("labels", labels, (1, height // CELL, width // CELL))
    if matte.dtype != np.uint8:
        raise SceneError(f"segmenter output 'matte' must be uint8, got {matte.dtype}")
    if labels.size and int(labels.max()) >= LABEL_COUNT:
        raise SceneError(f"segmenter output 'labels' holds id {int(labels.max())}, the highest is {LABEL_COUNT - 1}")
    return (
        matte[0, :, :, 0],
        centre[0, :, :, 0].astype(np.float32, copy=False),
        offset[0].astype(np.float32, copy=False),
        labels[0].astype(np.uint8),
    )


def peaks(centre: Plane) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and columns of the strongest local maxima of the centre map, strongest first, no two within `REACH`."""
    ys, xs = np.nonzero(centre >= PEAK)
    order = np.argsort(-centre[ys, xs], kind="stable")
    ys, xs = ys[order], xs[order]
    chosen: list[int] = []
    free = np.ones(len(ys), bool)
    while free.any() and len(chosen) < MOST:
        index = int(free.argmax())
        chosen.append(index)
        # All that slopes down from this peak goes with it: within reach, or half as high and within thrice the reach.
        distance = np.maximum(np.abs(ys - ys[index]), np.abs(xs - xs[index]))
        weak = centre[ys, xs] < 0.6 * centre[ys[index], xs[index]]
        free &= (distance > REACH) & ~(weak & (distance <= 3 * REACH))
    return ys[chosen], xs[chosen]


def group(matte: Mask, centre: Plane, offset: Plane) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Who owns which /4 cell: int8 (H/4, W/4), -1 nobody, and a score f32 for each person.

    Cells of the soft rim are owned too, so that no instance loses its hair. Without a peak all that is person is one
    person.
    """
    person = matte[2::4, 2::4]
    solid = person > SOLID
    rim = _grow(solid)
    if int(solid.sum()) < SMALLEST:
        return np.full(person.shape, -1, np.int8), np.zeros(0, np.float32)
    ys, xs = peaks(np.where(rim, centre, 0))
    if len(ys) < 2:
        score = max(float(centre[ys[0], xs[0]]) if len(ys) else 0.0, 0.5)
        return np.where(rim, 0, -1).astype(np.int8), np.array([score], np.float32)
    rows, columns = np.nonzero(rim)
    votes = np.stack([rows * 4 + 1.5 + offset[rows, columns, 0], columns * 4 + 1.5 + offset[rows, columns, 1]])
    away = (votes[0][:, None] - (ys * 4 + 1.5)) ** 2 + (votes[1][:, None] - (xs * 4 + 1.5)) ** 2
    nearest = away.argmin(axis=1)
    inside = solid[rows, columns]
    into = merge_groups(votes[:, inside], nearest[inside], len(ys))
    nearest = into[nearest]
    sizes = np.bincount(nearest[inside], minlength=len(ys))
    real = np.flatnonzero(sizes >= min(SMALLEST, int(sizes.max())))
    # Crumbs go to the real person they point at.
    crumbs = ~np.isin(nearest, real)
    nearest[crumbs] = into[real[away[crumbs][:, real].argmin(axis=1)]]
    number = np.zeros(len(ys), np.int8)
    number[real] = np.arange(len(real))
    owners = np.full(person.shape, -1, np.int8)
    owners[rows, columns] = number[nearest]
    best = np.array([centre[ys[into == k], xs[into == k]].max() for k in real])
    return owners, np.clip(best, 0, 1).astype(np.float32)


def merge_groups(votes: Plane, groups: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Into which group each of `count` groups goes: int64 (count,), itself where it stands alone.

    votes: f32 (2, n), where each cell points; groups: int64 (n,). One person is often given several peaks, whose groups
    then split one cloud of votes: the distance of the halves' means is 1.3 (normal) to 1.7 (uniform) times the sum of
    their deviations along it. Two people are two clouds, and farther apart.
    """
    into = np.arange(count)
    sums = np.stack([np.bincount(groups, w, count) for w in _moments(votes)])
    while True:
        alive = np.flatnonzero((into == np.arange(count)) & (sums[0] > 0))
        if len(alive) < 2:
            return into
        _, mean_y, mean_x, square_y, square_x, cross = sums[:, alive] / np.maximum(sums[0, alive], 1)
        dy, dx = mean_y[:, None] - mean_y, mean_x[:, None] - mean_x
        distance = np.hypot(dy, dx) + 1e-6
        uy, ux = dy / distance, dx / distance
        spread_y, spread_x = (square_y - mean_y**2)[:, None], (square_x - mean_x**2)[:, None]
        variance = uy**2 * spread_y + ux**2 * spread_x + 2 * uy * ux * (cross - mean_y * mean_x)[:, None]
        deviation = np.sqrt(np.maximum(variance, 1.0))
        ratio = distance / (deviation + deviation.T)
        ratio[np.arange(len(alive)), np.arange(len(alive))] = np.inf
        first, second = divmod(int(ratio.argmin()), len(alive))
        if ratio[first, second] >= APART:
            return into
        keep, drop = sorted((int(alive[first]), int(alive[second])))
        into[into == drop] = keep
        sums[:, keep] += sums[:, drop]
        sums[0, drop] = 0


def _moments(votes: Plane) -> tuple[npt.NDArray[np.float64], ...]:
    """Weights whose sums over a group are its size, means, squares and product."""
    y, x = votes.astype(np.float64)
    return np.ones_like(y), y, x, y * y, x * x, y * x


def _grow(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """A mask and its neighbours within two cells."""
    grown = mask.copy()
    for step in (1, 1):
        past = grown.copy()
        grown[step:] |= past[:-step]
        grown[:-step] |= past[step:]
        past = grown.copy()
        grown[:, step:] |= past[:, :-step]
        grown[:, :-step] |= past[:, step:]
    return grown


def _assemble(
    matte: Mask, owners: npt.NDArray[np.int8], scores: npt.NDArray[np.float32], labels: Mask, size: tuple[int, int]
) -> Instances:
    """Instances at the frame's size from owners at /4 of the network's."""
    height, width = size
    step_y, step_x = 4 * height / matte.shape[0], 4 * width / matte.shape[1]
    # The rim belongs to the masks; boxes are of what is surely person.
    solid = matte[2::4, 2::4] > SOLID
    masks, boxes = [], []
    for number in range(len(scores)):
        mine = owners == number
        mask = matte
        if len(scores) > 1:
            mask = matte * mine.view(np.uint8).repeat(4, axis=0).repeat(4, axis=1)
        masks.append(resize_mask(mask, height, width))
        left, top, right, bottom = mask_box(mine & solid) or mask_box(mine) or (0.0, 0.0, 0.0, 0.0)
        boxes.append([left * step_x, top * step_y, right * step_x, bottom * step_y])
    count = len(scores)
    return Instances(
        np.stack(masks),
        np.array(boxes, np.float32),
        scores,
        np.full(count, COCO_PERSON, np.int32),
        np.full(count, UNTRACKED, np.int32),
        labels,
    )
