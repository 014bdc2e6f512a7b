"""Batches for the segmenter's training, drawn in processes beside it.

Drawing samples costs about a third of what a training step costs; done by workers, and a few batches ahead, the
training never waits for it.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from streamgc.training.segmenter_light import Sample
from streamgc.training.segmenter_scenes import ItemSource, SceneMaker, queries_of, targets_of

AHEAD = 3
"""Batches that each worker keeps ready."""


class Batch(NamedTuple):
    """Tensors of a batch: frame f32 (N, 3, H, W) 0..1, person and weight f32 (N, 1, H, W), heat and where f32 (N, 1,
    H/4, W/4), offset f32 (N, 2, H/4, W/4), trusted f32 (N, 1, 1, 1), labels int64 (N, H/16, W/16), centres: how many
    there are, owner u8 (N, H/4, W/4), queries int64 (Q, 4): sample, row and column at /4, and person."""

    frame: Tensor
    person: Tensor
    weight: Tensor
    heat: Tensor
    where: Tensor
    offset: Tensor
    trusted: Tensor
    labels: Tensor
    centres: int
    owner: Tensor
    queries: Tensor


def collate(samples: list[Sample], rng: np.random.Generator) -> Batch:
    """Samples of one size as a batch."""
    targets = [targets_of(s.owner, s.known) for s in samples]
    known = [(n, s if s.known else s._replace(owner=np.zeros_like(s.owner))) for n, s in enumerate(samples)]
    frame = torch.from_numpy(np.stack([s.frame for s in samples])).permute(0, 3, 1, 2)

    def planes(arrays: list[Any]) -> Tensor:
        return torch.from_numpy(np.stack(arrays)).float()

    return Batch(
        (frame.float() / 255).contiguous(memory_format=torch.channels_last),
        planes([s.person for s in samples])[:, None] / 255,
        planes([s.weight for s in samples])[:, None] / 255,
        planes([t.heat for t in targets])[:, None],
        planes([t.where for t in targets])[:, None],
        planes([t.offset for t in targets]),
        torch.tensor([float(s.known) for s in samples]).view(-1, 1, 1, 1),
        torch.from_numpy(np.stack([s.labels for s in samples]).astype(np.int64)),
        max(1, sum(t.centres for t in targets)),
        torch.from_numpy(np.stack([s.owner[2::4, 2::4] for s in samples])),
        torch.from_numpy(np.concatenate([_numbered(n, queries_of(s.owner, rng)) for n, s in known])),
    )


def _numbered(sample: int, queries: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.column_stack([np.full(len(queries), sample), queries])


def shapes(side: int) -> list[tuple[int, int]]:
    """A square and its portrait and landscape cousins of about the same area; portraits twice, whole bodies need
    them."""
    long, short = round(side * 1.25 / 16) * 16, round(side * 0.8 / 16) * 16
    return [(side, side), (side, side), (long, short), (long, short), (short, long)]


class Drawing(IterableDataset[Batch]):
    """Endless batches of `batch` samples; their size follows `side`, a shared int32 tensor of one value, so that it can
    change while workers draw."""

    def __init__(self, items: ItemSource, batch: int, seed: int, side: Tensor) -> None:
        self._items = items
        self._batch = batch
        self._seed = seed
        self._side = side

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        rng = np.random.default_rng((self._seed, 0 if worker is None else worker.id))
        maker = SceneMaker(self._items)
        while True:
            choices = shapes(int(self._side[0]))
            height, width = choices[int(rng.integers(len(choices)))]
            yield collate([maker.draw(rng, height, width) for _ in range(self._batch)], rng)


class SampleStream:
    """Batches of samples of size `side`.

    workers: processes that draw; 0 draws in the caller, and then the samples depend on the seed alone.
    """

    def __init__(self, items: ItemSource, batch: int, seed: int, side: int, workers: int) -> None:
        self._side = torch.tensor([side], dtype=torch.int32).share_memory_()  # type: ignore[no-untyped-call]
        drawing = Drawing(items, batch, seed, self._side)
        self._loader: DataLoader[Batch] = DataLoader(
            drawing, batch_size=None, num_workers=workers, prefetch_factor=AHEAD if workers else None
        )

    def resize(self, side: int) -> None:
        """Squares of `side` pixels, and their cousins, from the batches on that are not drawn yet."""
        self._side[0] = side

    def __iter__(self) -> Iterator[Batch]:
        yield from self._loader
