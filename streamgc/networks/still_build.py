"""From a `StillSpec` to its networks."""

from __future__ import annotations

from streamgc.networks.paper import PaperNetworks
from streamgc.networks.still import LiteNetworks
from streamgc.networks.still_spec import StillNetworks, StillSpec


def build_still(spec: StillSpec) -> StillNetworks:
    """Fresh networks of either family."""
    return PaperNetworks(spec) if spec.family == "paper" else LiteNetworks(spec)
