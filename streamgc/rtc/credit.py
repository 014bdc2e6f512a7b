"""How much may leave at once: a token bucket on the wire, so that what was saved up does not stand in a queue."""

from collections.abc import Callable

BURST_S = 0.08
"""So much of the rate may leave at once. What is begun within it may exceed it: by a slice of a long object."""

DEBT_S = 0.25
"""What has left beyond that – the first key, the code of a lively picture – counts as a debt of at most so long."""


class Credit:
    """Bytes on the wire, filled at the rate of the moment."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._bytes, self._at_s = float("inf"), clock()

    def left(self, kbps: float) -> float:
        """Bytes that may leave now, at a rate of so many kbit/s since the last call; below 0 after more than that has
        left."""
        now = self._clock()
        rate = max(0.0, kbps) * 125
        self._bytes = min(rate * BURST_S, self._bytes + rate * (now - self._at_s))
        self._at_s = now
        return self._bytes

    def spend(self, size: int, kbps: float) -> None:
        """So many bytes left."""
        self._bytes = max(-max(0.0, kbps) * 125 * DEBT_S, self.left(kbps) - size)
