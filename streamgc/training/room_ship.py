"""From a checkpoint to `engines/room/`: ONNX with weights stored in fp16, checked against torch, card and licence."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from streamgc.networks.room import STYLE, RoomGenerator, ShippedRoom, parameter_count
from streamgc.runtime.engine import load_engine
from streamgc.runtime.parity import Parity, require
from streamgc.runtime.store import Model, write_model_json
from streamgc.scene.labels import LABEL_COUNT, LABEL_NAMES
from streamgc.training.export import export_onnx, parity, write_variants
from streamgc.training.room import load_room

INPUTS = ("labels", "seed")
OUTPUTS = ("picture",)

LICENCE = """The weights in this folder (room.onnx) are for non-commercial research only.

They were trained on data sets whose terms allow research use only (see README.md, "Data"). The code of StreamGC is
licensed separately, under the LICENSE of the project. The weights come without warranty of any kind.

Labels came from DeepLab v3 MobileNet v2 and YOLOX-nano (both Apache-2.0).
"""


def sample_feeds(count: int, seed: int = 3) -> list[dict[str, NDArray[np.generic]]]:
    """Label maps of several sizes, plain and busy, with styles, to compare engines on."""
    random = np.random.default_rng(seed)
    feeds: list[dict[str, NDArray[np.generic]]] = []
    for number in range(count):
        rows, columns = ((16, 16), (9, 16), (16, 12), (24, 24))[number % 4]
        labels = np.zeros((1, rows, columns), np.uint8)
        for _ in range(number):
            top, left = int(random.integers(0, rows)), int(random.integers(0, columns))
            labels[0, top : top + 5, left : left + 6] = random.integers(0, LABEL_COUNT)
        feeds.append({"labels": labels, "seed": random.standard_normal((1, STYLE, 1, 1)).astype(np.float32)})
    return feeds


def export_room(network: RoomGenerator, path: Path) -> tuple[Path, list[Parity]]:
    """Write the network as ``path`` (ONNX, free sizes, weights in fp16) and compare OpenVINO's fp32 with torch.

    Raises TrainingError when torch cannot export it, EngineError when the export is another network.
    """
    graph = ShippedRoom(network).eval()
    example = [torch.zeros((1, 12, 16), dtype=torch.uint8), torch.zeros((1, STYLE, 1, 1))]
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "room.onnx"
        export_onnx(graph, example, raw, INPUTS, OUTPUTS, {"labels": {1: "rows", 2: "columns"}})
        made = write_variants(raw, Path(scratch) / "variants", "room")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".part")
        with load_engine(made["fp32"], backend="openvino", precision="fp32", threads=1) as engine:
            results = parity(graph, engine, sample_feeds(8), INPUTS, OUTPUTS)
        require(results)
        shutil.copyfile(made["fp32"], partial)
        os.replace(partial, path)
    return path, results


def ship_room(checkpoint: Path, folder: Path, measured: Mapping[str, object]) -> Model:
    """Export a checkpoint of `train_room` into a model's folder. ``measured``: figures for the card, by name.

    Raises TrainingError on an unusable checkpoint, EngineError when the export is another network.
    """
    network, scenes = load_room(checkpoint)
    export_room(network, folder / "room.onnx")
    (folder / "LICENSE").write_text(LICENCE)
    (folder / "README.md").write_text(model_card(network, scenes, measured))
    return write_model_json(
        folder,
        name="room",
        family="room",
        version="1",
        networks={"room": "room.onnx"},
        licence="LICENSE",
        card="README.md",
        extra={"labels": list(LABEL_NAMES), "training": {"scenes": scenes}, "measured": dict(measured)},
    )


def model_card(network: RoomGenerator, scenes: int, measured: Mapping[str, object]) -> str:
    """README.md of the model's folder."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in measured.items())
    return f"""# Room

A room that nobody sat in: a calm picture, far out of focus, from coarse labels at the 16×16 cell and eight numbers of
style. It stands behind the person in the backgrounds `synth` (the sender's label map) and `private` (no labels, the
receiver's seed). {parameter_count(network):,} numbers, all linear.

| tensor | what |
|---|---|
| `labels` | u8 (1, h, w), ids of `streamgc/scene/labels.py`; cells of `person` are shown as `room` |
| `seed` | f32 (1, 8, 1, 1), standard normal |
| `picture` | u8 (1, 16h, 16w, 3) RGB; made at a quarter of this size and enlarged |

Weights are stored in fp16; they are computed with in fp32 or bf16.

## Training

A closed-form fit to {scenes} pictures and their mirror images (`streamgc.training.room.train_room`, seconds after the
teachers): mean room; ridge regression of a cell's colour on the labels of its 3×3 surroundings and their height;
eight principal components of what is left in rooms. The same data give the same network.

## Data

Houses (Ahmed & Moustafa 2016; bedrooms and kitchens), BSDS500 and COCO128 pictures taken outside (non-commercial
research; Flickr images). Labels by DeepLab v3 (Pascal), boxes of YOLOX-nano and colour rules. **The weights are
therefore for non-commercial research**; see LICENSE.

## Measured

| figure | value |
|---|---|
{rows}

## Limits

It imagines: nothing in the picture is the sender's room but the coarse labels. Objects are hints of colour where their
label is; there are no edges and no texture. Labels are rough: windows are never labelled in the data, sofas, screens
and plants rarely. Fitted at 256×256; other shapes stretch the room.
"""
