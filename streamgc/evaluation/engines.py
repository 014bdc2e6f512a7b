"""The table of ``docs/results/engines.md``: milliseconds by network, size, precision and threads.

    python -m streamgc.evaluation.engines [--models lite,segmenter] [--out FILE]

Every engine against torch eager. Other work on the machine only ever adds time, so the minimum of many runs is the
figure and the median stands beside it; lines of one network and size are measured in turns, so that their ratios hold
on a busy machine. How peers share the cores: ``evaluation/engines_sharing.py``.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamgc.errors import TrainingError
from streamgc.runtime.engine import Array, Engine, Precision, available_precisions
from streamgc.runtime.samples import chained_feeds, synthetic_pictures
from streamgc.runtime.store import Model, ModelStore

Size = tuple[int, int]
SIZES: tuple[Size, ...] = ((256, 256), (384, 384), (368, 640))
ENGINES: tuple[tuple[str, Precision], ...] = (
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)


@dataclass(frozen=True)
class Line:
    """One cell of the table: milliseconds of one run."""

    model: str
    role: str
    size: Size
    engine: str
    precision: str
    threads: int
    minimum: float
    median: float


def in_turns(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each callable, called in turns after two warm-up calls."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_number, (name, run) in itertools.product(range(-2, rounds), runs.items()):
        start = time.perf_counter()
        run()
        if round_number >= 0:
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


def measure(model: Model, size: Size, threads: int, rounds: int, eager: bool) -> list[Line]:
    """Every network of a model on every engine that has it, and in torch eager."""
    feeds = chained_feeds(model, synthetic_pictures(size, 1), threads=threads)
    lines: list[Line] = []
    for role in model.roles:
        feed = feeds[role][0]
        engines = _engines(model, role, size, threads)
        runs: dict[str, Callable[[], object]] = {
            f"{engine.backend}/{engine.precision}": _runner(engine, feed) for engine in engines
        }
        torch_run = _torch_runner(model, role, feed, threads) if eager else None
        if torch_run is not None:
            runs = {"torch eager/fp32": torch_run, **runs}
        for name, times in in_turns(runs, rounds).items():
            engine, precision = name.split("/")
            lines.append(Line(model.name, role, size, engine, precision, threads, min(times), statistics.median(times)))
        for each in engines:
            each.close()
    return lines


def _runner(engine: Engine, feed: Mapping[str, Array]) -> Callable[[], object]:
    return lambda: engine.run(feed)


def _engines(model: Model, role: str, size: Size, threads: int) -> list[Engine]:
    """The engines of a role; a precision that the CPU or the model does not have is left out."""
    return [
        model.load(role, backend=backend, precision=precision, threads=threads, size=size)
        for backend, precision in ENGINES
        if precision in available_precisions(backend) and model.has(role, precision)
    ]


def _torch_runner(model: Model, role: str, feed: Mapping[str, Array], threads: int) -> Callable[[], object] | None:
    """The network in torch eager, channels last, which is its faster layout on a CPU; None where the shipped file is of
    another version of the networks."""
    import torch

    from streamgc.training.torch_reference import torch_network

    try:
        network = torch_network(model, role)
    except TrainingError:
        return None
    module = network.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = [torch.from_numpy(np.ascontiguousarray(feed[name])) for name in network.inputs]

    def run() -> object:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return module(*inputs)

    return run


def markdown(lines: Sequence[Line]) -> str:
    """The table: one row per network, size and threads; cells are minimum (median) in ms, – where there is none."""
    columns = list(dict.fromkeys((line.engine, line.precision) for line in lines))
    head = "| network | size | threads | " + " | ".join(f"{engine} {precision}" for engine, precision in columns) + " |"
    rows = [head, "|---" * (len(columns) + 3) + "|"]
    keys = dict.fromkeys((line.model, line.role, line.size, line.threads) for line in lines)
    cells = {(ln.model, ln.role, ln.size, ln.threads, ln.engine, ln.precision): ln for ln in lines}
    for key in keys:
        found = [cells.get((*key, *column)) for column in columns]
        texts = ["–" if line is None else f"{line.minimum:.1f} ({line.median:.1f})" for line in found]
        model, role, (height, width), threads = key
        name = role if role == model else f"{model} {role}"
        rows.append(f"| {name} | {width}×{height} | {threads} | " + " | ".join(texts) + " |")
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, and print or write."""
    parser = argparse.ArgumentParser(prog="python -m streamgc.evaluation.engines", description=__doc__)
    parser.add_argument("--models", default="lite,segmenter")
    parser.add_argument("--engines", type=Path, default=None, help="folder of models; default: the shipped ones")
    parser.add_argument("--sizes", default=",".join(f"{width}x{height}" for height, width in SIZES))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--no-eager", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args(arguments)
    store = ModelStore(options.engines)
    models = [store.open(name) for name in options.models.split(",")]
    sizes = [(int(text.split("x")[1]), int(text.split("x")[0])) for text in options.sizes.split(",")]
    parts = [f"CPU: {_processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"]
    threads = [int(text) for text in options.threads.split(",")]
    lines: list[Line] = []
    for model, size, count in itertools.product(models, sizes, threads):
        lines += measure(model, size, count, options.rounds, not options.no_eager)
    parts.append(markdown(lines))
    text = "\n\n".join(parts) + "\n"
    print(text)
    if options.out is not None:
        temporary = options.out.with_name(options.out.name + ".tmp")
        temporary.write_text(text)
        os.replace(temporary, options.out)


def _processor() -> str:
    from streamgc.runtime.openvino import capabilities, device_name

    features = ", ".join(name for name in capabilities() if name in ("bf16", "fp16", "int8"))
    return f"{device_name()} ({features}), {platform.system()}"


if __name__ == "__main__":
    main()
