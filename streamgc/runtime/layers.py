"""The slowest layers of a model's networks, by the profilers of the runtimes that run them."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.table import Table

from streamgc.errors import EngineError
from streamgc.runtime.engine import Engine, LayerTime, Precision, load_engine
from streamgc.runtime.samples import Feeds, chained_feeds, synthetic_pictures
from streamgc.runtime.store import Model, ModelStore

RUNS = 20
WARM_UP_RUNS = 3


class NetworkLayers(NamedTuple):
    """One network: its layers, the slowest first, median ms of some runs."""

    model: str
    role: str
    engine: str  # backend and precision
    layers: tuple[LayerTime, ...]

    @property
    def milliseconds(self) -> float:
        """All layers together."""
        return sum(layer.milliseconds for layer in self.layers)


def profile_layers(
    names: Sequence[str],
    size: tuple[int, int],
    backend: str = "auto",
    precision: Precision = "auto",
    threads: int | None = None,
    runs: int = RUNS,
) -> Iterator[NetworkLayers]:
    """Every network of the models, on pictures of (height, width). ``precision`` "auto" takes int8 where it is shipped
    and the backend is OpenVINO, as a call does.

    Raises ModelError, BackendMissing and EngineError.
    """
    for name in names:
        model = ModelStore().open(name)
        feeds = chained_feeds(model, synthetic_pictures(size, 1), threads=threads)
        for role in model.roles:
            yield _network(model, role, feeds[role][0], size, backend, precision, threads, runs)


def _network(
    model: Model,
    role: str,
    feed: Feeds,
    size: tuple[int, int],
    backend: str,
    precision: Precision,
    threads: int | None,
    runs: int,
) -> NetworkLayers:
    asked: Precision = precision
    if precision == "auto" and backend in ("auto", "openvino") and model.has(role, "int8"):
        asked = "int8"

    def load() -> Engine:
        path = model.network(role, asked)
        return load_engine(path, backend=backend, precision=asked, threads=threads, size=size, profiling=True)

    with load() as engine:
        label = f"{engine.backend} {engine.precision}"
        once = engine.backend.startswith("onnxruntime")  # its profile ends with the first reading
        if not once:
            for _ in range(WARM_UP_RUNS):
                engine.run(feed)
            return NetworkLayers(model.name, role, label, _medians([engine.layers(feed) for _ in range(runs)]))
    times = []
    for _ in range(max(1, runs // 5)):
        with load() as engine:
            for _ in range(WARM_UP_RUNS):
                engine.run(feed)
            times.append(engine.layers(feed))
    return NetworkLayers(model.name, role, label, _medians(times))


def _medians(runs: Sequence[Sequence[LayerTime]]) -> tuple[LayerTime, ...]:
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for run in runs:
        for layer in run:
            times[layer.name, layer.kind].append(layer.milliseconds)
    if not times:
        raise EngineError("the runtime's profiler told of no layer")
    found = [LayerTime(name, kind, statistics.median(values)) for (name, kind), values in times.items()]
    return tuple(sorted(found, key=lambda layer: -layer.milliseconds))


def layer_table(network: NetworkLayers, most: int = 8) -> Table:
    """For the terminal: the slowest layers and what they make of the whole."""
    title = f"{network.model} {network.role}: {network.milliseconds:.2f} ms in {len(network.layers)} layers"
    shown = Table(title=f"{title} ({network.engine})", title_justify="left")
    shown.add_column("layer", overflow="fold")
    shown.add_column("kind", overflow="fold")
    shown.add_column("ms", justify="right")
    shown.add_column("share", justify="right")
    for layer in network.layers[:most]:
        share = layer.milliseconds / network.milliseconds
        shown.add_row(layer.name, layer.kind, f"{layer.milliseconds:.3f}", f"{share:.1%}")
    return shown
