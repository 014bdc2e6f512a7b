"""Both still families: shapes, sizes against the paper's, symbols, nesting, frozen normalisation."""

from __future__ import annotations

import pytest
import torch

from streamgc.networks.discriminator import Discriminator
from streamgc.networks.paper import Generator, PaperNetworks
from streamgc.networks.quantiser import quantise
from streamgc.networks.still_build import build_still
from streamgc.networks.still_spec import Family, FreezableInstanceNorm, StillSpec, Task, parameter_count

FAMILIES: tuple[Family, ...] = ("paper", "lite")


def spec_for(family: Family, task: Task, channels: int = 4, noise: int = 0) -> StillSpec:
    classes = 0 if task == "gc" else 3
    return StillSpec(
        family, task, channels, classes, width=1 / 8 if family == "lite" else 1 / 30, noise=noise, blocks=2
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", ["gc", "sc", "labels"])
@pytest.mark.parametrize("noise", [0, 2])
def test_a_pass_has_the_stated_shapes_and_range(family: Family, task: Task, noise: int) -> None:
    torch.manual_seed(1)
    spec = spec_for(family, task, noise=noise)
    networks = build_still(spec)
    height, width = 64, 96
    rows, columns = height // spec.cell, width // spec.cell
    planes = None if task == "gc" else torch.rand(2, 4, height, width)
    keep = (torch.rand(2, 1, rows, columns) > 0.5).float() if task == "sc" else None
    v = torch.randn(2, noise, rows, columns) if noise else None
    out = networks(torch.rand(2, 3, height, width) * 2 - 1, planes, keep, None, v)
    assert out.picture.shape == (2, 3, height, width)
    assert out.picture.abs().max() <= 1
    if task == "labels":
        assert out.symbols is None
        return
    assert out.symbols is not None
    assert out.symbols.shape == (2, 4, rows, columns)
    assert spec.cell == (8 if (family, task) == ("paper", "sc") else 16)
    if keep is not None:
        assert not (out.symbols * (1 - keep)).any()


def test_full_width_has_the_papers_sizes() -> None:
    with torch.device("meta"):
        selective = PaperNetworks(StillSpec("paper", "sc", 8, 34))
        whole = PaperNetworks(StillSpec("paper", "gc", 8))
        half = Generator(StillSpec("paper", "sc", 8, 34, width=0.5))
    assert round(parameter_count(selective.generator) / 1e6) == 176
    # Without the receiver's c3s1-480 and d960 and the 960 channels of F(s).
    assert round(parameter_count(whole.generator) / 1e6) == 155
    assert round(parameter_count(half) / 1e6) == 44
    first = next(module for module in selective.generator.body if isinstance(module, torch.nn.Conv2d))
    assert first.in_channels == 1920


@pytest.mark.parametrize("family", FAMILIES)
def test_all_five_symbols_occur_on_a_natural_picture(family: Family) -> None:
    """A ReLU before q would leave three of them."""
    torch.manual_seed(3)
    networks = build_still(spec_for(family, "gc", channels=8)).eval()
    rows = torch.arange(256.0)[:, None] / 40
    picture = torch.stack([torch.sin(rows * (k + 1) + rows.T * 3) * torch.cos(rows.T * k) for k in range(3)])[None]
    with torch.no_grad():
        symbols = networks(picture).symbols
    assert symbols is not None
    assert sorted(symbols.unique().tolist()) == [-2, -1, 0, 1, 2]


def test_quantiser_is_hard_forward_and_differentiable_backward() -> None:
    latent = torch.tensor([-3.0, -1.6, -0.4, 0.2, 0.51, 2.2], requires_grad=True)
    soft, hard = quantise(latent)
    assert hard.tolist() == [-2, -2, 0, 0, 1, 2]
    assert torch.allclose(soft, hard, atol=1e-6)
    soft.sum().backward()  # type: ignore[no-untyped-call]
    assert latent.grad is not None
    assert (latent.grad > 0).all()


def test_absent_channels_do_not_matter_to_the_lite_picture() -> None:
    torch.manual_seed(2)
    networks = build_still(StillSpec("lite", "gc", 8, width=0.125)).eval()
    symbols = torch.randint(-2, 3, (1, 8, 4, 4)).float()
    present = (torch.arange(8) < 2).float().view(1, 8, 1, 1)
    other = symbols.clone()
    other[:, 2:] = 1
    with torch.no_grad():
        first, second = (networks.decode(s, None, present, None) for s in (symbols, other))
        third = networks.decode(symbols, None, None, None)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_frozen_normalisation_ignores_the_pictures_own_statistics() -> None:
    torch.manual_seed(4)
    norm = FreezableInstanceNorm(3)
    for _ in range(200):
        norm(torch.randn(2, 3, 8, 8) * 2 + 5)
    norm.freeze()
    y = norm(torch.full((1, 3, 4, 4), 7.0))
    assert torch.allclose(y, torch.ones_like(y), atol=0.2)


def test_discriminator_sees_two_scales_and_labels() -> None:
    judge = Discriminator(planes=4, filters=8)
    found = judge(torch.zeros(1, 3, 64, 64), torch.zeros(1, 4, 64, 64))
    assert [len(scale) for scale in found] == [5, 5]
    assert found[0][-1].shape[1] == 1
    assert found[1][0].shape[-1] < found[0][0].shape[-1]
    with torch.device("meta"):
        full = Discriminator(planes=35)
    assert round(parameter_count(full) / 1e5) == 56


def test_specs_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="labels"):
        StillSpec(task="sc")
    with pytest.raises(ValueError, match="positive"):
        StillSpec(channels=0)
    assert not hasattr(build_still(spec_for("lite", "labels")), "encoder")
