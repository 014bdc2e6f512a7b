"""HTTP and WebSocket: `POST /rooms`, `GET /ws`, `/healthz`, `/metrics`, and the page of a room's link.

Nothing about a peer is logged but what kind of thing happened: no address, no room token, no session description.
"""

import asyncio
import contextlib
import json
import logging
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from aiohttp import WSMsgType, web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest

from streamgc.call.messages import (
    MESSAGE_MAX,
    PROTOCOL,
    Describe,
    FromServer,
    Join,
    Joined,
    Leave,
    Refusal,
    Refused,
    Reveal,
    RoomMade,
    encode,
    parse_from_client,
)
from streamgc.errors import InputError, SignallingError

from . import guest_page
from .hub import Hub, HubError, MemoryHub, Place
from .limits import AddressLimit, Bucket
from .settings import Settings
from .tickets import is_valid

MALFORMED_MAX = 10
"""Malformed messages after which a connection is closed."""

_log = logging.getLogger("streamgc.signaling")


@dataclass
class _Metrics:
    """Counted since the start; `/metrics` shows them."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.joined = Counter("streamgc_joined", "Peers that took a place", registry=self.registry)
        self.passed = Counter("streamgc_descriptions", "Session descriptions passed on", registry=self.registry)
        self.refused = Counter("streamgc_refused", "Refusals by kind", ["kind"], registry=self.registry)
        self.rooms = Gauge("streamgc_rooms", "Rooms", registry=self.registry)
        self.peers = Gauge("streamgc_peers", "Peers with a place", registry=self.registry)


class Server:
    """The handlers of one application."""

    def __init__(self, settings: Settings, hub: Hub) -> None:
        self._settings, self._hub = settings, hub
        self._metrics = _Metrics()
        self._addresses = AddressLimit(settings.connections_per_minute)

    async def make_room(self, request: web.Request) -> web.Response:
        """`POST /rooms`: a new room."""
        self._admit(request)
        try:
            room = await self._hub.create()
        except HubError as error:
            self._note(error.code)
            raise web.HTTPServiceUnavailable(text=error.text) from error
        return web.Response(body=encode(RoomMade(room)), content_type="application/json")

    async def healthz(self, request: web.Request) -> web.Response:
        """`GET /healthz`: whether the hub answers; 503 when it does not."""
        rooms, peers = await self._counts()
        return web.json_response({"status": "ok", "rooms": rooms, "peers": peers})

    async def metrics(self, request: web.Request) -> web.Response:
        """`GET /metrics`: for Prometheus."""
        rooms, peers = await self._counts()
        self._metrics.rooms.set(rooms)
        self._metrics.peers.set(peers)
        return web.Response(body=generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def websocket(self, request: web.Request) -> web.WebSocketResponse:
        """`GET /ws`: one peer."""
        self._admit(request)
        socket = web.WebSocketResponse(
            heartbeat=self._settings.heartbeat_s, max_msg_size=MESSAGE_MAX, compress=False, timeout=2.0
        )
        await socket.prepare(request)
        await _Peer(socket, self._hub, self._settings, self._metrics, self._note).run()
        return socket

    async def _counts(self) -> tuple[int, int]:
        try:
            return await self._hub.counts()
        except HubError as error:
            raise web.HTTPServiceUnavailable(text=error.text) from error

    def _admit(self, request: web.Request) -> None:
        """Raise the HTTP error of whoever may not come in."""
        origin = request.headers.get("Origin")
        own = origin is not None and _host_of(origin) == request.host  # the page of a room's link
        if origin is not None and self._settings.origins and origin not in self._settings.origins and not own:
            self._metrics.refused.labels("origin").inc()
            raise web.HTTPForbidden(text="this page may not use this server")
        if not self._addresses.allow(self._address(request)):
            self._note(Refusal.TOO_FAST)
            raise web.HTTPTooManyRequests(text="too many connections from this address")
        if self._settings.secret and not is_valid(_ticket(request), self._settings.secret):
            self._metrics.refused.labels("ticket").inc()
            raise web.HTTPUnauthorized(text="a valid ticket is needed")

    def _address(self, request: web.Request) -> str:
        if self._settings.behind_proxy:
            forwarded = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
            return forwarded or request.remote or ""
        return request.remote or ""

    def _note(self, kind: Refusal) -> None:
        self._metrics.refused.labels(kind.value).inc()
        _log.info("refused", extra={"kind": kind.value})


class _Peer:
    """One WebSocket connection."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        hub: Hub,
        settings: Settings,
        metrics: _Metrics,
        note: Callable[[Refusal], None],
    ) -> None:
        self._socket, self._hub, self._metrics, self._note = socket, hub, metrics, note
        self._relay = settings.relay
        self._bucket = Bucket(settings.messages_per_second, settings.messages_per_second)
        self._place: Place | None = None
        self._malformed = 0
        self._deliberate = False

    async def run(self) -> None:
        """Serve until the peer goes or must go."""
        try:
            async for message in self._socket:
                if message.type is not WSMsgType.TEXT or not await self._handle(message.data):
                    break
        finally:
            if self._place is not None:
                await self._hub.leave(self._place, self._deliberate)
            await self._socket.close()

    async def _handle(self, data: str) -> bool:
        """Take one message; False when the connection should end."""
        if not self._bucket.allow():
            await self._refuse(Refusal.TOO_FAST, "too many messages")
            return False
        try:
            message = parse_from_client(data)
        except SignallingError as error:
            self._malformed += 1
            await self._refuse(Refusal.MALFORMED, str(error))
            return self._malformed < MALFORMED_MAX
        try:
            return await self._act(message)
        except HubError as error:
            await self._refuse(error.code, error.text)
            return error.code not in (Refusal.NO_SUCH_ROOM, Refusal.ROOM_FULL)

    async def _act(self, message: Join | Describe | Reveal | Leave) -> bool:
        if isinstance(message, Leave):
            self._deliberate = True
            return False
        if isinstance(message, Describe | Reveal):
            if self._place is None:
                raise HubError(Refusal.NOT_JOINED, "join a room first")
            await self._hub.pass_on(self._place, message)
            self._metrics.passed.inc()
            return True
        if self._place is not None:
            raise HubError(Refusal.ALREADY_JOINED, "you are in a room already")
        if message.protocol != PROTOCOL:
            await self._refuse(Refusal.WRONG_VERSION, f"this server speaks version {PROTOCOL} of the protocol")
            return False
        self._place = await self._hub.join(message.room, message.peer, self._deliver)
        self._metrics.joined.inc()
        return True

    async def _deliver(self, message: FromServer) -> None:
        """Send; a peer that does not take its messages is cut off rather than waited for."""
        if isinstance(message, Joined):
            message = Joined(message.peer_present, message.peer, self._relay.servers())
        with contextlib.suppress(ConnectionError, RuntimeError, TimeoutError):
            async with asyncio.timeout(5):
                await self._socket.send_str(encode(message).decode())
            if isinstance(message, Refused) and message.code in (Refusal.REPLACED, Refusal.EXPIRED):
                await self._socket.close()
            return
        with contextlib.suppress(Exception):
            await self._socket.close()

    async def _refuse(self, code: Refusal, text: str) -> None:
        self._note(code)
        await self._deliver(Refused(code, text))


