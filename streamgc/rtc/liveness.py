"""Whether the peer is still there.

aioice asks every five seconds and gives up after six unanswered questions, none of which it repeats: with 20 % loss
each way that ends most calls within the hour. Here a packet that the peer authenticated counts as its answer, so that
questions are asked only in silence, and only a long silence ends the connection.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aioice import stun

SILENCE_S = 3.0
"""Without a packet for so long the peer is said to be silent."""

GIVE_UP_S = 30.0
"""Without a packet for so long the connection is closed."""

_ASK_AFTER_S = 2.0


class Heard:
    """When the peer was last heard: authenticated media, or an answer to a consent check."""

    def __init__(self) -> None:
        self.last_ns = time.monotonic_ns()

    def note(self) -> None:
        """The peer was heard just now."""
        self.last_ns = time.monotonic_ns()

    @property
    def silent_s(self) -> float:
        """Seconds since."""
        return (time.monotonic_ns() - self.last_ns) / 1e9


def consent(connection: Any, heard: Heard) -> Callable[[], Awaitable[None]]:
    """A replacement for `aioice.Connection.query_consent` of one connection (RFC 7675, with media as consent)."""

    async def query() -> None:
        heard.note()
        while heard.silent_s < GIVE_UP_S:
            if connection._closing:  # closed while it was connecting
                return
            await asyncio.sleep(1.0)
            if heard.silent_s < _ASK_AFTER_S:
                continue
            for pair in list(connection._nominated.values()):
                request = connection.build_request(pair, nominate=False)
                key = connection.remote_password.encode("utf8")
                try:
                    await pair.protocol.request(request, pair.remote_addr, integrity_key=key, retransmissions=0)
                except stun.TransactionError:
                    continue
                heard.note()
        connection._query_consent_task = None
        await connection.close()

    return query
