"""The call model's adversary: D of the paper (LSGAN with feature matching) on sharp crops of the newer picture.

What a distance alone leaves to the mean of many answers – a face that turns and smears – D tells from a real one.
Outside the blanking mask both crops show the same pixels, so that only what is kept is judged.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from streamgc.networks.discriminator import Discriminator
from streamgc.training.still_losses import feature_matching, gan_discriminator, gan_generator
from streamgc.training.together import Together

FILTERS = 24
"""Of D's first layer: crops are of 64 pixels, and D must not cost more than the networks it trains."""
MATCHING = 6.0
"""Weight of feature matching beside the verdict, as in the recipe of the still codec."""
RATE = 4e-4
WARM_STEPS = 500
"""Steps over which D's word comes to its weight: at first it knows nothing."""


class Adversary:
    """D, its optimiser, and what it has been shown in this step."""

    def __init__(self, place: Together) -> None:
        self._place = place
        self.network = Discriminator(filters=FILTERS).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimiser = torch.optim.Adam(self.network.parameters(), RATE, betas=(0.5, 0.99))
        self._seen: tuple[Tensor, Tensor] | None = None
        self._steps = 0

    def judge(self, shown: Tensor, truth: Tensor) -> Tensor:
        """What G is charged for ``shown``, pictures (B, 3, S, S) in [0, 1], beside ``truth``."""
        shown, truth = shown * 2 - 1, truth * 2 - 1
        self._seen = (shown.detach(), truth)
        self.network.requires_grad_(False)
        fake = self.network(shown, None)
        with torch.no_grad():
            real = self.network(truth, None)
        self.network.requires_grad_(True)
        weight = min(1.0, self._steps / WARM_STEPS)
        return weight * (gan_generator(fake) + MATCHING * feature_matching(real, fake))

    def learn(self) -> float:
        """One step of D on what it judged last, together with the other processes; returns its loss."""
        assert self._seen is not None
        shown, truth = self._seen
        loss = gan_discriminator(self.network(truth, None), self.network(shown, None))
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._place.average(self.network.parameters())
        self._optimiser.step()
        self._steps += 1
        return float(loss.detach())

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "steps": self._steps,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._steps = int(state["steps"])
