"""The face's networks into a call model's folder: ONNX, weights to go on from, and tables fitted to their numbers."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from streamgc.codec.face import FaceCode
from streamgc.codec.symbols import Code
from streamgc.codec.tables import Tables, load_tables
from streamgc.errors import TrainingError
from streamgc.networks.face import FaceEncoder, FaceLocator
from streamgc.pipeline.faces import LOCATOR, READER, FaceReader, FaceWatcher
from streamgc.runtime.engine import load_engine
from streamgc.runtime.store import Model, ModelStore, write_model_json
from streamgc.training.call_samples import Cache
from streamgc.training.face_export import ROLES, FaceNetworks, export_faces, faces_of, matte_of, preserved
from streamgc.training.face_model import calibrated
from streamgc.training.face_moves import moved, some_expression
from streamgc.training.tables import with_faces

WEIGHTS = "face.safetensors"
"""Beside the networks, in bf16: what a training can start from."""
STRENGTHS = (0.05, 0.12, 0.25)
"""λ of calls at 5 and 3 kbit/s, where bits are dear."""
AGES = (1, 2, 2, 3, 3, 4, 5)
SEGMENT = 60
NEW_KEY_SHARE = 0.02
"""Share of pictures at which a new key is there."""
MOVED_EVERY = 3
"""Of so many segments one has its face moved."""

CARD = """
## The face

`face_locator.onnx`, `face_encoder.onnx` and `face_painter.onnx` (`streamgc/networks/face.py`) find the face of a call,
measure what its eyes and mouth do, and bend the generator's picture of it to do the same; `face.safetensors` holds
their weights, to start a training from. They were trained on the clips and stills above, with dlib's landmarks (CC0) as
the teacher, on people who face the camera: a head in profile is left to the code, and so is a face whose eyes are less
than 14 pixels apart. They measure and bend; they recognise nobody, and store nothing of a face.
"""
"""What a model's card says of them."""

FaceSample = tuple[FaceCode, FaceCode | None, int]


def load_face(checkpoint: Path, locator: Path, samples: Path | None = None) -> FaceNetworks:
    """The averaged encoder of a checkpoint of 'train face', with ``samples`` `calibrated` on them, and the locator of
    'train face-locator'; each may also be shipped weights (safetensors). Raises TrainingError."""
    networks = FaceNetworks(FaceLocator(), FaceEncoder())
    for path, name, network in zip((locator, checkpoint), networks._fields, networks, strict=True):
        try:
            weights = _weights(path, name)
            network.load_state_dict(weights)
            if samples is not None and name == "encoder":
                network.load_state_dict(calibrated(weights, samples))
        except RuntimeError as error:
            raise TrainingError(f"{path} holds no weights of the face's {name}") from error
        network.eval()
    return networks


def _weights(path: Path, name: str) -> dict[str, Tensor]:
    """Weights of one of the networks."""
    try:
        if path.suffix == ".safetensors":
            start = f"{name}."
            found = {key: value.float() for key, value in load_file(path).items() if key.startswith(start)}
            return {key.removeprefix(start): value for key, value in found.items()}
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise TrainingError(f"no usable weights at {path}: {error}") from error
    weights: dict[str, Tensor] = state.get("average", state)
    return weights


def ship_face(networks: FaceNetworks, cache: Cache, folder: Path, segments: int = 60) -> Model:
    """Export in fp32 and int8, compare with torch, fit the tables, and enter all of it in a call model's folder.

    Raises ModelError where there is no call model, TrainingError and EngineError when an export is not the same
    network.
    """
    model = ModelStore().open(folder)
    if model.tables is None:
        raise TrainingError(f"{folder} is no call model: it has no tables")
    with tempfile.TemporaryDirectory(dir=model.folder.parent) as scratch:
        staged = Path(scratch)
        files = export_faces(networks, faces_of(cache), staged)
        tables = _fitted(staged, cache, load_tables(model.tables), segments)
        tables.save(staged / "tables.bin")
        parts = {
            f"{name}.{key}": value
            for name, own in networks._asdict().items()
            for key, value in own.state_dict().items()
        }
        half = {name: value.to(torch.bfloat16).contiguous() for name, value in parts.items()}
        save_file(half, str(staged / WEIGHTS))
        for name in (*files, "tables.bin", WEIGHTS):
            (staged / name).chmod(0o644)
            os.replace(staged / name, model.folder / name)
    return enter_faces(model)


