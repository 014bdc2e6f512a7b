"""Any still model as one thing to evaluate: whole, selective, or from labels alone; and pictures with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamgc.codec.contours import decode_contours, encode_contours
from streamgc.errors import InputError, ModelError
from streamgc.evaluation.clips import Frame
from streamgc.evaluation.still_rivals import CodedStill
from streamgc.pipeline.stills import StillCodec, read_picture
from streamgc.runtime.store import ModelStore

LabelMap = NDArray[np.uint8]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class LabelledPicture(NamedTuple):
    """A picture with its class ids."""

    name: str
    picture: Frame
    labels: LabelMap


def labelled_in(root: Path, limit: int | None = None) -> list[LabelledPicture]:
    """``images/`` with ``labels/`` (PNG class ids) of the same stems. Raises InputError naming what is missing."""
    images = sorted(path for path in (root / "images").rglob("*") if path.suffix.lower() in SUFFIXES)
    if not images:
        raise InputError(f"{root / 'images'} holds no images")
    found = []
    for path in images[:limit]:
        labels = root / "labels" / path.relative_to(root / "images").with_suffix(".png")
        if not labels.is_file():
            raise InputError(f"{path.name} has no label map {labels}")
        with Image.open(labels) as image:
            ids = np.asarray(image if image.mode in ("L", "P") else image.convert("L"), np.uint8)
        picture = read_picture(path)
        if ids.shape != picture.shape[:2]:
            raise InputError(f"{labels} is {ids.shape}, its image {picture.shape[:2]}")
        found.append(LabelledPicture(path.name, picture, ids))
    return found


class FromLabels:
    """A model that makes the picture from its labels alone (the pix2pixHD baseline); its file is the contours."""

    def __init__(self, model: str | Path, *, backend: str = "auto", store: ModelStore | None = None) -> None:
        """Raises ModelError when the model is none of these."""
        opened = (store or ModelStore()).open(model)
        settings = opened.extra("still")
        if not isinstance(settings, dict) or settings["task"] != "labels":
            raise ModelError(f"model {opened.name!r} does not make pictures from labels alone")
        self._classes = int(settings["classes"])
        self._engine = opened.load("generator", backend=backend, precision="fp32")

    def code(self, labels: LabelMap) -> CodedStill:
        """The picture of a label map, after it went through its contours. Raises InputError for an unknown class."""
        if labels.max() >= self._classes:
            raise InputError(f"a label map holds class {labels.max()}; the model knows {self._classes}")
        payload = encode_contours(labels)
        shown = decode_contours(payload, *labels.shape).astype(np.uint8)
        padded = np.pad(shown, [(0, -side % 16) for side in shown.shape], mode="edge")
        picture = self._engine.run({"labels": padded[None]})["picture"][0]
        return CodedStill(len(payload), np.ascontiguousarray(picture[: labels.shape[0], : labels.shape[1]]))

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()


def code_by(
    codec: StillCodec | FromLabels, item: LabelledPicture, channels: int | None, kept: NDArray[np.bool_] | None = None
) -> CodedStill:
    """One picture by any model: ``kept`` and the labels only where the model has a use for them."""
    if isinstance(codec, FromLabels):
        return codec.code(item.labels)
    if codec.task == "sc":
        data = codec.compress(item.picture, channels=channels, labels=item.labels, kept=kept).data
    else:
        data = codec.compress(item.picture, channels=channels).data
    return CodedStill(len(data), codec.decompress(data))


def open_any(model: str | Path, *, backend: str = "auto", store: ModelStore | None = None) -> StillCodec | FromLabels:
    """The model behind the right one of both classes. Raises ModelError, EngineError."""
    store = store or ModelStore()
    opened = store.open(model, check_files=False)
    settings = opened.extra("still")
    if isinstance(settings, dict) and settings["task"] == "labels":
        return FromLabels(model, backend=backend, store=store)
    return StillCodec(store.open(model), backend=backend)


def channel_counts(codec: StillCodec | FromLabels) -> Sequence[int | None]:
    """The channel counts to evaluate."""
    return (None,) if isinstance(codec, FromLabels) else codec.model.channels
