"""The client's side of the rendezvous server.

By `websockets`, not by aiohttp, which serves: a call waits for what it imports, and for aiohttp 0.1 s longer.
"""

import asyncio
import contextlib
from http.client import HTTPException
from types import TracebackType
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from streamgc.call.messages import (
    MESSAGE_MAX,
    FromClient,
    FromServer,
    IceServer,
    Join,
    Joined,
    Leave,
    Refusal,
    Refused,
    RoomMade,
    encode,
    parse_from_server,
)
from streamgc.errors import SignallingError

GONE = "server-gone"
"""`SignallingError.kind` of a server that does not answer, or no longer."""

REPLY_S = 10.0
"""The longest wait for the server's answer."""
PING_S, PONG_S = 10.0, 5.0
"""How often the server is asked whether it is there, and how long it may take to say so."""
CLOSE_S = 1.0
"""The longest wait for the server's good-bye."""


def server_url(text: str) -> str:
    """The base URL of a server as a user writes it: `host:port`, http, https, ws or wss; raises `SignallingError`."""
    parts = urlsplit(text if "://" in text else f"http://{text}")
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if scheme not in ("http", "https") or not parts.hostname or port == -1:
        raise SignallingError(f"not the address of a signalling server: {text}")
    return f"{scheme}://{parts.netloc.rpartition('@')[2]}"


def parse_link(text: str, server: str) -> tuple[str, str]:
    """(server, room) of what a user pastes: a token, `host/token`, or a link; `server` where it names none.

    Raises `SignallingError` for a link to what is no server.
    """
    head, _, room = text.strip().rstrip("/").rpartition("/")
    return (server_url(head) if head else server), room


async def make_room(server: str, ticket: str = "") -> str:
    """Ask for a new room; returns its token. Raises `SignallingError`."""
    url = server_url(server)
    try:
        return msgspec.json.decode(await asyncio.to_thread(_post, f"{url}/rooms", ticket), type=RoomMade).room
    except OSError as error:  # a time-out and a broken certificate too
        raise SignallingError(f"no signalling server at {url}", GONE) from error
    except msgspec.MsgspecError as error:
        raise SignallingError(f"what answers at {url} is no signalling server") from error


def _post(url: str, ticket: str) -> bytes:
    """What the server answers to a request without a body. Raises OSError and `SignallingError`."""
    request = Request(url, b"", _authorization(ticket), method="POST")
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=REPLY_S) as reply:
            return bytes(reply.read(MESSAGE_MAX))
    except HTTPError as error:
        text = error.read(200).decode(errors="replace")
        raise SignallingError(f"the signalling server refused: {text}") from error
    except HTTPException as error:
        raise SignallingError(f"what answers at {url} is no signalling server") from error


class Rendezvous:
    """One place in one room.

    async with Rendezvous(server, room) as rendezvous:
        await rendezvous.send(Describe("offer", text))
        message = await rendezvous.receive()
    """

    def __init__(self, server: str, room: str, ticket: str = "", peer: str = "") -> None:
        self.peer = peer  # given by the server; kept, it gets the place back after an outage
        self.peer_present = False
        self.ice: tuple[IceServer, ...] = ()  # what the server says helps to reach the peer
        self.leaving = True  # whether the end of the block means leaving for good
        self._url, self._room, self._ticket = server_url(server), room, ticket
        self._socket: ClientConnection | None = None

    async def __aenter__(self) -> "Rendezvous":
        try:
            await self._join()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.leaving:
            with contextlib.suppress(SignallingError):
                await self.send(Leave())
        await self._close()

    async def send(self, message: FromClient) -> None:
        """Raises `SignallingError` when the server is gone."""
        if self._socket is None:
            raise SignallingError("the signalling server is gone", GONE)
        try:
            await self._socket.send(encode(message).decode())
        except ConnectionClosed as error:
            raise SignallingError("the signalling server is gone", GONE) from error

    async def receive(self) -> FromServer:
        """The next message; raises `SignallingError` when the server is gone or refuses.

        That the other side has just gone is nothing to give up for: `Refused(NO_PEER)` is returned.
        """
        assert self._socket is not None
        try:
            message = await self._socket.recv()
        except ConnectionClosed as error:
            raise SignallingError("the signalling server is gone", GONE) from error
        if isinstance(message, bytes):
            raise SignallingError("the signalling server sends what it should not")
        parsed = parse_from_server(message)
        if isinstance(parsed, Refused) and parsed.code is not Refusal.NO_PEER:
            raise SignallingError(parsed.text, parsed.code.value)
        return parsed

    async def _join(self) -> None:
        try:
            async with asyncio.timeout(REPLY_S):
                self._socket = await connect(
                    f"ws{self._url.removeprefix('http')}/ws",
                    additional_headers=_authorization(self._ticket),
                    compression=None,
                    proxy=None,
                    ping_interval=PING_S,
                    ping_timeout=PONG_S,
                    close_timeout=CLOSE_S,
                    max_size=MESSAGE_MAX,
                )
                await self.send(Join(self._room, peer=self.peer))
                reply = await self.receive()
        except InvalidStatus as error:
            raise SignallingError(f"the signalling server refused: {error.response.status_code}") from error
        except InvalidMessage as error:
            raise SignallingError(f"no signalling server at {self._url}", GONE) from error
        except InvalidHandshake as error:
            raise SignallingError(f"what answers at {self._url} is no signalling server") from error
        except OSError as error:
            raise SignallingError(f"no signalling server at {self._url}", GONE) from error
        if not isinstance(reply, Joined):
            raise SignallingError("the signalling server answered out of turn")
        self.peer, self.peer_present, self.ice = reply.peer, reply.peer_present, reply.ice

    async def _close(self) -> None:
        if self._socket is not None:
            await self._socket.close()


def _authorization(ticket: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {ticket}"} if ticket else {}
