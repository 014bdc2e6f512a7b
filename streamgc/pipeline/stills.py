"""Still pictures to .sgc files and back with a shipped model (``streamgc compress``, ``streamgc decompress``)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from streamgc.codec.contours import paint, vectorise
from streamgc.codec.sgc import (
    MAX_PICTURE_SIDE,
    StillCode,
    StillParts,
    decode_still_file,
    encode_still_file,
    model_of,
)
from streamgc.codec.still_planes import Method, StillTables, Symbols, ideal_bits, parse_still_tables
from streamgc.codec.symbols import LARGEST, LEVELS
from streamgc.codec.torchac_planes import Coder
from streamgc.errors import InputError, ModelError, ModelMismatch
from streamgc.runtime.engine import Engine
from streamgc.runtime.store import Model, ModelStore

Picture = NDArray[np.uint8]
LabelMap = NDArray[np.integer[Any]]
DEFAULT_MODEL = "still"


@dataclass(frozen=True)
class Compressed:
    """A file with what it cost. Rates are bits per pixel of the picture."""

    data: bytes
    parts: StillParts
    pixels: int
    coded: int
    """Symbols that were coded."""
    static_bits: float
    """What the symbols cost with static frequencies."""
    context_bits: float
    """What they cost with context tables."""

    @property
    def bpp(self) -> float:
        """The whole file."""
        return 8 * len(self.data) / self.pixels

    @property
    def symbols_bpp(self) -> float:
        """The symbols alone, as coded."""
        return 8 * self.parts.symbols / self.pixels

    @property
    def bound_bpp(self) -> float:
        """The bound of eq. 3: log2(5) for every coded symbol."""
        return self.coded * math.log2(LEVELS) / self.pixels

    @property
    def static_saving(self) -> float:
        """Share by which static frequencies lie under the bound."""
        return 1 - self.static_bits / (self.coded * math.log2(LEVELS)) if self.coded else 0.0

    @property
    def context_saving(self) -> float:
        """Share that context tables save of what static frequencies cost."""
        return 1 - self.context_bits / self.static_bits if self.static_bits else 0.0


class StillCodec:
    """A still model with its engines: pictures in, files out, and back."""

    def __init__(self, model: Model, *, backend: str = "auto", threads: int | None = None) -> None:
        """Raises ModelError when the model is no still codec, EngineError when it cannot be run."""
        settings = model.extra("still")
        if not isinstance(settings, dict) or model.tables is None:
            raise ModelError(f"model {model.name!r} codes no still pictures")
        self.model = model
        self.task, self.classes = str(settings["task"]), int(settings["classes"])
        self.cell, self.channels = int(settings["cell"]), int(settings["channels"])
        self.tables: StillTables = parse_still_tables(model.tables.read_bytes())
        self._encoder: Engine = model.load("encoder", backend=backend, threads=threads, precision="fp32")
        self._generator: Engine = model.load("generator", backend=backend, threads=threads, precision="fp32")

    def symbols_of(self, picture: Picture, labels: LabelMap | None = None) -> Symbols:
        """All C channels of the code (C, h, w) of a picture (H, W, 3) RGB of any size."""
        feeds: dict[str, NDArray[Any]] = {"picture": _padded(picture)[None]}
        if self.task == "sc":
            feeds["labels"] = _padded(self._classes(labels, picture))[None]
        latent = self._encoder.run(feeds)["latent"][0]
        return np.asarray(np.clip(np.rint(latent), -LARGEST, LARGEST), np.int8)

    def compress(
        self,
        picture: Picture,
        *,
        channels: int | None = None,
        kept: NDArray[np.bool_] | None = None,
        labels: LabelMap | None = None,
        method: Method = "contexts",
        coder: Coder = "auto",
        steps: int = 1024,
        tolerance: float = 0.75,
    ) -> Compressed:
        """Code a picture (H, W, 3) RGB uint8 of any size.

        ``channels``: how many, one of the model's; ``kept`` (H, W): what an SC model preserves, everything without it;
        ``labels`` (H, W): class ids, needed by SC; ``steps`` and ``tolerance`` of their contours;
        ``coder``: who codes the symbols, to the same bytes. Raises InputError for what this model cannot code.
        """
        count = self._channel_count(channels)
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            raise InputError(f"a picture is (H, W, 3) uint8, not {picture.dtype} {picture.shape}")
        if max(picture.shape[:2]) > MAX_PICTURE_SIDE:
            raise InputError(f"a picture may have at most {MAX_PICTURE_SIDE} pixels a side, not {picture.shape[:2]}")
        if kept is not None and self.task != "sc":
            raise InputError(f"model {self.model.name!r} codes whole pictures: it cannot preserve a part only")
        height, width = picture.shape[:2]
        graphic = shown = None
        if self.task == "sc":
            graphic = vectorise(self._classes(labels, picture), steps=steps, tolerance=tolerance)
            # E is given the labels that the receiver will have.
            shown = paint(graphic, height, width)
        symbols = self.symbols_of(picture, shown)[:count]
        keep = None if kept is None else self._cells(kept, picture)
        if keep is not None:
            symbols = (symbols * keep).astype(np.int8)
        code = StillCode(width, height, symbols, keep, graphic, self.cell)
        everywhere = np.ones(symbols.shape[1:], bool) if keep is None else keep
        data, parts = encode_still_file(code, self.tables, self.model.hash, method, coder)
        static, contexts = (ideal_bits(symbols, everywhere, self.tables, m) for m in ("static", "contexts"))
        return Compressed(data, parts, height * width, int(everywhere.sum()) * count, static, contexts)

    def decompress(self, data: bytes, coder: Coder = "auto") -> Picture:
        """The picture (H, W, 3) RGB uint8 of a file. Raises BitstreamError, ModelMismatch for another model's."""
        return self.render(decode_still_file(data, self.tables, self.model.hash, coder))

    def render(self, code: StillCode) -> Picture:
        """The picture of a code."""
        rows, columns = code.grid
        symbols = np.zeros((1, self.channels, rows, columns), np.float32)
        symbols[0, : len(code.symbols)] = code.symbols
        present = (np.arange(self.channels) < len(code.symbols)).astype(np.float32)
        feeds: dict[str, NDArray[Any]] = {"symbols": symbols, "present": present[None, :, None, None]}
        if self.task == "sc":
            keep = np.ones((rows, columns), bool) if code.keep is None else code.keep
            feeds["keep"] = keep.astype(np.float32)[None, None]
            if code.labels is None:
                raise InputError("the file holds no label map, and its model needs one")
            labels = paint(code.labels, code.height, code.width)
            feeds["labels"] = _padded(np.minimum(labels, self.classes - 1).astype(np.uint8))[None]
        shown = self._generator.run(feeds)["picture"][0]
        return np.ascontiguousarray(shown[: code.height, : code.width])

    def close(self) -> None:
        """Free the engines."""
        self._encoder.close()
        self._generator.close()

    def _channel_count(self, channels: int | None) -> int:
        there = self.model.channels
        count = there[-1] if channels is None else channels
        if count not in there:
            raise InputError(f"{count} channels; model {self.model.name!r} has {', '.join(map(str, there))}")
        return count

    def _classes(self, labels: LabelMap | None, picture: Picture) -> Picture:
        if labels is None:
            raise InputError(f"model {self.model.name!r} needs a label map beside the picture")
        if labels.shape != picture.shape[:2] or labels.min() < 0 or labels.max() >= self.classes:
            raise InputError(f"a label map must be {picture.shape[:2]} with ids 0…{self.classes - 1}")
        return labels.astype(np.uint8)

    def _cells(self, kept: NDArray[np.bool_], picture: Picture) -> NDArray[np.bool_]:
        if kept.shape != picture.shape[:2]:
            raise InputError(f"what is kept must be {picture.shape[:2]}, like the picture, not {kept.shape}")
        padded = _padded(kept, mode="constant")
        rows, columns = (side // self.cell for side in padded.shape)
        return np.asarray(padded.reshape(rows, self.cell, columns, self.cell).any((1, 3)), bool)


def _padded(picture: NDArray[Any], mode: Any = "edge") -> NDArray[Any]:
    """To multiples of 16 pixels, at the right and at the bottom."""
    around = [(0, -side % 16) for side in picture.shape[:2]] + [(0, 0)] * (picture.ndim - 2)
    return np.pad(picture, around, mode=mode)


def open_still_codec(
    name: str | Path = DEFAULT_MODEL,
    *,
    backend: str = "auto",
    threads: int | None = None,
    store: ModelStore | None = None,
) -> StillCodec:
    """The codec of a model by name or folder. Raises ModelError, EngineError."""
    return StillCodec((store or ModelStore()).open(name), backend=backend, threads=threads)


def codec_for(
    data: bytes, *, backend: str = "auto", threads: int | None = None, store: ModelStore | None = None
) -> StillCodec:
    """The codec of the shipped model that made a file. Raises BitstreamError, or ModelMismatch when there is none."""
    wanted = model_of(data)
    store = store or ModelStore()
    for name in store.names():
        model = store.open(name, check_files=False)
        if model.hash == wanted:
            return StillCodec(store.open(name), backend=backend, threads=threads)
    raise ModelMismatch(f"the file was made by model {wanted.hex()}, which is not here: name its folder with --model")


def read_picture(path: Path) -> Picture:
    """An image file as (H, W, 3) RGB uint8. Raises InputError."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{path} cannot be read as an image: {error}") from None
