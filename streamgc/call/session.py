"""One side of a call, from joining the room to leaving it – over as many peer connections as the network makes
necessary.

Who comes second makes the offer. After an outage whoever notices first joins again under the peer id it was given,
and so makes the offer; the other, told that its peer has come, drops its old connection and answers.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from aiortc import RTCIceServer

from streamgc.call.authentication import Handshake
from streamgc.call.codec import Codec
from streamgc.call.ice import told_servers
from streamgc.call.live import LiveFeed
from streamgc.call.messages import Describe, FromServer, IceServer, PeerJoined, PeerLeft, Refusal, Refused, Reveal
from streamgc.call.rendezvous import GONE, Rendezvous
from streamgc.errors import CallError, PeerUnreachable, SignallingError
from streamgc.profiling.spans import Spans
from streamgc.rtc.connection import Connection, ConnectionOptions
from streamgc.rtc.fingerprints import fingerprints
from streamgc.rtc.opus import Samples
from streamgc.rtc.pictures import Captured, Encoded, Picture, Shown
from streamgc.rtc.snapshot import Snapshots
from streamgc.rtc.sound import Sound
from streamgc.rtc.statistics import Statistics

_log = logging.getLogger(__name__)

LEAVING_S = 1.0
OUTAGE_S = 6.0
"""Silence after which a new connection is tried, while the old one might still recover."""

HANDSHAKE_S = 1.0
"""The shortest time between two connections: a server that hopes for equal authentication codes has few attempts."""

RETRY_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Pauses between attempts to join again; the last is repeated in a call that was up, and ends one that never was."""


class Event(StrEnum):
    """What the user should be told."""

    WAITING = "waiting for the other side"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    SILENT = "the other side is silent"
    RECONNECTING = "reconnecting"
    LEFT = "the other side has left"


@dataclass(frozen=True)
class SessionOptions:
    """How to find the peer and what to exchange with it."""

    server: str
    room: str
    connection: ConnectionOptions
    ticket: str = ""
    send: bool = True
    receive: bool = True
    connect_timeout_s: float = 20.0
    rejoin: bool = True  # after an outage, for as long as it takes


@dataclass
class Hooks:
    """Called on the event loop; all optional."""

    shown: Callable[[Picture, int | None, int], None] = lambda picture, number, at_ns: None
    sent: Callable[[int, Captured, Encoded], None] = lambda number, captured, encoded: None
    event: Callable[[Event, str], None] = lambda event, text: None
    statistics: Callable[[Statistics, Snapshots], None] = lambda statistics, snapshots: None
    new_connection: Callable[[Connection], None] = field(default=lambda connection: None)
    code: Callable[[str], None] = lambda code: None  # the authentication string; empty = there is none to compare
    heard: Callable[[Samples, int], None] = lambda samples, at_ns: None  # 20 ms of 48 kHz mono int16, and when
    plain: Callable[[int | None, int], None] = lambda captured_ns, at_ns: None  # shown; for a peer on this machine