def _ticket(request: web.Request) -> str:
    kind, _, ticket = request.headers.get("Authorization", "").partition(" ")
    return ticket if kind == "Bearer" else request.query.get("ticket", "")


def _hub_of(settings: Settings) -> Hub:
    if settings.redis:
        from .redis_hub import RedisHub

        return RedisHub(settings.redis, settings.rooms_max, settings.room_expiry_s)
    return MemoryHub(settings.rooms_max, settings.room_expiry_s)


def create_app(settings: Settings, hub: Hub | None = None) -> web.Application:
    """The application; `hub` replaces the one that the settings name."""
    chosen = hub or _hub_of(settings)
    server = Server(settings, chosen)
    app = web.Application(client_max_size=1024)
    app.add_routes(
        [
            web.post("/rooms", server.make_room),
            web.get("/ws", server.websocket),
            web.get("/healthz", server.healthz),
            web.get("/metrics", server.metrics),
            *guest_page.routes(),
        ]
    )

    async def close_hub(app: web.Application) -> None:
        await chosen.close()

    app.on_cleanup.append(close_hub)
    return app


def _host_of(origin: str) -> str:
    """Of an Origin header; nothing where it is no address."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


class _Discreet(logging.Filter):
    """What goes wrong with a request is said without its address."""

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else "no HTTP"
        record.msg, record.args, record.exc_info = "a request could not be served: %s", (kind,), None
        return True


def _request_log() -> logging.Logger:
    log = logging.getLogger("signaling.requests")
    if not log.filters:
        log.addFilter(_Discreet())
    return log


@asynccontextmanager
async def running(settings: Settings, hub: Hub | None = None) -> AsyncIterator[str]:
    """Serve inside the block; yields the server's URL. Raises `InputError` when the port is busy or TLS files are
    unusable."""
    context = None
    if settings.certificate:
        try:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(settings.certificate, settings.private_key)
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"the certificate or its key cannot be read: {error}") from error
    runner = web.AppRunner(create_app(settings, hub), access_log=None, shutdown_timeout=1.0, logger=_request_log())
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port, ssl_context=context)
        try:
            await site.start()
        except OSError as error:
            raise InputError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}") from error
        port = runner.addresses[0][1]
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        yield f"{'https' if context else 'http'}://{host}:{port}"
    finally:
        await runner.cleanup()


async def serve(settings: Settings, on_ready: Callable[[str], None] = lambda url: None) -> None:
    """Serve until cancelled."""
    async with running(settings) as url:
        on_ready(url)
        await asyncio.Event().wait()


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, what happened, and its kind."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {"time": round(time.time(), 3), "level": record.levelname, "event": record.getMessage()}
        if hasattr(record, "kind"):
            entry["kind"] = record.kind
        return json.dumps(entry)


def log_to_stderr() -> None:
    """Structured logs of this server, for whoever runs it as a process of its own."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False
