"""What the other side sees of me: our own messages, decoded by a second receiver on this machine.

The far side may lose packets and chooses its own picture for `replace` and its own style for `private`; apart from
that it is the same decoder on the same bytes.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from streamgc.call.codec import Codec
from streamgc.profiling.spans import Spans
from streamgc.rtc.pictures import Picture, PictureReceiver
from streamgc.rtc.worker import Worker

_log = logging.getLogger(__name__)

WAITING_MAX = 256
"""Messages that may wait; beyond that the mirror begins anew with the next key."""


class _Message(NamedTuple):
    data: bytes
    at_ns: int


class Mirror:
    """Decodes every message, and renders them only while somebody looks."""

    def __init__(self, codec: Codec, on_picture: Callable[[Picture], None]) -> None:
        self.looking = False
        self._codec, self._on_picture = codec, on_picture
        self._receiver: PictureReceiver | None = None
        self._waiting: deque[_Message] = deque(maxlen=WAITING_MAX)
        self._filled = asyncio.Event()
        self._worker = Worker("sgc-mirror")
        self._task = asyncio.create_task(self._run(), name="sgc-mirror")

    def restart(self) -> None:
        """A new connection: begin with a receiver in its first state."""
        self._waiting.clear()
        self._receiver = self._codec.receiver(Spans(enabled=False))

    def take(self, message: bytes, at_ns: int) -> None:
        """A message that has been sent."""
        self._waiting.append(_Message(message, at_ns))
        self._filled.set()

    async def close(self) -> None:
        """End the task and the thread."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._worker.close()

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            batch, receiver, looking = list(self._waiting), self._receiver, self.looking
            self._waiting.clear()
            if not batch or receiver is None:
                continue
            picture = await self._worker.run(lambda b=batch, r=receiver, w=looking: _decode(b, r, w))  # type: ignore[misc]
            if picture is not None and receiver is self._receiver:
                self._on_picture(picture)


def _decode(batch: list[_Message], receiver: PictureReceiver, looking: bool) -> Picture | None:
    """On the worker's thread; a message that cannot be decoded costs a picture."""
    try:
        for message in batch:
            receiver.receive(message.data, message.at_ns)
        shown = receiver.render() if looking else None
    except Exception as error:
        _log.warning("the mirror could not decode a message: %s", error)
        return None
    return None if shown is None else shown.picture
