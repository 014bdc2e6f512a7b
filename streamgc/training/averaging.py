"""The mean of two trainings of a network, weight by weight: good where one was trained on from the other ("Model
soups", Wortsman et al., ICML 2022)."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


@torch.no_grad()
def averaged(network: Network, other: Network) -> Network:
    """``network`` with the mean of both networks' weights; counters stay its own."""
    theirs = other.state_dict()
    network.load_state_dict(
        {
            name: (value + theirs[name]) / 2 if value.is_floating_point() else value
            for name, value in network.state_dict().items()
        }
    )
    return network
