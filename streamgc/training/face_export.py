"""The face's networks as ONNX, in fp32 and in int8, each compared with torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from streamgc.codec.face import FACE_LARGEST, FACE_SYMBOLS
from streamgc.errors import TrainingError
from streamgc.networks.face import FaceEncoder, FaceLocator, FacePainter
from streamgc.networks.face_export import ShippedLocator, ShippedPainter, ShippedReader
from streamgc.pipeline.face import cut_out, place_of
from streamgc.pipeline.faces import LOCATOR, PAINTER, READER
from streamgc.pipeline.settings import BLANK
from streamgc.runtime.engine import load_engine
from streamgc.runtime.parity import require
from streamgc.scene.heatmap import dilate
from streamgc.training.call_samples import MASK_LEVEL, Cache
from streamgc.training.export import export_onnx, parity, write_variants

Picture = NDArray[np.uint8]
Feeds = dict[str, NDArray[Any]]
ROLES = (LOCATOR, READER, PAINTER)
PICTURE = {1: "16*rows", 2: "16*columns"}
MARGIN = 4
"""Pixels around a person that are kept."""
CALIBRATED_ON, COMPARED_ON = 256, 4
"""Faces that int8 is calibrated on, and that it and fp32 are compared with torch on."""
KEPT_FLOAT = {LOCATOR: (), READER: (".*conv2d_9", ".*conv2d_10"), PAINTER: (".*conv2d_9", ".*conv2d_10")}
"""Layers that int8 leaves alone: the encoder's last two, which make the numbers. In eight bits these are off by twice
as much (0.2 steps), and no time is saved."""


class FaceNetworks(NamedTuple):
    """Trained networks."""

    locator: FaceLocator
    encoder: FaceEncoder


class SeenFaces(NamedTuple):
    """Pictures as a sender sees them, with nothing but people, and their faces cut out."""

    pictures: list[Picture]
    faces: list[Picture]


def preserved(picture: Picture, mask: Picture) -> Picture:
    """A picture of nothing but the people in it; ``mask`` holds their probability, 0..255."""
    return np.where(matte_of(mask)[..., None] > 0, picture, np.uint8(BLANK))


def matte_of(mask: Picture) -> Picture:
    """0 or 255: what is kept."""
    return dilate(mask > 255 * MASK_LEVEL, MARGIN).astype(np.uint8) * 255


def faces_of(cache: Cache, count: int = CALIBRATED_ON, seed: int = 5) -> SeenFaces:
    """Of clips and stills in turn, where a face is known. Raises TrainingError where there is none."""
    random = np.random.default_rng(seed)
    sets = [
        (pictures, masks, faces, np.flatnonzero(~np.isnan(np.asarray(faces)).any(1)))
        for pictures, masks, faces in (
            (cache.frames, cache.masks, cache.faces),
            (cache.s_frames, cache.s_masks, cache.s_faces),
        )
    ]
    known = [one for one in sets if len(one[3])]
    if not known:
        raise TrainingError("no face is known in the cache: run 'streamgc train cache' where dlib is installed")
    seen = SeenFaces([], [])
    for number in range(count):
        pictures, masks, faces, there = known[number % len(known)]
        index = int(random.choice(there))
        picture = preserved(pictures[index], masks[index])
        seen.pictures.append(picture)
        seen.faces.append(np.array(cut_out(picture, place_of(faces[index][:2], faces[index][2:4]))))
    return seen


def export_faces(networks: FaceNetworks, seen: SeenFaces, folder: Path) -> list[str]:
    """Write each network as ONNX in fp32 (ROLE.onnx) and int8 (ROLE.int8.onnx); the files' names.

    Raises TrainingError, and EngineError where one is not the same network as torch's.
    """
    return [file for role in ROLES for file in _export(networks, role, _feeds(role, seen), folder)]


def _export(networks: FaceNetworks, role: str, feeds: list[Feeds], folder: Path) -> list[str]:
    module, outputs = _shipped(networks, role)
    inputs = tuple(feeds[0])
    # Example sides differ, or the exporter may take them for one dimension.
    cut = {name: array[:, :-16] if role == LOCATOR else array for name, array in feeds[0].items()}
    example = [torch.from_numpy(np.array(array)) for array in cut.values()]
    axes = {"picture": PICTURE} if role == LOCATOR else {}
    source = export_onnx(module, example, folder / f"{role}.source.onnx", inputs, outputs, axes)
    made = write_variants(source, folder / "variants", role, feeds, KEPT_FLOAT[role])
    files = []
    for precision in ("fp32", "int8"):
        target = folder / made[precision].name
        os.replace(made[precision], target)
        with load_engine(target, backend="openvino", precision=precision, threads=1) as engine:
            require(parity(module, engine, feeds[-COMPARED_ON:], inputs, outputs))
        files.append(target.name)
    return files


def _feeds(role: str, seen: SeenFaces) -> list[Feeds]:
    """Inputs of a network."""
    if role == LOCATOR:
        return [{"picture": picture[None]} for picture in seen.pictures]
    faces: list[Feeds] = [{"face": face[None]} for face in seen.faces]
    if role == PAINTER:
        random = np.random.default_rng(5)
        for feed in faces:
            numbers = random.integers(-FACE_LARGEST, FACE_LARGEST + 1, (1, FACE_SYMBOLS))
            feed["numbers"] = numbers.astype(np.float32)
    return faces


def _shipped(networks: FaceNetworks, role: str) -> tuple[nn.Module, tuple[str, ...]]:
    """The module, and its outputs' names."""
    if role == LOCATOR:
        return ShippedLocator(networks.locator), ("places",)
    if role == READER:
        return ShippedReader(networks.encoder), ("numbers", "centres")
    return ShippedPainter(FacePainter(networks.encoder)), ("change",)
