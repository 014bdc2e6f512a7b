"""q of the paper: five centres, hard in the forward pass, soft in the backward pass (after Agustsson et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

CENTRES = (-2.0, -1.0, 0.0, 1.0, 2.0)


def soft_assignment(latent: Tensor, hardness: float = 2.0) -> Tensor:
    """Probability of each centre, (…, 5): softmax of -hardness · squared distance. Differentiable in ``latent``."""
    centres = torch.tensor(CENTRES, device=latent.device, dtype=latent.dtype)
    return torch.softmax(-hardness * (latent.unsqueeze(-1) - centres) ** 2, -1)


def quantise(latent: Tensor, hardness: float = 2.0) -> tuple[Tensor, Tensor]:
    """(nearest centres with the soft assignment's gradient, the same without gradient), both of ``latent``'s shape."""
    centres = torch.tensor(CENTRES, device=latent.device, dtype=latent.dtype)
    hard = latent.detach().round().clamp(CENTRES[0], CENTRES[-1])
    soft = (soft_assignment(latent, hardness) * centres).sum(-1)
    # Beyond the outer centres the soft value saturates and its gradient dies; the small leak lets a latent
    # that went too far come back.
    soft = soft + 0.05 * latent
    return soft + (hard - soft).detach(), hard
