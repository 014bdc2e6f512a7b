"""engines list, verify and build, and doctor: real runs on a small model."""

from __future__ import annotations

import importlib.util
import io
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from streamgc.errors import BackendMissing, EngineError, InputError, ModelError
from streamgc.runtime.commands import choose, engines_build, engines_list, engines_verify
from streamgc.runtime.doctor import doctor, verdict
from streamgc.runtime.engine import load_engine, missing_reason
from streamgc.runtime.onnx_passes import load_model, move_uint8_casts, save_model
from streamgc.runtime.parity import LIMITS, compare, require
from streamgc.runtime.plans import ShapeProfile, read_plan
from streamgc.runtime.samples import chained_feeds, clip_pictures, synthetic_pictures
from streamgc.runtime.store import ModelStore
from tests.runtime_networks import encoder, model_folder, warper


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    root = tmp_path_factory.mktemp("engines")
    model_folder(root)
    return ModelStore(root)


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def printed(target: Console) -> str:
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue()


def test_list_names_models_and_the_choice(store: ModelStore) -> None:
    out = console()
    (model,) = engines_list(store, out)
    assert model.name == "small"
    text = printed(out)
    assert model.manifest.hash in text
    assert "used: the first that is available" in text
    for backend, reason in choose().passed.items():
        assert backend in text
        assert reason.split("[")[0][:30] in text


def test_list_goes_on_after_a_broken_model(store: ModelStore, tmp_path: Path) -> None:
    broken = model_folder(tmp_path, "broken")
    (broken.folder / "encoder.onnx").write_bytes(b"")
    out = console()
    assert engines_list(ModelStore(tmp_path), out) == []
    assert "broken: model 'broken' is inconsistent" in printed(out)


def test_verify_compares_and_times(store: ModelStore) -> None:
    out = console()
    rows = engines_verify(
        "small", store=store, backends=["openvino", "onnxruntime"], size=(64, 96), threads=1, count=2, console=out
    )
    found = {(row.role, row.backend, row.precision) for row in rows}
    assert {("encoder", "openvino", "fp32"), ("encoder", "onnxruntime", "fp32")} <= found
    assert {row.role for row in rows} == {"encoder", "generator"}
    assert all(row.run_ms > 0 and row.run_ms_p95 >= row.run_ms for row in rows)
    assert all(result.flips is not None for row in rows if row.role == "encoder" for result in row.parity)
    assert "same" in printed(out)


def test_verify_refuses(store: ModelStore) -> None:
    with pytest.raises(ModelError, match="there are: small"):
        engines_verify("large", store=store, console=console())
    if missing_reason("onnxruntime-cuda") is not None:
        with pytest.raises(BackendMissing, match="onnxruntime-cuda is not available"):
            engines_verify("small", store=store, backends=["onnxruntime-cuda"], console=console())


def test_a_different_network_breaches_the_limits(tmp_path: Path) -> None:
    paths = [encoder(tmp_path / "a.onnx"), encoder(tmp_path / "b.onnx")]
    model = load_model(paths[1])
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w2")
    weight.raw_data = bytes(reversed(weight.raw_data[: len(weight.raw_data) // 4 * 4]))
    values = np.random.default_rng(9).normal(size=tuple(weight.dims)).astype(np.float32)
    weight.raw_data = values.tobytes()
    save_model(model, paths[1])
    feed = {"picture": np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)}
    engines = [load_engine(path, backend="openvino", precision="fp32", threads=1) for path in paths]
    results = [engine.run(feed)["latent"] for engine in engines]
    same = compare("latent", engines[0], [(results[0], results[0])], True)
    other = compare("latent", engines[1], [(results[0], results[1])], True)
    require([same])
    assert same.breaches(LIMITS["fp32"]) == []
    with pytest.raises(EngineError, match=r"not the same network: latent on openvino fp32: .* symbol flips"):
        require([same, other])
    with pytest.raises(EngineError, match="another shape"):
        compare("latent", engines[0], [(results[0], results[0][:, :2])], True)
    with pytest.raises(EngineError, match="at least one"):
        compare("latent", engines[0], [], True)


def test_samples_follow_the_networks(store: ModelStore) -> None:
    model = store.open("small")
    pictures = synthetic_pictures((64, 96), 3)
    np.testing.assert_array_equal(pictures[1], synthetic_pictures((64, 96), 3)[1])
    feeds = chained_feeds(model, pictures, threads=1)
    assert {role: len(found) for role, found in feeds.items()} == {"encoder": 3, "generator": 3}
    with model.load("encoder", backend="openvino", precision="fp32", threads=1) as engine:
        latent = engine.run(feeds["encoder"][2])["latent"]
    np.testing.assert_array_equal(feeds["generator"][2]["symbols"], np.clip(np.rint(latent), -2, 2))


def test_samples_refuse_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    for name in ("clip.mp4", "missing.mp4"):
        with pytest.raises(InputError, match=name):
            clip_pictures(tmp_path / name, (64, 64), 2)


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
def test_build_writes_plans(tmp_path: Path) -> None:
    root = tmp_path / "engines"
    model = model_folder(root)
    for role, make in (("encoder", encoder), ("generator", warper)):
        path = make(root / "moved" / f"{role}.onnx")
        save_model(move_uint8_casts(load_model(path)), model.folder / f"{role}.onnx")
    from streamgc.runtime.store import write_model_json

    networks = {"encoder": "encoder.onnx", "generator": "generator.onnx"}
    model = write_model_json(model.folder, name="small", family="lite", version="1", networks=networks)
    out = console()
    paths = engines_build(
        "small",
        backend="tensorrt-rtx",
        capabilities=["sm86"],
        profile=ShapeProfile.fixed((128, 128)),
        out=tmp_path / "plans",
        layers=True,
        store=ModelStore(root),
        console=out,
    )
    assert len(paths) == 2
    assert {read_plan(path).header.key.model_hash for path in paths} == {model.manifest.hash}
    assert "picture UINT8 → latent FLOAT" in printed(out)
    assert "HALF" in printed(out)


def test_build_refuses_unknown_networks(store: ModelStore) -> None:
    with pytest.raises(ModelError, match="has no room; it has encoder, generator"):
        engines_build("small", backend="tensorrt-rtx", roles=["room"], store=store, console=console())


def test_doctor_names_the_engine_and_why() -> None:
    out = console()
    findings = {finding.subject: finding for finding in doctor(console=out)}
    assert findings["openvino"].good
    assert findings["libopus"].good
    assert findings["udp"].good
    text = printed(out)
    assert verdict().startswith("engine: ")
    if choose().backend == "openvino":
        # What a call really does, not what the backend would do with an fp32 file.
        assert re.match(r"engine: openvino: lite, segmenter in int8, the rest in (fp32|bf16)", verdict())
    assert "backends" in text
    if importlib.util.find_spec("tensorrt") is None:
        assert "pip install 'streamgc[tensorrt]'" in text


def test_doctor_sees_a_busy_port() -> None:
    import socket

    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        findings = {f.subject: f for f in doctor(busy.getsockname()[1], console())}
    assert not findings["signalling port"].good
