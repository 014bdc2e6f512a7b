"""Coder, heatmap, packets and networks, each at three sizes; and what it costs to watch them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.conftest import Measure
from streamgc.codec.code import decode_code, encode_code
from streamgc.codec.quantise import quantise
from streamgc.codec.symbols import Code, make_code
from streamgc.codec.tables import default_tables
from streamgc.pipeline.background import over_room
from streamgc.pipeline.sender import blanked
from streamgc.profiling.spans import Spans
from streamgc.rtc.payload import packetise, parse_packet
from streamgc.runtime.samples import chained_feeds, synthetic_pictures
from streamgc.runtime.store import ModelStore
from streamgc.scene.heatmap import Heatmap
from streamgc.scene.instances import UNTRACKED, Instances
from streamgc.scene.policy import Selection

SIDES = (192, 256, 384)
MESSAGES = (60, 1200, 20_000)
"""Bytes: a frame of a call, a full packet, a first key."""

NETWORKS = ("lite/encoder", "lite/reference", "lite/generator", "segmenter/segmenter")


def _codes(side: int) -> tuple[Code, Code]:
    """A code and its reference as in a call: 40 % of the cells kept, one symbol in twelve changed."""
    random = np.random.default_rng(side)
    grid = (side // 16, side // 16)
    keep = np.zeros(grid, bool)
    keep[grid[0] // 4 :, grid[1] // 4 : -grid[1] // 4] = True
    old = np.where(random.random((8, *grid)) < 0.3, random.integers(-2, 3, (8, *grid)), 0)
    new = np.where(random.random((8, *grid)) < 1 / 12, random.integers(-2, 3, (8, *grid)), old)
    return make_code(new, keep), make_code(old, keep)


@pytest.mark.parametrize("side", SIDES)
def test_encode_code(measure: Measure, side: int) -> None:
    (code, reference), tables = _codes(side), default_tables()
    measure("encode code", f"{side}²", side**2, lambda: encode_code(code, reference, 2, tables), True)


@pytest.mark.parametrize("side", SIDES)
def test_decode_code(measure: Measure, side: int) -> None:
    (code, reference), tables = _codes(side), default_tables()
    payload = encode_code(code, reference, 2, tables)
    grid = code.grid

    def decode() -> Code:
        return decode_code(payload, grid, 8, reference, 2, tables)

    decoded = measure("decode code", f"{side}²", side**2, decode, True)
    np.testing.assert_array_equal(decoded.symbols, code.symbols)


@pytest.mark.parametrize("side", SIDES)
def test_quantise(measure: Measure, side: int) -> None:
    (code, reference), tables = _codes(side), default_tables()
    latent = code.symbols + np.random.default_rng(1).normal(0, 0.3, code.symbols.shape).astype(np.float32)
    measure("quantise", f"{side}²", side**2, lambda: quantise(latent, code.keep, reference, 2, tables, 0.1), True)


@pytest.mark.parametrize("side", SIDES)
def test_heatmap(measure: Measure, side: int) -> None:
    y, x = np.mgrid[:side, :side] / side
    masks = [np.uint8(255) * (((x - c) / 0.3) ** 2 + ((y - 0.6) / 0.45) ** 2 < 1) for c in (0.48, 0.52)]
    cells = np.zeros((side // 16, side // 16), np.uint8)
    frames = [
        Instances(
            mask[None].astype(np.uint8),
            np.array([[0, 0, side, side]], np.float32),
            np.ones(1, np.float32),
            np.zeros(1, np.int32),
            np.full(1, UNTRACKED, np.int32),
            cells,
        )
        for mask in masks
    ]
    selection = Selection(np.ones(1, bool), 1, 0, 1.0, 0)
    heatmap = Heatmap()
    turn = iter(range(10**9))
    measure("heatmap", f"{side}²", side**2, lambda: heatmap.update(frames[next(turn) % 2], selection), False)


@pytest.mark.parametrize("side", SIDES)
def test_blank_and_composite(measure: Measure, side: int) -> None:
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
    y, x = np.mgrid[:side, :side] / side
    far = ((x - 0.5) / 0.3) ** 2 + ((y - 0.6) / 0.45) ** 2
    alpha = np.clip((1.1 - far) * 600, 0, 255).astype(np.uint8)
    person = np.dstack((picture, alpha))
    matte = np.uint8(255) * (far < 1.2)

    def both() -> object:
        return over_room(person, blanked(picture, matte), True)

    measure("blank and composite", f"{side}²", side**2, both, False)


@pytest.mark.parametrize("size", MESSAGES)
def test_packetise_and_parse(measure: Measure, size: int) -> None:
    message = bytes(range(256)) * (size // 256 + 1)

    def both() -> list[object]:
        payloads = packetise(7, message[:size], 20, (message[:50],), b"feedback")
        return [parse_packet(payload) for payload in payloads]

    measure("packetise and parse", f"{size} B", size, both, True)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("network", NETWORKS)
def test_network(measure: Measure, network: str, side: int) -> None:
    name, role = network.split("/")
    model = ModelStore().open(name)
    feeds = chained_feeds(model, synthetic_pictures((side, side), 1))[role][0]
    precision = "int8" if model.has(role, "int8") else "fp32"
    with model.load(role, backend="openvino", precision=precision, threads=1, size=(side, side)) as engine:
        measure(f"{role} {precision} ×1", f"{side}²", side**2, lambda: engine.run(feeds), False)


@pytest.mark.parametrize("stages", [10, 20, 40])
@pytest.mark.parametrize("enabled", [True, False])
def test_spans(measure: Measure, enabled: bool, stages: int) -> None:
    """What it costs to watch a frame that passes so many stages; a call's has about twenty."""
    spans = Spans(enabled)

    def frame() -> None:
        with spans.frame(1):
            for _ in range(stages):
                with spans("encode"):
                    pass

    measure(f"spans {'on' if enabled else 'off'}", f"{stages}", stages, frame, True)
