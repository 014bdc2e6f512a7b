"""From a checkpoint to `engines/segmenter/`: ONNX in fp32 (large weights stored in fp16) and int8, weights to resume
from, card, licence."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from streamgc.errors import TrainingError
from streamgc.networks.segmenter import Segmenter, SegmenterGraph, parameter_count
from streamgc.runtime.engine import load_engine
from streamgc.runtime.onnx_passes import load_model, save_model, store_half_weights
from streamgc.runtime.parity import require
from streamgc.runtime.store import MANIFEST, FileEntry, NetworkEntry, model_hash, sha256_of
from streamgc.scene.labels import LABEL_NAMES
from streamgc.training.averaging import averaged
from streamgc.training.export import export_onnx, parity, quantise_int8
from streamgc.training.segmenter_data import Items
from streamgc.training.segmenter_scenes import SceneMaker

INPUTS = ("frame",)
OUTPUTS = ("matte", "centre", "offset", "labels", "embedding", "query")
HALF_FROM = 8000
"""Weights of at least so many values are stored in fp16; of the small layers, which draw the borders, fp16 moves single
pixels by a twentieth."""

LICENCE = """The weights in this folder (segmenter*.onnx, segmenter.safetensors) are for non-commercial research only.

They were trained on data sets whose terms allow research use only (see README.md, "Data"). The code of StreamGC is
licensed separately, under the
LICENSE of the project. The weights come without warranty of any kind. One who needs weights under other terms
trains them on data of their own with one command: streamgc train segmenter --data DIR.

