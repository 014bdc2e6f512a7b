"""`engines/detail/`: the network that makes a picture twice as large, as ONNX, checked against torch. It has no trained
weights."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from streamgc.networks.detail import ALIKE, Detail
from streamgc.runtime.engine import load_engine
from streamgc.runtime.parity import Parity, require
from streamgc.runtime.store import Model, write_model_json
from streamgc.training.export import export_onnx, parity, write_variants

INPUTS, OUTPUTS = ("person", "flow", "key", "fine"), ("shown",)
AXES = {
    "person": {1: "16*rows", 2: "16*columns"},
    "flow": {2: "2*rows", 3: "2*columns"},
    "key": {1: "16*rows", 2: "16*columns"},
    "fine": {2: "32*rows", 3: "32*columns"},
}
"""Free axes of each input."""

CARD = f"""# Detail

Makes a picture twice as wide and high from what a key of twice the size has of fine structure, moved along with the
flow that the generator gives: `streamgc/networks/detail.py`. Nothing is trained; the numbers in it are those of
enlarging and of brightness. It changes no bits of a call and is not part of what two peers agree on.

| tensor | what |
|---|---|
| `person` | u8 (1, H, W, 4) RGB + alpha, the generator's picture |
| `flow` | f32 (1, 2, H/8, W/8), where in the key each place comes from, in pixels (x, y) |
| `key` | u8 (1, H, W, 3), the mean of each 2×2 pixels of the large key |
| `fine` | f32 (1, 1, 2H, 2W), brightness of the large key less that of the small one enlarged, in grey levels |
| `shown` | u8 (1, 2H, 2W, 4) |

Fine structure is added in full where the moved key is the picture, and not at all where they are {ALIKE:g} grey levels
apart. It is computed in fp32: in fewer bits places are off by pixels.
"""
LICENCE = "This folder holds no trained weights. It is licensed as the code is, under the LICENSE of the project.\n"


def sample_feeds(height: int, width: int, seed: int = 4) -> dict[str, NDArray[np.generic]]:
    """Smooth pictures, a flow of a few pixels and fine structure, to compare engines on."""
    random = np.random.default_rng(seed)

    def smooth(channels: int, cell: int, tall: int, wide: int) -> NDArray[np.float32]:
        coarse = torch.from_numpy(random.random((1, channels, tall // cell, wide // cell))).float()
        return np.asarray(torch.nn.functional.interpolate(coarse, size=(tall, wide), mode="bilinear"), np.float32)

    def picture(channels: int) -> NDArray[np.uint8]:
        return np.ascontiguousarray((smooth(channels, 16, height, width) * 255).astype(np.uint8).transpose(0, 2, 3, 1))

    return {
        "person": picture(4),
        "flow": 12 * (smooth(2, 2, height // 8, width // 8) - 0.5),
        "key": picture(3),
        "fine": 30 * (smooth(1, 4, 2 * height, 2 * width) - 0.5),
    }


def ship_detail(folder: Path) -> tuple[Model, list[Parity]]:
    """Write the model's folder; how far OpenVINO's fp32 is from torch.

    Raises TrainingError when torch cannot export the network, EngineError when the export is another one.
    """
    network = Detail().eval()
    example = [torch.from_numpy(array) for array in sample_feeds(128, 160).values()]
    with tempfile.TemporaryDirectory() as scratch:
        raw = export_onnx(network, example, Path(scratch) / "detail.onnx", INPUTS, OUTPUTS, AXES)
        made = write_variants(raw, Path(scratch) / "variants", "detail")["fp32"]
        with load_engine(made, backend="openvino", precision="fp32", threads=1) as engine:
            results = parity(network, engine, [sample_feeds(128, 160), sample_feeds(256, 256)], INPUTS, OUTPUTS)
        require(results)
        folder.mkdir(parents=True, exist_ok=True)
        made.chmod(0o644)
        partial = folder / "detail.onnx.part"
        partial.write_bytes(made.read_bytes())
        os.replace(partial, folder / "detail.onnx")
    (folder / "LICENSE").write_text(LICENCE)
    (folder / "README.md").write_text(CARD)
    networks = {"detail": "detail.onnx"}
    return write_model_json(
        folder, name="detail", family="detail", version="1", networks=networks, licence="LICENSE", card="README.md"
    ), results
