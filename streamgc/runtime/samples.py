"""Feeds for a model's networks made from pictures: for parity, timing and calibration.

The networks of a call feed each other, so they are run in order: what one gives (features of a key, a latent) is
what the next one takes under the same name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from streamgc.errors import EngineError, InputError
from streamgc.runtime.engine import Array, Engine, load_engine
from streamgc.runtime.onnx_header import CELL, OnnxHeader, read_header
from streamgc.runtime.parity import symbols_of
from streamgc.runtime.store import Model

Feeds = dict[str, Array]


def synthetic_pictures(size: tuple[int, int], count: int, seed: int = 0) -> list[Array]:
    """``count`` uint8 (H, W, 3) pictures of a moving, textured ellipse on a gradient; the same for the same seed."""
    height, width = size
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = y / height, x / width
    texture = rng.normal(0, 1, (height // 8 + 1, width // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)[:height, :width]
    pictures = []
    for index in range(count):
        inside = _ellipse(y, x, index)[..., None]
        room = np.stack([60 + 120 * x, 90 + 80 * y, 140 - 60 * x], -1)
        person = np.stack([170 + 40 * np.sin(9 * y + index), 120 + 60 * x, 90 + 50 * np.cos(7 * x)], -1)
        noise = rng.normal(0, 2, (height, width, 3))
        pictures.append(np.clip(np.where(inside, person, room) + 12 * texture + noise, 0, 255).astype(np.uint8))
    return pictures


def _ellipse(y: Array, x: Array, index: int) -> Array:
    centre = 0.5 + 0.06 * np.sin(0.7 * index)
    inside: Array = ((x - centre) / 0.28) ** 2 + ((y - 0.6) / 0.45) ** 2 < 1
    return inside


def clip_pictures(clip: Path, size: tuple[int, int], count: int) -> list[Array]:
    """``count`` evenly spaced pictures of a video, scaled to (H, W). Raises InputError where it has none."""
    import av

    try:
        with av.open(str(clip)) as container:
            frames = [
                frame.to_ndarray(format="rgb24", width=size[1], height=size[0]) for frame in container.decode(video=0)
            ]
    except (av.FFmpegError, OSError, IndexError) as error:
        raise InputError(f"cannot read {clip} as a video: {error}") from None
    if not frames:
        raise InputError(f"{clip} has no pictures")
    chosen = np.linspace(0, len(frames) - 1, min(count, len(frames))).astype(int)
    return [frames[index] for index in chosen]


def chained_feeds(
    model: Model, pictures: Sequence[Array], *, roles: Sequence[str] | None = None, threads: int | None = None
) -> dict[str, list[Feeds]]:
    """Inputs of each network for each picture, taking the first picture as the key.

    The reference runs are fp32 on OpenVINO. Raises EngineError when an input is nothing that is known how to make.
    """
    size = (pictures[0].shape[0], pictures[0].shape[1])
    headers = {role: read_header(model.network(role)) for role in model.roles}
    made: list[Feeds] = [_given(pictures, index) for index in range(len(pictures))]
    feeds: dict[str, list[Feeds]] = {}
    for role in in_order(headers):
        header = headers[role]
        names = [tensor.name for tensor in header.inputs]
        shapes = header.shapes_at(*size)
        feeds[role] = [
            {name: _input(values, name, shapes[name], index) for name in names} for index, values in enumerate(made)
        ]
        # The generator's picture has the name of the encoder's input, but is not fed back.
        later = {tensor.name for other in headers.values() for tensor in other.inputs} - {"picture"}
        if any(tensor.name in later or tensor.name == "latent" for tensor in header.outputs):
            with load_engine(
                model.network(role), backend="openvino", precision="fp32", threads=threads, size=size
            ) as engine:
                _run_all(engine, feeds[role], made)
    wanted = set(roles or model.roles)
    return {role: found for role, found in feeds.items() if role in wanted}


def in_order(headers: Mapping[str, OnnxHeader]) -> list[str]:
    """Roles sorted so that a network comes after those whose outputs it takes; E before G, whose symbols it makes."""
    gives = {
        role: {t.name for t in h.outputs} | ({"symbols"} if _is_encoder(h) else set()) for role, h in headers.items()
    }
    takes = {role: {tensor.name for tensor in header.inputs} for role, header in headers.items()}
    ordered: list[str] = []
    pending = sorted(headers)
    while pending:
        ready = [r for r in pending if not any(gives[o] & takes[r] - {"picture"} for o in pending if o != r)]
        chosen = ready[0] if ready else pending[0]
        ordered.append(chosen)
        pending.remove(chosen)
    return ordered


def _is_encoder(header: OnnxHeader) -> bool:
    return any(tensor.name == "latent" for tensor in header.outputs)


def _given(pictures: Sequence[Array], index: int) -> Feeds:
    """What a picture itself provides: itself blanked, its matte, the plane, and the first picture as the key."""
    height, width = pictures[index].shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    kept = _ellipse(y / height, x / width, index)
    cells = kept[CELL // 2 :: CELL, CELL // 2 :: CELL]
    key = np.where(_ellipse(y / height, x / width, 0)[..., None], pictures[0], 128).astype(np.uint8)
    return {
        "frame": pictures[index][None],
        "picture": np.where(kept[..., None], pictures[index], 128).astype(np.uint8)[None],
        "matte": (kept[None, ..., None] * np.uint8(255)).astype(np.uint8),
        "key": key[None],
        "plane": cells[None].astype(np.uint8),
    }


def _input(values: Feeds, name: str, shape: tuple[int, ...], index: int) -> Array:
    if name == "numbers":  # not what the face does already, which would change nothing
        array = np.random.default_rng(index).integers(-4, 5, shape).astype(np.float32)
    elif name in values:
        array = values[name]
    elif name in ("labels", "keep"):
        # A still model has labels for each pixel, the room for each cell; 1 is the person, 0 the room.
        y, x = np.mgrid[0 : shape[-2], 0 : shape[-1]].astype(np.float32)
        inside = _ellipse((y + 0.5) / shape[-2], (x + 0.5) / shape[-1], index)
        array = np.broadcast_to(inside, shape).astype(np.uint8 if name == "labels" else np.float32)
    elif name == "face":
        # Scaled, since pixels left out would be noise that no face has.
        frame = Image.fromarray(values["frame"][0])
        array = np.asarray(frame.resize((shape[2], shape[1]), Image.Resampling.BOX))[None]
    elif name == "present":
        array = np.ones(shape, np.float32)
    elif name == "seed":
        array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    elif name == "person":
        array = np.concatenate([values["picture"], values["matte"]], -1)
    elif name in ("flow", "moved"):
        array = smooth_flow(shape[-2], shape[-1], index)
    elif name == "fine":
        array = np.random.default_rng(0).normal(0, 6, shape).astype(np.float32)
    elif name == "symbols":
        array = np.random.default_rng(0).integers(-2, 3, shape).astype(np.float32)
    else:
        raise EngineError(f"no sample is known for an input named {name!r}")
    if array.shape != shape:
        raise EngineError(f"input {name!r} wants shape {shape}, the sample has {array.shape}")
    return array


def smooth_flow(rows: int, columns: int, index: int = 0) -> Array:
    """A made-up flow (1, 2, rows, columns), some pixels strong."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    return np.stack([3 * np.sin(x / 5 + index), 2 * np.cos(y / 5)])[None].astype(np.float32)


def _run_all(engine: Engine, feeds: Sequence[Feeds], made: Sequence[Feeds]) -> None:
    for feed, values in zip(feeds, made, strict=True):
        for name, array in engine.run(feed).items():
            values[name] = array
            if name == "latent":
                values["symbols"] = symbols_of(array).astype(np.float32)
