"""What the transport asks of a picture codec, and the slot that keeps only the newest picture.

`PictureSender` and `PictureReceiver` are structural: the pipeline's `Sender` and `Receiver` satisfy them without
knowing them.
"""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""RGB, uint8, (H, W, 3)."""


class Captured(NamedTuple):
    """A picture as the camera or the file gave it."""

    picture: Picture
    captured_ns: int  # hand-over by the source, time.monotonic_ns
    position: int  # counted by the source from 0, gaps where it dropped
    begun_ns: int = 0  # when the picture was due (a file) or came (a camera), time.monotonic_ns; 0 = not known


class Encoded(Protocol):
    """What the sender made of a picture."""

    @property
    def message(self) -> bytes: ...  # empty: nothing to send for this picture

    @property
    def repeat(self) -> bytes: ...  # what later packets repeat of it under loss; empty: nothing

    @property
    def kept(self) -> Picture | None: ...  # the picture as it was coded, the rest blanked: for the user's eyes


class Received(Protocol):
    """What the receiver made of a message."""

    @property
    def number(self) -> int: ...

    @property
    def feedback(self) -> bytes: ...  # supersedes all feedback before it; empty: none

    @property
    def urgent(self) -> bool: ...  # the sender should hear of this at once: a key has become complete

    @property
    def needs_intra(self) -> bool: ...  # there is nothing that this message can be shown with


class Shown(Protocol):
    """A picture to display."""

    @property
    def picture(self) -> Picture: ...

    @property
    def number(self) -> int: ...


class PictureSender(Protocol):
    """Pictures in, messages out. Called from one worker thread, one call at a time."""

    def encode(self, frame: Picture, number: int, captured_at: int) -> Encoded:
        """`captured_at` in ns of time.monotonic_ns; `number` rises by one a call that returned a message."""
        ...

    def feedback(self, data: bytes) -> None:
        """What the far receiver's `Received.feedback` said; raises BitstreamError on garbage."""
        ...

    def request_intra(self) -> None:
        """The far side has nothing to show: make the next message decodable by itself."""
        ...

    def set_rate(self, kbps: float, fps: float, burst: float = inf, narrow: bool = False) -> None:
        """Message bytes a second that may be spent, in kbit/s, and how many pictures a second there will be; how many
        bytes the next message may have before it stands in a queue; whether the path is known to be narrow, so that
        this is to be heeded."""
        ...


class PictureReceiver(Protocol):
    """Messages in, pictures out. Called from one worker thread, one call at a time."""

    def receive(self, message: bytes, arrived_at: int) -> Received:
        """Called for every message that arrived, in order; at most 2 ms; raises BitstreamError on garbage."""
        ...

    def render(self) -> Shown | None:
        """The picture of the newest message; None when there is nothing new to show."""
        ...


Item = TypeVar("Item")


class NewestSlot(Generic[Item]):
    """Holds one item; a newer one replaces it and is counted. Filled and emptied on one event loop."""

    def __init__(self, on_replaced: Callable[[], Any] = lambda: None) -> None:
        self._item: Item | None = None
        self._ready = asyncio.Event()
        self._on_replaced = on_replaced

    def put(self, item: Item) -> None:
        """Keep `item`, in place of one that nobody has taken."""
        if self._item is not None:
            self._on_replaced()
        self._item = item
        self._ready.set()

    async def take(self) -> Item:
        """Wait for an item and take it out."""
        while self._item is None:
            self._ready.clear()
            await self._ready.wait()
        item, self._item = self._item, None
        return item
