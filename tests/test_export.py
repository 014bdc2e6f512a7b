"""Export: torch to ONNX and its variants, each measured against torch, and what makes an export fail."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training extras are not installed: pip install 'streamgc[train]'")

import torch
import torch.nn.functional as F
from torch import nn

from streamgc.errors import EngineError, TrainingError
from streamgc.runtime.engine import load_engine
from streamgc.runtime.onnx_header import read_header
from streamgc.runtime.parity import require
from streamgc.training.export import export_onnx, parity, quantise_int8, write_variants

NAMES = (["picture", "features"], ["out", "latent"])


class Breaker(nn.Module):
    """What breaks exporters: uint8 layouts, both norms, a transposed convolution with output padding, a warp."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(48, 16, 3, padding=1)
        self.down = nn.Conv2d(16, 16, 4, stride=4)
        self.norms = nn.Sequential(nn.InstanceNorm2d(16, affine=True), nn.GroupNorm(4, 16))
        self.flow = nn.Conv2d(16, 2, 3, padding=1)
        self.latent = nn.Conv2d(16, 8, 1)
        self.up = nn.ConvTranspose2d(16, 16, 3, stride=2, padding=1, output_padding=1)
        self.last = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 192, 3, padding=1), nn.PixelShuffle(8))

    def forward(self, picture: torch.Tensor, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = F.pixel_unshuffle(picture.permute(0, 3, 1, 2).float() / 255, 4)
        x = self.norms(self.down(F.relu(self.stem(x)))) + features
        height, width = x.shape[-2:]
        rows = (torch.arange(height, dtype=torch.float32) + 0.5) / height * 2 - 1
        columns = (torch.arange(width, dtype=torch.float32) + 0.5) / width * 2 - 1
        base = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)[None]
        grid = base + 0.2 * torch.tanh(self.flow(x)).permute(0, 2, 3, 1)
        moved = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
        moved = moved + F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)
        out = torch.sigmoid(self.last(self.up(moved)))
        return (out * 255).round().to(torch.uint8).permute(0, 2, 3, 1), 2.4 * torch.tanh(self.latent(moved))


@pytest.fixture(scope="module")
def module() -> Breaker:
    torch.manual_seed(0)
    return Breaker().eval()


@pytest.fixture(scope="module")
def exported(module: Breaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(
        module,
        (torch.zeros(1, 64, 96, 3, dtype=torch.uint8), torch.zeros(1, 16, 4, 6)),
        tmp_path_factory.mktemp("export") / "breaker.onnx",
        *NAMES,
        {"picture": {1: "16*rows", 2: "16*columns"}, "features": {2: "rows", 3: "columns"}},
    )


def feeds(size: tuple[int, int] = (64, 96), count: int = 3) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        {
            "picture": rng.integers(0, 256, (1, *size, 3)).astype(np.uint8),
            "features": rng.normal(size=(1, 16, size[0] // 16, size[1] // 16)).astype(np.float32),
        }
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def variants(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_variants(exported, tmp_path_factory.mktemp("variants"), "breaker", feeds(count=4), ["flow"])


def test_free_sizes_and_metadata(exported: Path) -> None:
    header = read_header(exported)
    assert header.opset == 18
    assert header.shapes_at(128, 64) == {"picture": (1, 128, 64, 3), "features": (1, 16, 8, 4)}
    assert header.size_range == (64, 2048)
    assert header.metadata["streamgc.precision"] == "fp32"
    assert str(Path(__file__).parents[1]).encode() not in exported.read_bytes()
    assert str(Path.cwd()).encode() not in exported.read_bytes()


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("size", [(64, 96), (128, 80)])
def test_full_precision_is_the_same_network(
    module: Breaker, exported: Path, backend: str, size: tuple[int, int]
) -> None:
    with load_engine(exported, backend=backend, precision="fp32", threads=1) as engine:
        results = parity(module, engine, feeds(size), *NAMES)
    require(results)
    latent = next(result for result in results if result.output == "latent")
    assert latent.flips == 0
    assert latent.decibels > 90


@pytest.mark.parametrize(
    ("variant", "backend", "precision"),
    [
        ("fp32", "openvino", "fp32"),
        ("fp32", "openvino", "bf16"),
        ("fp16", "openvino", "fp32"),
        ("fp16", "onnxruntime", "fp32"),
        ("int8", "openvino", "int8"),
        ("int8", "onnxruntime", "int8"),
    ],
)
def test_variants_stay_within_their_limits(
    module: Breaker, variants: dict[str, Path], variant: str, backend: str, precision: str
) -> None:
    try:
        engine = load_engine(variants[variant], backend=backend, precision=precision, threads=1, size=(64, 96))  # type: ignore[arg-type]
    except EngineError as error:
        if precision != "bf16":
            raise
        pytest.skip(f"this CPU has no {precision}: {error}")
    with engine:
        assert engine.precision == precision
        require(parity(module, engine, feeds(), *NAMES))


def test_variants_are_smaller(exported: Path, variants: dict[str, Path]) -> None:
    sizes = {name: path.stat().st_size for name, path in variants.items()}
    full = exported.stat().st_size
    assert sizes["fp32"] < 0.75 * full
    assert sizes["fp16"] < 0.75 * full
    assert sizes["int8"] < sizes["fp32"]


def test_int8_is_signed_and_symmetric(variants: dict[str, Path]) -> None:
    import onnx

    model = onnx.load(str(variants["int8"]))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    zeros = [constants[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert zeros
    for zero in zeros:
        assert zero.data_type == onnx.TensorProto.INT8
        assert not np.any(onnx.numpy_helper.to_array(zero))


def test_another_network_is_refused(module: Breaker, exported: Path) -> None:
    other = Breaker().eval()
    with load_engine(exported, backend="openvino", precision="fp32", threads=1) as engine:
        with pytest.raises(EngineError, match="not the same network"):
            require(parity(other, engine, feeds(count=1), *NAMES))
        same = parity(module, engine, feeds(count=1), *NAMES)
    assert all(math.isinf(result.decibels) or result.decibels > 55 for result in same)


def test_what_cannot_be_exported_leaves_nothing(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1 if float(x.sum()) > 0 else x

    with pytest.raises(TrainingError, match="torch cannot export branching"):
        export_onnx(Branching(), (torch.zeros(1, 3),), tmp_path / "branching.onnx", ["x"], ["y"])
    assert not list(tmp_path.iterdir())


def test_calibration_needs_frames(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="needs calibration frames"):
        quantise_int8(exported, tmp_path / "x.onnx", [])
