"""The mean of two trainings of a network, weight by weight: good where one was trained on from the other ("Model
soups", Wortsman et al., ICML 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


@torch.no_grad()
def averaged(network: Network, other: Mapping[str, Tensor], share: float = 0.5) -> Network:
    """``network`` with the mean of its weights and those of the ``other`` state, which have this ``share`` (0..1);
    counters, and what the other has not, stay its own."""
    network.load_state_dict(
        {
            name: value.lerp(other[name].to(value.dtype), share)
            if value.is_floating_point() and name in other
            else value
            for name, value in network.state_dict().items()
        }
    )
    return network
