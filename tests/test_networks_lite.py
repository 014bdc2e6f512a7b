"""G of a key that is moved: as of a key and features that lie there themselves."""

import copy

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from streamgc.networks.lite import CHANNELS, Features, Generator, Reference, beyond, enlarged, warp
from streamgc.networks.lite_export import ShippedGenerator
from streamgc.runtime.engine import Precision
from streamgc.runtime.samples import chained_feeds, synthetic_pictures
from streamgc.runtime.store import ModelStore

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS, COLUMNS = 4, 24
CELL = 16
MARGIN = 9
"""Cells from the edge that what lies beyond it reaches."""


@pytest.fixture(scope="module")
def generator() -> Generator:
    """Untrained, but with flows of several pixels."""
    torch.manual_seed(4)
    made = Generator()
    with torch.no_grad():
        for head, times in ((made.flow16, 25.0), (made.flow8, 8.0)):
            head.weight.mul_(times)
    return made.eval()


@pytest.fixture(scope="module")
def reference() -> Reference:
    torch.manual_seed(5)
    return Reference().eval()


def _code() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Symbols, which of them are there, and the plane."""
    random = torch.Generator().manual_seed(6)
    symbols = torch.randint(-2, 3, (1, CHANNELS, ROWS, COLUMNS), generator=random).float()
    present = torch.zeros_like(symbols)
    present[:, :4] = 1
    plane = torch.zeros(1, 3, ROWS, COLUMNS)
    plane[:, 1] = 1
    return symbols, present, plane


def _key() -> torch.Tensor:
    """Smooth and never the same twice."""
    coarse = torch.rand(1, 3, ROWS * 2, COLUMNS * 2, generator=torch.Generator().manual_seed(7))
    return nn.functional.interpolate(coarse, scale_factor=8.0, mode="bicubic").clamp(0, 1)


def _aside(size: int) -> torch.Tensor:
    """A displacement of so many pixels, from places further right."""
    moved = torch.zeros(1, 2, 2 * ROWS, 2 * COLUMNS)
    moved[:, 0] = size
    return moved


@torch.no_grad()
def test_a_displacement_of_nothing_changes_nothing(generator: Generator, reference: Reference) -> None:
    key = _key()
    features = reference(key)
    plain = generator(*_code(), key, features)
    still = generator(*_code(), key, features, _aside(0))
    assert plain.flow.abs().mean() > 1  # places between pixels are sampled
    for one, other in zip(plain, still, strict=True):
        assert (one - other).abs().max() < 1e-4 * max(1.0, float(one.abs().max()))
    assert (plain.picture - still.picture).abs().max() < 1e-5


@torch.no_grad()
def test_a_key_seen_a_cell_aside_is_as_one_that_lies_there(generator: Generator, reference: Reference) -> None:
    key, generator = _key(), copy.deepcopy(generator)
    features = reference(key)
    told = generator(*_code(), key, features, _aside(CELL)).picture
    nn.init.zeros_(generator.embed.weight[:, -2:])  # what it is told of the displacement
    plain = generator(*_code(), key, features)
    made = generator(*_code(), key, features, _aside(CELL))
    assert (told - made.picture).abs().mean() > 1e-4
    lies_there = Features(*(part.roll(-CELL // stride, -1) for part, stride in zip(features, (4, 8, 16), strict=True)))
    wanted = generator(*_code(), key.roll(-CELL, -1), lies_there)
    for name in ("picture", "alpha", "warped"):
        one, other, unmoved = (getattr(of, name)[..., MARGIN * CELL : -MARGIN * CELL] for of in (made, wanted, plain))
        assert (one - other).abs().max() < 1e-4
        assert (one - unmoved).abs().mean() > 10 * (one - other).abs().max()
    inside = slice(2 * MARGIN, -2 * MARGIN)
    far = made.flow[..., inside] - wanted.flow[..., inside]  # from where in the key as it is
    assert far[:, 0].numpy() == pytest.approx(CELL, abs=1e-3)
    assert far[:, 1].numpy() == pytest.approx(0, abs=1e-3)


@torch.no_grad()
def test_where_the_code_says_nothing_the_key_is_shown_moved(generator: Generator, reference: Reference) -> None:
    """Whole pixels are copied, not resampled."""
    key, still = _key(), Generator().eval()
    for head in (still.flow16, still.flow8):
        nn.init.zeros_(head.weight)
    made = still(*_code(), key, reference(key), _aside(5))
    assert (made.warped[..., :-CELL] - key.roll(-5, -1)[..., :-CELL]).abs().max() < 1e-4
    assert made.flow[:, 0].numpy() == pytest.approx(5, abs=1e-5)


def test_a_flow_goes_on_where_it_leads() -> None:
    moved = torch.zeros(1, 2, 4, 8)
    moved[:, 0, :, 4:] = 10.0
    flow = torch.zeros(1, 2, 4, 8)
    flow[:, 0, :, 2] = 16.0  # two squares of 8 to the right, where the key is moved
    total = beyond(flow, moved, 8)
    assert total[0, 0, 0].tolist() == pytest.approx([0, 0, 26, 0, 10, 10, 10, 10], abs=1e-4)
    assert beyond(flow, None, 8) is flow
    steep = torch.arange(8.0).expand(1, 2, 4, 8)
    assert enlarged(steep, 2).shape == (1, 2, 8, 16)
    assert enlarged(steep, 2)[0, 0, 0, 7] == pytest.approx(3.25)


@torch.no_grad()
def test_the_shipped_generator_takes_a_displacement(generator: Generator, reference: Reference) -> None:
    key, (symbols, present, plane) = _key(), _code()
    levels = (key * 255).round().to(torch.uint8)
    features = reference(levels.float() / 255)
    random = np.random.default_rng(8)
    moved = torch.from_numpy(random.uniform(-6, 6, (1, 2, 2 * ROWS, 2 * COLUMNS)).astype(np.float32))
    shipped = ShippedGenerator(generator)
    feeds = symbols, present, torch.ones(1, ROWS, COLUMNS, dtype=torch.uint8), levels.permute(0, 2, 3, 1), *features
    picture, flow = shipped(*feeds, moved)
    made = generator(symbols, present, plane, levels.float() / 255, features, moved)
    assert picture.shape == (1, CELL * ROWS, CELL * COLUMNS, 4)
    assert torch.allclose(flow, made.flow, atol=1e-4)
    assert (picture[..., :3].permute(0, 3, 1, 2) / 255 - made.picture.clamp(0, 1)).abs().max() < 0.51 / 255
    plain, _ = shipped(*feeds, torch.zeros_like(moved))
    assert (picture != plain).float().mean() > 0.3


def test_beyond_the_edge_the_edge_is_repeated() -> None:
    source = torch.arange(8.0).expand(1, 1, 4, 8)
    made = warp(source, torch.full((1, 2, 4, 8), 3.0), 1)
    assert made[0, 0, 0].tolist() == pytest.approx([3, 4, 5, 6, 7, 7, 7, 7])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_samples_move_the_key_of_the_generator_that_is_shipped(precision: Precision) -> None:
    model = ModelStore().open("lite")
    size = 64, 96
    feed = chained_feeds(model, synthetic_pictures(size, 1))["generator"][0]
    assert feed["moved"].shape == (1, 2, 8, 12)
    assert feed["moved"].dtype == np.float32
    assert np.abs(feed["moved"]).max() > 1
    shifted = np.zeros_like(feed["moved"])
    shifted[:, 0] = 8
    flows, pictures = [], []
    with model.load("generator", backend="openvino", precision=precision, threads=1, size=size) as engine:
        for moved in (np.zeros_like(shifted), shifted):
            out = engine.run({**feed, "moved": moved})
            flows.append(out["flow"])
            pictures.append(out["picture"].astype(int))
    assert np.median(flows[1][:, 0] - flows[0][:, 0]) == pytest.approx(8, abs=1)
    still, aside = (picture[0, 16:-16, 16:-24, :3] for picture in pictures)
    there = pictures[0][0, 16:-16, 24:-16, :3]
    assert np.abs(aside - there).mean() < 0.6 * np.abs(still - there).mean()
