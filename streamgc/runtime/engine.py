"""One interface for every runtime: an engine takes named arrays and gives named arrays.

`load_engine` picks a backend and compiles. A backend that was asked for by name and is not there is an error that
says how to get it; only ``backend="auto"`` chooses, and says once what it chose and why.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray

from streamgc.errors import BackendMissing, EngineError
from streamgc.runtime.onnx_header import CELL, OnnxHeader, read_header

log = logging.getLogger(__name__)

Array = NDArray[Any]
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("auto", "fp32", "bf16", "fp16", "int8")

# The order is the order in which "auto" looks: a GPU that is there first, then the fastest CPU runtime, then the
# portable one.
BACKENDS: dict[str, str] = {
    "tensorrt": "streamgc.runtime.tensorrt",
    "tensorrt-rtx": "streamgc.runtime.tensorrt",
    "onnxruntime-cuda": "streamgc.runtime.onnxruntime",
    "openvino": "streamgc.runtime.openvino",
    "onnxruntime-directml": "streamgc.runtime.onnxruntime",
    "onnxruntime-coreml": "streamgc.runtime.onnxruntime",
    "onnxruntime": "streamgc.runtime.onnxruntime",
}


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of an input or output; None is a dimension that may vary."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]

    def check(self, array: Array) -> None:
        """Raise EngineError unless the array has this dtype and shape."""
        if array.dtype != self.dtype:
            raise EngineError(f"input {self.name!r} must be {self.dtype}, got {array.dtype}")
        fits = len(array.shape) == len(self.shape) and all(
            want is None or want == have for want, have in zip(self.shape, array.shape, strict=True)
        )
        if not fits:
            raise EngineError(f"input {self.name!r} must have shape {self._shape_text()}, got {tuple(array.shape)}")

    def _shape_text(self) -> str:
        return "(" + ", ".join("?" if size is None else str(size) for size in self.shape) + ")"


@dataclass(frozen=True)
class EngineOptions:
    """How to compile: what `load_engine` was given, settled.

    ``size`` is the picture (height, width) the engine will run at: static shapes run faster than dynamic ones.
    ``cache`` is a folder for compiled blobs, plans and timing caches; None compiles anew each time.
    ``model_hash`` keys that cache; it is the model's 8 bytes in hex, or empty for a loose file.
    ``profiling`` has the runtime time every layer, which costs a little: `Engine.layers` then tells.
    """

    precision: Precision = "auto"
    threads: int | None = None
    size: tuple[int, int] | None = None
    cache: Path | None = None
    model_hash: str = ""
    profiling: bool = False


class LayerTime(NamedTuple):
    """What one layer of a network took in one run, as the runtime that executed it says."""

    name: str
    kind: str  # the operator, and how the runtime executed it where it says so
    milliseconds: float


class Engine(ABC):
    """A network ready to run. Safe to use from several threads; arrays returned belong to the caller.

    ``backend`` is a key of `BACKENDS`, ``precision`` what is really computed in, ``device`` a human-readable name.
    """

    def __init__(
        self,
        name: str,
        backend: str,
        precision: str,
        device: str,
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, TensorSpec],
    ) -> None:
        self.name = name
        self.backend = backend
        self.precision = precision
        self.device = device
        self.inputs = dict(inputs)
        self.outputs = dict(outputs)
        self._lock = threading.Lock()
        self._worker: ThreadPoolExecutor | None = None
        self._closed = False

    @abstractmethod
    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run with feeds already checked and contiguous; outputs are freshly owned arrays."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once. Raises EngineError on a missing, unknown or misshapen input, or when the backend fails."""
        return self._run(self.check(feeds))

    def submit(self, feeds: Mapping[str, Array]) -> Future[dict[str, Array]]:
        """Start a run and return at once; the inputs must not be written to before the result is there.

        Backends without asynchronous requests of their own use one worker thread, in order.
        """
        ready = self.check(feeds)
        with self._lock:
            if self._closed:
                raise EngineError(f"engine {self.name!r} is closed")
            if self._worker is None:
                self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"engine-{self.name}")
            return self._worker.submit(self._run, ready)

    def check(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The feeds as contiguous arrays of the right names, dtypes and shapes. Raises EngineError."""
        if self._closed:
            raise EngineError(f"engine {self.name!r} is closed")
        if feeds.keys() != self.inputs.keys():
            wanted, given = ", ".join(sorted(self.inputs)), ", ".join(sorted(feeds)) or "nothing"
            raise EngineError(f"engine {self.name!r} takes inputs {wanted}; got {given}")
        ready = {name: np.ascontiguousarray(feeds[name]) for name in self.inputs}
        for name, spec in self.inputs.items():
            spec.check(ready[name])
        return ready

    def layers(self, feeds: Mapping[str, Array]) -> list[LayerTime]:
        """Run once and tell what each layer took. Raises EngineError unless loaded with ``profiling``."""
        raise EngineError(f"{self.backend} was not asked to profile {self.name!r}, or cannot")

    def close(self) -> None:
        """Free what the engine holds; using it afterwards raises EngineError. Closing twice is fine."""
        with self._lock:
            self._closed = True
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.shutdown(wait=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{self.name}: {self.backend} {self.precision} on {self.device}>"


def first_line(error: BaseException) -> str:
    """The most telling line of a backend's page-long message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '", "what():"))]
    return (telling or lines or [type(error).__name__])[0][:300]


class BackendModule(Protocol):
    """What a backend's module offers; nothing heavy is imported before these are called."""

    def missing(self, backend: str) -> str | None:
        """None where the backend can run here, otherwise one line that says why not and how to get it."""

    def precisions(self, backend: str) -> tuple[Precision, ...]:
        """What the backend, where it is not missing, computes in on this machine."""

    def load(self, path: Path, backend: str, header: OnnxHeader, options: EngineOptions) -> Engine:
        """Compile. Raises EngineError."""


def backend_module(backend: str) -> BackendModule:
    """The module behind a backend's name. Raises EngineError for an unknown name, listing those there are."""
    if backend not in BACKENDS:
        raise EngineError(f"unknown backend {backend!r}; there are: auto, {', '.join(BACKENDS)}")
    return cast(BackendModule, importlib.import_module(BACKENDS[backend]))


def missing_reason(backend: str) -> str | None:
    """Why a backend cannot run here (one line that says how to get it), or None if it can."""
    return backend_module(backend).missing(backend)


def available_precisions(backend: str) -> tuple[Precision, ...]:
    """What a backend computes in on this machine; nothing where it is missing."""
    module = backend_module(backend)
    return module.precisions(backend) if module.missing(backend) is None else ()


def available_backends() -> dict[str, str | None]:
    """Every backend in order of preference, with None if it can run here or else the reason why not."""
    return {backend: missing_reason(backend) for backend in BACKENDS}


def first_backend() -> str | None:
    """The backend that "auto" begins with here; None without any."""
    return next((name for name in _candidates() if missing_reason(name) is None), None)


def _candidates() -> list[str]:
    """The backends in order of preference that this machine may have.

    Whether ONNX Runtime has CUDA is known only once it is imported, which takes a tenth of a second at the start of
    every call: without NVIDIA's driver it is not asked.
    """
    driver = sys.platform == "win32" or Path("/proc/driver/nvidia").exists()
    return [name for name in BACKENDS if driver or name != "onnxruntime-cuda"]


def load_engine(
    path: str | Path,
    *,
    backend: str = "auto",
    precision: Precision = "auto",
    threads: int | None = None,
    size: tuple[int, int] | None = None,
    cache: Path | None = None,
    model_hash: str = "",
    profiling: bool = False,
) -> Engine:
    """Compile an ONNX file for this machine, or take a TensorRT plan file (``.plan``, ``.engine``) as it is.

    ``precision`` "auto" is the fastest that keeps the network's accuracy on this device (bf16 where the CPU has it);
    "int8" needs a quantised file. ``size`` = (height, width) in pixels compiles for that picture alone, which is
    faster. ``profiling``: see `Engine.layers`.

    Raises BackendMissing when a backend asked for by name is not available, EngineError when the file is missing,
    corrupt, of an unsupported opset, or cannot be compiled.
    """
    path = Path(path)
    if precision not in PRECISIONS:
        raise EngineError(f"unknown precision {precision!r}; there are: {', '.join(PRECISIONS)}")
    if threads is not None and threads < 1:
        raise EngineError(f"threads must be 1 or more, got {threads}")
    if path.suffix in (".plan", ".engine"):
        return _load_plan(path, backend)
    header = read_header(path)
    if precision == "int8" and not header.quantised:
        raise EngineError(f"{path.name} holds no int8 layers: export it with --precision int8 first")
    check_size(header, size)
    options = EngineOptions(precision, threads, size, cache, model_hash, profiling)
    if backend != "auto":
        reason = missing_reason(backend)
        if reason is not None:
            raise BackendMissing(f"{backend} is not available: {reason}")
        return backend_module(backend).load(path, backend, header, options)
    return _load_first(path, header, options)


def check_size(header: OnnxHeader, size: tuple[int, int] | None) -> None:
    """Raise EngineError unless (height, width) are multiples of the cell within the range the network states."""
    if size is None:
        return
    if any(side % CELL or side <= 0 for side in size):
        raise EngineError(f"height and width must be multiples of {CELL}, got {size[0]}x{size[1]}")
    if header.size_range and not all(header.size_range[0] <= side <= header.size_range[1] for side in size):
        low, high = header.size_range
        raise EngineError(f"this network runs at {low} to {high} pixels a side, not at {size[0]}x{size[1]}")


def _load_plan(path: Path, backend: str) -> Engine:
    from streamgc.runtime.tensorrt import load_plan

    return load_plan(path, backend)


@lru_cache
def _say_once(text: str) -> None:
    log.info("%s", text)


def _load_first(path: Path, header: OnnxHeader, options: EngineOptions) -> Engine:
    """The first backend, in order of preference, that is there and can compile this network."""
    passed: list[str] = []
    for backend in _candidates():
        module = backend_module(backend)
        if module.missing(backend) is not None:
            continue
        try:
            engine = module.load(path, backend, header, options)
        except EngineError as error:
            log.warning("%s cannot run %s: %s", backend, path.name, error)
            passed.append(f"{backend}: {error}")
            continue
        _say_once(f"engine: {backend} on {engine.device}, the first that is available ('streamgc doctor' says why)")
        return engine
    if passed:
        raise EngineError("; ".join(passed))
    raise BackendMissing("no runtime is installed: pip install openvino (or onnxruntime)")
