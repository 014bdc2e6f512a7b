"""A training in several processes of one thread each, which average their gradients after every step.

Small networks gain nothing from threads: on two cores a step of the segmenter took 0.23 s with one thread, as long with
two, and two processes did two steps in 0.27 s. Each process draws samples of its own; weights and optimisers stay the
same in all, since all take the same steps. Data goes over loopback sockets (gloo).
"""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterable
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from streamgc.errors import TrainingError

Settings = TypeVar("Settings")
PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others before it gives up."""


class Together:
    """One process's place among `count`; number 0 leads. With one process nothing is exchanged."""

    def __init__(self, number: int = 0, count: int = 1, meeting: Path | None = None) -> None:
        """meeting: a file that does not exist yet, by which the processes find each other."""
        self.number, self.count = number, count
        if count > 1:
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # read by gloo only
            dist.init_process_group(
                "gloo", init_method=f"file://{meeting}", rank=number, world_size=count, timeout=PATIENCE
            )

    @property
    def leads(self) -> bool:
        """Whether this is the process that saves and reports."""
        return self.number == 0

    def average(self, parameters: Iterable[Tensor]) -> None:
        """Put the mean of all processes' gradients in place of each one's own; raises TrainingError when another
        process is gone."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        self._exchange(lambda: dist.all_reduce(flat))
        flat /= self.count
        for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def agree(self, value: float) -> float:
        """The leader's value."""
        if self.count == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64)
        self._exchange(lambda: dist.broadcast(told, 0))
        return float(told)

    def _exchange(self, exchange: Callable[[], object]) -> None:
        try:
            exchange()
        except RuntimeError as error:
            raise TrainingError(f"a process of the training is gone: {str(error).splitlines()[0]}") from error

    def leave(self) -> None:
        """End the exchange."""
        if self.count > 1:
            dist.destroy_process_group()


def train_together(train: Callable[[Settings, Together], None], settings: Settings, count: int) -> None:
    """`train(settings, place)` in this process and in `count` - 1 others, which end with it; `train` is a module's
    function. Raises TrainingError."""
    if count == 1:
        train(settings, Together())
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        context = multiprocessing.get_context("spawn")
        others: list[BaseProcess] = [
            context.Process(target=_take_part, args=(train, settings, number, count, meeting))
            for number in range(1, count)
        ]
        for other in others:
            other.start()
        place = Together(0, count, meeting)
        try:
            train(settings, place)
        finally:
            place.leave()
            for other in others:
                other.join(20)
                if other.is_alive():
                    other.terminate()


def _take_part(
    train: Callable[[Settings, Together], None], settings: Settings, number: int, count: int, meeting: Path
) -> None:
    place = Together(number, count, meeting)
    try:
        train(settings, place)
    finally:
        place.leave()
