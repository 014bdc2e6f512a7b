"""Designs of the call model that can be trained and measured against each other with the same tools.

`aligned` ships: G decodes a motion from the code and warps the key and its features along it (``networks/lite.py``).
`conditional` is conditional coding (after Li et al., "Deep Contextual Video Compression", NeurIPS 2021, without its
motion): E and G both see the key as context, side by side with what they work on, and whatever has moved is for the
code to say. Both have the same layers, so that a training differs in nothing else. `docs/results/call.md` says which
is better.
"""

from __future__ import annotations

from torch import Tensor

from streamgc.errors import TrainingError
from streamgc.networks.lite import Generator

ALIGNED, CONDITIONAL = "aligned", "conditional"


class ConditionalGenerator(Generator):
    """G with the key and its features as context where they are; the flow that its layers decode is not used."""

    def align(self, source: Tensor, flow: Tensor, stride: int, mode: str = "bilinear") -> Tensor:
        return source


def generator_of(design: str) -> Generator:
    """An untrained G of a design. Raises TrainingError when there is no such design."""
    designs = {ALIGNED: Generator, CONDITIONAL: ConditionalGenerator}
    if design not in designs:
        raise TrainingError(f"no design {design!r}: one of {', '.join(designs)}")
    return designs[design]()
