"""Rooms of two. `Hub` says what a server needs of them; `MemoryHub` keeps them in one process."""

import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from streamgc.call.messages import Describe, FromServer, Joined, PeerJoined, PeerLeft, Refusal, Refused, Reveal

from .tickets import make_room

PEERS_MAX = 2

Deliver = Callable[[FromServer], Awaitable[None]]
"""Hands a message to a connected peer; `Refused(REPLACED)` also ends its connection."""


class HubError(Exception):
    """A refusal; the server tells the peer."""

    def __init__(self, code: Refusal, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class Place(NamedTuple):
    """A peer's seat in a room."""

    room: str
    peer: str
    connection: str  # changes when the peer comes back


class Hub(Protocol):
    """Where rooms live. All methods raise `HubError` to refuse."""

    async def create(self) -> str:
        """Make a room; returns its token."""
        ...

    async def join(self, room: str, peer: str, deliver: Deliver) -> Place:
        """Take a place (the old one if `peer` has one there). The peer hears `Joined` before anything else, then the
        other one `PeerJoined`."""
        ...

    async def pass_on(self, place: Place, message: Describe | Reveal) -> None:
        """Give a message to the other peer."""
        ...

    async def leave(self, place: Place, deliberate: bool) -> None:
        """Free a place and tell the other peer why; nothing happens when the peer has come back since."""
        ...

    async def counts(self) -> tuple[int, int]:
        """Rooms and peers."""
        ...

    async def close(self) -> None:
        """Let go of whatever is held."""
        ...


@dataclass
class _Seat:
    connection: str
    deliver: Deliver


@dataclass
class _Room:
    seats: dict[str, _Seat] = field(default_factory=dict)
    empty_since: float = field(default_factory=time.monotonic)


class MemoryHub:
    """Rooms in this process."""

    def __init__(self, rooms_max: int, expiry_s: float) -> None:
        self._rooms: dict[str, _Room] = {}
        self._rooms_max, self._expiry_s = rooms_max, expiry_s

    async def create(self) -> str:
        """As `Hub.create`; refuses when there are too many rooms."""
        if len(self._rooms) >= self._rooms_max:
            self._forget()
        if len(self._rooms) >= self._rooms_max:
            raise HubError(Refusal.TOO_MANY, "this server has no room left; try again later")
        room = make_room()
        self._rooms[room] = _Room()
        return room

    async def join(self, room: str, peer: str, deliver: Deliver) -> Place:
        """As `Hub.join`."""
        found = self._rooms.get(room)
        if found is None or self._is_old(found):
            raise HubError(Refusal.NO_SUCH_ROOM, "there is no such room, or it has expired")
        old = found.seats.get(peer) if peer else None
        if old is None and len(found.seats) >= PEERS_MAX:
            raise HubError(Refusal.ROOM_FULL, "two people are in this room already")
        name = peer if old is not None else secrets.token_urlsafe(12)
        place = Place(room, name, secrets.token_hex(8))
        found.seats[name] = _Seat(place.connection, deliver)
        if old is not None:
            await old.deliver(Refused(Refusal.REPLACED, "you have joined from elsewhere"))
        await deliver(Joined(bool(self._others(place)), name))
        for seat in self._others(place):
            await seat.deliver(PeerJoined())
        return place

    async def pass_on(self, place: Place, message: Describe | Reveal) -> None:
        """As `Hub.pass_on`."""
        others = self._others(place)
        if not others:
            raise HubError(Refusal.NO_PEER, "nobody else is in the room")
        for seat in others:
            await seat.deliver(message)

    async def leave(self, place: Place, deliberate: bool) -> None:
        """As `Hub.leave`."""
        found = self._rooms.get(place.room)
        seat = found.seats.get(place.peer) if found else None
        if found is None or seat is None or seat.connection != place.connection:
            return
        del found.seats[place.peer]
        found.empty_since = time.monotonic()
        for other in list(found.seats.values()):
            await other.deliver(PeerLeft(deliberate))

    async def counts(self) -> tuple[int, int]:
        """As `Hub.counts`; expired rooms are forgotten first."""
        self._forget()
        return len(self._rooms), sum(len(room.seats) for room in self._rooms.values())

    async def close(self) -> None:
        """As `Hub.close`."""
        self._rooms.clear()

    def _others(self, place: Place) -> list[_Seat]:
        found = self._rooms.get(place.room)
        return [seat for name, seat in found.seats.items() if name != place.peer] if found else []

    def _is_old(self, room: _Room) -> bool:
        return not room.seats and time.monotonic() - room.empty_since > self._expiry_s

    def _forget(self) -> None:
        for token in [token for token, room in self._rooms.items() if self._is_old(room)]:
            del self._rooms[token]
