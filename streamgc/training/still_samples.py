"""From a picture with its label map to what a training step reads: crop, label planes, heatmap, all from one seed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgc.errors import TrainingError

Picture = NDArray[np.uint8]
LabelMap = NDArray[np.uint8]
Instances = NDArray[np.int32]


class Labelled(NamedTuple):
    """A picture (H, W, 3) RGB, its classes (H, W) and instance ids (H, W); both None where there are none."""

    picture: Picture
    labels: LabelMap | None = None
    instances: Instances | None = None


def instance_edges(instances: Instances) -> NDArray[np.bool_]:
    """Pixels whose right, left, upper or lower neighbour belongs to another instance."""
    edges = np.zeros(instances.shape, bool)
    across = instances[:, 1:] != instances[:, :-1]
    down = instances[1:] != instances[:-1]
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    return edges


def label_planes(labels: LabelMap, instances: Instances | None, classes: int) -> NDArray[np.float32]:
    """One-hot classes and the instance edges, (K + 1, H, W). Raises TrainingError for a class beyond K - 1."""
    if labels.size and int(labels.max()) >= classes:
        raise TrainingError(f"a label map holds class {int(labels.max())}, and there are {classes} classes")
    planes = np.zeros((classes + 1, *labels.shape), np.float32)
    np.put_along_axis(planes, labels[None].astype(np.int64), 1.0, 0)
    planes[-1] = instance_edges(labels.astype(np.int32) if instances is None else instances)
    return planes


def random_instances(instances: Instances, share: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """RI: the pixels of a random ``share`` of the instances, at least one."""
    ids = np.unique(instances)
    count = max(1, round(share * len(ids)))
    return np.isin(instances, random.permutation(ids)[:count])


def random_box(height: int, width: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """RB: one box of random size, uniform over the places it fits in."""
    rows, columns = (int(random.integers(1, side + 1)) for side in (height, width))
    top, left = (int(random.integers(0, side + 1)) for side in (height - rows, width - columns))
    kept = np.zeros((height, width), bool)
    kept[top : top + rows, left : left + columns] = True
    return kept


def cells_of(kept: NDArray[np.bool_], cell: int) -> NDArray[np.bool_]:
    """The heatmap m: cells of ``cell`` × ``cell`` pixels that hold any kept pixel."""
    height, width = kept.shape
    blocks = kept.reshape(height // cell, cell, width // cell, cell)
    return np.asarray(blocks.any((1, 3)), bool)


def random_crop(item: Labelled, crop: tuple[int, int], random: np.random.Generator) -> Labelled:
    """A random window, mirrored half of the time; what is too small is padded by its edge."""
    short = [max(0, want - have) for want, have in zip(crop, item.picture.shape[:2], strict=True)]
    if any(short):
        around = ((short[0] // 2, short[0] - short[0] // 2), (short[1] // 2, short[1] - short[1] // 2))
        item = Labelled(
            np.pad(item.picture, (*around, (0, 0)), mode="edge"),
            None if item.labels is None else np.pad(item.labels, around, mode="edge"),
            None if item.instances is None else np.pad(item.instances, around, mode="edge"),
        )
    top, left = (
        int(random.integers(0, have - want + 1)) for want, have in zip(crop, item.picture.shape[:2], strict=True)
    )
    window = (slice(top, top + crop[0]), slice(left, left + crop[1]))
    step = -1 if random.random() < 0.5 else 1
    return Labelled(
        item.picture[window][:, ::step],
        None if item.labels is None else item.labels[window][:, ::step],
        None if item.instances is None else item.instances[window][:, ::step],
    )
