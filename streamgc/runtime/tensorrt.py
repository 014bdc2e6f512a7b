"""TensorRT and TensorRT-RTX, behind one class: the GPU path.

Inputs are copied into page-locked memory, and the upload, the network and the download are queued on one stream: for
TensorRT as one captured CUDA graph, for TensorRT-RTX with its own whole-graph strategy. Buffers and graph are made
once for a picture size, never for a frame.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from streamgc.errors import BackendMissing, EngineError
from streamgc.runtime.cuda import Buffer, Stream, device_name, device_problem, import_runtime
from streamgc.runtime.engine import Array, Engine, EngineOptions, LayerTime, Precision, TensorSpec
from streamgc.runtime.onnx_header import OnnxHeader
from streamgc.runtime.plans import (
    MODULES,
    Plan,
    PlanPrecision,
    ShapeProfile,
    cached_plan,
    collecting_logger,
    import_tensorrt,
    plan_key,
    read_plan,
)

_WARM_UP_RUNS = 3


def missing(backend: str) -> str | None:
    """None where the TensorRT flavour is installed and an NVIDIA GPU can be used."""
    if importlib.util.find_spec(MODULES[backend]) is None:
        return f"the package {backend} is not installed: pip install 'streamgc[{backend}]'"
    return device_problem()


def precisions(backend: str) -> tuple[Precision, ...]:
    """What plans are built in."""
    return ("fp32", "fp16", "int8")


def load(path: Path, backend: str, header: OnnxHeader, options: EngineOptions) -> Engine:
    """Fetch the plan from the cache or build it, and make it ready. Raises EngineError."""
    profile = ShapeProfile.fixed(options.size) if options.size is not None else ShapeProfile()
    precision = _settled_precision(options, header)
    key = plan_key(path, backend, (), precision, profile, options.model_hash)
    plan = cached_plan(key, path, profile, options.cache)
    runtime_cache = options.cache / f"{key.file_name}.jit" if options.cache is not None else None
    return TensorRtEngine(path.name.split(".")[0], plan, runtime_cache)


def load_plan(path: Path, backend: str = "auto") -> Engine:
    """Run a plan file as it is. Raises EngineError where it is malformed or foreign, BackendMissing without a GPU."""
    plan = read_plan(path)
    key = plan.header.key
    if backend not in ("auto", key.backend):
        raise EngineError(f"{path} is foreign: a plan of {key.backend}, not of {backend}")
    problem = device_problem()
    if problem is not None:
        raise BackendMissing(f"{key.backend} is not available: {problem}")
    return TensorRtEngine(key.network, plan, path.with_name(path.name + ".jit"))


def inspect_plan(path: Path) -> str:
    """What each layer of a plan became on this GPU – fused layers, kernels, formats – as TensorRT's own JSON.

    A plan built with ``engines build --layers`` says most. Raises as `load_plan` does.
    """
    with cast(TensorRtEngine, load_plan(path)) as loaded:
        return loaded.inspection()


def _settled_precision(options: EngineOptions, header: OnnxHeader) -> PlanPrecision:
    if options.precision == "bf16":
        raise EngineError("the GPU path computes in fp32, fp16 or int8, not in bf16")
    if header.quantised:
        return "int8"
    return "fp32" if options.precision == "fp32" else "fp16"


def layer_profiler(trt: Any) -> Any:
    """An IProfiler of this TensorRT that keeps (layer, ms) in ``times``."""

    class LayerProfiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.times: list[tuple[str, float]] = []

        def report_layer_time(self, layer_name: str, milliseconds: float) -> None:
            self.times.append((layer_name, milliseconds))

    return LayerProfiler()


@dataclass
class _Bound:
    """Buffers, and the captured graph if there is one, for one set of input shapes."""

    shapes: dict[str, tuple[int, ...]]
    inputs: dict[str, Buffer]
    outputs: dict[str, Buffer]
    graph: Any = None


class TensorRtEngine(Engine):
    """A deserialised plan with its context, stream and buffers. One run at a time; `submit` queues behind it."""

    def __init__(self, name: str, plan: Plan, runtime_cache: Path | None = None) -> None:
        key = plan.header.key
        self._cuda = import_runtime()
        self._trt = trt = import_tensorrt(key.backend)
        self._messages: list[str] = []
        self._logger = collecting_logger(trt, self._messages)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan.blob)
        if self._engine is None:
            raise EngineError(f"{key.backend} refuses the plan of {name}: {self._reason()}")
        super().__init__(name, key.backend, key.precision, device_name(), *self._specs())
        self._cache_file = runtime_cache
        self._cache: Any = None
        self._context = self._make_context()
        if self._context is None:
            raise EngineError(f"{key.backend} cannot make a context for {name}: {self._reason()}")
        self._stream = Stream(self._cuda)
        self._bound: _Bound | None = None

    def _reason(self) -> str:
        return " ".join(self._messages[0].split())[:300] if self._messages else "no reason given"

    def _specs(self) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
        inputs: dict[str, TensorSpec] = {}
        outputs: dict[str, TensorSpec] = {}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            shape = tuple(None if size < 0 else int(size) for size in self._engine.get_tensor_shape(name))
            spec = TensorSpec(name, np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name))), shape)
            is_input = self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT
            (inputs if is_input else outputs)[name] = spec
        return inputs, outputs

    def _make_context(self) -> Any:
        """TensorRT-RTX compiles kernels here, which its runtime cache keeps, and captures graphs itself."""
        if self.backend != "tensorrt-rtx":
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self._cache = config.create_runtime_cache()
        if self._cache_file is not None and self._cache_file.is_file():
            self._cache.deserialize(self._cache_file.read_bytes())
        config.set_runtime_cache(self._cache)
        return self._engine.create_execution_context(config)

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        with self._lock:
            if self._closed:
                raise EngineError(f"engine {self.name!r} is closed")
            bound = self._bind({name: feeds[name].shape for name in self.inputs})
            for name, buffer in bound.inputs.items():
                np.copyto(buffer.host, feeds[name])
            if bound.graph is not None:
                self._stream.launch(bound.graph)
            else:
                self._queue(bound)
            self._stream.synchronize()
            return {name: buffer.host.copy() for name, buffer in bound.outputs.items()}

    def _queue(self, bound: _Bound) -> None:
        for buffer in bound.inputs.values():
            buffer.upload(self._stream.handle)
        if not self._context.execute_async_v3(int(self._stream.handle)):
            raise EngineError(f"{self.backend} failed in {self.name!r}: {self._reason()}")
        for buffer in bound.outputs.values():
            buffer.download(self._stream.handle)

    def layers(self, feeds: Mapping[str, Array]) -> list[LayerTime]:
        """As TensorRT's IProfiler has it: the layers of the plan, after fusion. Runs without a graph, which hides
        them."""
        ready = self.check(feeds)
        with self._lock:
            bound = self._bind({name: ready[name].shape for name in self.inputs})
            for name, buffer in bound.inputs.items():
                np.copyto(buffer.host, ready[name])
            profiler = layer_profiler(self._trt)
            self._context.profiler = profiler
            try:
                self._queue(bound)
                self._stream.synchronize()
            finally:
                self._context.profiler = None
            return [LayerTime(name, "", milliseconds) for name, milliseconds in profiler.times]

    def _bind(self, shapes: dict[str, tuple[int, ...]]) -> _Bound:
        """The buffers for these shapes; made, warmed up and captured when the shapes change."""
        if self._bound is not None and self._bound.shapes == shapes:
            return self._bound
        self._release()
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise EngineError(f"engine {self.name!r} was not built for {name} {shape}: {self._reason()}")
        inputs = {name: Buffer(self._cuda, shape, self.inputs[name].dtype) for name, shape in shapes.items()}
        outputs = {
            name: Buffer(self._cuda, tuple(self._context.get_tensor_shape(name)), spec.dtype)
            for name, spec in self.outputs.items()
        }
        for name, buffer in {**inputs, **outputs}.items():
            self._context.set_tensor_address(name, buffer.device)
        bound = _Bound(shapes, inputs, outputs)
        for _ in range(_WARM_UP_RUNS):
            self._queue(bound)
        self._stream.synchronize()
        if self.backend == "tensorrt":
            bound.graph = self._stream.capture(lambda: self._queue(bound))
        self._bound = bound
        return bound

    def inspection(self) -> str:
        """TensorRT's report of the layers, in JSON."""
        inspector = self._engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def _release(self) -> None:
        bound, self._bound = self._bound, None
        if bound is None:
            return
        if bound.graph is not None:
            self._stream.drop(bound.graph)
        for buffer in [*bound.inputs.values(), *bound.outputs.values()]:
            buffer.free()

    def close(self) -> None:
        """Free device and page-locked memory, and keep the kernels that were compiled for this machine."""
        already = self._closed
        super().close()
        if already:
            return
        with self._lock:
            self._release()
            self._stream.close()
            if self._cache is not None and self._cache_file is not None:
                temporary = self._cache_file.with_name(self._cache_file.name + ".tmp")
                temporary.write_bytes(bytes(self._cache.serialize()))
                os.replace(temporary, self._cache_file)
            self._context = self._engine = self._runtime = None
