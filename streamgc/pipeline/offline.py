"""A call without a network: the same messages, one after the other, with acknowledgements that come late."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgc.pipeline.receiver import Receiver, Shown
from streamgc.pipeline.sender import Sender

Picture = NDArray[np.uint8]


class Coded(NamedTuple):
    """A frame of an offline call."""

    message: bytes
    kept: Picture
    code_bytes: int
    object_bytes: int


def encode_pictures(
    pictures: Iterable[Picture], sender: Sender, mirror: Receiver, fps: float, ack_delay_ms: float
) -> Iterator[Coded]:
    """Messages of pictures as a call sends them.

    ``mirror`` stands for the far receiver (its generator is never run): what it confirms reaches the sender ``ack_delay_ms`` later,
    so that the rates are those of a call with that round trip.
    """
    late: deque[tuple[float, bytes]] = deque()
    for number, picture in enumerate(pictures):
        now = number * 1000 / fps
        while late and late[0][0] <= now:
            sender.feedback(late.popleft()[1])
        sent = sender.encode(picture, number)
        taken = mirror.receive(sent.message)
        late.append((now + ack_delay_ms, taken.feedback))
        yield Coded(sent.message, sent.kept, sent.code_bytes, sent.object_bytes)


def decode_messages(messages: Iterable[bytes], receiver: Receiver) -> Iterator[Shown | None]:
    """A picture for each message; None where there is nothing to show yet."""
    for message in messages:
        receiver.receive(message)
        yield receiver.render()
