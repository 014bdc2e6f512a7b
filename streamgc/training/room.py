"""Fitting of the room network: mean room, labels by ridge regression, principal components of what they leave.

It is closed-form, takes seconds once the teachers have labelled the pictures, and gives the same network each time.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from streamgc.errors import TrainingError
from streamgc.networks.room import BASIS_SIDE, PLANES, STYLE, RoomGenerator, label_planes
from streamgc.training.room_data import OUTSIDE, SceneCache, build_scenes, cell_labels

SIDE = 256
"""Pixels of a picture's side whose cells are fitted."""
CELLS = SIDE // 16


@dataclass(frozen=True)
class RoomSettings:
    """What a fit is made of.

    data: folder with `train/stills`; weights: the teachers' folder, needed until the scenes are cached; run: folder for
    cache and result. ridge: pull of the labels' effect to none, in cells.
    """

    data: Path
    weights: Path
    run: Path
    ridge: float = 100.0
    threads: int = 1


class Rooms(NamedTuple):
    """Pictures f32 (N, 3, 32, 32) in [0, 1] with labels u8 (N, 16, 16); ``inside`` bool (N,): rooms, not streets."""

    pictures: Tensor
    labels: Tensor
    inside: Tensor


def read_rooms(scenes: SceneCache) -> Rooms:
    """Every scene as it is and mirrored. Raises TrainingError when none of them is a room."""
    size = (BASIS_SIDE, BASIS_SIDE)
    small = [np.asarray(Image.fromarray(p).resize(size, Image.Resampling.BOX), np.float32) for p in scenes.pictures]
    cells = [cell_labels(_at_side(labels)) for labels in scenes.labels]
    inside = torch.from_numpy(np.isin(scenes.labels, OUTSIDE).mean((1, 2)) <= 0.1)
    if not bool(inside.any()):
        raise TrainingError("there are no rooms among the scenes")
    pictures = torch.from_numpy(np.stack(small) / np.float32(255)).permute(0, 3, 1, 2)
    labels = torch.from_numpy(np.stack(cells))
    return Rooms(
        torch.cat([pictures, pictures.flip(3)]), torch.cat([labels, labels.flip(2)]), torch.cat([inside, inside])
    )


def _at_side(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(labels).resize((SIDE, SIDE), Image.Resampling.NEAREST), np.uint8)


def fit_room(rooms: Rooms, ridge: float) -> RoomGenerator:
    """The network of these rooms."""
    network = RoomGenerator().eval()
    mean = rooms.pictures[rooms.inside].mean(0)
    left = rooms.pictures - mean
    network.things.weight.data = label_effects(rooms.labels, F.adaptive_avg_pool2d(left, CELLS), ridge)
    with torch.no_grad():
        things = network.things(label_planes(rooms.labels[rooms.inside]))
        left = left[rooms.inside] - F.interpolate(things, size=BASIS_SIDE, mode="bilinear", align_corners=False)
    # What the labels take away on average, the mean room gets back.
    network.basis[0] = mean + left.mean(0)
    network.basis[1:] = components(left - left.mean(0))
    return network


def label_effects(labels: Tensor, change: Tensor, ridge: float) -> Tensor:
    """Ridge regression of the ``change`` (N, 3, h, w) of each cell on the labels (N, h, w) of its 3×3 surroundings.

    Returns the weight (3, 26, 3, 3) of a convolution over `label_planes`.
    """
    size = PLANES * 9
    squares, products = torch.eye(size) * ridge, torch.zeros(size, 3)
    for some, wanted in zip(torch.split(labels, 64), torch.split(change, 64), strict=True):
        seen = F.unfold(label_planes(some), 3, padding=1).transpose(1, 2).reshape(-1, size)
        squares += seen.T @ seen
        products += seen.T @ wanted.permute(0, 2, 3, 1).reshape(-1, 3)
    effects: Tensor = torch.linalg.solve(squares, products)
    return effects.T.reshape(3, PLANES, 3, 3).contiguous()


def components(left: Tensor) -> Tensor:
    """The first eight principal components (8, 3, S, S) of pictures (N, 3, S, S) whose mean is none, each times its
    standard deviation; zeros where there are fewer."""
    rows = left.flatten(1)
    _, scales, directions = torch.linalg.svd(rows, full_matrices=False)
    count = min(STYLE, len(scales))
    found = torch.zeros(STYLE, rows.shape[1])
    found[:count] = directions[:count] * scales[:count, None] / math.sqrt(len(rows))
    return found.reshape(STYLE, *left.shape[1:])


def train_room(settings: RoomSettings) -> Path:
    """Fit and keep the network in ``settings.run``; returns its file. Raises TrainingError on unusable data."""
    torch.set_num_threads(settings.threads)
    settings.run.mkdir(parents=True, exist_ok=True)
    cache, target = settings.run / "scenes.npz", settings.run / "room.pt"
    scenes = SceneCache(cache) if cache.exists() else build_scenes(settings.data, settings.weights, cache)
    network = fit_room(read_rooms(scenes), settings.ridge)
    partial = target.with_suffix(".part")
    torch.save({"network": network.state_dict(), "scenes": len(scenes)}, partial)
    os.replace(partial, target)
    return target


def load_room(path: Path) -> tuple[RoomGenerator, int]:
    """The network of a fit and the number of scenes it saw. Raises TrainingError."""
    network = RoomGenerator()
    try:
        state = torch.load(path, weights_only=True)
        network.load_state_dict(state["network"])
        return network.eval(), int(state["scenes"])
    except (OSError, KeyError, RuntimeError) as error:
        raise TrainingError(f"no usable room network at {path}: {error}") from error
