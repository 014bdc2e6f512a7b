"""The call model's networks behind plain functions: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from streamgc.codec.symbols import LEAST_CHANNELS, MAX_CHANNELS, Code
from streamgc.errors import ModelError
from streamgc.pipeline.alignment import displacement
from streamgc.pipeline.detail import fine_part
from streamgc.runtime.engine import Precision

Picture = NDArray[np.uint8]
Floats = NDArray[np.float32]
SYNTHESISED, KEPT = 0, 1
"""Values of the plane."""
CHANNEL_WEIGHTS = "channel_weights"
"""Name in a model's extras of what an error in each channel costs, eight numbers > 0."""


class Runs(Protocol):
    """A compiled network."""

    def run(self, feeds: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]: ...


class KeyFeatures(NamedTuple):
    """A key picture and what the generator reads of it."""

    picture: Picture  # (H, W, 3)
    f4: Floats
    f8: Floats
    f16: Floats
    fine: Floats | None = None  # (1, 1, 2H, 2W) of a key that came twice as large


class Made(NamedTuple):
    """What the generator makes."""

    person: NDArray[np.uint8]  # RGB + alpha, (H, W, 4)
    flow: Floats  # (1, 2, H/8, W/8): where in the key each place comes from, in pixels (x, y)


class Encoded(NamedTuple):
    """What the encoder says about a picture."""

    latent: Floats  # (8, h, w) in ±2.4
    attention: Floats  # (h, w), 0..1: to a face, and most to its eyes and mouth


class NetworkOptions(NamedTuple):
    """Which engine runs the networks, and how."""

    backend: str = "auto"
    precision: Precision = "auto"
    threads: int | None = None


class EncoderNetwork:
    """E: what the key does not say about the picture."""

    def __init__(self, engine: Runs, weights: Sequence[float] | None = None) -> None:
        """``weights``: what an error in each of the eight channels costs, as the model says under `CHANNEL_WEIGHTS`."""
        self._engine = engine
        self.weights = np.ones((MAX_CHANNELS, 1, 1), np.float32)
        if weights is not None:
            self.weights[:, 0, 0] = weights

    def __call__(self, picture: Picture, matte: NDArray[np.uint8], key: Picture) -> Encoded:
        """Of a blanked ``picture`` (H, W, 3), its ``matte`` (H, W) 0 or 255, and ``key`` (H, W, 3). A model that says
        nothing of attention pays none. Raises ModelError where it says so of other cells."""
        feeds = {"picture": picture[None], "matte": matte[None, ..., None], "key": key[None]}
        out = self._engine.run(feeds)
        latent = np.asarray(out["latent"][0], np.float32)
        attention = np.zeros(latent.shape[1:], np.float32)
        if "attention" in out:
            if out["attention"].shape != (1, 1, *attention.shape):
                raise ModelError(f"the encoder's attention has the shape {out['attention'].shape}, not (1, 1, h, w)")
            np.clip(np.nan_to_num(out["attention"][0, 0]), 0, 1, out=attention)
        return Encoded(latent, attention)


class GeneratorNetwork:
    """The reference features, G, and what makes its picture twice as large."""

    def __init__(self, reference: Runs, generator: Runs, detail: Runs | None = None) -> None:
        """``detail``: the network of `networks.detail`, for keys that come twice as large."""
        self._reference, self._generator, self._detail = reference, generator, detail

    def features(self, key: Picture, large: Picture | None = None) -> KeyFeatures:
        """Run once a key (H, W, 3), which may have come ``large``, (2H, 2W, 3)."""
        out = self._reference.run({"key": key[None]})
        f4, f8, f16 = (np.asarray(out[name], np.float32) for name in ("f4", "f8", "f16"))
        return KeyFeatures(key, f4, f8, f16, None if large is None or self._detail is None else fine_part(large))

    def generate(self, code: Code, plane: NDArray[np.uint8], key: KeyFeatures) -> Made:
        """The picture of a code, a plane (h, w) and a key, which is moved as the code says of the face."""
        symbols = np.zeros((1, MAX_CHANNELS, *code.grid), np.float32)
        symbols[0, : code.channels] = code.symbols
        present = np.zeros_like(symbols)
        present[0, : code.channels] = 1
        if code.rich is not None:
            present[0, LEAST_CHANNELS:] = code.rich
        feeds: dict[str, NDArray[np.generic]] = {
            "symbols": symbols,
            "present": present,
            "plane": plane[None],
            "key": key.picture[None],
            "f4": key.f4,
            "f8": key.f8,
            "f16": key.f16,
            "moved": displacement(code.face, *key.picture.shape[:2])[None],
        }
        out = self._generator.run(feeds)
        return Made(np.asarray(out["picture"][0], np.uint8), np.asarray(out["flow"], np.float32))

    def enlarge(self, made: Made, key: KeyFeatures) -> NDArray[np.uint8]:
        """RGB + alpha (2H, 2W, 4) with the fine structure of a key that has any; else what was made, as it is."""
        if self._detail is None or key.fine is None:
            return made.person
        feeds: dict[str, NDArray[np.generic]] = {
            "person": made.person[None],
            "flow": made.flow,
            "key": key.picture[None],
            "fine": key.fine,
        }
        return np.asarray(self._detail.run(feeds)["shown"][0], np.uint8)
