"""TensorRT plans: built by TensorRT-RTX where it is installed, and refused when anything is wrong."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamgc.errors import BackendMissing, EngineError
from streamgc.runtime import plans
from streamgc.runtime.cuda import device_problem
from streamgc.runtime.engine import load_engine
from streamgc.runtime.onnx_header import read_header
from streamgc.runtime.onnx_passes import load_model, move_uint8_casts, save_model
from streamgc.runtime.plans import (
    PlanKey,
    ShapeProfile,
    build_plan,
    cached_plan,
    layer_report,
    layer_summary,
    plan_key,
    plan_precision,
    read_plan,
    write_plan,
)
from streamgc.runtime.store import ModelStore
from tests.runtime_networks import encoder, warper

RTX = "tensorrt-rtx"
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed: pip install tensorrt-rtx"
)
SMALL = ShapeProfile((64, 64), (128, 128), (256, 256))


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("networks")
    paths = {"encoder": encoder(folder / "encoder.onnx"), "warper": warper(folder / "warper.onnx")}
    for path in paths.values():
        save_model(move_uint8_casts(load_model(path)), path)
    return paths


@needs_rtx
@pytest.mark.parametrize("role", ["encoder", "warper"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_builds_the_same_plan_twice(networks: dict[str, Path], role: str, precision: Any) -> None:
    first, second = (build_plan(networks[role], RTX, ("sm86", "sm89"), precision, SMALL) for _ in range(2))
    # TensorRT numbers its internals anew: some plans repeat byte for byte, others in all but a few hundred bytes.
    assert len(first.blob) == len(second.blob)
    differing = sum(a != b for a, b in zip(first.blob, second.blob, strict=True))
    assert differing < 0.002 * len(first.blob)
    assert first.header.key == second.header.key
    assert first.header.key.capabilities == ("sm86", "sm89")
    assert 1_000 < len(first.blob) == first.header.plan_bytes
    wanted = {"encoder": {"picture": "UINT8"}, "warper": {"symbols": "FLOAT", "plane": "UINT8", "key": "UINT8"}}[role]
    assert first.header.inputs == wanted
    assert first.header.outputs == {"encoder": {"latent": "FLOAT"}, "warper": {"picture": "UINT8"}}[role]


@needs_rtx
def test_half_plan_computes_in_half(networks: dict[str, Path]) -> None:
    kinds = {layer.kind: layer for layer in layer_report(networks["encoder"], RTX, "fp16")}
    assert kinds["CONVOLUTION"].outputs == ("HALF",)
    assert kinds["NORMALIZATION"].outputs == ("FLOAT",)
    counts = {(kind, writes): count for kind, _, writes, count in layer_summary(list(kinds.values()))}
    assert counts["CONVOLUTION", "HALF"] == 1


@needs_rtx
def test_writes_and_reads(networks: dict[str, Path], tmp_path: Path) -> None:
    plan = build_plan(networks["encoder"], RTX, (), "fp32", SMALL, model_hash="0011223344556677")
    path = write_plan(plan, tmp_path / plan.header.key.file_name)
    assert read_plan(path, plan.header.key) == plan
    for part in ("encoder", "portable", "fp32", "64x64-128x128-256x256", "0011223344556677"):
        assert part in path.name


@needs_rtx
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network_sha256": "00" * 32}, "stale: its network_sha256"),
        ({"precision": "fp16"}, "stale: its precision is fp32, wanted fp16"),
        ({"profile": "256x256"}, "stale: its profile"),
        ({"capabilities": ("sm89",)}, "stale: its capabilities is portable, wanted sm89"),
        ({"model_hash": "ff"}, "stale: its model_hash"),
    ],
)
def test_refuses_stale_plans(networks: dict[str, Path], tmp_path: Path, change: dict[str, Any], message: str) -> None:
    plan = build_plan(networks["encoder"], RTX, (), "fp32", SMALL)
    path = write_plan(plan, tmp_path / "one.plan")
    with pytest.raises(EngineError, match=message):
        read_plan(path, msgspec.structs.replace(plan.header.key, **change))


@needs_rtx
def test_refuses_malformed_and_foreign_plans(networks: dict[str, Path], tmp_path: Path) -> None:
    plan = build_plan(networks["encoder"], RTX, (), "fp32", SMALL)
    path = write_plan(plan, tmp_path / "one.plan")
    data = path.read_bytes()
    damaged = {
        "no plan file": b"ftrt" + data[4:],
        "truncated or altered": data[:-100],
        "altered": data[:-5] + bytes(5),
        "malformed": data[:40],
    }
    for message, content in damaged.items():
        path.write_bytes(content)
        with pytest.raises(EngineError, match=f"malformed.*{message}|{message}"):
            read_plan(path)
    older = msgspec.structs.replace(plan.header.key, version="1.0.0.21")
    write_plan(plans.Plan(msgspec.structs.replace(plan.header, key=older), plan.blob), path)
    with pytest.raises(EngineError, match=r"foreign: built by tensorrt-rtx 1\.0\.0\.21, this is"):
        read_plan(path)
    with pytest.raises(EngineError, match="foreign"):
        load_engine(path)
    with pytest.raises(EngineError, match="cannot read the plan"):
        read_plan(tmp_path / "nothing.plan")


@needs_rtx
def test_cache_builds_once_and_repairs(
    networks: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = plan_key(networks["encoder"], RTX, (), "fp32", SMALL)
    first = cached_plan(key, networks["encoder"], SMALL, tmp_path)
    (file,) = tmp_path.glob("*.plan")
    file.write_bytes(file.read_bytes()[:-1])
    repaired = cached_plan(key, networks["encoder"], SMALL, tmp_path)
    assert (repaired.header.key, repaired.header.inputs) == (first.header.key, first.header.inputs)
    monkeypatch.setattr(plans, "build_plan", lambda *_, **__: pytest.fail("built again although cached"))
    assert cached_plan(key, networks["encoder"], SMALL, tmp_path) == repaired


@needs_rtx
def test_refuses_what_it_cannot_build(networks: dict[str, Path], tmp_path: Path) -> None:
    network = networks["encoder"]
    with pytest.raises(EngineError, match="unknown compute capability 'sm90'; this tensorrt-rtx builds for sm120"):
        build_plan(network, RTX, ("sm90",))
    with pytest.raises(EngineError, match="cannot become a int8 plan"):
        build_plan(network, RTX, (), "int8")
    with pytest.raises(EngineError, match="from small to large"):
        build_plan(network, RTX, (), "fp32", ShapeProfile((256, 256), (128, 128), (512, 512)))
    with pytest.raises(EngineError, match="multiples of 16"):
        build_plan(network, RTX, (), "fp32", ShapeProfile.fixed((100, 100)))
    with pytest.raises(EngineError, match="no such network file"):
        build_plan(tmp_path / "nothing.onnx", RTX)
    (tmp_path / "bad.onnx").write_bytes(network.read_bytes()[:300])
    with pytest.raises(EngineError, match=r"bad\.onnx is not a readable ONNX file"):
        build_plan(tmp_path / "bad.onnx", RTX)
    raw = encoder(tmp_path / "raw.onnx")
    with pytest.raises(EngineError, match="TensorRT cannot parse raw"):
        build_plan(raw, RTX, (), "fp32", SMALL)


@needs_rtx
@pytest.mark.skipif(device_problem() is None, reason="this machine has a GPU")
def test_without_a_gpu_a_plan_is_not_run(networks: dict[str, Path], tmp_path: Path) -> None:
    plan = build_plan(networks["encoder"], RTX, (), "fp32", SMALL)
    path = write_plan(plan, tmp_path / "one.plan")
    with pytest.raises(BackendMissing, match="tensorrt-rtx is not available: no"):
        load_engine(path)
    with pytest.raises(EngineError, match="not of tensorrt"):
        load_engine(path, backend="tensorrt")


def test_a_flavour_that_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="'openvino' builds no plans; there are: tensorrt, tensorrt-rtx"):
        build_plan(tmp_path / "x.onnx", "openvino")
    for backend, module in plans.MODULES.items():
        if importlib.util.find_spec(module) is None:
            with pytest.raises(BackendMissing, match=rf"pip install 'streamgc\[{backend}\]'"):
                build_plan(tmp_path / "x.onnx", backend)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 600), damage=st.binary(min_size=1, max_size=8))
def test_no_damage_to_a_plan_goes_unseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int, damage: bytes
) -> None:
    monkeypatch.setattr(plans, "import_tensorrt", lambda backend: SimpleNamespace(__version__="1.7"))
    key = PlanKey("encoder", "ab" * 32, "00" * 8, RTX, "1.7", ("sm86",), "fp16", "256x256")
    blob = bytes(range(200))
    plan = plans.Plan(plans.PlanHeader(key, hashlib.sha256(blob).hexdigest(), len(blob), {"a": "HALF"}, {}), blob)
    path = write_plan(plan, tmp_path / "one.plan")
    assert read_plan(path, key) == plan
    whole = path.read_bytes()
    place %= len(whole)
    changed = whole[:place] + damage + whole[place + len(damage) :]
    path.write_bytes(changed)
    try:
        found = read_plan(path, key)
    except EngineError:
        return
    # What is still read is what was built, but for names of inputs, which no key covers.
    assert (found.header.key, found.blob) == (key, blob)


def test_keys_that_differ_have_file_names_that_differ() -> None:
    base = PlanKey("encoder", "ab" * 32, "00" * 8, RTX, "1.7", ("sm86",), "fp16", "256x256")
    changes: list[dict[str, Any]] = [
        {"network": "generator"},
        {"network_sha256": "cd" * 32},
        {"model_hash": "11" * 8},
        {"backend": "tensorrt"},
        {"version": "1.8"},
        {"capabilities": ("sm86", "sm89")},
        {"precision": "fp32"},
        {"profile": "512x512"},
    ]
    names = {msgspec.structs.replace(base, **change).file_name for change in changes}
    assert len(names | {base.file_name}) == len(changes) + 1


SHIPPED = [(name, role) for name in ModelStore().names() for role in ModelStore().open(name).roles]


@needs_rtx
@pytest.mark.parametrize(("name", "role"), SHIPPED)
def test_builds_every_shipped_network(name: str, role: str, tmp_path: Path) -> None:
    """A plan of each network that ships, with the inputs and outputs it has on the CPU."""
    model = ModelStore().open(name)
    source = model.network(role)
    header = read_header(source)
    precision = plan_precision(role, "fp16")
    profile = ShapeProfile.fixed((256, 256))
    plan = build_plan(source, RTX, ("sm89",), precision, profile, model_hash=model.manifest.hash)
    kinds = {"uint8": "UINT8", "float32": "FLOAT"}
    assert plan.header.inputs == {tensor.name: kinds[tensor.dtype] for tensor in header.inputs}
    assert plan.header.outputs == {tensor.name: kinds[tensor.dtype] for tensor in header.outputs}
    assert len(plan.blob) > 0.5 * source.stat().st_size
    assert read_plan(write_plan(plan, tmp_path / "one.plan"), plan.header.key) == plan


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize(("name", "role"), SHIPPED)
def test_every_shipped_network_repeats_for_every_capability(name: str, role: str, precision: Any) -> None:
    model = ModelStore().open(name)
    if not model.has(role, precision):
        pytest.skip(f"{name} ships no {precision} {role}")
    if plan_precision(role, precision) != precision:
        pytest.skip(f"no plan of {role} is built in {precision}")
    source = model.network(role, precision)
    capabilities = ("sm75", "sm80", "sm86", "sm89", "sm120")
    first, second = (build_plan(source, RTX, capabilities, precision, SMALL) for _ in range(2))
    assert abs(len(first.blob) - len(second.blob)) < 0.002 * len(first.blob)
    assert first.header.key == second.header.key
