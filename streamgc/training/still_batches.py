"""Batches of still-image training: a pure function of seed and step, so that any step can be resumed or shared out."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from streamgc.errors import TrainingError
from streamgc.training.still_data import StillSource
from streamgc.training.still_samples import cells_of, label_planes, random_box, random_crop, random_instances
from streamgc.training.still_settings import StillTraining


class StillBatch(NamedTuple):
    """``picture`` (B, 3, H, W) in [-1, 1]; ``planes`` (B, K + 1, H, W), ``keep`` (B, 1, h, w), ``present`` (B, C, 1, 1)
    and ``noise`` (B, N, h, w), each None where the mode has none; ``corner`` (B, 2) in 0…1: where in the room there is
    the perceptual loss looks.
    """

    picture: Tensor
    planes: Tensor | None
    keep: Tensor | None
    present: Tensor | None
    noise: Tensor | None
    corner: Tensor

    def to(self, device: torch.device) -> StillBatch:
        return StillBatch(*[None if value is None else value.to(device) for value in self])  # type: ignore[arg-type]


class _Drawn(NamedTuple):
    picture: np.ndarray
    planes: np.ndarray | None
    keep: np.ndarray | None
    present: np.ndarray | None
    noise: np.ndarray | None
    corner: np.ndarray


class Batches:
    """Draws the share of one process of every step's batch; the next one is drawn in the background."""

    def __init__(self, settings: StillTraining, source: StillSource, rank: int = 0, world: int = 1) -> None:
        """Raises TrainingError when the batch cannot be shared out evenly."""
        if settings.batch % world:
            raise TrainingError(f"a batch of {settings.batch} cannot be shared by {world} processes")
        self.settings = settings
        self.source = source
        self._share = range(rank, settings.batch, world)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._ahead: tuple[int, Future[StillBatch]] | None = None

    def get(self, step: int) -> StillBatch:
        """The batch of a step. Raises TrainingError when its data cannot be used."""
        ahead, self._ahead = self._ahead, None
        batch = ahead[1].result() if ahead is not None and ahead[0] == step else self.draw(step)
        self._ahead = (step + 1, self._worker.submit(self.draw, step + 1))
        return batch

    def close(self) -> None:
        """Stop drawing ahead."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    def draw(self, step: int) -> StillBatch:
        """The batch of a step, drawn now."""
        drawn = [self._one(np.random.default_rng((self.settings.seed, step, index))) for index in self._share]
        fields = zip(*drawn, strict=True)
        return StillBatch(*[None if values[0] is None else torch.from_numpy(np.stack(values)) for values in fields])  # type: ignore[arg-type]

    def _one(self, random: np.random.Generator) -> _Drawn:
        settings, spec = self.settings, self.settings.spec
        item = random_crop(self.source[int(random.integers(len(self.source)))], settings.crop, random)
        picture = np.ascontiguousarray(item.picture.transpose(2, 0, 1), np.float32) / 127.5 - 1
        planes = keep = present = noise = None
        if settings.needs_labels:
            if item.labels is None or item.instances is None:
                raise TrainingError(f"mode {settings.mode} needs label maps, and this data has none")
            # A file says classes, not instances: only D, which no file needs, sees what tells two cars apart.
            instances = item.instances if spec.task == "gc" else None
            planes = label_planes(item.labels, instances, settings.classes)
            if settings.mode == "sc-ri":
                kept = random_instances(item.instances, settings.kept_share, random)
            else:
                kept = random_box(*settings.crop, random)
            if spec.task == "sc":
                keep = cells_of(kept, spec.cell)[None].astype(np.float32)
        if settings.nested and spec.task != "labels":
            count = int(random.choice(settings.nested))
            present = (np.arange(settings.channels) < count).astype(np.float32)[:, None, None]
        if settings.noise:
            # The label-only generator takes v at /16, where F(s) is.
            cell = spec.cell if spec.task != "labels" else 16
            shape = (settings.noise, settings.crop[0] // cell, settings.crop[1] // cell)
            noise = random.standard_normal(shape, np.float32)
        return _Drawn(picture, planes, keep, present, noise, random.random(2))
