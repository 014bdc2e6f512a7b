"""OpenVINO: the CPU default.

Its precision default differs between machines, so the hint is always set and read back. One stream and the latency
hint keep a frame's work on the threads given; pinning is off because two peers often share the cores of one machine.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import sys
import time
from collections.abc import Mapping
from concurrent.futures import Future
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from streamgc.errors import EngineError
from streamgc.runtime.blobs import BlobCache
from streamgc.runtime.engine import (
    PRECISIONS,
    Array,
    Engine,
    EngineOptions,
    LayerTime,
    Precision,
    TensorSpec,
    first_line,
)
from streamgc.runtime.onnx_header import OnnxHeader

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_PROBE_SHAPE = (1, 96, 32, 32)
_PROBE_RUNS = 12
_CONVERTER = "openvino.tools.ovc"


@lru_cache
def import_openvino() -> Any:
    """The openvino module, without its model converter.

    ``import openvino`` pulls in openvino.tools.ovc for ``convert_model`` alone: that is a third of the import time
    and sends a telemetry event to the vendor, which a call must not do. The package itself treats the converter as
    optional.
    """
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    blocked = _CONVERTER not in sys.modules
    if blocked:
        sys.modules[_CONVERTER] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        if blocked:
            sys.modules.pop(_CONVERTER, None)
    return openvino


@lru_cache
def _core() -> Any:
    return import_openvino().Core()


def missing(backend: str) -> str | None:
    """None where openvino is installed and has a CPU device."""
    if importlib.util.find_spec("openvino") is None:
        return "the package openvino is not installed: pip install openvino"
    try:
        devices = _core().available_devices
    except (ImportError, RuntimeError, OSError) as error:
        return f"openvino cannot start here: {first_line(error)}"
    return None if "CPU" in devices else f"openvino finds no CPU device (only {', '.join(devices) or 'none'})"


def capabilities() -> list[str]:
    """What the CPU device computes in, such as ``bf16`` and ``int8``; empty without a CPU device."""
    if missing("openvino") is not None:
        return []
    return sorted(name.lower() for name in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def precisions(backend: str) -> tuple[Precision, ...]:
    """fp32, int8 where a network has it, and the half precisions this CPU computes natively."""
    found = capabilities()
    return tuple(name for name in PRECISIONS if name in ("fp32", "int8") or name in found)


def device_name() -> str:
    """The processor's own name."""
    return str(_core().get_property("CPU", "FULL_DEVICE_NAME"))


@lru_cache
def fastest_precision() -> str:
    """bf16 where this CPU computes convolutions faster in it, else fp32; measured once a process, in about 0.2 s.

    That a CPU has bf16 says little: it doubles the speed on Zen 4 and later and with AMX, and halves it on a
    Sapphire Rapids whose AMX the hypervisor hides.
    """
    if "BF16" not in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "fp32"
    requests = {precision: _probe(_HINTS[precision]) for precision in ("fp32", "bf16")}
    best = dict.fromkeys(requests, math.inf)
    picture = np.ones(_PROBE_SHAPE, np.float32)
    # Taken in turns, so that other work on the machine slows both down alike.
    for _ in range(_PROBE_RUNS):
        for precision, request in requests.items():
            start = time.perf_counter()
            request.infer([picture], share_inputs=True, share_outputs=True)
            best[precision] = min(best[precision], time.perf_counter() - start)
    return "bf16" if best["bf16"] < 0.8 * best["fp32"] else "fp32"


def _probe(hint: str) -> Any:
    """An infer request of three 3×3 convolutions, the work that our networks consist of."""
    openvino = import_openvino()
    operators = openvino.opset13
    channels = _PROBE_SHAPE[1]
    weights = np.full((channels, channels, 3, 3), 1e-3, np.float32)
    node = given = operators.parameter(_PROBE_SHAPE, np.float32)
    for _ in range(3):
        node = operators.convolution(node, operators.constant(weights), [1, 1], [1, 1], [1, 1], [1, 1])
        node = operators.relu(node)
    model = openvino.Model([node], [given], "probe")
    return _core().compile_model(model, "CPU", _settings(hint, 1)).create_infer_request()


def _settings(hint: str, threads: int) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": hint,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        "ENABLE_CPU_PINNING": False,
    }


