"""From a checkpoint to a model folder: ONNX networks, tables fitted on training pictures, card, licence, hashes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from streamgc.codec.still_planes import Symbols
from streamgc.errors import TrainingError
from streamgc.networks.still_build import build_still
from streamgc.networks.still_export import to_label_planes, to_signed
from streamgc.networks.still_spec import StillNetworks, parameter_count
from streamgc.runtime.samples import synthetic_pictures
from streamgc.runtime.store import MANIFEST, Model, ModelStore, write_model_json
from streamgc.training.export_models import require_same
from streamgc.training.still_data import StillSource
from streamgc.training.still_export import description_of, export_still
from streamgc.training.still_model import read_checkpoint
from streamgc.training.still_settings import StillTraining, settings_of
from streamgc.training.still_tables import fit_still_tables

TABLE_PICTURES = 400
CHECKED = (128, 192)
"""Height and width of the pictures on which an export is compared with torch."""
WEIGHTS = "still.safetensors"
"""bf16 weights beside the networks, to start a training from: ``--start``."""


def load_trained(checkpoint: Path) -> tuple[StillNetworks, StillTraining, int]:
    """Networks – the averaged weights where there are any –, settings and steps. Raises TrainingError."""
    state = read_checkpoint(checkpoint)
    settings = settings_of(state["settings"])
    networks = build_still(settings.spec)
    networks.load_state_dict(state["averaged"] or state["networks"])
    return networks.eval(), settings, int(state["step"])


def codes_of(networks: StillNetworks, source: StillSource, count: int = TABLE_PICTURES) -> list[Symbols]:
    """The codes (C, h, w) of ``count`` pictures spread over a source, whole, cropped to multiples of 16."""
    codes = []
    for index in np.linspace(0, len(source) - 1, min(count, len(source))).astype(int):
        item = source[int(index)]
        height, width = (side // 16 * 16 for side in item.picture.shape[:2])
        if min(height, width) < 32:
            continue
        picture = torch.from_numpy(np.array(item.picture[:height, :width]))[None]
        planes = None
        if networks.spec.task == "sc":
            if item.labels is None:
                raise TrainingError("tables of an SC model need pictures with label maps")
            planes = to_label_planes(
                torch.from_numpy(np.array(item.labels[:height, :width]))[None], networks.spec.classes
            )
        with torch.no_grad():
            latent = networks.encode(to_signed(picture), planes)
        codes.append(latent[0].round().clamp(-2, 2).numpy().astype(np.int8))
    return codes


def ship_still(
    checkpoint: Path,
    source: StillSource,
    folder: Path,
    *,
    name: str = "still",
    data: str = "",
    licence: str = "",
    history: str = "",
) -> Model:
    """Make a model folder of a checkpoint. ``data``: what it was trained on; ``licence``: the licence file's text;
    ``history``: what the run began from.

    The folder's own licence stays where none is given. Nothing is put in place before it was compared with torch.
    Raises TrainingError when the checkpoint cannot be read or exported, EngineError when the export is another network.
    """
    networks, settings, steps = load_trained(checkpoint)
    if not licence and (folder / "LICENSE").is_file():
        licence = (folder / "LICENSE").read_text(encoding="utf-8")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        staged = Path(scratch) / "staged"
        staged.mkdir()
        tables = None
        if settings.task != "labels":
            (staged / "tables.bin").write_bytes(fit_still_tables(codes_of(networks, source)).to_bytes())
            tables = "tables.bin"
        files = export_still(networks, staged)
        half = {key: value.to(torch.bfloat16).contiguous() for key, value in networks.state_dict().items()}
        save_file(half, staged / WEIGHTS)
        (staged / "LICENSE").write_text(licence)
        (staged / "README.md").write_text(card(networks, settings, steps, name, data, history))
        model = write_model_json(
            staged,
            name=name,
            family="still",
            version="1",
            networks=files,
            tables=tables,
            channels=settings.nested or (settings.channels,),
            licence="LICENSE",
            card="README.md",
            extra={"still": description(settings)},
        )
        require_same(networks, model, synthetic_pictures(CHECKED, 2))
        folder.mkdir(exist_ok=True)
        for path in sorted(staged.iterdir(), key=lambda path: path.name == MANIFEST):  # the manifest last
            os.replace(path, folder / path.name)
    return ModelStore(folder.parent).open(folder)


def description(settings: StillTraining) -> dict[str, Any]:
    """What a codec must know of the networks."""
    return {"mode": settings.mode, **description_of(settings.spec)}


def card(networks: StillNetworks, settings: StillTraining, steps: int, name: str, data: str, history: str = "") -> str:
    """The model card."""
    millions = parameter_count(networks) / 1e6
    perceptual = "none"
    if settings.mode not in ("mse", "aedc") and settings.perceptual > 0:
        trunk = "VGG16 of stlpips-pytorch"
        perceptual = f"{settings.perceptual:g} × {settings.perceptual_form}, {trunk}"
    losses = {"aedc": "MS-SSIM", "pix2pix": "no MSE"}.get(settings.mode, f"MSE × {settings.mse:g}")
    if settings.adversarial:
        losses += f", GAN × {settings.gan:g} from {settings.gan_from:.0%} of the steps"
        losses += f", feature matching × {settings.feature_matching:g}"
    counts = ", ".join(map(str, settings.nested or (settings.channels,)))
    size = f"{settings.crop[0]}×{settings.crop[1]}"
    lines: Sequence[str] = (
        f"# {name}: still images, mode {settings.mode}, {settings.family} family",
        "",
        "Encoder and generator for `streamgc compress` and `streamgc decompress`.",
        "",
        f"- {millions:.1f} M parameters; channels {counts}; cells of {settings.spec.cell} pixels; five levels.",
        f"- Trained {steps} steps of {settings.batch} crops of {size}, seed {settings.seed}.",
        *([f"- Begun from {history}."] if history else []),
        f"- Losses: {losses}, perceptual {perceptual}, entropy × {settings.beta:g}.",
        f"- Data: {data or 'not stated'}",
        "- No training looked at the AlexNet trunk of ST-LPIPS, which evaluations use.",
        "- What is synthesised is plausible, not true: do not use it where details matter as evidence.",
        "",
    )
    return "\n".join(lines)
