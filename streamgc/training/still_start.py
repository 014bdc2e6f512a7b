"""Where a still training begins when it has no checkpoint: at shipped weights, or at a linear codec in closed form.

The closed form is the best linear codec of the lite family's cells: E's linear path projects each 16×16 cell on the
principal components of training cells (Karhunen–Loève), scaled so that five levels cover them; G's linear path is the
least-squares estimate of a cell's pixels from the 3×3 codes around it. The blocks beside both start near zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from streamgc.errors import TrainingError
from streamgc.networks.lite import LATENT_MAX
from streamgc.networks.quantiser import quantise
from streamgc.networks.still import LiteNetworks
from streamgc.networks.still_spec import StillNetworks
from streamgc.training.still_data import StillSource
from streamgc.training.still_samples import random_crop

CELL = 16
SIDE = 128
"""Side of the training squares, in pixels."""
PICTURES = 1200
STEP = 0.75
"""Width of a level in standard deviations of its component: five levels then carry about two bits."""
NEAR_WHITE = 0.97
"""G ends in tanh: its targets stay this far inside ±1."""
RIDGE = 3.0
CALM = 0.05
"""Strength left to the last layers of the blocks beside the linear paths."""


def load_start(networks: StillNetworks, path: Path) -> None:
    """Begin at a shipped model (safetensors); what it does not have stays as it is.

    Where a convolution has more inputs here than there – a GC model starts an SC model, whose labels and heatmap come
    after the picture and the code –, the further ones begin at zero. A lite model may have more channels of code here:
    the further ones keep E's and G's linear paths as they are and are otherwise unknown to G, so that with the old
    channels alone the picture stays what it was. Raises TrainingError: unreadable, nothing fits.
    """
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"cannot read the weights {path}: {error}") from None
    own = networks.state_dict()
    if isinstance(networks, LiteNetworks) and "encoder.last.weight" in found:
        found |= _more_channels(found, own)
    taken = {name: _widened(found[name].to(value.dtype), value) for name, value in own.items() if name in found}
    fitting = {name: value for name, value in taken.items() if value is not None}
    if not fitting:
        raise TrainingError(f"{path} holds no weights of these networks")
    networks.load_state_dict({**own, **fitting})


def _more_channels(found: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The lite weights that count channels of code, brought to our number of them; empty when that is no larger."""
    there, here = len(found["encoder.last.weight"]), len(own.get("encoder.last.weight", ()))
    if there >= here:
        return {}
    grown = {}
    for name in ("encoder.last", "encoder.linear"):
        for part in (f"{name}.weight", f"{name}.bias"):
            grown[part] = torch.cat([found[part].to(own[part].dtype), own[part][there:]])
    linear, embed = "generator.linear.weight", "generator.embed.weight"
    grown[linear] = torch.cat([found[linear].to(own[linear].dtype), own[linear][:, there:]], 1)
    # G reads the symbols, then which channels are there, then the rest.
    symbols, present, rest = found[embed].tensor_split([there, 2 * there], 1)
    unknown = torch.zeros_like(symbols[:, :1]).expand(-1, here - there, -1, -1)
    grown[embed] = torch.cat([symbols, unknown, present, unknown, rest], 1)
    return grown


def _widened(found: Tensor, own: Tensor) -> Tensor | None:
    if found.shape == own.shape:
        return found
    same = found.dim() == own.dim() == 4 and (found.shape[0], *found.shape[2:]) == (own.shape[0], *own.shape[2:])
    if not same or found.shape[1] > own.shape[1]:
        return None
    return torch.cat([found, torch.zeros_like(own[:, found.shape[1] :])], 1)


def linear_start(networks: LiteNetworks, source: StillSource, *, nested: Sequence[int] = (), seed: int = 1) -> None:
    """Set the linear paths of E and G from pictures of ``source``; nothing to do for a model of labels alone.

    ``nested``: the channel counts G must cope with. Raises TrainingError where the source cannot be read.
    """
    if networks.spec.task == "labels":
        return
    if networks.spec.channels > 3 * CELL**2:
        raise TrainingError(f"a cell of {CELL}×{CELL} pixels has no {networks.spec.channels} components")
    random = np.random.default_rng((seed, 0x11EA))
    pictures = _squares(source, random)
    encoder, generator = networks.encoder, networks.generator
    assert generator.linear is not None
    with torch.no_grad():
        weight, bias = principal_components(pictures, networks.spec.channels)
        _set(encoder.linear, weight, bias)
        encoder.last.weight.mul_(CALM)
        latent = F.conv2d(pictures, weight, bias, stride=CELL)
        symbols = quantise(LATENT_MAX * torch.tanh(latent / LATENT_MAX))[1]
        counts = random.choice(list(nested) or [networks.spec.channels], len(symbols))
        there = torch.arange(networks.spec.channels)[None] < torch.from_numpy(counts)[:, None]
        weight, bias = least_squares(symbols * there[..., None, None], pictures)
        _set(generator.linear, weight, bias)
        generator.last.weight.mul_(CALM)
        if generator.last.bias is not None:
            generator.last.bias.zero_()


def _set(convolution: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    convolution.weight.copy_(weight)
    if convolution.bias is not None:
        convolution.bias.copy_(bias)


def principal_components(pictures: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Weight (C, 3, 16, 16) and bias (C,) that take the cells of pictures (n, 3, H, W) to C scaled components."""
    cells = F.unfold(pictures, CELL, stride=CELL).transpose(1, 2).reshape(-1, 3 * CELL**2)
    mean = cells.mean(0)
    variances, components = torch.linalg.eigh((cells - mean).T @ (cells - mean) / len(cells))
    chosen = components[:, -channels:].flip(1).T
    scaled = chosen / (STEP * variances[-channels:].flip(0).clamp(min=1e-6).sqrt()[:, None])
    return scaled.reshape(channels, 3, CELL, CELL), -scaled @ mean


def least_squares(symbols: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (768, C, 3, 3) and bias (768,) that estimate cells of pictures before tanh from symbols (n, C, h, w)."""
    around = F.unfold(symbols, 3, padding=1).transpose(1, 2)
    known = torch.cat([around, around.new_ones(*around.shape[:2], 1)], 2).flatten(0, 1)
    cells = F.unfold(pictures.clamp(-NEAR_WHITE, NEAR_WHITE).atanh(), CELL, stride=CELL).transpose(1, 2).flatten(0, 1)
    matrix = known.T @ known + RIDGE * torch.eye(known.shape[1])
    solution = torch.linalg.solve(matrix, known.T @ cells).T
    return solution[:, :-1].reshape(-1, symbols.shape[1], 3, 3), solution[:, -1]


def _squares(source: StillSource, random: np.random.Generator) -> Tensor:
    """(n, 3, 128, 128) in [-1, 1]."""
    items = (random_crop(source[int(random.integers(len(source)))], (SIDE, SIDE), random) for _ in range(PICTURES))
    stacked = np.stack([item.picture for item in items])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 127.5 - 1
