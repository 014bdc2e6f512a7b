"""The table of ``docs/results/engines.md``: milliseconds by network, size, precision and threads, and how peers
share cores.

    python -m streamgc.evaluation.engines --table [--out FILE]     every engine against torch eager
    python -m streamgc.evaluation.engines --sharing                two peers on this machine's cores

Other work on the machine only ever adds time, so the minimum of many runs is the figure and the median stands beside
it; lines of one network and size are measured in turns, so that their ratios hold on a busy machine.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from streamgc.runtime.engine import PRECISIONS, Array, Engine, Precision, available_precisions
from streamgc.runtime.samples import chained_feeds, synthetic_pictures
from streamgc.runtime.store import Model, ModelStore, add_variants, write_model_json

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


@dataclass(frozen=True)
class Sharing:
    """How long a frame takes when ``peers`` processes code at once: encoder, then generator, each frame."""

    peers: int
    threads: int
    mode: Literal["in turn", "overlapped"]
    median: float
    p95: float
    frames_a_second: float


def in_turns(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each callable, called in turns after two warm-up calls."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_number, (name, run) in itertools.product(range(-2, rounds), runs.items()):
        start = time.perf_counter()
        run()
        if round_number >= 0:
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


def random_lite(folder: Path) -> Model:
    """The lite networks of this checkout with random weights, with int8 files: as fast as trained ones."""
    import torch

    from streamgc.networks.lite import CHANNELS, WIDTH_4, WIDTH_8, WIDTH_16
    from streamgc.training.call_ship import NETWORKS
    from streamgc.training.export import export_onnx, quantise_int8

    torch.manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "symbols": (1, CHANNELS, 8, 10),
        "present": (1, CHANNELS, 1, 1),
        "f4": (1, WIDTH_4, 32, 40),
        "f8": (1, WIDTH_8, 16, 20),
        "f16": (1, WIDTH_16, 8, 10),
    }
    bytes_shapes = {
        "plane": (1, 8, 10),
        "matte": (1, 128, 160, 1),
        "picture": (1, 128, 160, 3),
        "key": (1, 128, 160, 3),
    }
    examples = {name: torch.zeros(shape) for name, shape in shapes.items()}
    examples |= {name: torch.zeros(shape, dtype=torch.uint8) for name, shape in bytes_shapes.items()}
    for role, (inputs, outputs, axes) in NETWORKS.items():
        tensors = [examples[name] for name in inputs]
        export_onnx(_lite_module(role), tensors, folder / f"{role}.onnx", inputs, outputs, axes)
    networks = {role: f"{role}.onnx" for role in NETWORKS}
    model = write_model_json(folder, name="lite", family="lite", version="random", networks=networks)
    for role, feeds in chained_feeds(model, synthetic_pictures((128, 128), 4)).items():
        quantise_int8(model.network(role), folder / f"{role}.int8.onnx", feeds)
    return add_variants(model, {role: {"int8": f"{role}.int8.onnx"} for role in NETWORKS})


def measure(model: Model, size: Size, threads: int, rounds: int, eager: bool) -> list[Line]:
    """Every network of a model on every engine that has it, and in torch eager where its module is known."""
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
    """The network in torch eager with random weights: its speed does not depend on them. None for other families."""
    import torch

    from streamgc.training.call_ship import NETWORKS

    if model.family != "lite" or role not in NETWORKS:
        return None
    module = _lite_module(role).to(memory_format=torch.channels_last)
    inputs = [torch.from_numpy(np.ascontiguousarray(feed[name])) for name in NETWORKS[role][0]]

    def run() -> object:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return module(*inputs)

    return run


def _lite_module(role: str) -> Any:
    """A network of the lite family as it is shipped, with random weights."""
    from streamgc.networks.lite import Encoder, Generator, Reference
    from streamgc.networks.lite_export import ShippedEncoder, ShippedGenerator, ShippedReference

    if role == "encoder":
        return ShippedEncoder(Encoder()).eval()
    return (ShippedReference(Reference()) if role == "reference" else ShippedGenerator(Generator())).eval()


def sharing(model: Model, size: Size, frames: int, precision: Precision) -> list[Sharing]:
    """One and two peers, one and two threads, frames in turn or overlapped; each peer is a process."""
    results = []
    for peers, threads, mode in itertools.product((1, 2), (1, 2), ("in turn", "overlapped")):
        context = multiprocessing.get_context("spawn")
        with context.Pool(peers) as pool:
            jobs = [(model.folder, size, threads, mode, frames, precision)] * peers
            times = list(itertools.chain.from_iterable(pool.map(_peer, jobs, chunksize=1)))
        ordered = sorted(spent for spent, _ in times)
        rate = 1e3 / statistics.fmean(period for _, period in times)
        chosen: Literal["in turn", "overlapped"] = "overlapped" if mode == "overlapped" else "in turn"
        median = statistics.median(ordered)
        results.append(Sharing(peers, threads, chosen, median, ordered[int(0.95 * (len(ordered) - 1))], rate))
    return results


def _peer(job: tuple[Path, Size, int, str, int, Precision]) -> list[tuple[float, float]]:
    """(milliseconds from a frame's start to its picture, milliseconds between pictures) of each frame of one peer."""
    folder, size, threads, mode, frames, precision = job
    model = ModelStore(folder.parent).open(folder)
    feeds = chained_feeds(model, synthetic_pictures(size, 1), threads=threads)
    encoder, generator = (
        model.load(role, backend="openvino", precision=precision, threads=threads, size=size)
        for role in ("encoder", "generator")
    )
    encode, generate = feeds["encoder"][0], feeds["generator"][0]
    for _ in range(3):
        encoder.run(encode)
        generator.run(generate)
    times: list[tuple[float, float]] = []
    before = time.perf_counter()
    ahead = encoder.submit(encode) if mode == "overlapped" else None
    for _ in range(frames):
        start = time.perf_counter()
        if ahead is not None:
            # Frame n + 1 is encoded while frame n is generated, as a sender and a receiver in one process do.
            ahead.result(60)
            ahead = encoder.submit(encode)
        else:
            encoder.run(encode)
        generator.run(generate)
        now = time.perf_counter()
        times.append(((now - start) * 1e3, (now - before) * 1e3))
        before = now
    if ahead is not None:
        ahead.result(60)
    encoder.close()
    generator.close()
    return times


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


def sharing_markdown(results: Sequence[Sharing]) -> str:
    """Rows of `sharing`."""
    rows = [
        "| peers | threads each | encoder and generator | ms a frame, median | p95 | frames/s a peer |",
        "|---" * 6 + "|",
    ]
    for result in results:
        numbers = f"{result.median:.1f} | {result.p95:.1f} | {result.frames_a_second:.1f}"
        rows.append(f"| {result.peers} | {result.threads} | {result.mode} | {numbers} |")
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, and print or write."""
    parser = argparse.ArgumentParser(prog="python -m streamgc.evaluation.engines", description=__doc__)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--sharing", action="store_true")
    parser.add_argument("--models", default="lite,segmenter")
    parser.add_argument("--random", action="store_true", help="lite networks with random weights (needs [train])")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="of --sharing")
    parser.add_argument("--engines", type=Path, default=None, help="folder of models; default: the shipped ones")
    parser.add_argument("--sizes", default=",".join(f"{width}x{height}" for height, width in SIZES))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--no-eager", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args(arguments)
    store = ModelStore(options.engines)
    scratch = tempfile.TemporaryDirectory()
    models = [
        random_lite(Path(scratch.name) / name) if name == "lite" and options.random else store.open(name)
        for name in options.models.split(",")
    ]
    sizes = [(int(text.split("x")[1]), int(text.split("x")[0])) for text in options.sizes.split(",")]
    parts = [f"CPU: {_processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"]
    if options.table:
        threads = [int(text) for text in options.threads.split(",")]
        lines: list[Line] = []
        for model, size, count in itertools.product(models, sizes, threads):
            lines += measure(model, size, count, options.rounds, not options.no_eager)
        parts.append(markdown(lines))
    if options.sharing:
        parts.append(sharing_markdown(sharing(models[0], sizes[0], 2 * options.rounds, options.precision)))
    text = "\n\n".join(parts) + "\n"
    print(text)
    if options.out is not None:
        temporary = options.out.with_name(options.out.name + ".tmp")
        temporary.write_text(text)
        os.replace(temporary, options.out)
    scratch.cleanup()


def _processor() -> str:
    from streamgc.runtime.openvino import capabilities, device_name

    features = ", ".join(name for name in capabilities() if name in ("bf16", "fp16", "int8"))
    return f"{device_name()} ({features}), {platform.system()}"


if __name__ == "__main__":
    main()
