"""The TensorRT backend without a GPU: it says why it cannot run, and every name it calls exists in the bindings."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
from pathlib import Path
from types import ModuleType

import pytest

from streamgc.errors import BackendMissing, EngineError
from streamgc.runtime import cuda, plans, tensorrt
from streamgc.runtime.engine import EngineOptions, missing_reason
from streamgc.runtime.onnx_header import read_header
from tests.runtime_networks import encoder

HAS_CUDA_PYTHON = importlib.util.find_spec("cuda") is not None
HAS_RTX = importlib.util.find_spec("tensorrt_rtx") is not None


def attributes_of(module: ModuleType, owner: str) -> set[str]:
    """Names read as ``owner.NAME`` or ``self._owner.NAME`` in a module's source."""
    names = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if not isinstance(node, ast.Attribute):
            continue
        value = node.value
        plain = isinstance(value, ast.Name) and value.id == owner
        member = isinstance(value, ast.Attribute) and value.attr == f"_{owner}"
        if plain or member:
            names.add(node.attr)
    return names


@pytest.mark.skipif(not HAS_CUDA_PYTHON, reason="cuda-python is not installed: pip install cuda-python")
def test_cuda_names_exist() -> None:
    runtime = importlib.import_module("cuda.bindings.runtime")
    names = attributes_of(cuda, "cuda")
    assert {"cudaMalloc", "cudaHostAlloc", "cudaMemcpyAsync", "cudaGraphLaunch", "cudaStreamBeginCapture"} <= names
    assert [name for name in sorted(names) if not hasattr(runtime, name)] == []
    assert hasattr(runtime.cudaMemcpyKind, "cudaMemcpyHostToDevice")
    assert hasattr(runtime.cudaMemcpyKind, "cudaMemcpyDeviceToHost")
    assert hasattr(runtime.cudaStreamCaptureMode, "cudaStreamCaptureModeThreadLocal")


@pytest.mark.skipif(not HAS_RTX, reason="tensorrt-rtx is not installed: pip install tensorrt-rtx")
def test_tensorrt_names_exist() -> None:
    trt = importlib.import_module("tensorrt_rtx")
    names = attributes_of(tensorrt, "trt") | attributes_of(plans, "trt")
    assert {"Runtime", "Builder", "OnnxParser", "ILogger", "TensorIOMode", "nptype", "CudaGraphStrategy"} <= names
    assert [name for name in sorted(names) if not hasattr(trt, name)] == []
    for owner, kind in (("engine", trt.ICudaEngine), ("context", trt.IExecutionContext), ("cache", trt.IRuntimeCache)):
        found = attributes_of(tensorrt, owner)
        assert found
        assert [name for name in sorted(found) if not hasattr(kind, name)] == [], owner
    assert hasattr(trt.EngineInspector, "get_engine_information")
    assert hasattr(trt.IRuntimeConfig, "create_runtime_cache")
    assert hasattr(trt.IRuntimeConfig, "set_runtime_cache")


@pytest.mark.skipif(cuda.device_problem() is None, reason="this machine has a GPU")
def test_without_a_gpu_everything_says_so(tmp_path: Path) -> None:
    problem = cuda.device_problem()
    assert problem is not None
    assert "\n" not in problem
    with pytest.raises(EngineError, match="CUDA cannot be used"):
        cuda.import_runtime()
    for backend, module in plans.MODULES.items():
        reason = missing_reason(backend)
        assert reason is not None
        if importlib.util.find_spec(module) is None:
            assert "pip install" in reason
        else:
            assert reason == problem


def test_cuda_failures_are_named() -> None:
    class Status(int):
        name = "cudaErrorMemoryAllocation"

    assert cuda.check((Status(0), 7)) == 7
    assert cuda.check((Status(0), 1, 2)) == (1, 2)
    assert cuda.check((Status(0),)) == ()
    with pytest.raises(EngineError, match="cudaErrorMemoryAllocation"):
        cuda.check((Status(2), None))


def test_bf16_is_no_gpu_precision(tmp_path: Path) -> None:
    path = encoder(tmp_path / "encoder.onnx")
    with pytest.raises(EngineError, match="not in bf16"):
        tensorrt.load(path, "tensorrt-rtx", read_header(path), EngineOptions(precision="bf16"))


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_full_tensorrt_says_how_to_get_it(tmp_path: Path) -> None:
    path = encoder(tmp_path / "encoder.onnx")
    with pytest.raises(BackendMissing, match=r"pip install 'streamgc\[tensorrt\]'"):
        tensorrt.load(path, "tensorrt", read_header(path), EngineOptions())