def enter_faces(model: Model) -> Model:
    """Describe the face's networks that lie in a model's folder in its ``model.json``, tables anew, and in its card."""
    if model.card is not None:
        text = model.card.read_text()
        if CARD not in text:
            model.card.write_text(text.rstrip() + "\n" + CARD)
    manifest = model.manifest
    networks = {role: entry.file for role, entry in manifest.networks.items() if role not in ROLES}
    variants: dict[str, Mapping[str, str]] = {
        role: {kind: file.file for kind, file in manifest.networks[role].variants.items()} for role in networks
    }
    variants |= {role: {"int8": f"{role}.int8.onnx"} for role in ROLES}
    return write_model_json(
        model.folder,
        name=manifest.name,
        family=manifest.family,
        version=manifest.version,
        networks={**networks, **{role: f"{role}.onnx" for role in ROLES}},
        tables="tables.bin",
        channels=tuple(manifest.channels),
        precision=manifest.precision,
        variants=variants,
        licence=manifest.licence,
        card=manifest.card,
        extra={name: msgspec.json.decode(value) for name, value in manifest.extra.items()},
    )


def has_faces(model: Model) -> bool:
    """Whether a model codes faces by themselves."""
    return set(ROLES) <= set(model.roles)


def with_tables_of(tables: Tables, model: Model) -> Tables:
    """``tables`` with a model's own of the face."""
    assert model.tables is not None
    own = load_tables(model.tables)
    return dataclasses.replace(
        tables,
        face_there=own.face_there,
        face_moved=own.face_moved,
        face_stays=own.face_stays,
        face_pose=own.face_pose,
        face_symbols=own.face_symbols,
        face_home=own.face_home,
        face_reach=own.face_reach,
    )


def _fitted(folder: Path, cache: Cache, tables: Tables, segments: int) -> Tables:
    """Tables whose part of the face is fitted to what the networks say of training clips."""
    engines = [load_engine(folder / f"{role}.onnx", backend="openvino", precision="fp32") for role in (LOCATOR, READER)]
    reader = FaceReader(*engines)
    for seed in range(2):  # what is chosen depends on the tables
        tables = with_faces(tables, face_samples(reader, cache, tables, segments, seed))
    return tables


def face_samples(reader: FaceReader, cache: Cache, tables: Tables, segments: int, seed: int) -> Iterator[FaceSample]:
    """Faces of pieces of clips as a call codes them, what they are coded against, and its age."""
    random = np.random.default_rng(seed)
    for segment in range(segments):
        clip = int(random.integers(len(cache.starts) - 1))
        first, last = int(cache.starts[clip]), int(cache.starts[clip + 1])
        start = int(random.integers(first, max(first + 1, last - SEGMENT)))
        watcher, strength = FaceWatcher(reader), float(random.choice(STRENGTHS))
        codes: list[FaceCode | None] = []
        held, key = some_expression(random), None
        for number, index in enumerate(range(start, min(start + SEGMENT, last))):
            picture = cache.frames[index]
            if segment % MOVED_EVERY == 0:
                held = some_expression(random) if random.random() < 0.2 else held
                picture = moved(picture, cache.faces[index], held)
            kept = preserved(picture, cache.masks[index])
            if key is None or random.random() < NEW_KEY_SHARE:
                key = kept
            aligned = watcher.look(kept, matte_of(cache.masks[index]), key)
            age = min(int(random.choice(AGES)), number)
            before = codes[number - age] if age else None
            code = watcher.code(aligned, _with(before), age, tables, strength)
            codes.append(code)
            if code is not None:
                yield code, before, age


def _with(face: FaceCode | None) -> Code | None:
    """A code of nothing but a face, as something to code against."""
    empty = np.zeros((2, 1, 1), np.int8), np.zeros((1, 1), bool)
    return None if face is None else Code(*empty, face=face)
