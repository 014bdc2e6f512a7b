"""The paper's losses: LSGAN, masked MSE, feature matching, entropy, and MS-SSIM for the AEDC-like baseline.

Every loss is a mean over the samples of a batch of something computed per sample, so that splitting a batch over
processes and averaging gives the same value.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from streamgc.networks.discriminator import LAYERS
from streamgc.networks.quantiser import soft_assignment

Judgement = list[list[Tensor]]
"""D's features: for each scale those of every layer, the last one being the verdict."""


def gan_discriminator(real: Judgement, fake: Judgement) -> Tensor:
    """LSGAN for D: (D(x) - 1)² + D(x̂)², halved as in pix2pixHD, summed over the scales."""
    total = real[0][-1].new_zeros(())
    for true, false in zip(real, fake, strict=True):
        total = total + 0.5 * (((true[-1] - 1) ** 2).mean() + (false[-1] ** 2).mean())
    return total


def gan_generator(fake: Judgement) -> Tensor:
    """LSGAN for E and G: (D(x̂) - 1)², summed over the scales."""
    return torch.stack([((scale[-1] - 1) ** 2).mean() for scale in fake]).sum()


def feature_matching(real: Judgement, fake: Judgement) -> Tensor:
    """L1 between D's features of x and x̂, all layers but the last, weighted 4 / (layers + 1) / scales."""
    weight = 4 / (LAYERS + 1) / len(real)
    total = fake[0][0].new_zeros(())
    for true, false in zip(real, fake, strict=True):
        for a, b in zip(true[:-1], false[:-1], strict=True):
            total = total + weight * F.l1_loss(b, a.detach())
    return total


def masked_mse(shown: Tensor, truth: Tensor, keep: Tensor | None) -> Tensor:
    """Mean squared error in [-1, 1], over the pixels of kept cells only; 0 for a sample that keeps none."""
    error = ((shown - truth) ** 2).mean(1, keepdim=True)
    if keep is None:
        return error.mean()
    mask = F.interpolate(keep.to(error.dtype), size=error.shape[-2:], mode="nearest")
    per_sample = (error * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp(min=1)
    return per_sample.mean()


def code_bits(latent: Tensor, log_frequencies: Tensor, keep: Tensor | None, present: Tensor | None) -> Tensor:
    """Expected bits per sample of ŵ under static per-channel frequencies, softly assigned: (B,).

    ``log_frequencies`` (C, 5) log2 probabilities.
    """
    probabilities = soft_assignment(latent)
    bits = -(probabilities * log_frequencies[None, :, None, None, :]).sum(-1)
    for mask in (keep, present):
        if mask is not None:
            bits = bits * mask
    return bits.sum((1, 2, 3))


_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ms_ssim_loss(shown: Tensor, truth: Tensor) -> Tensor:
    """1 - MS-SSIM (Wang et al. 2003) of pictures in [-1, 1]; as many of its five scales as the picture has room for."""
    scales = min(len(_WEIGHTS), int(math.log2(max(2, min(shown.shape[-2:]) // 11))) + 1)
    weights = [weight / sum(_WEIGHTS[:scales]) for weight in _WEIGHTS[:scales]]
    a, b = (shown + 1) / 2, (truth + 1) / 2
    result = shown.new_ones(shown.shape[0])
    for level, weight in enumerate(weights):
        similarity, contrast = _structure(a, b)
        value = similarity if level == scales - 1 else contrast
        # A negative structure has no real power; a small floor keeps the gradient finite.
        result = result * value.mean((1, 2, 3)).clamp(min=1e-4) ** weight
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return (1 - result).mean()


def _structure(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    channels = a.shape[1]
    positions = torch.arange(11, dtype=a.dtype, device=a.device) - 5
    window = torch.exp(-(positions**2) / (2 * 1.5**2))
    window = (window / window.sum()).expand(channels, 1, 1, 11)

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, window, groups=channels), window.transpose(2, 3), groups=channels)

    mean_a, mean_b = blur(a), blur(b)
    variance_a, variance_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    contrast = (2 * covariance + 0.0009) / (variance_a + variance_b + 0.0009)
    return (2 * mean_a * mean_b + 0.0001) / (mean_a**2 + mean_b**2 + 0.0001) * contrast, contrast
