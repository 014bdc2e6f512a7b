"""CUDA through cuda-python: is there a device, and memory, streams and graphs without torch.

Imported by the TensorRT backend alone. Nothing here runs on a machine without an NVIDIA driver; `device_problem` is
what tells.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from typing import Any

from streamgc.errors import EngineError


@lru_cache
def device_problem() -> str | None:
    """None where a CUDA device can be used, otherwise why not.

    Must be asked before any TensorRT runtime object is made: without a driver that crashes the process.
    """
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        return "the package cuda-python is not installed: pip install cuda-python"
    try:
        from cuda.bindings import runtime

        status, count = runtime.cudaGetDeviceCount()
    except (ImportError, OSError, RuntimeError) as error:
        return f"no NVIDIA driver can be loaded ({str(error).splitlines()[0]})"
    if int(status) != 0:
        return f"no usable NVIDIA GPU or driver ({runtime.cudaError_t(int(status)).name})"
    return None if count else "the NVIDIA driver finds no GPU"


def check(result: Any) -> Any:
    """Unpack a cuda-python call's (status, value …). Raises EngineError with CUDA's name for the failure."""
    status, *values = result
    if int(status) != 0:
        raise EngineError(f"CUDA: {getattr(status, 'name', status)}")
    return values[0] if len(values) == 1 else tuple(values)
