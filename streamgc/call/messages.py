"""What clients and the rendezvous server say to each other: JSON over a WebSocket, typed and of limited size.

The order: `Join` → `Joined` (or `Refused`); when both peers are there the one that came second sends
`Describe(offer)`, the other answers with `Describe(answer)`, and the first ends with `Reveal` (what for: see
authentication.py). A peer that comes back after an outage joins with the `peer` it was given and takes its old place.
"""

from enum import StrEnum
from typing import Annotated, Literal, TypeVar

import msgspec

from streamgc.errors import SignallingError

Parsed = TypeVar("Parsed")

PROTOCOL = 1
MESSAGE_MAX = 65_536
"""Bytes of one WebSocket message."""

Room = Annotated[str, msgspec.Meta(min_length=16, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
PeerId = Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[A-Za-z0-9_-]*$")]
DescriptionText = Annotated[str, msgspec.Meta(max_length=32_768)]
Hex256 = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?$")]
"""256 bits, or nothing from a peer that has no authentication string to offer."""


class Refusal(StrEnum):
    """Why the server refuses; each is a kind in its metrics."""

    MALFORMED = "malformed"
    WRONG_VERSION = "wrong-version"
    NO_SUCH_ROOM = "no-such-room"
    ROOM_FULL = "room-full"
    ALREADY_JOINED = "already-joined"
    NOT_JOINED = "not-joined"
    NO_PEER = "no-peer"
    TOO_FAST = "too-fast"
    TOO_MANY = "too-many"
    REPLACED = "replaced"
    EXPIRED = "expired"
    UNAVAILABLE = "unavailable"


class Join(msgspec.Struct, tag="join", frozen=True, forbid_unknown_fields=True):
    """Enter a room."""

    room: Room
    protocol: int = PROTOCOL
    peer: PeerId = ""


class Describe(msgspec.Struct, tag="describe", frozen=True, forbid_unknown_fields=True):
    """A session description for the other peer; the server passes it on unread."""

    kind: Literal["offer", "answer"]
    text: DescriptionText
    proof: Hex256 = ""  # of an offer the commitment to a nonce, of an answer a nonce


class Reveal(msgspec.Struct, tag="reveal", frozen=True, forbid_unknown_fields=True):
    """The nonce that an offer has committed to."""

    nonce: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]


class Leave(msgspec.Struct, tag="leave", frozen=True, forbid_unknown_fields=True):
    """Leave the room for good."""


class IceServer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A STUN or TURN server, with the names that browsers use."""

    urls: tuple[Annotated[str, msgspec.Meta(max_length=256)], ...]
    username: Annotated[str, msgspec.Meta(max_length=256)] = ""
    credential: Annotated[str, msgspec.Meta(max_length=256)] = ""


class Joined(msgspec.Struct, tag="joined", frozen=True):
    """You are in; with a peer present it is on you to make the offer."""

    peer_present: bool
    peer: PeerId
    ice: tuple[IceServer, ...] = ()  # what helps to reach the other side


class PeerJoined(msgspec.Struct, tag="peer-joined", frozen=True):
    """The other one has come (or come back) and will make an offer."""


class PeerLeft(msgspec.Struct, tag="peer-left", frozen=True):
    """The other one has gone: by its own will, or because its connection to the server broke."""

    deliberate: bool


class Refused(msgspec.Struct, tag="refused", frozen=True):
    """What was asked for is not done."""

    code: Refusal
    text: str


FromClient = Join | Describe | Reveal | Leave
FromServer = Joined | PeerJoined | PeerLeft | Describe | Reveal | Refused


class RoomMade(msgspec.Struct, frozen=True):
    """The answer to `POST /rooms`."""

    room: Room


_FROM_CLIENT: msgspec.json.Decoder[FromClient] = msgspec.json.Decoder(FromClient)
_FROM_SERVER: msgspec.json.Decoder[FromServer] = msgspec.json.Decoder(FromServer)


def encode(message: FromClient | FromServer | RoomMade) -> bytes:
    """The message as JSON."""
    return msgspec.json.encode(message)


def parse_from_client(data: bytes | str) -> FromClient:
    """Raises `SignallingError` for anything that is no message of a client."""
    return _parse(_FROM_CLIENT, data)


def parse_from_server(data: bytes | str) -> FromServer:
    """Raises `SignallingError` for anything that is no message of a server."""
    return _parse(_FROM_SERVER, data)


def _parse(decoder: msgspec.json.Decoder[Parsed], data: bytes | str) -> Parsed:
    if len(data) > MESSAGE_MAX:
        raise SignallingError(f"a signalling message of more than {MESSAGE_MAX} bytes")
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise SignallingError("not a signalling message") from error
