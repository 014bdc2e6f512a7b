"""The room network's data, cached once: pictures of rooms and, fewer, of streets and nature, with the teacher's coarse
labels.

Bathrooms are left out: nobody calls from there, and a toilet behind a person is no calm background. Pictures taken
outside are kept only where the teacher sees sky, plants or vehicles, so that a map without such labels means a room.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamgc.errors import TrainingError
from streamgc.scene.labels import COCO_PERSON, LABEL_COUNT, Label
from streamgc.training.segmenter_data import outdoor_labels, read_picture
from streamgc.training.teachers import Teachers

Picture = NDArray[np.uint8]

SETS = ("houses", "bsds500", "coco128_seg")
OUTSIDE = (Label.VEGETATION, Label.SKY, Label.VEHICLE)
OUTSIDE_SHARE = 0.15
"""Part of a picture taken outside that must carry one of the labels of `OUTSIDE`."""
PERSON_SHARE = 0.12
"""A picture with more person than this shows too little of the room."""
STORED_SIDE = 288
CELL = 16


class Scene(NamedTuple):
    """A square picture u8 (S, S, 3) and its `Label` ids u8 (S, S)."""

    picture: Picture
    labels: NDArray[np.uint8]


def read_scene(path: Path, teachers: Teachers, outside: bool) -> Scene | None:
    """A picture's middle square and what the teachers see in it; None when it is of no use for training. Raises
    TrainingError when the file cannot be read."""
    picture = read_picture(path)
    detections = teachers.detect(picture)
    labels = teachers.scene(picture, detections)
    if outside:
        outdoor_labels(picture, labels, sky=True)
        if np.isin(labels, OUTSIDE).mean() < OUTSIDE_SHARE:
            return None
    if (labels == Label.PERSON).mean() > PERSON_SHARE:
        return None
    if not outside and (detections.classes[detections.scores > 0.5] == COCO_PERSON).any():
        return None
    return Scene(_square(picture), _square(labels))


def _square(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle square at 288 pixels a side; labels by the nearest."""
    height, width = plane.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    method = Image.Resampling.BILINEAR if plane.ndim == 3 else Image.Resampling.NEAREST
    image = Image.fromarray(np.ascontiguousarray(plane[top : top + side, left : left + side]))
    return np.asarray(image.resize((STORED_SIDE, STORED_SIDE), method), np.uint8)


def gather_scenes(data: Path, teachers: Teachers) -> Iterator[Scene]:
    """Every usable scene of `data/train/stills`."""
    for name in SETS:
        folder = data / "train" / "stills" / name
        for path in sorted(folder.glob("*.jpg")) if folder.is_dir() else []:
            if path.stem.endswith("bathroom"):
                continue
            scene = read_scene(path, teachers, outside=name != "houses")
            if scene is not None:
                yield scene


class SceneCache:
    """The scenes in memory; ``pictures`` u8 (N, S, S, 3), ``labels`` u8 (N, S, S)."""

    def __init__(self, path: Path) -> None:
        """Raises TrainingError when the file is no cache of `build_scenes`."""
        try:
            with np.load(path) as stored:
                self.pictures: Picture = stored["pictures"]
                self.labels: NDArray[np.uint8] = stored["labels"]
        except (OSError, ValueError, KeyError) as error:
            raise TrainingError(f"no usable scenes in {path}: {error}") from error

    def __len__(self) -> int:
        return len(self.pictures)


def build_scenes(data: Path, weights: Path, path: Path) -> SceneCache:
    """Run the teachers over the training pictures once and keep the result. Raises TrainingError without pictures."""
    scenes = list(gather_scenes(data, Teachers(weights)))
    if not scenes:
        raise TrainingError(f"no pictures of rooms under {data / 'train' / 'stills'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part.npz")
    np.savez(partial, pictures=np.stack([s.picture for s in scenes]), labels=np.stack([s.labels for s in scenes]))
    os.replace(partial, path)
    return SceneCache(path)


def cell_labels(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`Label` ids (H, W) to the most frequent one of each 16×16 cell, u8 (h, w); a remainder is cut off."""
    rows, columns = labels.shape[0] // CELL, labels.shape[1] // CELL
    cells = labels[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL)
    votes = np.stack([(cells == label).sum((1, 3)) for label in range(LABEL_COUNT)])
    return np.asarray(votes.argmax(0), np.uint8)
