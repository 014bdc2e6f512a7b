"""How the peers of one machine share its cores: threads for each network, and segmentation ahead of coding.

    python -m streamgc.evaluation.engines_sharing [--fps 15] [--frames 60] [--out FILE]

Each peer is a process with a camera of ``--fps``. A frame is segmented, encoded and generated, as between a sender and
a receiver on one machine. *In turn*: one after the other, then the newest frame that the camera has. *Ahead*: the
segmenter starts on a frame when the camera gives it (`Engine.submit`), while the frame before is still being coded.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from streamgc.runtime.engine import Array, Engine, Precision
from streamgc.runtime.samples import chained_feeds, synthetic_pictures
from streamgc.runtime.store import ModelStore

Mode = Literal["in turn", "ahead"]
THREADS = ((1, 1, 1), (1, 1, 2), (2, 2, 2))
"""Threads of segmenter, encoder and generator."""
ROLES = (("segmenter", "segmenter"), ("lite", "encoder"), ("lite", "generator"))


class Job(NamedTuple):
    """What one peer does."""

    root: Path
    size: tuple[int, int]
    threads: tuple[int, int, int]
    mode: Mode
    fps: float
    frames: int
    precision: Precision | None


@dataclass(frozen=True)
class Sharing:
    """Milliseconds from the camera's frame to its picture, of all peers together; ``shown`` pictures a second of one
    peer; ``cpu`` cores in use."""

    peers: int
    threads: tuple[int, int, int]
    mode: Mode
    median: float
    p95: float
    shown: float
    cpu: float


class Camera:
    """Gives a frame each 1/fps seconds to ``take`` and keeps only the newest that was not fetched."""

    def __init__(self, fps: float, frames: int, take: Callable[[], Any]) -> None:
        self._period, self._frames, self._take = 1 / fps, frames, take
        self._ready = threading.Condition()
        self._slot: tuple[float, Any] | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        start = time.perf_counter()
        for index in range(self._frames):
            arrival = start + index * self._period
            time.sleep(max(0.0, arrival - time.perf_counter()))
            with self._ready:
                # A frame that is being segmented is not thrown away: the one after it is.
                if self._slot is None:
                    self._slot = (arrival, self._take())
                    self._ready.notify()
        with self._ready:
            self._ended = True
            self._ready.notify()

    def fetch(self) -> tuple[float, Any] | None:
        """(arrival, what ``take`` gave) of the waiting frame; None when the camera has ended."""
        with self._ready:
            self._ready.wait_for(lambda: self._slot is not None or self._ended)
            found, self._slot = self._slot, None
            return found


def run_peer(job: Job) -> tuple[list[float], float, float]:
    """(milliseconds of each frame shown, pictures a second, CPU seconds a second) of one peer."""
    segmenter, encoder, generator = (_load(job, index) for index in range(3))
    feeds = [_feed(job, *role) for role in ROLES]
    for _ in range(3):
        for engine, feed in zip((segmenter, encoder, generator), feeds, strict=True):
            engine.run(feed)

    def take() -> Future[dict[str, Array]] | None:
        return segmenter.submit(feeds[0]) if job.mode == "ahead" else None

    times: list[float] = []
    began, spent = time.perf_counter(), time.process_time()
    camera = Camera(job.fps, job.frames, take)
    while (found := camera.fetch()) is not None:
        arrival, segmented = found
        if segmented is None:
            segmenter.run(feeds[0])
        else:
            segmented.result(60)
        encoder.run(feeds[1])
        generator.run(feeds[2])
        times.append((time.perf_counter() - arrival) * 1e3)
    elapsed = time.perf_counter() - began
    for engine in (segmenter, encoder, generator):
        engine.close()
    return times, len(times) / elapsed, (time.process_time() - spent) / elapsed


def _load(job: Job, index: int) -> Engine:
    name, role = ROLES[index]
    model = ModelStore(job.root).open(name)
    precision = job.precision or ("int8" if model.has(role, "int8") else "auto")
    return model.load(role, backend="openvino", precision=precision, threads=job.threads[index], size=job.size)


def _feed(job: Job, name: str, role: str) -> Mapping[str, Array]:
    model = ModelStore(job.root).open(name)
    return chained_feeds(model, synthetic_pictures(job.size, 1), roles=[role], threads=1)[role][0]


def measure(
    root: Path,
    size: tuple[int, int],
    fps: float,
    frames: int,
    precision: Precision | None = None,
    threads: Sequence[tuple[int, int, int]] = THREADS,
) -> list[Sharing]:
    """One and two peers, each choice of threads, in turn and ahead."""
    results: list[Sharing] = []
    modes: tuple[Mode, ...] = ("in turn", "ahead")
    for peers, chosen, mode in itertools.product((1, 2), threads, modes):
        job = Job(root, size, chosen, mode, fps, frames, precision)
        with multiprocessing.get_context("spawn").Pool(peers) as pool:
            found = pool.map(run_peer, [job] * peers, chunksize=1)
        times = sorted(itertools.chain.from_iterable(times for times, _, _ in found))
        p95 = times[int(0.95 * (len(times) - 1))]
        shown = statistics.fmean(shown for _, shown, _ in found)
        cpu = sum(cpu for _, _, cpu in found)
        results.append(Sharing(peers, chosen, mode, statistics.median(times), p95, shown, cpu))
    return results


def markdown(results: Sequence[Sharing]) -> str:
    """One row per measurement."""
    lines = ["| peers | threads S, E, G | segmentation | ms, median | p95 | pictures/s | cores |", "|---" * 7 + "|"]
    for row in results:
        counts = ", ".join(map(str, row.threads))
        numbers = f"{row.median:.1f} | {row.p95:.1f} | {row.shown:.1f} | {row.cpu:.2f}"
        lines.append(f"| {row.peers} | {counts} | {row.mode} | {numbers} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, and print or write."""
    parser = argparse.ArgumentParser(prog="python -m streamgc.evaluation.engines_sharing", description=__doc__)
    parser.add_argument("--engines", type=Path, default=None, help="folder of models; default: the shipped ones")
    parser.add_argument("--size", default="256x256")
    parser.add_argument("--fps", default="15", help="comma-separated")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--precision", choices=("fp32", "bf16", "int8"), default=None, help="default: as a call does")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args(arguments)
    width, height = (int(side) for side in options.size.split("x"))
    root = ModelStore(options.engines).root
    parts = []
    for fps in options.fps.split(","):
        rows = measure(root, (height, width), float(fps), options.frames, options.precision)
        parts.append(f"{width}×{height}, {fps} frames/s of each camera\n\n{markdown(rows)}\n")
    text = "\n".join(parts)
    print(text)
    if options.out is not None:
        temporary = options.out.with_name(options.out.name + ".tmp")
        temporary.write_text(text)
        os.replace(temporary, options.out)


if __name__ == "__main__":
    main()
