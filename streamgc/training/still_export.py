"""The still networks of either family to ONNX.

`still_networks` lists what there is to export, with names, shapes and free axes; `export_still` writes fp32 graphs
with weights stored in fp16.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from streamgc.networks.paper import PaperNetworks
from streamgc.networks.still import LABEL_WIDTH, LiteNetworks
from streamgc.networks.still_export import (
    ShippedFeatures,
    ShippedLiteSynthesis,
    ShippedReceiver,
    ShippedStillEncoder,
    ShippedStillGenerator,
    ShippedSynthesis,
    settle_normalisation,
)
from streamgc.networks.still_spec import StillNetworks, StillSpec
from streamgc.runtime.onnx_passes import load_model, save_model, store_half_weights
from streamgc.training.export import Axes, export_onnx

ROWS, COLUMNS = 6, 8
"""Cells of 16 pixels of the example that is traced."""


class StillNetwork(NamedTuple):
    """One network as it is exported: its module, its inputs in order, and its output."""

    module: nn.Module
    inputs: tuple[str, ...]
    output: str


def still_networks(networks: StillNetworks, split: bool = False) -> dict[str, StillNetwork]:
    """The networks of a model by role, with plain norms.

    ``split`` gives ``encoder``, ``receiver`` (the paper's SC), ``features`` (SC, labels) and ``generator`` apart;
    otherwise ``generator`` is all that the receiver runs.
    """
    spec, settled = networks.spec, settle_normalisation(networks)
    found: dict[str, StillNetwork] = {}
    if spec.task != "labels":
        seen = ("picture", "labels") if spec.task == "sc" else ("picture",)
        found["encoder"] = StillNetwork(ShippedStillEncoder(settled), seen, "latent")
    if not split:
        code = () if spec.task == "labels" else ("symbols", "present")
        keep = ("keep",) if spec.task == "sc" else ()
        labels = () if spec.task == "gc" else ("labels",)
        found["generator"] = StillNetwork(ShippedStillGenerator(settled), (*code, *keep, *labels), "picture")
        return found
    if spec.task != "gc":
        found["features"] = StillNetwork(ShippedFeatures(settled), ("labels",), "features")
    if isinstance(settled, PaperNetworks):
        if spec.task == "sc":
            found["receiver"] = StillNetwork(ShippedReceiver(settled), ("symbols", "present"), "code")
        inputs = {"gc": ("symbols", "present"), "sc": ("code", "features"), "labels": ("features",)}[spec.task]
        found["generator"] = StillNetwork(ShippedSynthesis(settled), inputs, "picture")
    elif isinstance(settled, LiteNetworks):
        sent = () if spec.task == "labels" else ("symbols", "present")
        rest = {"gc": (), "sc": ("keep", "features"), "labels": ("features",)}[spec.task]
        found["generator"] = StillNetwork(ShippedLiteSynthesis(settled), (*sent, *rest), "picture")
    return found


def input_axes(name: str, spec: StillSpec) -> Axes:
    """The free axes of an input: H and W in cells of 16 pixels."""
    if name == "present":
        return {}
    factor = {"picture": "16*", "labels": "16*", "symbols": "2*", "keep": "2*"}.get(name, "")
    if spec.cell == 16 and name in ("symbols", "keep"):
        factor = ""
    first = 1 if name in ("picture", "labels") else 2
    return {first: f"{factor}rows", first + 1: f"{factor}columns"}


def example_input(name: str, spec: StillSpec, rows: int = ROWS, columns: int = COLUMNS) -> torch.Tensor:
    """Zeros, or ones for what is multiplied, in the shape of an input of a picture of rows × columns cells."""
    height, width = rows * 16, columns * 16
    code = (height // spec.cell, width // spec.cell)
    wide = max(1, round(960 * spec.width)) if spec.family == "paper" else 2 * max(4, round(LABEL_WIDTH * spec.width))
    made: dict[str, torch.Tensor] = {
        "picture": torch.zeros(1, height, width, 3, dtype=torch.uint8),
        "labels": torch.zeros(1, height, width, dtype=torch.uint8),
        "symbols": torch.zeros(1, spec.channels, *code),
        "present": torch.ones(1, spec.channels, 1, 1),
        "keep": torch.ones(1, 1, *code),
    }
    return made[name] if name in made else torch.zeros(1, wide, rows, columns)


def export_full(network: StillNetwork, spec: StillSpec, path: Path) -> Path:
    """Export one network in fp32. Raises TrainingError, EngineError."""
    examples = [example_input(name, spec) for name in network.inputs]
    axes = {name: input_axes(name, spec) for name in network.inputs if name != "present"}
    return export_onnx(network.module, examples, path, list(network.inputs), [network.output], axes)


def export_still(networks: StillNetworks, folder: Path, split: bool = False) -> dict[str, str]:
    """Write the ONNX networks with weights stored in fp16; their roles and file names. Raises TrainingError."""
    files: dict[str, str] = {}
    for role, network in still_networks(networks, split).items():
        raw = export_full(network, networks.spec, folder / f"{role}.raw.onnx")
        save_model(store_half_weights(load_model(raw)), folder / f"{role}.onnx")
        raw.unlink()
        files[role] = f"{role}.onnx"
    return files


def description_of(spec: StillSpec) -> dict[str, Any]:
    """What ``model.json`` says of a still model's networks: what a codec needs, and what makes them again in torch."""
    return {
        "task": spec.task,
        "networks": spec.family,
        "channels": spec.channels,
        "classes": spec.classes,
        "cell": spec.cell,
        "width": spec.width,
        "noise": spec.noise,
        "blocks": spec.blocks,
    }
