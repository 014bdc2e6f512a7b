"""How fast is too fast: token buckets, and a bounded table of them."""

import time
from collections import OrderedDict
from collections.abc import Callable

ADDRESSES_MAX = 10_000
"""Addresses remembered; the one not seen for longest goes first."""


class Bucket:
    """Allows `rate` events a second, and `burst` at once."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left, self._at = burst, clock()

    def allow(self) -> bool:
        """Whether one more event is within the limit; counts it if so."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class AddressLimit:
    """One bucket an address."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def allow(self, address: str) -> bool:
        """Whether one more connection of `address` is within the limit."""
        bucket = self._buckets.get(address)
        if bucket is None:
            bucket = self._buckets[address] = Bucket(self._per_minute / 60, max(1.0, self._per_minute / 4), self._clock)
        self._buckets.move_to_end(address)
        if len(self._buckets) > ADDRESSES_MAX:
            self._buckets.popitem(last=False)
        return bucket.allow()
