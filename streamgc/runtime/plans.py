"""TensorRT plans: building them, and refusing those that are malformed, stale or foreign.

A plan is opaque, and TensorRT checks one only on a GPU. So ours are kept in a small file of their own: a magic, a
JSON header that says what the plan was built from and for, and the plan with its SHA-256. A plan is used only if all
of it agrees.

TensorRT-RTX builds plans on a machine without a GPU; TensorRT builds for the GPU it finds.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from streamgc.errors import BackendMissing, EngineError
from streamgc.runtime.cuda import device_capability, device_problem
from streamgc.runtime.engine import check_size, first_line
from streamgc.runtime.onnx_header import OnnxHeader, read_header
from streamgc.runtime.store import NOT_HALF, sha256_of

PlanPrecision = Literal["fp32", "fp16", "int8"]


def plan_precision(role: str, asked: PlanPrecision) -> PlanPrecision:
    """What a network's plan is built in: as calls compute it there. (TensorRT refuses the fp16 graph of the face's
    painter: "contains a cycle", which it does not.)"""
    return "fp32" if role in NOT_HALF else asked


MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
SUFFIXES = {"tensorrt": ".engine", "tensorrt-rtx": ".plan"}
MAGIC = b"SGCPLAN1"
_CAPABILITY = re.compile(r"^sm\d{2,3}$")


@dataclass(frozen=True)
class ShapeProfile:
    """Picture sizes (height, width) a plan runs at: smallest, the one it is tuned for, largest."""

    minimum: tuple[int, int] = (128, 128)
    optimum: tuple[int, int] = (256, 256)
    maximum: tuple[int, int] = (720, 1280)

    @classmethod
    def fixed(cls, size: tuple[int, int]) -> ShapeProfile:
        """For one size alone, which builds the fastest plan."""
        return cls(size, size, size)

    def __str__(self) -> str:
        sizes = (self.minimum, self.optimum, self.maximum)
        return "-".join(f"{height}x{width}" for height, width in dict.fromkeys(sizes))

    def check(self, header: OnnxHeader) -> None:
        """Raise EngineError unless the sizes are ordered and the network runs at them."""
        for size in (self.minimum, self.optimum, self.maximum):
            check_size(header, size)
        low, middle, high = self.minimum, self.optimum, self.maximum
        if not all(a <= b <= c for a, b, c in zip(low, middle, high, strict=True)):
            raise EngineError(f"a shape profile goes from small to large, not {self}")


class PlanKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that a plan depends on. ``capabilities`` empty: TensorRT-RTX's portable plan; of TensorRT, which builds for
    the GPU it finds, that GPU's.
    """

    network: str
    network_sha256: str
    model_hash: str
    backend: str
    version: str
    capabilities: tuple[str, ...]
    precision: str
    profile: str

    @property
    def file_name(self) -> str:
        """A name that differs wherever the key does."""
        where = "+".join(self.capabilities) or "portable"
        parts = [
            self.network,
            self.backend,
            self.version,
            where,
            self.precision,
            self.profile,
            self.network_sha256[:12],
        ]
        return ".".join([*parts, self.model_hash or "loose"]) + SUFFIXES[self.backend]


class PlanHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON in front of a plan."""

    key: PlanKey
    plan_sha256: str
    plan_bytes: int
    inputs: dict[str, str]
    outputs: dict[str, str]


@dataclass(frozen=True)
class Plan:
    """A plan and what it was built for."""

    header: PlanHeader
    blob: bytes


@dataclass(frozen=True)
class LayerPrecision:
    """One line of the layer report: what a layer reads and writes."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def import_tensorrt(backend: str) -> Any:
    """The module of a flavour. Raises BackendMissing, saying how to get it."""
    module = MODULES.get(backend)
    if module is None:
        raise EngineError(f"{backend!r} builds no plans; there are: {', '.join(MODULES)}")
    if importlib.util.find_spec(module) is None:
        raise BackendMissing(f"{backend} is not available: pip install 'streamgc[{backend}]'")
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendMissing(f"{backend} is installed but cannot be loaded: {first_line(error)}") from None


def plan_key(
    onnx: Path,
    backend: str,
    capabilities: tuple[str, ...] = (),
    precision: PlanPrecision = "fp16",
    profile: ShapeProfile | None = None,
    model_hash: str = "",
) -> PlanKey:
    """The key of the plan these arguments would build. Raises BackendMissing where the flavour is not installed."""
    version = str(import_tensorrt(backend).__version__)
    if backend == "tensorrt" and not capabilities and device_problem() is None:
        capabilities = (device_capability(),)
    profile = profile or ShapeProfile()
    network = onnx.name.split(".")[0]
    return PlanKey(
        network, sha256_of(onnx), model_hash, backend, version, tuple(sorted(capabilities)), precision, str(profile)
    )


