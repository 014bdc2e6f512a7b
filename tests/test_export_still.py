"""The still networks of both families: exported whole and in parts, in every precision, as plans, and refused."""

from __future__ import annotations

import importlib.util
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training extras are not installed: pip install 'streamgc[train]'")

import onnx
import torch

from streamgc.errors import EngineError, InputError, TrainingError
from streamgc.networks.paper import PaperNetworks
from streamgc.networks.still_build import build_still
from streamgc.networks.still_export import settle_normalisation, to_label_planes
from streamgc.networks.still_spec import Family, StillSpec, Task
from streamgc.runtime.engine import load_engine
from streamgc.runtime.onnx_header import read_header
from streamgc.runtime.parity import LIMITS, require
from streamgc.runtime.plans import ShapeProfile, build_plan, read_plan, write_plan
from streamgc.runtime.samples import chained_feeds, synthetic_pictures
from streamgc.training import export_models
from streamgc.training.export_models import Exported, export_still_model, fresh_networks
from streamgc.training.still_export import example_input, still_networks
from streamgc.training.torch_reference import torch_network

RTX = "tensorrt-rtx"
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed: pip install tensorrt-rtx"
)
SIZE = (96, 128)
PAPER_SIZE = ShapeProfile.fixed((512, 1024))


def small(family: Family, task: Task, channels: int = 4) -> StillSpec:
    width = 1 / 30 if family == "paper" else 1 / 8
    return StillSpec(family, task, channels, 0 if task == "gc" else 3, width, blocks=1)


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Small SC of the paper: E, receiver head, F and G apart, in fp32, fp16 and int8."""
    torch.manual_seed(3)
    networks = build_still(small("paper", "sc")).eval()
    folder = tmp_path_factory.mktemp("models") / "paper"
    return export_still_model(networks, folder, synthetic_pictures(SIZE, 4), name="paper", split=True)


def test_parts_are_the_networks_of_the_paper(paper: Exported) -> None:
    headers = {role: read_header(paper.model.network(role)) for role in paper.model.roles}
    ports = {
        role: ([tensor.name for tensor in header.inputs], [tensor.name for tensor in header.outputs])
        for role, header in headers.items()
    }
    assert ports == {
        "encoder": (["picture", "labels"], ["latent"]),
        "receiver": (["symbols", "present"], ["code"]),
        "features": (["labels"], ["features"]),
        "generator": (["code", "features"], ["picture"]),
    }
    kinds = {tensor.name: tensor.dtype for header in headers.values() for tensor in (*header.inputs, *header.outputs)}
    assert (kinds["picture"], kinds["labels"], kinds["latent"]) == ("uint8", "uint8", "float32")
    assert headers["encoder"].size_range == (64, 2048)
    # The paper's SC codes at /8.
    assert headers["receiver"].shapes_at(64, 128)["symbols"] == (1, 4, 8, 16)
    assert headers["generator"].shapes_at(64, 128)["code"] == (1, 32, 4, 8)


def test_every_file_is_the_same_network(paper: Exported) -> None:
    found = Counter((role, row.backend, row.precision) for role, row in paper.parity)
    engines = {(backend, precision) for _, backend, precision in export_models.ENGINES} | {("simulated", "fp16")}
    assert set(found) == {(role, *engine) for role in paper.model.roles for engine in engines}
    require(row for _, row in paper.parity)
    rows = {(role, row.backend, row.precision): row for role, row in paper.parity}
    # Weights are stored in fp16: that, not the runtime, is what fp32 differs by; rounding every value costs more.
    for role in paper.model.roles:
        assert rows[role, "simulated", "fp16"].mean_error > rows[role, "openvino", "fp32"].mean_error
        # Saturation of 16-bit sums on CPUs without VNNI would set OpenVINO apart.
        assert rows[role, "openvino", "int8"].decibels > rows[role, "onnxruntime", "int8"].decibels - 3


@pytest.mark.parametrize("size", [(64, 64), (112, 80), (64, 256)])
def test_sizes_are_free(paper: Exported, size: tuple[int, int]) -> None:
    feeds = chained_feeds(paper.model, synthetic_pictures(size, 1))
    for role in paper.model.roles:
        network = torch_network(paper.model, role)
        (want,) = network.run(feeds[role][0]).values()
        with paper.model.load(role, backend="openvino", precision="fp32") as engine:
            (got,) = engine.run(feeds[role][0]).values()
        assert got.shape == want.shape
        np.testing.assert_allclose(got.astype(float), want.astype(float), atol=1 if got.dtype == np.uint8 else 2e-3)


def test_parts_make_the_picture_that_the_whole_makes(paper: Exported) -> None:
    torch.manual_seed(3)
    networks = build_still(small("paper", "sc")).eval()
    assert isinstance(networks, PaperNetworks)
    feeds = chained_feeds(paper.model, synthetic_pictures(SIZE, 1))
    symbols = torch.from_numpy(feeds["receiver"][0]["symbols"])
    planes = to_label_planes(torch.from_numpy(feeds["features"][0]["labels"]), 3)
    with torch.no_grad():
        whole = networks.decode(symbols, None, None, planes)[0].permute(1, 2, 0).numpy()
    with paper.model.load("generator", backend="openvino", precision="fp32") as engine:
        got = engine.run(feeds["generator"][0])["picture"][0]
    assert np.abs((whole + 1) * 127.5 - got).max() < 2


def test_half_keeps_norms_in_full_and_int8_is_symmetric(paper: Exported) -> None:
    half = onnx.shape_inference.infer_shapes(onnx.load(str(paper.model.network("generator", "fp16"))))
    kinds = {value.name: value.type.tensor_type.elem_type for value in half.graph.value_info}
    outputs = {node.op_type: kinds.get(node.output[0]) for node in half.graph.node}
    assert outputs["InstanceNormalization"] == onnx.TensorProto.FLOAT
    assert outputs["Conv"] == outputs["ConvTranspose"] == onnx.TensorProto.FLOAT16
    small = onnx.load(str(paper.model.network("generator", "int8")))
    constants = {tensor.name: tensor for tensor in small.graph.initializer}
    zeros = [constants[node.input[2]] for node in small.graph.node if node.op_type == "QuantizeLinear"]
    assert zeros
    assert all(z.data_type == onnx.TensorProto.INT8 and not onnx.numpy_helper.to_array(z).any() for z in zeros)


@needs_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_plans_at_the_papers_size(paper: Exported, precision: str, tmp_path: Path) -> None:
    for role in paper.model.roles:
        source = paper.model.network(role, precision)
        plan = build_plan(source, RTX, ("sm86", "sm89"), precision, PAPER_SIZE, model_hash=paper.model.manifest.hash)  # type: ignore[arg-type]
        header = read_header(source)
        assert set(plan.header.inputs) == {tensor.name for tensor in header.inputs}
        assert set(plan.header.outputs) == {tensor.name for tensor in header.outputs}
        assert plan.header.key.profile == "512x1024"
        assert read_plan(write_plan(plan, tmp_path / "one.plan"), plan.header.key) == plan


def test_frozen_norms_become_batch_norms() -> None:
    torch.manual_seed(0)
    networks = build_still(small("paper", "gc"))
    networks.train()
    networks(torch.rand(2, 3, 64, 64) * 2 - 1)
    networks.eval()
    picture = torch.rand(1, 3, 64, 64) * 2 - 1
    kinds = (torch.nn.InstanceNorm2d, torch.nn.BatchNorm2d)
    for freeze, kind, other in ((False, *kinds), (True, *kinds[::-1])):
        if freeze:
            networks.freeze_normalisation()
        settled = settle_normalisation(networks)
        modules = list(settled.modules())
        assert any(isinstance(module, kind) for module in modules)
        assert not any(isinstance(module, other) for module in modules)
        with torch.no_grad():
            np.testing.assert_allclose(settled.encode(picture, None), networks.encode(picture, None), atol=1e-5)


@pytest.mark.parametrize("family", ["paper", "lite"])
@pytest.mark.parametrize("task", ["gc", "sc", "labels"])
def test_parts_in_a_row_are_the_whole(family: Family, task: Task) -> None:
    torch.manual_seed(1)
    spec = small(family, task)
    networks = build_still(spec).eval()
    parts, whole = still_networks(networks, split=True), still_networks(networks)
    values = {name: example_input(name, spec) for name in ("present", "symbols", "keep", "labels")}
    values["symbols"] = torch.randint(-2, 3, values["symbols"].shape).float()
    values["labels"][:, 20:50, 30:90] = 2
    with torch.no_grad():
        for part in parts.values():
            if part.output != "latent":
                values[part.output] = part.module(*(values[name] for name in part.inputs))
        wanted = whole["generator"].module(*(values[name] for name in whole["generator"].inputs))
    torch.testing.assert_close(values["picture"], wanted)


def test_export_refuses(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no networks named 'paper'; there are: paper-gc, paper-sc"):
        fresh_networks("paper")
    with pytest.raises(InputError, match="must be positive"):
        fresh_networks("paper-gc", width=0)
    with pytest.raises(TrainingError, match="not as 'fp8'"):
        export_still_model(
            fresh_networks("lite-gc", width=0.1),
            tmp_path / "m",
            synthetic_pictures(SIZE, 1),
            name="m",
            precisions=["fp8"],
        )
    assert not list(tmp_path.iterdir())


def test_an_export_beyond_the_limits_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = {name: replace(limits, decibels=500.0) for name, limits in LIMITS.items()}
    monkeypatch.setattr(export_models, "require", lambda rows: require(rows, strict))
    networks = build_still(small("lite", "gc")).eval()
    with pytest.raises(EngineError, match="not the same network: latent on openvino fp32"):
        export_still_model(networks, tmp_path / "m", synthetic_pictures(SIZE, 1), name="m", precisions=[])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in export_models.FRESH if name != "paper-sc"])
def test_every_task_of_both_families(name: str, tmp_path: Path) -> None:
    networks = fresh_networks(name, width=1 / 15, channels=4, classes=3)
    split = name in ("paper-labels", "lite-sc")
    done = export_still_model(networks, tmp_path / name, synthetic_pictures(SIZE, 4), name=name, split=split)
    require(row for _, row in done.parity)
    for role in done.model.roles:
        assert torch_network(done.model, role).outputs
        if importlib.util.find_spec("tensorrt_rtx") is not None:
            for precision in ("fp16", "int8"):
                build_plan(done.model.network(role, precision), RTX, ("sm86",), precision, PAPER_SIZE)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_paper_at_full_width(tmp_path: Path) -> None:
    """The 176 million parameters of G with F and the receiver head: parity, and fp16 plans at 512×1024."""
    networks = fresh_networks("paper-sc")
    pictures = synthetic_pictures((128, 256), 1)
    done = export_still_model(networks, tmp_path / "full", pictures, name="full", precisions=["fp16"], split=True)
    del networks
    assert done.model.network("generator").stat().st_size > 300e6
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("exported and compared; tensorrt-rtx is not installed, so no plans: pip install tensorrt-rtx")
    for role in done.model.roles:
        plan = build_plan(done.model.network(role, "fp16"), RTX, ("sm89",), "fp16", PAPER_SIZE)
        assert len(plan.blob) > 0.9 * done.model.network(role, "fp16").stat().st_size
        path = write_plan(plan, tmp_path / "one.plan")
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(EngineError, match="malformed"):
            read_plan(path)


def test_loose_engine_still_loads(paper: Exported) -> None:
    with load_engine(paper.model.network("features"), backend="openvino", precision="fp32", size=(64, 64)) as engine:
        assert engine.run({"labels": np.zeros((1, 64, 64), np.uint8)})["features"].shape == (1, 32, 4, 4)