def load(path: Path, backend: str, header: OnnxHeader, options: EngineOptions) -> Engine:
    """Compile for the CPU. Raises EngineError when the network or the precision cannot be had."""
    core = _core()
    asked = options.precision
    # What of an int8 network is not int8 are coordinates among others, and bf16 has eight bits for 256 pixels.
    compute = "fp32" if asked == "int8" else fastest_precision() if asked == "auto" else asked
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if asked != "auto" and compute.upper() not in capabilities and compute != "fp32":
        raise EngineError(f"openvino has no {compute} on this CPU (it has {', '.join(sorted(capabilities)).lower()})")
    settings = _settings(_HINTS[compute], options.threads or os.cpu_count() or 1)
    if options.profiling:
        settings["PERF_COUNT"] = True
    try:
        compiled = _compiled(core, path, header, options, settings)
    except RuntimeError as error:
        raise EngineError(f"openvino cannot compile {path.name}: {first_line(error)}") from None
    got = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if asked not in ("auto", "int8") and got != _HINTS[compute]:
        raise EngineError(f"openvino would run {path.name} in {got}, not in the {compute} that was asked for")
    precision = "int8" if header.quantised else compute
    return OpenVinoEngine(path.stem, precision, device_name(), compiled, options.profiling)


def _compiled(core: Any, path: Path, header: OnnxHeader, options: EngineOptions, settings: Mapping[str, Any]) -> Any:
    """The compiled network, from the cache where it has been compiled before. Raises RuntimeError."""
    cache = BlobCache(options.cache) if options.cache is not None else None
    if cache is not None:
        version = import_openvino().get_version()
        kept = cache.path(path, ("openvino", version, device_name(), core.available_devices, settings, options.size))
        blob = cache.read(kept)
        if blob is not None:
            with contextlib.suppress(RuntimeError):  # of a runtime that says it is the same and is not
                return core.import_model(blob, "CPU", settings)
    model = core.read_model(str(path))
    if options.size is not None and any(port.get_partial_shape().is_dynamic for port in model.inputs):
        model.reshape(header.shapes_at(*options.size))
    compiled = core.compile_model(model, "CPU", settings)
    if cache is not None:
        cache.write(kept, compiled.export_model().getvalue())
    return compiled


def _spec(port: Any) -> TensorSpec:
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
    return TensorSpec(port.get_any_name(), np.dtype(port.get_element_type().to_dtype()), shape)


class OpenVinoEngine(Engine):
    """A compiled network and its infer requests: one for each run that is under way at the same time."""

    def __init__(self, name: str, precision: str, device: str, compiled: Any, profiling: bool = False) -> None:
        inputs = {spec.name: spec for spec in map(_spec, compiled.inputs)}
        outputs = {spec.name: spec for spec in map(_spec, compiled.outputs)}
        super().__init__(name, "openvino", precision, device, inputs, outputs)
        self._compiled, self._profiling = compiled, profiling
        self._output_names = [port.get_any_name() for port in compiled.outputs]
        self._free = [compiled.create_infer_request()]

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        request = self._take()
        try:
            # Inputs are borrowed for the call; outputs are copied, so they outlive the next run of this request.
            results = request.infer(dict(feeds), share_inputs=True, share_outputs=False)
            return {name: results[index] for index, name in enumerate(self._output_names)}
        except RuntimeError as error:
            raise EngineError(f"openvino failed in {self.name!r}: {first_line(error)}") from None
        finally:
            self._give_back(request)

    def submit(self, feeds: Mapping[str, Array]) -> Future[dict[str, Array]]:
        """Start on a request of its own; several may be under way, and they share the engine's threads."""
        ready = self.check(feeds)
        request = self._take()
        future: Future[dict[str, Array]] = Future()
        future.set_running_or_notify_cancel()

        def done(_: Any) -> None:
            try:
                copies = {name: request.get_output_tensor(i).data.copy() for i, name in enumerate(self._output_names)}
            except RuntimeError as error:
                self._give_back(request)
                future.set_exception(EngineError(f"openvino failed in {self.name!r}: {first_line(error)}"))
                return
            self._give_back(request)
            ready.clear()
            future.set_result(copies)

        request.set_callback(done, None)
        try:
            request.start_async(ready, share_inputs=True)
        except RuntimeError as error:
            self._give_back(request)
            raise EngineError(f"openvino failed in {self.name!r}: {first_line(error)}") from None
        return future

    def _take(self) -> Any:
        with self._lock:
            if self._closed:
                raise EngineError(f"engine {self.name!r} is closed")
            if self._free:
                return self._free.pop()
            return self._compiled.create_infer_request()

    def _give_back(self, request: Any) -> None:
        with self._lock, contextlib.suppress(AttributeError):
            self._free.append(request)

    def layers(self, feeds: Mapping[str, Array]) -> list[LayerTime]:
        """As OpenVINO's performance counters have it; layers that were fused into others are not there."""
        if not self._profiling:
            return super().layers(feeds)
        request = self._take()
        try:
            request.infer(dict(self.check(feeds)), share_inputs=True, share_outputs=True)
            return [
                LayerTime(info.node_name, f"{info.node_type} ({info.exec_type})", info.real_time.total_seconds() * 1e3)
                for info in request.profiling_info
                if info.real_time.total_seconds() > 0
            ]
        finally:
            self._give_back(request)

    def close(self) -> None:
        """Drop the requests and the compiled network."""
        super().close()
        with self._lock:
            self._free = []
            self._compiled = None