def build_plan(
    onnx: Path,
    backend: str,
    capabilities: tuple[str, ...] = (),
    precision: PlanPrecision = "fp16",
    profile: ShapeProfile | None = None,
    *,
    model_hash: str = "",
    timing_cache: Path | None = None,
    detailed: bool = False,
) -> Plan:
    """Parse an ONNX file and build its plan; ``detailed`` keeps what `tensorrt.inspect_plan` reports on a GPU machine.

    ``capabilities`` such as ("sm86", "sm89") are for TensorRT-RTX, empty is its portable plan; TensorRT builds for
    the GPU of this machine. The types come from the graph: for fp16 a graph that is fp32 is converted first (needs
    the onnx package). Raises BackendMissing, or EngineError with the parser's or builder's own words.
    """
    trt = import_tensorrt(backend)
    if not onnx.is_file():
        raise EngineError(f"no such network file: {onnx}")
    header = read_header(onnx)
    profile = profile or ShapeProfile()
    profile.check(header)
    _check_capabilities(trt, backend, capabilities)
    session = _Session(trt, _typed_graph(onnx, header, precision), onnx.name)
    config = session.config(header, profile, capabilities)
    if detailed:
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    cache = _use_timing_cache(config, timing_cache) if backend == "tensorrt" else None
    blob = session.build(config)
    if cache is not None and timing_cache is not None:
        _write(timing_cache, bytes(cache.serialize()))
    key = plan_key(onnx, backend, capabilities, precision, profile, model_hash)
    digest = hashlib.sha256(blob).hexdigest()
    return Plan(PlanHeader(key, digest, len(blob), session.types("input"), session.types("output")), blob)


def layer_report(onnx: Path, backend: str, precision: PlanPrecision = "fp16") -> list[LayerPrecision]:
    """Every layer as parsed, with the types it reads and writes; needs no GPU. Raises as `build_plan` does."""
    trt = import_tensorrt(backend)
    network = _Session(trt, _typed_graph(onnx, read_header(onnx), precision), onnx.name).network
    rows = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        reads = [layer.get_input(i) for i in range(layer.num_inputs)]
        writes = [layer.get_output(i) for i in range(layer.num_outputs)]
        rows.append(
            LayerPrecision(
                layer.name,
                layer.type.name,
                tuple(tensor.dtype.name for tensor in reads if tensor is not None),
                tuple(tensor.dtype.name for tensor in writes if tensor is not None),
            )
        )
    return rows


def layer_summary(layers: Sequence[LayerPrecision]) -> list[tuple[str, str, str, int]]:
    """(kind, types read, types written, how many) of a layer report, the most frequent first."""
    counts = Counter(
        (layer.kind, "+".join(dict.fromkeys(layer.inputs)) or "–", "+".join(dict.fromkeys(layer.outputs)) or "–")
        for layer in layers
    )
    return [(*kinds, count) for kinds, count in counts.most_common()]


def write_plan(plan: Plan, path: Path) -> Path:
    """Write a plan file through a temporary name."""
    header = msgspec.json.encode(plan.header)
    _write(path, MAGIC + struct.pack("<I", len(header)) + header + plan.blob)
    return path


