"""ONNX Runtime: the portable fallback on the CPU, and its CUDA, DirectML and CoreML providers where they are installed.

ONNX Runtime falls back to the CPU in silence when a provider cannot start, so what a session really uses is compared
with what was asked for.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from streamgc.errors import BackendMissing, EngineError
from streamgc.runtime.engine import Array, Engine, EngineOptions, LayerTime, Precision, TensorSpec, first_line
from streamgc.runtime.onnx_header import OnnxHeader

_PROVIDERS = {
    "onnxruntime": ("CPUExecutionProvider", "onnxruntime"),
    "onnxruntime-cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "onnxruntime-directml": ("DmlExecutionProvider", "onnxruntime-directml"),
    "onnxruntime-coreml": ("CoreMLExecutionProvider", "onnxruntime"),
}
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


@lru_cache
def _providers() -> tuple[str, ...]:
    import onnxruntime

    return tuple(onnxruntime.get_available_providers())


def missing(backend: str) -> str | None:
    """None where onnxruntime is installed with the backend's provider."""
    provider, package = _PROVIDERS[backend]
    if importlib.util.find_spec("onnxruntime") is None:
        return f"the package onnxruntime is not installed: pip install {package}"
    try:
        providers = _providers()
    except (ImportError, OSError, RuntimeError) as error:
        return f"onnxruntime cannot start here: {error}"
    if provider not in providers:
        return f"this onnxruntime has no {provider}: pip install {package} on a machine that supports it"
    return None


def precisions(backend: str) -> tuple[Precision, ...]:
    """fp32 and int8 on the CPU; on a GPU fp16 too."""
    return ("fp32", "int8") if backend == "onnxruntime" else ("fp32", "fp16", "int8")


def load(path: Path, backend: str, header: OnnxHeader, options: EngineOptions) -> Engine:
    """Open a session. Raises EngineError when the network cannot be loaded, BackendMissing when the provider will
    not start.
    """
    import onnxruntime

    provider, package = _PROVIDERS[backend]
    on_cpu = provider == "CPUExecutionProvider"
    if on_cpu and options.precision in ("bf16", "fp16"):
        raise EngineError(f"onnxruntime computes in fp32 on the CPU, not in {options.precision}; use openvino")
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = options.threads or os.cpu_count() or 1
    settings.inter_op_num_threads = 1
    # Idle threads that spin would take the core from the other networks of a call.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if options.size is not None:
        rows, columns = options.size[0] // 16, options.size[1] // 16
        settings.add_free_dimension_override_by_name("rows", rows)
        settings.add_free_dimension_override_by_name("columns", columns)
        for tensor in header.inputs:
            for dimension in tensor.dimensions:
                known = dimension.at(*options.size)
                if dimension.size is None and known is not None and dimension.label not in ("rows", "columns"):
                    settings.add_free_dimension_override_by_name(dimension.label, known)
    if options.profiling:
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(tempfile.gettempdir(), f"streamgc-layers-{secrets.token_hex(4)}"))
    try:
        session = onnxruntime.InferenceSession(str(path), settings, providers=[provider])
    except Exception as error:  # onnxruntime's exceptions share no public base class
        raise EngineError(f"onnxruntime cannot load {path.name}: {first_line(error)}") from None
    used = session.get_providers()
    if provider not in used:
        raise BackendMissing(
            f"{backend} is not available: {provider} did not start (drivers of {package}?); got {used}"
        )
    computed = "fp16" if not on_cpu and _weights_are_half(header) else "fp32"
    if options.precision not in ("auto", "int8", computed):
        raise EngineError(f"{path.name} would run in {computed} on {backend}, not in {options.precision}: export it so")
    precision = "int8" if header.quantised else computed
    device = provider.removesuffix("ExecutionProvider")
    return OnnxRuntimeEngine(path.stem, backend, precision, device, session, options.profiling)


def _weights_are_half(header: OnnxHeader) -> bool:
    return header.metadata.get("streamgc.precision") == "fp16"


def _spec(node: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return TensorSpec(node.name, np.dtype(_DTYPES.get(node.type, "object")), shape)


class OnnxRuntimeEngine(Engine):
    """An inference session."""

    def __init__(
        self, name: str, backend: str, precision: str, device: str, session: Any, profiling: bool = False
    ) -> None:
        inputs = {node.name: _spec(node) for node in session.get_inputs()}
        outputs = {node.name: _spec(node) for node in session.get_outputs()}
        super().__init__(name, backend, precision, device, inputs, outputs)
        self._session: Any = session
        self._profiling = profiling

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        session = self._session
        if session is None:
            raise EngineError(f"engine {self.name!r} is closed")
        try:
            results = session.run(list(self.outputs), dict(feeds))
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise EngineError(f"onnxruntime failed in {self.name!r}: {first_line(error)}") from None
        return dict(zip(self.outputs, results, strict=True))

    def layers(self, feeds: Mapping[str, Array]) -> list[LayerTime]:
        """As ONNX Runtime's profile has it, which ends with the first call: a second one raises EngineError."""
        session = self._session
        if session is None or not self._profiling:
            return super().layers(feeds)
        self._profiling = False
        self.run(feeds)
        path = Path(session.end_profiling())
        try:
            events = msgspec.json.decode(path.read_bytes())
        finally:
            path.unlink(missing_ok=True)
        runs = [event["ts"] for event in events if event.get("name") == "model_run"]
        return [
            LayerTime(event["name"].removesuffix("_kernel_time"), event["args"]["op_name"], event["dur"] / 1e3)
            for event in events
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= runs[-1]
        ]

    def close(self) -> None:
        """Drop the session."""
        super().close()
        self._session = None
