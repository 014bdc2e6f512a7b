"""Stand-ins for the networks: small and exact, so that tests of the pipeline see only the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from streamgc.codec.message import Background
from streamgc.codec.tables import Tables, default_tables
from streamgc.pipeline.background import BackgroundKeeper
from streamgc.pipeline.looking import View
from streamgc.pipeline.networks import EncoderNetwork, GeneratorNetwork
from streamgc.pipeline.receiver import Receiver
from streamgc.pipeline.sender import Sender
from streamgc.pipeline.settings import PictureFormat, SenderSettings

Arrays = Mapping[str, NDArray[np.generic]]
FORMAT = PictureFormat(128, 96)
TABLES: Tables = default_tables()


class FakeEncoder:
    """Mean brightness of each cell against the key's, in the first channel; the matte's share in the second."""

    def run(self, feeds: Arrays) -> dict[str, NDArray[np.generic]]:
        picture, key, matte = (feeds[n][0].astype(np.float32) for n in ("picture", "key", "matte"))
        rows, columns = picture.shape[0] // 16, picture.shape[1] // 16
        means = (picture - key).mean(-1).reshape(rows, 16, columns, 16).mean((1, 3))
        latent = np.zeros((1, 8, rows, columns), np.float32)
        latent[0, 0] = np.clip(means / 16, -2.4, 2.4)
        latent[0, 1] = matte[..., 0].reshape(rows, 16, columns, 16).mean((1, 3)) / 255
        return {"latent": latent}


class FakeReference:
    def run(self, feeds: Arrays) -> dict[str, NDArray[np.generic]]:
        return {name: np.zeros((1, 1, 1, 1), np.float32) for name in ("f4", "f8", "f16")}


class FakeGenerator:
    """The key, brightened by the first channel; opaque where the plane says kept."""

    def run(self, feeds: Arrays) -> dict[str, NDArray[np.generic]]:
        shift = np.asarray(feeds["symbols"][0, 0] * 16, np.int16).repeat(16, 0).repeat(16, 1)
        picture = np.clip(feeds["key"][0].astype(np.int16) + shift[..., None], 0, 255).astype(np.uint8)
        alpha = np.where(feeds["plane"][0] == 1, np.uint8(255), np.uint8(0)).repeat(16, 0).repeat(16, 1)
        rows, columns = feeds["plane"].shape[1:]
        flow = np.zeros((1, 2, 2 * rows, 2 * columns), np.float32)
        return {"picture": np.concatenate([picture, alpha[..., None]], -1)[None], "flow": flow}


class FakeDetail:
    """Each pixel four times, brighter by what is fine."""

    def run(self, feeds: Arrays) -> dict[str, NDArray[np.generic]]:
        large = feeds["person"][0].repeat(2, 0).repeat(2, 1).astype(np.float32)
        large[..., :3] += feeds["fine"][0, 0, ..., None]
        return {"shown": np.clip(large + 0.5, 0, 255).astype(np.uint8)[None]}


class BoxEyes:
    """Sees one person: a box that may be moved."""

    def __init__(self) -> None:
        self.box = (32, 96, 48, 112)  # top, bottom, left, right

    def look(self, picture: NDArray[np.uint8]) -> View:
        matte = np.zeros(picture.shape[:2], np.uint8)
        top, bottom, left, right = self.box
        matte[top:bottom, left:right] = 255
        cells = matte.reshape(picture.shape[0] // 16, 16, picture.shape[1] // 16, 16).max((1, 3)) > 0
        return View(picture, matte, cells, np.ones(cells.shape, np.uint8), None, 1)


def sender(
    background: Background = Background.REPLACE,
    kbps: float = 20.0,
    eyes: BoxEyes | None = None,
    executor: Executor | None = None,
    fine: bool = False,
) -> Sender:
    settings = SenderSettings(FORMAT, 15.0, kbps, background, framing=False, fine=fine)
    return Sender(settings, eyes or BoxEyes(), EncoderNetwork(FakeEncoder()), TABLES, executor=executor)


def keeper() -> BackgroundKeeper:
    height, width = FORMAT.height, FORMAT.width
    return BackgroundKeeper(FORMAT, lambda labels, seed: np.full((height, width, 3), 40 + int(labels.max()), np.uint8))


def receiver() -> Receiver:
    return Receiver(FORMAT, GeneratorNetwork(FakeReference(), FakeGenerator(), FakeDetail()), TABLES, keeper())


def moving(count: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    """A smooth picture that grows slowly brighter."""
    random = np.random.default_rng(seed)
    coarse = random.integers(40, 160, (6, 8, 3))
    base = coarse.repeat(16, 0).repeat(16, 1).astype(np.int16)
    return [np.clip(base + 2 * i, 0, 255).astype(np.uint8) for i in range(count)]