def read_plan(path: Path, expected: PlanKey | None = None) -> Plan:
    """Read a plan file and check it against what this machine would build.

    Raises EngineError where it is malformed (not ours, truncated, altered), foreign (another TensorRT flavour or
    version) or stale (another network, precision, profile, capability or model).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EngineError(f"cannot read the plan {path}: {error.strerror}") from None
    start = len(MAGIC) + 4
    if data[: len(MAGIC)] != MAGIC or len(data) < start:
        raise EngineError(f"{path} is malformed: it is no plan file of streamgc")
    (length,) = struct.unpack("<I", data[len(MAGIC) : start])
    try:
        header = msgspec.json.decode(data[start : start + length], type=PlanHeader)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineError(f"{path} is malformed: {error}") from None
    blob = data[start + length :]
    if len(blob) != header.plan_bytes or hashlib.sha256(blob).hexdigest() != header.plan_sha256:
        raise EngineError(f"{path} is malformed: truncated or altered after it was built")
    check_plan(path, header.key, expected)
    return Plan(header, blob)


def check_plan(path: Path, key: PlanKey, expected: PlanKey | None) -> None:
    """Raise EngineError where a plan is of another flavour or version than installed, or not the one expected."""
    version = str(import_tensorrt(key.backend).__version__)
    if key.version != version:
        raise EngineError(f"{path} is foreign: built by {key.backend} {key.version}, this is {version}; build it again")
    if expected is None:
        return
    for field in PlanKey.__struct_fields__:
        have, want = getattr(key, field), getattr(expected, field)
        if have != want:
            raise EngineError(f"{path} is stale: its {field} is {_text(have)}, wanted {_text(want)}; build it again")


def cached_plan(key: PlanKey, onnx: Path, profile: ShapeProfile, cache: Path | None) -> Plan:
    """The plan of ``key`` from the cache, or built and put there. A cached file that is not right is built again."""
    path = cache / key.file_name if cache is not None else None
    if path is not None and path.is_file():
        try:
            return read_plan(path, key)
        except EngineError:
            path.unlink()
    where = "+".join(key.capabilities) or "portable"
    timing = cache / f"{key.backend}.{key.version}.{where}.timing" if cache is not None else None
    plan = build_plan(
        onnx,
        key.backend,
        key.capabilities,
        _as_precision(key.precision),
        profile,
        model_hash=key.model_hash,
        timing_cache=timing,
    )
    if path is not None:
        write_plan(plan, path)
    return plan


def _as_precision(text: str) -> PlanPrecision:
    return "int8" if text == "int8" else "fp32" if text == "fp32" else "fp16"


def _text(value: object) -> str:
    return "+".join(value) or "portable" if isinstance(value, tuple) else str(value)[:40]


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _check_capabilities(trt: Any, backend: str, capabilities: tuple[str, ...]) -> None:
    if backend == "tensorrt":
        problem = device_problem()
        if problem is not None:
            raise BackendMissing(f"tensorrt builds plans on a GPU machine only: {problem}; tensorrt-rtx needs none")
        if capabilities and capabilities != (device_capability(),):
            raise EngineError(
                f"tensorrt builds for the GPU of this machine, {device_capability()}; leave --capability out"
            )
        return
    known = sorted(name.lower() for name in trt.ComputeCapability.__members__ if name.startswith("SM"))
    for capability in capabilities:
        if not _CAPABILITY.match(capability) or capability not in known:
            raise EngineError(
                f"unknown compute capability {capability!r}; this {backend} builds for {', '.join(known)}"
            )


def _typed_graph(onnx: Path, header: OnnxHeader, precision: PlanPrecision) -> bytes:
    """The serialized graph whose own types are the precision asked for. Raises EngineError where it cannot be."""
    stored = "int8" if header.quantised else header.metadata.get("streamgc.precision", "fp32")
    if stored == precision:
        return onnx.read_bytes()
    if stored != "fp32" or precision == "int8":
        raise EngineError(f"{onnx.name} is {stored}, so it cannot become a {precision} plan: export that precision")
    from streamgc.runtime.onnx_half import to_half
    from streamgc.runtime.onnx_passes import load_model

    return bytes(to_half(load_model(onnx)).SerializeToString())


def _use_timing_cache(config: Any, path: Path | None) -> Any:
    cache = config.create_timing_cache(path.read_bytes() if path is not None and path.is_file() else b"")
    config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


class _Session:
    """A builder and its parsed, strongly typed network; TensorRT needs all of them alive while one is used."""

    def __init__(self, trt: Any, graph: bytes, name: str) -> None:
        self.trt, self.name = trt, name
        self.messages: list[str] = []
        self.logger = collecting_logger(trt, self.messages)
        self.builder = trt.Builder(self.logger)
        self.network = self.builder.create_network(0)
        self.parser = trt.OnnxParser(self.network, self.logger)
        if not self.parser.parse(graph):
            errors = [self.parser.get_error(index).desc() for index in range(self.parser.num_errors)]
            raise EngineError(f"TensorRT cannot parse {name}: {self._telling(errors)}")

    def config(self, header: OnnxHeader, profile: ShapeProfile, capabilities: tuple[str, ...]) -> Any:
        config = self.builder.create_builder_config()
        if capabilities:
            config.num_compute_capabilities = len(capabilities)
            for index, capability in enumerate(capabilities):
                config.set_compute_capability(self.trt.ComputeCapability.__members__[capability.upper()], index)
        sizes = [header.shapes_at(*size) for size in (profile.minimum, profile.optimum, profile.maximum)]
        shapes = self.builder.create_optimization_profile()
        for tensor in header.inputs:
            shapes.set_shape(tensor.name, *(size[tensor.name] for size in sizes))
        config.add_optimization_profile(shapes)
        return config

    def build(self, config: Any) -> bytes:
        blob = self.builder.build_serialized_network(self.network, config)
        if blob is None:
            raise EngineError(f"TensorRT cannot build {self.name}: {self._telling(self.messages)}")
        return bytes(blob)

    def types(self, direction: Literal["input", "output"]) -> dict[str, str]:
        count = getattr(self.network, f"num_{direction}s")
        tensors = [getattr(self.network, f"get_{direction}")(index) for index in range(count)]
        return {tensor.name: tensor.dtype.name for tensor in tensors}

    def _telling(self, messages: list[str]) -> str:
        """The first message that is not about the missing GPU, on one line."""
        telling = [text for text in messages if "cudaError" not in text] or messages or ["no reason given"]
        return " ".join(telling[0].split())[:300]


def collecting_logger(trt: Any, messages: list[str]) -> Any:
    """A TensorRT logger that keeps errors for our own message instead of printing them."""

    class Collector(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                messages.append(message)

    return Collector()
