"""CUDA through cuda-python: is there a device, and memory, streams and graphs without torch.

Imported by the TensorRT backend alone. Nothing here runs on a machine without an NVIDIA driver; `device_problem` is
what tells.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from streamgc.errors import EngineError
from streamgc.runtime.engine import Array


@lru_cache
def device_problem() -> str | None:
    """None where a CUDA device can be used, otherwise why not.

    Must be asked before any TensorRT runtime object is made: without a driver that crashes the process.
    """
    try:
        found = importlib.util.find_spec("cuda.bindings") is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        return "the package cuda-python is not installed: pip install cuda-python"
    try:
        from cuda.bindings import runtime

        status, count = runtime.cudaGetDeviceCount()
    except (ImportError, OSError, RuntimeError) as error:
        return f"no NVIDIA driver can be loaded ({str(error).splitlines()[0]})"
    if int(status) != 0:
        return f"no usable NVIDIA GPU or driver ({runtime.cudaError_t(int(status)).name})"
    return None if count else "the NVIDIA driver finds no GPU"


@lru_cache
def import_runtime() -> Any:
    """cuda-python's runtime bindings. Raises EngineError where no device can be used."""
    problem = device_problem()
    if problem is not None:
        raise EngineError(f"CUDA cannot be used: {problem}")
    from cuda.bindings import runtime

    return runtime


def check(result: Any) -> Any:
    """Unpack a cuda-python call's (status, value …). Raises EngineError with CUDA's name for the failure."""
    status, *values = result
    if int(status) != 0:
        raise EngineError(f"CUDA: {getattr(status, 'name', status)}")
    return values[0] if len(values) == 1 else tuple(values)


def device_name() -> str:
    """Name, capability and memory of GPU 0, such as ``NVIDIA L4, sm89, 22 GB``. Raises EngineError."""
    cuda = import_runtime()
    properties = check(cuda.cudaGetDeviceProperties(0))
    name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
    memory = properties.totalGlobalMem // 2**30
    return f"{name}, sm{properties.major}{properties.minor}, {memory} GB"


def device_capability() -> str:
    """Compute capability of GPU 0, such as ``sm89``. Raises EngineError."""
    cuda = import_runtime()
    properties = check(cuda.cudaGetDeviceProperties(0))
    return f"sm{properties.major}{properties.minor}"


class Buffer:
    """One tensor twice: page-locked on the host (``host``, a numpy view) and on the device (``device``, an address)."""

    def __init__(self, cuda: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._cuda = cuda
        self.nbytes = max(math.prod(shape) * dtype.itemsize, 1)
        self.device = int(check(cuda.cudaMalloc(self.nbytes)))
        self._pinned = int(check(cuda.cudaHostAlloc(self.nbytes, cuda.cudaHostAllocDefault)))
        raw = (ctypes.c_byte * self.nbytes).from_address(self._pinned)
        self.host: Array = np.frombuffer(memoryview(raw).cast("B"), dtype, math.prod(shape)).reshape(shape)

    def upload(self, stream: Any) -> None:
        """Queue the copy host → device."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        check(self._cuda.cudaMemcpyAsync(self.device, self._pinned, self.nbytes, kind, stream))

    def download(self, stream: Any) -> None:
        """Queue the copy device → host."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        check(self._cuda.cudaMemcpyAsync(self._pinned, self.device, self.nbytes, kind, stream))

    def free(self) -> None:
        """Give both back; the host view must not be used afterwards."""
        check(self._cuda.cudaFree(self.device))
        check(self._cuda.cudaFreeHost(self._pinned))


class Stream:
    """A non-blocking CUDA stream, and graphs captured on it."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self.handle = check(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking))

    def synchronize(self) -> None:
        """Wait until all that was queued is done."""
        check(self._cuda.cudaStreamSynchronize(self.handle))

    def capture(self, work: Callable[[], None]) -> Any:
        """Record what ``work`` queues into an executable graph, without running it."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        check(self._cuda.cudaStreamBeginCapture(self.handle, mode))
        try:
            work()
        finally:
            graph = check(self._cuda.cudaStreamEndCapture(self.handle))
        try:
            return check(self._cuda.cudaGraphInstantiate(graph, 0))
        finally:
            check(self._cuda.cudaGraphDestroy(graph))

    def launch(self, executable: Any) -> None:
        """Queue a captured graph."""
        check(self._cuda.cudaGraphLaunch(executable, self.handle))

    def drop(self, executable: Any) -> None:
        """Free a captured graph."""
        check(self._cuda.cudaGraphExecDestroy(executable))

    def close(self) -> None:
        check(self._cuda.cudaStreamDestroy(self.handle))
