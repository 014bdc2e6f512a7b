"""Where the bytes go: the frame's code, keys, the room. One allowance a frame, steered by what was really spent."""

from __future__ import annotations

import math
from dataclasses import dataclass

OVERHEAD = 3
"""Bytes of a message's header."""
STRENGTH_MIN, STRENGTH_MAX = 0.02, 3.0
"""Range of λ in the quantiser (squared latent error per bit)."""
SLICE_BYTES = 160
"""A key travels in slices of about so many bytes; at the start in larger ones."""
START_SLICE_BYTES = 380
START_KBPS = 48.0
"""While the receiver has no key of the chain, so much may be spent (or four times the rate, if that is less)."""
DEBT_SECONDS = 1.0
"""Spent ahead of time, at most; unspent, kept at most."""


@dataclass(frozen=True)
class Shares:
    """How a rate is divided. Measured on the validation clips; see docs/results/call.md."""

    channels: int
    key_share: float
    """Part of the rate for keys (and rooms)."""
    crf: int
    """Quality of the keys."""


SHARES = (
    (4.0, Shares(2, 0.30, 47)),
    (6.0, Shares(4, 0.35, 46)),
    (8.5, Shares(4, 0.40, 45)),
    (math.inf, Shares(8, 0.45, 43)),
)
"""Upper limits in kbit/s and what holds below them."""


def shares_for(kbps: float) -> Shares:
    """The division of a rate."""
    return next(shares for limit, shares in SHARES if kbps < limit)


class Budget:
    """Per-frame allowance and λ. Not thread-safe: one sender owns it."""

    def __init__(self, kbps: float, fps: float, shares: Shares | None = None) -> None:
        self.fps = fps
        self._fixed = shares
        self.strength = 0.3
        self._spare = 0.0
        self.set_rate(kbps)

    def set_rate(self, kbps: float) -> None:
        """Payload to aim at from now on, kbit/s."""
        self.kbps = max(1.0, kbps)
        self.shares = self._fixed or shares_for(self.kbps)

    @property
    def frame_bytes(self) -> float:
        """All of a frame's allowance."""
        return self.kbps * 125 / self.fps

    @property
    def code_bytes(self) -> float:
        """What the code of a frame should cost on average."""
        return max(2.0, self.frame_bytes * (1 - self.shares.key_share) - OVERHEAD)

    @property
    def spare(self) -> float:
        """Bytes saved up for keys and rooms."""
        return self._spare

    def start_bytes(self) -> int:
        """Bytes of long objects in one frame while the receiver has no key."""
        return int(max(START_SLICE_BYTES, min(START_KBPS, 4 * self.kbps) * 125 / self.fps))

    def spent(self, message: int, start: bool) -> None:
        """A message of so many bytes went out; ``start``: what the start costs is not owed."""
        limit = self.kbps * 125 * DEBT_SECONDS * 4
        self._spare += self.frame_bytes - (min(message, self.frame_bytes) if start else message)
        self._spare = max(-limit, min(limit, self._spare))

    def coded(self, code: int) -> None:
        """Steer λ by what a frame's code cost, in bytes."""
        error = max(-1.0, min(1.5, (code - self.code_bytes) / self.code_bytes))
        debt = max(-0.5, min(1.0, -self._spare / (self.kbps * 125)))
        self.strength *= math.exp(0.12 * error + 0.05 * debt)
        self.strength = max(STRENGTH_MIN, min(STRENGTH_MAX, self.strength))
