"""Who and what is in a frame: the one form in which every segmenter answers, and its checks."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streamgc.errors import SceneError
from streamgc.scene.labels import LABEL_COUNT

CELL = 16
"""Pixels a side of a cell, the unit of heatmap and label map."""

UNTRACKED = -1
"""Id of an instance that no tracker has seen yet."""


class Instances(NamedTuple):
    """The instances of a frame of (H, W) pixels, best first, and its coarse labels.

    masks: soft masks u8 (N, H, W), 255 = surely this instance. boxes: f32 (N, 4), x0, y0, x1, y1 in pixels. scores: f32
    (N,) in 0..1. classes: int32 (N,), indices into `labels.COCO_NAMES`, 0 = person. ids: int32 (N,), the same over
    time, `UNTRACKED` before tracking. labels: u8 (h, w), `labels.Label` ids of the cells, h = ceil(H / 16), w = ceil(W
    / 16).
    """

    masks: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int32]
    ids: npt.NDArray[np.int32]
    labels: npt.NDArray[np.uint8]

    @property
    def number(self) -> int:
        """N, how many instances there are."""
        return int(self.masks.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frame in pixels."""
        return int(self.masks.shape[1]), int(self.masks.shape[2])


def grid_of(height: int, width: int) -> tuple[int, int]:
    """Cells (h, w) of a frame; the last row and column may be cut."""
    return -(-height // CELL), -(-width // CELL)


def nobody(height: int, width: int, labels: npt.NDArray[np.uint8] | None = None) -> Instances:
    """No instances at all, over the given label map or a plain room."""
    grid = np.zeros(grid_of(height, width), np.uint8) if labels is None else labels
    return Instances(
        np.zeros((0, height, width), np.uint8),
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.float32),
        np.zeros(0, np.int32),
        np.zeros(0, np.int32),
        grid,
    )


def pick(instances: Instances, which: npt.NDArray[Any]) -> Instances:
    """The instances that a boolean or index array selects, over the same labels."""
    return Instances(
        instances.masks[which],
        instances.boxes[which],
        instances.scores[which],
        instances.classes[which],
        instances.ids[which],
        instances.labels,
    )


def mask_box(mask: npt.NDArray[np.bool_]) -> tuple[float, float, float, float] | None:
    """x0, y0, x1, y1 (exclusive) of the set pixels of a mask (H, W); None when there are none."""
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def require(name: str, array: npt.NDArray[Any], shape: tuple[int | None, ...], finite: bool = True) -> None:
    """Raise SceneError naming the tensor unless it has the shape (None = any) and, for floats, only finite values."""
    fits = array.ndim == len(shape) and all(
        want is None or want == have for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = "×".join("?" if want is None else str(want) for want in shape)
        raise SceneError(f"segmenter output {name!r} has shape {'×'.join(map(str, array.shape))}, expected {wanted}")
    # A sum is NaN or infinite exactly when a value is (or the values are absurd), in one pass without a temporary.
    if finite and array.dtype.kind == "f" and not np.isfinite(array.sum(dtype=np.float64)):
        raise SceneError(f"segmenter output {name!r} holds NaN or infinite values")


def check_instances(instances: Instances) -> Instances:
    """The instances themselves when every part is consistent; raises SceneError naming the part that is not."""
    if instances.masks.ndim != 3:
        raise SceneError(f"instances: 'masks' must be (N, H, W), got {instances.masks.shape}")
    count, height, width = instances.masks.shape
    require("boxes", instances.boxes, (count, 4))
    require("scores", instances.scores, (count,))
    require("classes", instances.classes, (count,))
    require("ids", instances.ids, (count,))
    require("labels", instances.labels, grid_of(height, width))
    if instances.masks.dtype != np.uint8:
        raise SceneError(f"instances: 'masks' must be uint8, got {instances.masks.dtype}")
    if instances.labels.size and int(instances.labels.max()) >= LABEL_COUNT:
        raise SceneError(
            f"instances: 'labels' holds id {int(instances.labels.max())}, the highest label is {LABEL_COUNT - 1}"
        )
    return instances
