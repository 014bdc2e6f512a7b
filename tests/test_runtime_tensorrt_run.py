"""The TensorRT backend's run path on a fake GPU: host memory for device memory, numpy for the network.

It shows what no machine without a GPU can show otherwise: what is allocated when, how often work is queued, captured
and launched, and that all of it is given back. That an engine is right and fast, only ``pytest -m gpu`` shows.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from streamgc.errors import EngineError
from streamgc.runtime import cuda, plans, tensorrt
from streamgc.runtime.plans import Plan, PlanHeader, PlanKey
from streamgc.runtime.tensorrt import TensorRtEngine


class FakeCuda:
    """The calls of cuda.bindings.runtime that the backend makes; device memory is host memory."""

    cudaHostAllocDefault = 0  # noqa: N815
    cudaStreamNonBlocking = 1  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.memory: dict[int, Any] = {}
        self.recording: list[Callable[[], object]] | None = None

    def queue(self, work: Callable[[], object]) -> None:
        """Run now, or later while a graph is recorded."""
        if self.recording is None:
            work()
        else:
            self.recording.append(work)

    def _allocate(self, name: str, size: int) -> tuple[int, int]:
        self.calls[name] += 1
        raw = ctypes.create_string_buffer(size)
        address = ctypes.addressof(raw)
        self.memory[address] = raw
        return 0, address

    def cudaMalloc(self, size: int) -> tuple[int, int]:  # noqa: N802
        return self._allocate("malloc", size)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[int, int]:  # noqa: N802
        return self._allocate("host", size)

    def _free(self, address: int) -> tuple[int]:
        self.calls["free"] += 1
        del self.memory[address]
        return (0,)

    cudaFree = cudaFreeHost = _free  # noqa: N815

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> tuple[int]:  # noqa: N802
        self.calls["copy"] += 1
        self.queue(lambda: ctypes.memmove(target, source, size))
        return (0,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[int, int]:  # noqa: N802
        return 0, 7

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:  # noqa: N802
        self.calls["synchronize"] += 1
        return (0,)

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:  # noqa: N802
        self.calls["stream destroyed"] += 1
        return (0,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[int]:  # noqa: N802
        self.recording = []
        return (0,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[int, Any]:  # noqa: N802
        recorded, self.recording = self.recording, None
        return 0, recorded

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[int, Any]:  # noqa: N802
        self.calls["captured"] += 1
        return 0, graph

    def cudaGraphDestroy(self, graph: Any) -> tuple[int]:  # noqa: N802
        return (0,)

    def cudaGraphLaunch(self, graph: list[Callable[[], object]], stream: int) -> tuple[int]:  # noqa: N802
        self.calls["launch"] += 1
        for work in graph:
            work()
        return (0,)

    def cudaGraphExecDestroy(self, graph: Any) -> tuple[int]:  # noqa: N802
        self.calls["graph destroyed"] += 1
        return (0,)


class FakeContext:
    """Adds one to each pixel of ``picture`` u8 (1, H, W, 3) and gives it as ``latent`` f32."""

    def __init__(self, gpu: FakeCuda) -> None:
        self.gpu = gpu
        self.shape: tuple[int, ...] = (0,)
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return shape[1] <= 128

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self.gpu.calls["execute"] += 1
        shape, addresses = self.shape, dict(self.addresses)

        def work() -> None:
            size = int(np.prod(shape))
            given = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(addresses["picture"]))
            made = np.ctypeslib.as_array((ctypes.c_float * size).from_address(addresses["latent"]))
            made[:] = given.astype(np.float32) + 1

        self.gpu.queue(work)
        return True


def fake_tensorrt(gpu: FakeCuda, refuses: bool = False) -> Any:
    context = FakeContext(gpu)
    cache = SimpleNamespace(serialize=lambda: b"kernels", deserialize=lambda data: True)
    modes = SimpleNamespace(INPUT=0, OUTPUT=1)
    config = SimpleNamespace(create_runtime_cache=lambda: cache, set_runtime_cache=lambda cache: None)
    names = ("picture", "latent")
    engine = SimpleNamespace(
        num_io_tensors=2,
        get_tensor_name=lambda index: names[index],
        get_tensor_shape=lambda name: (1, -1, -1, 3),
        get_tensor_dtype=lambda name: name,
        get_tensor_mode=lambda name: modes.INPUT if name == "picture" else modes.OUTPUT,
        create_runtime_config=lambda: config,
        create_execution_context=lambda *_: context,
    )
    return SimpleNamespace(
        __version__="1",
        ILogger=type("ILogger", (), {"ERROR": 1, "INTERNAL_ERROR": 0}),
        Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda blob: None if refuses else engine),
        nptype=lambda name: np.uint8 if name == "picture" else np.float32,
        TensorIOMode=modes,
        CudaGraphStrategy=SimpleNamespace(WHOLE_GRAPH_CAPTURE=2),
    )


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    fake = FakeCuda()
    monkeypatch.setattr(tensorrt, "import_runtime", lambda: fake)
    monkeypatch.setattr(tensorrt, "device_name", lambda: "fake GPU, sm89, 1 GB")
    monkeypatch.setattr(tensorrt, "import_tensorrt", lambda backend: fake_tensorrt(fake))
    yield fake
    assert fake.memory == {}, "memory was not given back"


def plan(backend: str) -> Plan:
    key = PlanKey("encoder", "00" * 32, "", backend, "1", (), "fp16", "64x64")
    return Plan(PlanHeader(key, "", 0, {}, {}), b"")


def picture(height: int, value: int) -> dict[str, np.ndarray]:
    return {"picture": np.full((1, height, 64, 3), value, np.uint8)}


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_a_frame_allocates_nothing(gpu: FakeCuda, backend: str) -> None:
    with TensorRtEngine("encoder", plan(backend)) as engine:
        first = engine.run(picture(64, 4))["latent"]
        made = dict(gpu.calls)
        assert (made["malloc"], made["host"]) == (2, 2)
        for value in range(5, 15):
            got = engine.run(picture(64, value))["latent"]
            np.testing.assert_array_equal(got, np.full((1, 64, 64, 3), value + 1, np.float32))
        # What a caller was given stays as it was.
        np.testing.assert_array_equal(first, np.full((1, 64, 64, 3), 5, np.float32))
        assert (gpu.calls["malloc"], gpu.calls["host"]) == (2, 2)
        if backend == "tensorrt":
            # One capture; then a frame is one launch, and nothing else is queued.
            assert (gpu.calls["captured"], gpu.calls["launch"]) == (1, 11)
            assert gpu.calls["execute"] == made["execute"]
            assert gpu.calls["copy"] == made["copy"]
        else:
            assert gpu.calls["captured"] == 0
            assert gpu.calls["execute"] - made["execute"] == 10
            assert gpu.calls["copy"] - made["copy"] == 20
    assert gpu.calls["stream destroyed"] == 1


def test_another_size_gets_buffers_and_a_graph_of_its_own(gpu: FakeCuda) -> None:
    with TensorRtEngine("encoder", plan("tensorrt")) as engine:
        assert engine.run(picture(64, 1))["latent"].shape == (1, 64, 64, 3)
        assert engine.run(picture(128, 1))["latent"].shape == (1, 128, 64, 3)
        assert gpu.calls["captured"] == 2
        assert gpu.calls["graph destroyed"] == 1
        assert gpu.calls["free"] == 4
        with pytest.raises(EngineError, match="was not built for picture"):
            engine.run(picture(192, 1))
        assert engine.run(picture(64, 9))["latent"][0, 0, 0, 0] == 10
    engine.close()
    assert gpu.calls["stream destroyed"] == 1
    with pytest.raises(EngineError, match="is closed"):
        engine.run(picture(64, 1))


def test_submitted_frames_come_in_order(gpu: FakeCuda) -> None:
    with TensorRtEngine("encoder", plan("tensorrt")) as engine:
        futures = [engine.submit(picture(64, value)) for value in range(8)]
        assert [float(future.result(10)["latent"].max()) for future in futures] == [value + 1 for value in range(8)]


def test_compiled_kernels_are_kept(gpu: FakeCuda, tmp_path: Path) -> None:
    file = tmp_path / "encoder.jit"
    with TensorRtEngine("encoder", plan("tensorrt-rtx"), file) as engine:
        engine.run(picture(64, 1))
    assert file.read_bytes() == b"kernels"
    assert list(tmp_path.iterdir()) == [file]


def test_a_plan_that_the_gpu_refuses(gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "import_tensorrt", lambda backend: fake_tensorrt(gpu, refuses=True))
    with pytest.raises(EngineError, match="tensorrt refuses the plan of encoder: no reason given"):
        TensorRtEngine("encoder", plan("tensorrt"))


def test_engines_of_tensorrt_are_keyed_by_the_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "encoder.onnx").write_bytes(b"network")
    monkeypatch.setattr(plans, "import_tensorrt", lambda backend: SimpleNamespace(__version__="11.4"))
    monkeypatch.setattr(plans, "device_problem", lambda: None)
    names = []
    for capability in ("sm86", "sm89"):
        monkeypatch.setattr(plans, "device_capability", lambda found=capability: found)
        names.append(plans.plan_key(tmp_path / "encoder.onnx", "tensorrt").file_name)
    assert names[0] != names[1]
    assert all(name.endswith(".engine") for name in names)
    assert plans.plan_key(tmp_path / "encoder.onnx", "tensorrt-rtx").file_name.endswith(".plan")


def test_cuda_failures_free_what_was_captured() -> None:
    gpu = FakeCuda()
    stream = cuda.Stream(gpu)

    def broken() -> None:
        raise EngineError("queueing failed")

    with pytest.raises(EngineError, match="queueing failed"):
        stream.capture(broken)
    assert gpu.recording is None