class Session:
    """A call. `run` returns when the peer leaves (or `stop` was called) and raises when it cannot go on."""

    def __init__(self, options: SessionOptions, codec: Codec, hooks: Hooks | None = None) -> None:
        self._options, self._codec, self._hooks = options, codec, hooks or Hooks()
        self.connection: Connection | None = None
        self.connected = asyncio.Event()
        self._stopped = asyncio.Event()
        self._changed = asyncio.Event()
        self._muted = False
        self._peer = ""
        self._ice: tuple[IceServer, ...] = ()
        self._snapshots: Snapshots | None = None
        self._live = LiveFeed()
        self._handshake: Handshake | None = None
        self._code: str | None = None  # None = not known yet
        self._last_handshake = -HANDSHAKE_S

    def put(self, captured: Captured) -> None:
        """Send a picture, if there is somebody to send it to."""
        if self.connection is not None:
            self.connection.put(captured)

    def put_sound(self, sound: Sound) -> None:
        """Send sound, if the options have it and there is somebody to send it to."""
        if self.connection is not None:
            self.connection.put_sound(sound)

    def mute(self, muted: bool) -> None:
        """Send no sound from now on, over whatever connections, or send it again."""
        self._muted = muted
        if self.connection is not None:
            self.connection.mute(muted)

    async def send_all(self, pictures: AsyncIterator[Captured]) -> None:
        """Send everything a source gives, from when the call is connected, then leave."""
        await self.connected.wait()
        async for captured in pictures:
            self.put(captured)
        self.stop()

    def stop(self) -> None:
        """Leave the call."""
        self._stopped.set()

    async def run(self) -> None:
        """The whole call. Raises `SignallingError`, `PeerUnreachable`, `CallError`."""
        await self._live.open()
        try:
            await self._stay_until_over()
        finally:
            await self._live.close()

    async def _stay_until_over(self) -> None:
        attempt = 0
        while not self._stopped.is_set():
            try:
                rejoin = await self._stay(attempt)
            except (SignallingError, PeerUnreachable) as error:
                if not self._may_try_again(error, attempt):
                    raise
                rejoin = True
                await self._pause(RETRY_S[min(attempt, len(RETRY_S) - 1)])
                attempt += 1
            else:
                attempt = 0
            finally:
                await self._drop()
            if not rejoin:
                return
            self._hooks.event(Event.RECONNECTING, "")

    def _may_try_again(self, error: CallError, attempt: int) -> bool:
        """A call that was up comes back for as long as it takes; one that is being set up survives its server."""
        if not self._peer or not self._options.rejoin:
            return False
        if self.connected.is_set():
            return True
        gone = isinstance(error, SignallingError) and error.kind in (GONE, Refusal.UNAVAILABLE.value)
        return gone and attempt < len(RETRY_S)

    async def _stay(self, attempt: int) -> bool:
        """Join and hold the call until it ends (False) or must be set up anew (True)."""
        options = self._options
        async with Rendezvous(options.server, options.room, options.ticket, self._peer) as rendezvous:
            self._peer, self._ice = rendezvous.peer, rendezvous.ice
            try:
                if rendezvous.peer_present:
                    await self._offer(rendezvous)
                else:
                    self._hooks.event(Event.WAITING, "")
                rejoin = await self._hold(rendezvous)
            except (SignallingError, PeerUnreachable) as error:
                rendezvous.leaving = not self._may_try_again(error, attempt)  # who leaves ends the other's call
                raise
            rendezvous.leaving = not rejoin
            return rejoin

    async def _hold(self, rendezvous: Rendezvous) -> bool:
        """Serve signalling and watch the connection at once."""
        receiving = asyncio.create_task(rendezvous.receive())
        stopping = asyncio.create_task(self._stopped.wait())
        beat = asyncio.create_task(self._beat())
        server_gone = False
        try:
            while True:
                waiting = {stopping, beat} if server_gone else {receiving, stopping, beat}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if stopping.done():
                    return False
                if beat.done():
                    return await beat
                try:
                    message = receiving.result()
                except SignallingError:
                    # media needs no server: a call that is up goes on without it
                    if self.connection is None or self.connection.state not in ("connected", "silent"):
                        raise
                    server_gone = True
                    continue
                if not await self._handle(message, rendezvous):
                    return False
                receiving = asyncio.create_task(rendezvous.receive())
        finally:
            for task in (receiving, stopping, beat):
                task.cancel()
            await asyncio.gather(receiving, stopping, beat, return_exceptions=True)

    async def _handle(self, message: FromServer, rendezvous: Rendezvous) -> bool:
        """Take one message of the server; False when the call is over."""
        if isinstance(message, PeerJoined):
            await self._drop()
        elif isinstance(message, Refused):  # our description came when the other side had just gone
            await self._drop()
            self._hooks.event(Event.WAITING, "")
        elif isinstance(message, PeerLeft) and message.deliberate:
            self._hooks.event(Event.LEFT, "")
            return False
        elif isinstance(message, Describe) and message.kind == "offer":
            connection = await self._new_connection()
            handshake = self._handshake = Handshake(offers=False)
            handshake.take_proof(message.proof)
            await rendezvous.send(Describe("answer", await connection.answer(message.text), handshake.proof))
            if not message.proof:
                self._tell_code("")
            self._hooks.event(Event.CONNECTING, connection.failure or "")
        elif isinstance(message, Describe) and self.connection is not None:
            await self.connection.accept(message.text)
            if self._handshake is not None and message.proof:
                self._handshake.take_proof(message.proof)
                await rendezvous.send(Reveal(self._handshake.revealed))
                self._compare()
            else:
                self._tell_code("")
            self._hooks.event(Event.CONNECTING, self.connection.failure or "")
        elif isinstance(message, Reveal) and self._handshake is not None:
            if self._handshake.take_revealed(message.nonce):
                self._compare()
            else:
                _log.warning("the other side's nonce is not the one it had committed to")
                self._tell_code("")
        return True

    async def _offer(self, rendezvous: Rendezvous) -> None:
        connection = await self._new_connection()
        self._handshake = Handshake(offers=True)
        await rendezvous.send(Describe("offer", await connection.offer(), self._handshake.proof))

    def _compare(self) -> None:
        """Tell the authentication string once both nonces and both certificates are known."""
        if self.connection is None or self._handshake is None or self.connection.state not in ("connected", "silent"):
            return
        certificates = fingerprints(self.connection.pc)
        code = self._handshake.code(certificates) if certificates is not None else ""
        if code or certificates is None:
            self._tell_code(code)

    def _tell_code(self, code: str) -> None:
        if code != self._code:
            self._code = code
            self._hooks.code(code)

    async def _beat(self) -> bool:
        """Once a second: statistics, and whether the connection is still good. Returns whether to join again."""
        waited = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._changed.wait()
            changed = self._changed.is_set()
            self._changed.clear()
            connection = self.connection
            if connection is None:
                continue
            if not changed and self._snapshots is not None:
                self._tell_statistics(self._snapshots)
            if connection.state in ("connected", "silent"):
                waited = 0.0
                if self._options.rejoin and connection.heard.silent_s > OUTAGE_S:
                    return True
                continue
            waited += 0.0 if changed else 1.0
            if connection.state == "failed" and waited >= LEAVING_S:  # a peer that leaves says so, a moment later
                if self.connected.is_set() and self._options.rejoin:
                    return True
                raise CallError(connection.failure or "the connection failed")
            if waited >= self._options.connect_timeout_s:
                await connection.connected(timeout=0.01)

    async def _new_connection(self) -> Connection:
        await self._drop()
        await self._pause(self._last_handshake + HANDSHAKE_S - time.monotonic())
        self._last_handshake = time.monotonic()
        self._code = None
        spans, options = Spans(), self._options
        hooks = self._hooks
        self.connection = Connection(
            replace(options.connection, model=self._codec.model_hash, ice_servers=self._ice_servers()),
            sender=self._codec.sender(spans) if options.send else None,
            receiver=self._codec.receiver(spans) if options.receive else None,
            on_shown=self._on_shown,
            on_sent=self._on_sent,
            on_state=self._on_state,
            on_plain=self._on_plain,
            conventional=self._codec.conventional(),
            spans=spans,
            on_sound=hooks.heard,
        )
        self.connection.mute(self._muted)
        self._snapshots = Snapshots(self.connection, self._codec.engine)
        hooks.new_connection(self.connection)
        return self.connection

    def _ice_servers(self) -> tuple[RTCIceServer, ...]:
        """Our own servers before those that the rendezvous server tells: aiortc takes the first of each kind."""
        return (*self._options.connection.ice_servers, *told_servers(self._ice))

    def _on_plain(self, picture: Picture, at_ns: int, captured_ns: int | None) -> None:
        self._hooks.shown(picture, None, at_ns)
        self._hooks.plain(captured_ns, at_ns)

    def _on_sent(self, number: int, captured: Captured, encoded: Encoded) -> None:
        self._live.sent(number, captured.captured_ns, len(encoded.message))
        self._hooks.sent(number, captured, encoded)

    def _on_shown(self, shown: Shown, at_ns: int) -> None:
        self._live.shown(shown.number, at_ns)
        self._hooks.shown(shown.picture, shown.number, at_ns)

    def _on_state(self, state: str) -> None:
        if state == "connected":
            self.connected.set()
            self._hooks.event(Event.CONNECTED, "")
            self._compare()
        elif state == "silent":
            self._hooks.event(Event.SILENT, "")
        self._changed.set()

    async def _drop(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            if self._snapshots is not None:
                self._tell_statistics(self._snapshots)
            await connection.close()

    def _tell_statistics(self, snapshots: Snapshots) -> None:
        statistics = snapshots.take()
        self._live.second(statistics, snapshots.spans)
        self._hooks.statistics(statistics, snapshots)

    async def _pause(self, seconds: float) -> None:
        if seconds <= 0:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