The encoder started from the ImageNet weights of EfficientNet-Lite0 (Apache-2.0). Pseudo-labels came from MediaPipe
selfie segmentation, YOLOX-nano and DeepLab v3 MobileNet v2 (all Apache-2.0).
"""


def load_checkpoint(path: Path) -> tuple[Segmenter, dict[str, float]]:
    """The averaged network of a training's checkpoint, or of shipped weights, in evaluation mode, and {minutes, steps};
    raises TrainingError."""
    try:
        if path.suffix == ".safetensors":
            weights = {name: v.float() if v.is_floating_point() else v for name, v in load_file(path).items()}
            state: dict[str, Any] = {"average": weights, "spent": 0.0, "step": 0}
        else:
            state = torch.load(path, weights_only=True)
        network = Segmenter()
        network.load_state_dict(state["average"])
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise TrainingError(f"no usable checkpoint at {path}: {error}") from error
    network.eval()
    return network, {"minutes": round(state["spent"] / 60, 1), "steps": float(state["step"])}


def load_blend(checkpoint: Path, blend: Path | None) -> tuple[Segmenter, dict[str, float]]:
    """`load_checkpoint`, but the mean with the weights of ``blend``, if any."""
    network, spent = load_checkpoint(checkpoint)
    return (network if blend is None else averaged(network, load_checkpoint(blend)[0].state_dict())), spent


def calibration_frames(cache: Path, count: int, seed: int = 7) -> Iterator[dict[str, npt.NDArray[np.uint8]]]:
    """`count` training samples of 256×256 as feeds."""
    maker = SceneMaker(Items(cache))
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield {"frame": np.ascontiguousarray(maker.draw(rng, 256, 256).frame)[None]}


def ship_segmenter(
    checkpoint: Path,
    cache: Path,
    folder: Path,
    measured: Mapping[str, Any],
    int8: bool = True,
    blend: Path | None = None,
) -> Path:
    """Export a checkpoint, check every variant against torch, and put the model's folder in place; returns it.

    measured: figures for the card, by name. blend: weights to take the mean with, mostly those that the training began
    from. Raises TrainingError when an export is not the same network.
    """
    network, spent = load_blend(checkpoint, blend)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        staged = Path(scratch) / "staged"
        staged.mkdir()
        variants = _write_networks(network, cache, Path(scratch), staged, int8)
        half = {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in network.state_dict().items()}
        save_file({k: v.contiguous() for k, v in half.items()}, str(staged / "segmenter.safetensors"))
        (staged / "LICENSE").write_text(LICENCE)
        (staged / "README.md").write_text(model_card(network, spent, measured))
        _write_manifest(staged, variants, spent, measured)
        folder.mkdir(exist_ok=True)
        for path in staged.iterdir():
            path.chmod(0o644)
        for path in staged.iterdir():
            if path.name != MANIFEST:
                os.replace(path, folder / path.name)
        # The manifest goes last: until it is there, the folder is the old model or none.
        os.replace(staged / MANIFEST, folder / MANIFEST)
    return folder


def _write_networks(network: Segmenter, cache: Path, scratch: Path, staged: Path, int8: bool) -> list[str]:
    graph = SegmenterGraph(network).eval()
    example = torch.zeros((1, 256, 320, 3), dtype=torch.uint8)
    source = export_onnx(
        graph, [example], scratch / "source.onnx", INPUTS, OUTPUTS, {"frame": {1: "16*rows", 2: "16*columns"}}
    )
    save_model(store_half_weights(load_model(source), HALF_FROM), staged / "segmenter.onnx")
    names = ["fp32"]
    feeds = list(calibration_frames(cache, 6, seed=11))
    results = []
    with load_engine(staged / "segmenter.onnx", backend="openvino", precision="fp32", threads=1) as engine:
        results += parity(graph, engine, feeds, INPUTS, OUTPUTS)
    require(results)
    if int8:
        quantise_int8(source, staged / "segmenter.int8.onnx", calibration_frames(cache, 64))
        names.append("int8")
    return names


def _write_manifest(staged: Path, variants: list[str], spent: Mapping[str, float], measured: Mapping[str, Any]) -> None:
    entry = NetworkEntry("segmenter.onnx", sha256_of(staged / "segmenter.onnx"))
    described: dict[str, Any] = {"file": entry.file, "sha256": entry.sha256, "precision": "fp32", "variants": {}}
    for name in variants[1:]:
        file = f"segmenter.{name}.onnx"
        variant = FileEntry(file, sha256_of(staged / file))
        described["variants"][name] = {"file": variant.file, "sha256": variant.sha256}
    manifest = {
        "format": 1,
        "name": "segmenter",
        "family": "segmenter",
        "version": "1",
        "networks": {"segmenter": described},
        "hash": model_hash({"segmenter": entry}, None),
        "precision": "fp32",
        "licence": "LICENSE",
        "card": "README.md",
        "extra": {"labels": list(LABEL_NAMES), "training": dict(spent), "measured": dict(measured)},
    }
    (staged / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def model_card(network: Segmenter, spent: Mapping[str, float], measured: Mapping[str, Any]) -> str:
    """README.md of the model's folder."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in measured.items())
    return f"""# Segmenter

Who is in the frame: person matte at full resolution, centres and offsets that tell people apart, and coarse labels of
the room at the 16×16 cell. {parameter_count(network):,} parameters; the encoder is EfficientNet-Lite0's first eleven
blocks at half resolution.

| tensor | what |
|---|---|
| `frame` | u8 (1, H, W, 3) RGB, H and W multiples of 16 from 64 to 2048; trained around 256×256 |
| `matte` | u8 (1, H, W, 1), 255 = person |
| `centre` | f32 (1, H/4, W/4, 1), 0..1, a peak in the middle of the upper half of each person |
| `offset` | f32 (1, H/4, W/4, 2), pixels (down, right) from the cell to that of its person |
| `labels` | u8 (1, H/16, W/16), ids of `streamgc/scene/labels.py` |
| `embedding`, `query` | f32 (1, H/4, W/4, 8) and (1, H/8, W/8, 9): who belongs together, `streamgc/scene/affinity.py` |

`segmenter.onnx` stores its large weights in fp16; `segmenter.int8.onnx` is the int8 variant;
`segmenter.safetensors` holds bf16 weights to resume a training from.

## Training

{spent["steps"]:.0f} steps of 12 pictures a process in {spent["minutes"]} minutes, the last of the trainings that
`docs/results/training.md` lists, each from the weights before, on two CPU cores. The first part at 192², the end at
256², AdamW, cosine by time, averaged weights. Losses: BCE (borders four times) + 2 Dice, focal centres, L1 offsets
(small people more), BCE for who belongs together, cross entropy for labels. Most samples are composites of one to three
people over empty rooms, with exactly known masks. int8 weights use half of their range, so that CPUs without VNNI do
not saturate.

## Data

Real masks: Clothing Co-Parsing (repository Apache-2.0), Human-Segmentation-Dataset (no licence; masks with holes left
out), COCO128 (CC BY 4.0 annotations, Flickr images). Rooms: Houses (Ahmed & Moustafa 2016), BSDS500 (non-commercial
research). People with pseudo-labels: FFHQ (CC BY-NC-SA) and StyleGAN faces, web faces (research only), drivers (CC BY
4.0 card; YawDD research only), face-mask portraits, frames of talking-head clips. Pseudo-labels by MediaPipe selfie
segmentation in YOLOX-nano's boxes and DeepLab v3 (Pascal). **The weights are therefore for non-commercial research**;
see LICENSE.

## Measured

| figure | value |
|---|---|
{rows}

## Limits

Windows have no teacher and are never labelled; beds and screens come from box detections, sky and vegetation from
colour rules on outdoor pictures: labels are rough. Held objects (bags, cups) are kept or not as the masks of the
training sets had it. A person of less than about 1 % of the picture may be missed. Trained on few people; skin tones
and ages are as in the sets named above, not balanced.
"""
