"""What ``streamgc engines list | verify | build`` do; each prints a table and returns its rows."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from streamgc.errors import BackendMissing, EngineError, ModelError
from streamgc.runtime.blobs import cache_folder
from streamgc.runtime.engine import (
    Array,
    Engine,
    Precision,
    available_backends,
    available_precisions,
    missing_reason,
)
from streamgc.runtime.parity import LIMITS, Parity, compare, parity_table, require
from streamgc.runtime.plans import (
    LayerPrecision,
    Plan,
    PlanPrecision,
    ShapeProfile,
    build_plan,
    layer_report,
    layer_summary,
    plan_precision,
    write_plan,
)
from streamgc.runtime.samples import Feeds, chained_feeds, clip_pictures, synthetic_pictures
from streamgc.runtime.store import Model, ModelStore

Reference = Callable[[Model, str, Sequence[Feeds]], list[dict[str, Array]]]
"""What a role of a model gives for each feed: what engines are compared with."""


@dataclass(frozen=True)
class Timed:
    """A network on this machine: its parity against the reference and its milliseconds a run."""

    role: str
    backend: str
    precision: str
    size: tuple[int, int]
    threads: int | None
    load_ms: float
    run_ms: float
    run_ms_p95: float
    parity: tuple[Parity, ...]


@dataclass(frozen=True)
class Choice:
    """The backend that ``auto`` would take, and the reasons why each one before it was passed over."""

    backend: str | None
    passed: Mapping[str, str]


def default_cache() -> Path:
    """Where compiled networks are kept between runs: a folder in the user's cache."""
    return cache_folder() / "engines"


def choose() -> Choice:
    """Which backend ``auto`` takes on this machine."""
    passed: dict[str, str] = {}
    for backend, reason in available_backends().items():
        if reason is None:
            return Choice(backend, passed)
        passed[backend] = reason
    return Choice(None, passed)


