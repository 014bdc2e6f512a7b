"""Pictures nobody took: codes drawn uniformly, and codes drawn from a WGAN-GP trained on real ŵ, decoded by G.

Uniform codes decode to a soup of patches; a generator of codes (Gulrajani et al. 2017) gives them the order that real
codes have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from streamgc.codec.sgc import StillCode
from streamgc.codec.still_planes import Symbols
from streamgc.errors import InputError
from streamgc.evaluation.clips import Frame
from streamgc.networks.quantiser import quantise
from streamgc.pipeline.stills import StillCodec


@dataclass(frozen=True)
class SamplingSettings:
    """How the generator of codes is trained: the defaults are WGAN-GP's."""

    steps: int = 4000
    batch: int = 32
    critic_steps: int = 5
    penalty: float = 10.0
    rate: float = 1e-4
    width: int = 128
    noise: int = 64
    seed: int = 1


class CodeGenerator(nn.Module):
    """Noise (B, N) to a latent (B, C, h, w) by twofold upsampling; sides that are no multiple of 4 are cropped."""

    def __init__(self, settings: SamplingSettings, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self._shape = shape
        self._coarse = (settings.width, -(-shape[1] // 4), -(-shape[2] // 4))
        self.first = nn.Linear(settings.noise, int(np.prod(self._coarse)))
        self.layers = nn.ModuleList(nn.Conv2d(settings.width, settings.width, 3, padding=1) for _ in range(4))
        self.last = nn.Conv2d(settings.width, shape[0], 3, padding=1)

    def forward(self, noise: Tensor) -> Tensor:
        x = self.first(noise).view(-1, *self._coarse)
        for index, layer in enumerate(self.layers):
            x = F.leaky_relu(layer(x), 0.2)
            if index < 2:
                x = F.interpolate(x, scale_factor=2.0)
        latent: Tensor = self.last(x)[..., : self._shape[1], : self._shape[2]]
        return 2.4 * torch.tanh(latent)


class CodeCritic(nn.Module):
    """A code (B, C, h, w) to its score (B,)."""

    def __init__(self, settings: SamplingSettings, channels: int) -> None:
        super().__init__()
        width = settings.width
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 4, 2, 1),
            nn.LeakyReLU(0.2),
        )
        self.last = nn.Linear(width, 1)

    def forward(self, codes: Tensor) -> Tensor:
        score: Tensor = self.last(self.body(codes).mean((2, 3)))
        return score[:, 0]


def train_code_generator(
    codes: Sequence[Symbols], settings: SamplingSettings, note: Callable[[int, float], None] = lambda step, value: None
) -> CodeGenerator:
    """A generator of codes like those given, all of one shape (C, h, w) with h, w ≥ 4; ``note``: step, Wasserstein
    estimate. Raises InputError for codes of different shapes or too few.
    """
    shapes = {code.shape for code in codes}
    if len(shapes) != 1 or len(codes) < 2 or min(next(iter(shapes))[1:]) < 4:
        raise InputError(f"a generator of codes needs several codes of one shape, not {len(codes)} of {sorted(shapes)}")
    torch.manual_seed(settings.seed)
    random = np.random.default_rng(settings.seed)
    real_codes = torch.from_numpy(np.stack(codes)).float()
    shape = (int(real_codes.shape[1]), int(real_codes.shape[2]), int(real_codes.shape[3]))
    generator, critic = CodeGenerator(settings, shape), CodeCritic(settings, shape[0])
    optimisers = [torch.optim.Adam(net.parameters(), settings.rate, betas=(0.0, 0.9)) for net in (generator, critic)]
    for step in range(settings.steps):
        estimate = 0.0
        for _ in range(settings.critic_steps):
            real = real_codes[random.integers(0, len(real_codes), settings.batch)]
            with torch.no_grad():
                fake = quantise(generator(torch.randn(settings.batch, settings.noise)))[0]
            distance = critic(real).mean() - critic(fake).mean()
            loss = settings.penalty * _gradient_penalty(critic, real, fake) - distance
            optimisers[1].zero_grad()
            loss.backward()
            optimisers[1].step()
            estimate = float(distance.detach())
        fooled = -critic(quantise(generator(torch.randn(settings.batch, settings.noise)))[0]).mean()
        optimisers[0].zero_grad()
        fooled.backward()
        optimisers[0].step()
        note(step + 1, estimate)
    return generator.eval()


def _gradient_penalty(critic: CodeCritic, real: Tensor, fake: Tensor) -> Tensor:
    share = torch.rand(len(real), 1, 1, 1)
    between = (share * real + (1 - share) * fake).requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: Tensor = ((gradient.flatten(1).norm(2, 1) - 1) ** 2).mean()
    return penalty


def draw_codes(generator: CodeGenerator, count: int, settings: SamplingSettings, seed: int) -> list[Symbols]:
    """``count`` codes of the generator."""
    noise = torch.randn(count, settings.noise, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        symbols = quantise(generator(noise))[1]
    return list(symbols.numpy().astype(np.int8))


def uniform_codes(shape: tuple[int, int, int], count: int, seed: int) -> list[Symbols]:
    """``count`` codes whose symbols are drawn uniformly."""
    return list(np.random.default_rng(seed).integers(-2, 3, (count, *shape)).astype(np.int8))


def decode_grid(codec: StillCodec, codes: Sequence[Symbols], columns: int = 4) -> Frame:
    """The pictures of codes of a GC model, in a grid. Raises InputError for a model that needs labels."""
    if codec.task != "gc":
        raise InputError(f"model {codec.model.name!r} needs labels: it cannot decode a code alone")
    pictures = [codec.render(StillCode(code.shape[2] * 16, code.shape[1] * 16, code)) for code in codes]
    pictures += [np.zeros_like(pictures[0])] * (-len(pictures) % columns)
    rows = [np.concatenate(pictures[start : start + columns], 1) for start in range(0, len(pictures), columns)]
    return np.concatenate(rows)


def evaluate_sampling(
    codec: StillCodec,
    pictures: Sequence[Frame],
    out: Path,
    *,
    side: int = 256,
    count: int = 8,
    channels: int | None = None,
    settings: SamplingSettings | None = None,
    note: Callable[[int, float], None] = lambda step, value: None,
) -> NDArray[np.float64]:
    """Write ``uniform.png``, ``wgan.png`` and ``real.png`` (decoded codes of centre squares) under ``out``.

    ``channels``: how many of the model's, all without it; fewer are learnt sooner. The result are the symbol
    frequencies (3, 5) of uniform, drawn and real codes. Raises InputError.
    """
    settings = settings or SamplingSettings()
    if channels is not None and channels not in codec.model.channels:
        raise InputError(f"{channels} channels; the model has {', '.join(map(str, codec.model.channels))}")
    codes = [codec.symbols_of(_centre(picture, side))[:channels] for picture in pictures]
    generator = train_code_generator(codes, settings, note)
    shape = (codes[0].shape[0], codes[0].shape[1], codes[0].shape[2])
    sets = {
        "uniform": uniform_codes(shape, count, settings.seed),
        "wgan": draw_codes(generator, count, settings, settings.seed),
        "real": codes[:count],
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, part in sets.items():
        Image.fromarray(decode_grid(codec, part)).save(out / f"{name}.png")
    counts = [np.bincount((np.stack(part) + 2).ravel(), minlength=5) for part in sets.values()]
    return np.stack([count / count.sum() for count in counts])


def _centre(picture: Frame, side: int) -> Frame:
    image = Image.fromarray(picture)
    scale = side / min(image.size)
    image = image.resize((max(side, round(image.width * scale)), max(side, round(image.height * scale))))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)))
