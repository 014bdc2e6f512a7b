"""Engines: one interface over OpenVINO and ONNX Runtime, and what each refuses."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from streamgc.errors import BackendMissing, EngineError
from streamgc.runtime.engine import BACKENDS, available_backends, load_engine, missing_reason
from streamgc.runtime.openvino import fastest_precision
from tests.runtime_networks import encoder, warper

CPU_BACKENDS = ("openvino", "onnxruntime")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder(tmp_path_factory.mktemp("networks") / "encoder.onnx")


def picture(seed: int = 0, size: tuple[int, int] = (64, 96)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, *size, 3)).astype(np.uint8)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("size", [None, (64, 96)])
def test_runs_and_describes_itself(network: Path, backend: str, size: tuple[int, int] | None) -> None:
    with load_engine(network, backend=backend, precision="fp32", threads=1, size=size) as engine:
        assert (engine.backend, engine.precision, engine.name) == (backend, "fp32", "encoder")
        assert engine.inputs["picture"].dtype == np.uint8
        assert engine.inputs["picture"].shape == ((1, 64, 96, 3) if size else (1, None, None, 3))
        latent = engine.run({"picture": picture()})["latent"]
        assert latent.shape == (1, 8, 4, 6)
        assert latent.dtype == np.float32


def test_backends_agree(network: Path) -> None:
    results = []
    for backend in CPU_BACKENDS:
        with load_engine(network, backend=backend, precision="fp32", threads=1) as engine:
            results.append(engine.run({"picture": picture()})["latent"])
    np.testing.assert_allclose(results[0], results[1], atol=1e-4)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_results_outlive_the_next_run(network: Path, backend: str) -> None:
    with load_engine(network, backend=backend, precision="fp32", threads=1, size=(64, 96)) as engine:
        first = engine.run({"picture": picture(1)})["latent"]
        kept = first.copy()
        engine.run({"picture": picture(2)})
        np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_submitted_runs_overlap_and_match(network: Path, backend: str) -> None:
    with load_engine(network, backend=backend, precision="fp32", threads=1, size=(64, 96)) as engine:
        pictures = [picture(seed) for seed in range(6)]
        futures = [engine.submit({"picture": each}) for each in pictures]
        for each, future in zip(pictures, futures, strict=True):
            np.testing.assert_array_equal(future.result(10)["latent"], engine.run({"picture": each})["latent"])


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_refuses_wrong_inputs(network: Path, backend: str) -> None:
    with load_engine(network, backend=backend, threads=1, size=(64, 96)) as engine:
        with pytest.raises(EngineError, match="takes inputs picture; got image"):
            engine.run({"image": picture()})
        with pytest.raises(EngineError, match="takes inputs picture; got nothing"):
            engine.run({})
        with pytest.raises(EngineError, match="'picture' must be uint8, got float32"):
            engine.run({"picture": picture().astype(np.float32)})
        with pytest.raises(EngineError, match=r"'picture' must have shape \(1, 64, 96, 3\), got \(1, 96, 64, 3\)"):
            engine.run({"picture": picture(0, (96, 64))})
        with pytest.raises(EngineError, match="must have shape"):
            engine.submit({"picture": picture()[0]})


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_accepts_a_view(network: Path, backend: str) -> None:
    whole = picture(3, (64, 192))
    with load_engine(network, backend=backend, precision="fp32", threads=1, size=(64, 96)) as engine:
        view = engine.run({"picture": whole[:, :, ::2]})["latent"]
        np.testing.assert_array_equal(view, engine.run({"picture": whole[:, :, ::2].copy()})["latent"])


def test_closed_engine_refuses(network: Path) -> None:
    engine = load_engine(network, backend="openvino", threads=1)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run({"picture": picture()})
    with pytest.raises(EngineError, match="closed"):
        engine.submit({"picture": picture()})


def test_unknown_and_missing_backends(network: Path) -> None:
    with pytest.raises(EngineError, match="unknown backend 'cudnn'; there are: auto, tensorrt"):
        load_engine(network, backend="cudnn")
    for backend, reason in available_backends().items():
        if reason is None:
            continue
        with pytest.raises(BackendMissing, match=f"{backend} is not available: "):
            load_engine(network, backend=backend)
        assert "pip install" in reason or "NVIDIA" in reason
    assert set(available_backends()) == set(BACKENDS)
    assert missing_reason("openvino") is None


def test_bad_settings(network: Path) -> None:
    with pytest.raises(EngineError, match="unknown precision"):
        load_engine(network, precision="fp64")  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="threads must be 1 or more"):
        load_engine(network, threads=0)
    with pytest.raises(EngineError, match="multiples of 16, got 100x96"):
        load_engine(network, size=(100, 96))
    with pytest.raises(EngineError, match="runs at 64 to 2048 pixels a side"):
        load_engine(network, size=(48, 96))
    with pytest.raises(EngineError, match="holds no int8 layers"):
        load_engine(network, precision="int8")
    with pytest.raises(EngineError, match="computes in fp32 on the CPU"):
        load_engine(network, backend="onnxruntime", precision="bf16")


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "missing"])
def test_refuses_damaged_files(network: Path, tmp_path: Path, damage: str) -> None:
    bad = tmp_path / "bad.onnx"
    data = network.read_bytes()
    if damage != "missing":
        bad.write_bytes(
            {"empty": b"", "text": b"this is no network\n" * 30, "truncated": data[: len(data) // 2]}[damage]
        )
    with pytest.raises(EngineError, match=r"bad\.onnx"):
        load_engine(bad)


def test_refuses_an_opset_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="uses ONNX opset 13; 17 to 23 are supported"):
        load_engine(encoder(tmp_path / "old.onnx", opset=13))


def test_precision_is_what_was_asked(tmp_path: Path) -> None:
    path = warper(tmp_path / "warper.onnx")
    assert fastest_precision() in ("fp32", "bf16")
    with load_engine(path, threads=1) as engine:
        assert (engine.backend, engine.precision) == ("openvino", fastest_precision()) or missing_reason(
            "tensorrt"
        ) is None


def test_compiled_blobs_are_cached(network: Path, tmp_path: Path) -> None:
    def answer(size: tuple[int, int] | None = None) -> np.ndarray:
        with load_engine(
            network, backend="openvino", precision="fp32", threads=1, size=size, cache=tmp_path / "new"
        ) as engine:
            return engine.run({"picture": picture()})["latent"]

    first = answer()
    (blob,) = (tmp_path / "new").iterdir()
    made = blob.stat().st_ino
    np.testing.assert_array_equal(answer(), first)
    assert blob.stat().st_ino == made, "compiled again"
    data = blob.read_bytes()
    for broken in (b"", data[:40], data[: len(data) // 2], data[:-9] + bytes(9)):
        blob.write_bytes(broken)
        np.testing.assert_array_equal(answer(), first)
        assert blob.read_bytes()[:32] != broken[:32] or len(broken) > 32
        assert len(blob.read_bytes()) > len(data) * 0.9, "not compiled again"
    np.testing.assert_array_equal(answer((64, 96)), first)
    assert len(list((tmp_path / "new").iterdir())) == 2


def test_a_cache_that_cannot_be_written_does_not_matter(network: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with load_engine(network, backend="openvino", threads=1, cache=tmp_path / "file" / "cache") as engine:
        assert engine.run({"picture": picture()})["latent"].shape == (1, 8, 4, 6)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_the_runtime_tells_what_each_layer_took(network: Path, backend: str) -> None:
    with load_engine(network, backend=backend, precision="fp32", threads=1, profiling=True) as engine:
        engine.run({"picture": picture()})
        layers = engine.layers({"picture": picture()})
    assert any("conv" in f"{layer.name} {layer.kind}".lower() for layer in layers)
    assert all(0 <= layer.milliseconds < 1000 for layer in layers)
    with load_engine(network, backend=backend, precision="fp32", threads=1) as engine, pytest.raises(EngineError):
        engine.layers({"picture": picture()})


def test_import_sends_nothing_and_leaves_the_converter_importable() -> None:
    """`import openvino` would start the vendor's telemetry through its converter; ours must not, nor break it for
    others.
    """
    program = (
        "import sys; from streamgc.runtime.openvino import import_openvino; import_openvino();"
        "assert 'openvino_telemetry' not in sys.modules, 'telemetry';"
        "assert 'torch' not in sys.modules, 'torch';"
        "assert 'openvino.tools.ovc' not in sys.modules, 'blocked'"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_gpu_agrees_with_the_cpu(network: Path, tmp_path: Path, backend: str) -> None:
    if importlib.util.find_spec(backend.replace("-", "_")) is None:
        pytest.skip(f"{backend} is not installed")
    with load_engine(network, backend="openvino", precision="fp32") as cpu:
        wanted = cpu.run({"picture": picture()})["latent"]
    for precision in ("fp32", "fp16"):
        with load_engine(network, backend=backend, precision=precision, cache=tmp_path, size=(64, 96)) as gpu:
            for _ in range(3):
                got = gpu.run({"picture": picture()})["latent"]
            np.testing.assert_allclose(got, wanted, atol=0.02)