def engines_list(store: ModelStore | None = None, console: Console | None = None) -> list[Model]:
    """Print the models there are, the backends, and what would be used and why."""
    store, console = store or ModelStore(), console or Console()
    models: list[Model] = []
    table = Table(title="models", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("model", "version", "hash", "channels", "network", "kB", "also as"):
        table.add_column(heading, no_wrap=True)
    for name in store.names():
        try:
            model = store.open(name)
        except ModelError as error:
            console.print(f"[red]{escape(f'{name}: {error}')}[/red]")
            continue
        models.append(model)
        manifest = model.manifest
        head = [name, manifest.version, manifest.hash, ",".join(map(str, model.channels)) or "–"]
        for role, entry in manifest.networks.items():
            size = f"{(model.folder / entry.file).stat().st_size / 1000:.0f}"
            table.add_row(*head, role, size, ", ".join(entry.variants) or "–")
            head = [""] * 4
    console.print(table if models else "no models are installed")
    console.print(backend_table())
    return models


def backend_table() -> Table:
    """Every backend, whether it can run here, and which one ``auto`` takes."""
    choice = choose()
    table = Table("backend", "here", "why", title="backends")
    for backend, reason in available_backends().items():
        note = "used: the first that is available" if backend == choice.backend else reason or "available"
        table.add_row(backend, "yes" if reason is None else "no", escape(note))
    return table


def engines_verify(
    name: str,
    *,
    store: ModelStore | None = None,
    backends: Sequence[str] | None = None,
    precisions: Sequence[Precision] = ("fp32", "bf16", "fp16", "int8"),
    size: tuple[int, int] = (256, 256),
    threads: int | None = None,
    clip: Path | None = None,
    count: int = 4,
    reference: Reference | None = None,
    against: str = "OpenVINO fp32",
    out: Path | None = None,
    console: Console | None = None,
) -> list[Timed]:
    """Check a model's files, run each network on each backend, compare with the reference, and time it.

    ``reference`` computes what is right (None: OpenVINO in fp32), ``against`` is its name in the table; ``out`` is a
    Markdown file for the table. A precision that a backend or a network does not have is left out. Raises ModelError
    for a folder that is not right, BackendMissing for a backend named that is not here, EngineError where a network is
    no longer the same, or where nothing of what was asked for could be run.
    """
    model = (store or ModelStore()).open(name)
    for backend in backends or ():
        reason = missing_reason(backend)
        if reason is not None:
            raise BackendMissing(f"{backend} is not available: {reason}")
    chosen = list(backends) if backends else [b for b, reason in available_backends().items() if reason is None]
    pictures = clip_pictures(clip, size, count) if clip else synthetic_pictures(size, count)
    feeds = chained_feeds(model, pictures, threads=threads)
    rows: list[Timed] = []
    for role in model.roles:
        wanted = (reference or _openvino_results)(model, role, feeds[role])
        for backend in chosen:
            for precision in precisions:
                if precision in available_precisions(backend) and model.has(role, precision):
                    rows.append(_verify_one(model, role, backend, precision, size, threads, feeds[role], wanted))
    if not rows:
        raise EngineError(f"{', '.join(chosen)} cannot run model {name!r} in {', '.join(precisions)} here")
    (console or Console()).print(verify_table(model, rows, against))
    if out is not None:
        _write_text(out, verify_markdown(model, rows, against))
    require(result for row in rows for result in row.parity)
    return rows


def _openvino_results(model: Model, role: str, feeds: Sequence[Feeds]) -> list[dict[str, Array]]:
    with model.load(role, backend="openvino", precision="fp32") as engine:
        return [engine.run(feed) for feed in feeds]


def _verify_one(
    model: Model,
    role: str,
    backend: str,
    precision: Precision,
    size: tuple[int, int],
    threads: int | None,
    feeds: Sequence[Feeds],
    wanted: Sequence[Mapping[str, Array]],
) -> Timed:
    start = time.perf_counter()
    with model.load(role, backend=backend, precision=precision, threads=threads, size=size) as engine:
        load_ms = (time.perf_counter() - start) * 1e3
        got = [engine.run(feed) for feed in feeds]
        results = tuple(
            compare(name, engine, [(w[name], g[name]) for w, g in zip(wanted, got, strict=True)], name == "latent")
            for name in engine.outputs
        )
        times = run_times(engine, feeds[0])
    p95 = times[int(0.95 * (len(times) - 1))]
    return Timed(role, backend, engine.precision, size, threads, load_ms, statistics.median(times), p95, results)


def run_times(engine: Engine, feed: Feeds, seconds: float = 0.4, least: int = 8) -> list[float]:
    """Milliseconds of repeated runs after a warm-up, sorted."""
    for _ in range(2):
        engine.run(feed)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        start = time.perf_counter()
        engine.run(feed)
        times.append((time.perf_counter() - start) * 1e3)
    return sorted(times)


def verify_markdown(model: Model, rows: Sequence[Timed], against: str) -> str:
    """Milliseconds, then parity, of rows of `engines_verify` as Markdown."""
    lines = [f"# {model.name} {model.manifest.version} ({model.manifest.hash}) against {against}", ""]
    lines += ["| network | engine | precision | size | threads | load ms | ms, median | p95 |", "|---" * 8 + "|"]
    for row in rows:
        where = f"{row.size[1]}×{row.size[0]} | {row.threads or 'all'}"
        times = f"{row.load_ms:.0f} | {row.run_ms:.2f} | {row.run_ms_p95:.2f}"
        lines.append(f"| {row.role} | {row.backend} | {row.precision} | {where} | {times} |")
    return "\n".join([*lines, "", parity_table((row.role, result) for row in rows for result in row.parity), ""])


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def verify_table(model: Model, rows: Sequence[Timed], against: str = "OpenVINO fp32") -> Table:
    """Rows of `engines_verify` with a verdict by the limits."""
    title = f"{model.name} {model.manifest.version} ({model.manifest.hash}) against {against}"
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("network", "engine", "ms", "output", "mean", "max", "dB", "flips", ""):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        head = [row.role, f"{row.backend} {row.precision}", f"{row.run_ms:.1f}"]
        for result in row.parity:
            breaches = result.breaches(LIMITS[row.precision])
            flips = "–" if result.flips is None else f"{result.flips:.2%}"
            numbers = [f"{result.mean_error:.4f}", f"{result.max_error:.3f}", f"{result.decibels:.0f}", flips]
            table.add_row(*head, result.output, *numbers, "[red]differs[/red]" if breaches else "same")
            head = [""] * 3
    return table


def engines_build(
    name: str,
    *,
    backend: str,
    capabilities: Sequence[str] = (),
    precision: PlanPrecision = "fp16",
    profile: ShapeProfile | None = None,
    out: Path | None = None,
    roles: Sequence[str] | None = None,
    layers: bool = False,
    store: ModelStore | None = None,
    console: Console | None = None,
) -> list[Path]:
    """Build a TensorRT plan of each network of a model into ``out`` (default: the cache). Prints what was built.

    Raises BackendMissing or EngineError; plans already written stay.
    """
    model, console = (store or ModelStore()).open(name), console or Console()
    unknown = set(roles or ()) - set(model.roles)
    if unknown:
        raise ModelError(f"model {name!r} has no {', '.join(sorted(unknown))}; it has {', '.join(model.roles)}")
    folder = out or default_cache()
    table = Table(
        "network", "plan", "kB", "seconds", "inputs and outputs", title=f"{name} for {backend}", box=box.SIMPLE
    )
    paths: list[Path] = []
    for role in roles or model.roles:
        kind = plan_precision(role, precision)
        source = model.network(role, kind)
        start = time.perf_counter()
        plan = build_plan(
            source, backend, tuple(capabilities), kind, profile, model_hash=model.manifest.hash, detailed=layers
        )
        seconds = time.perf_counter() - start
        paths.append(write_plan(plan, folder / plan.header.key.file_name))
        table.add_row(role, paths[-1].name, f"{len(plan.blob) / 1000:.0f}", f"{seconds:.1f}", _ports(plan))
        if layers:
            found = layer_report(source, backend, kind)
            console.print(layer_table(found, f"{role} as {kind}"), summary_table(found))
    console.print(table)
    return paths


def _ports(plan: Plan) -> str:
    sides = (plan.header.inputs, plan.header.outputs)
    return " → ".join(", ".join(f"{name} {kind}" for name, kind in side.items()) for side in sides)


def layer_table(layers: Sequence[LayerPrecision], title: str) -> Table:
    """Which types each layer reads and writes, as TensorRT parsed them."""
    table = Table("layer", "kind", "reads", "writes", title=title, box=box.SIMPLE_HEAD)
    for layer in layers:
        table.add_row(escape(layer.name), layer.kind, " ".join(layer.inputs), " ".join(layer.outputs))
    return table


def summary_table(layers: Sequence[LayerPrecision]) -> Table:
    """How many layers of each kind compute in which types."""
    table = Table("kind", "reads", "writes", "layers", title="in short", box=box.SIMPLE_HEAD)
    for kind, reads, writes, count in layer_summary(layers):
        table.add_row(kind, reads, writes, str(count))
    return table
