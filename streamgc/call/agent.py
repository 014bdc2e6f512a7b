"""The local agent of the web page: `streamgc call ROOM` without `--headless`.

An aiohttp application on loopback. Its address carries a token made at each start, so that no other page in the
browser and no other user of the machine can guess it; besides, every request must come to a loopback `Host`, and
everything that acts (the control WebSocket, the offer) from our own `Origin`.
"""

import asyncio
import contextlib
import hmac
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from streamgc.call import agent_messages as said
from streamgc.call.agent_call import AgentCall, AgentCallOptions
from streamgc.call.agent_codec import AgentCodec
from streamgc.call.agent_leg import BrowserLeg
from streamgc.call.codec import Codec, load_codec
from streamgc.call.devices import is_screen
from streamgc.call.garbage import spare_what_is_there
from streamgc.call.rendezvous import server_url
from streamgc.call.run import NEW_ROOM, CallOptions, from_camera, ice_servers, stop_on_signals
from streamgc.call.sources import Camera, Size, load_clip, play
from streamgc.errors import InputError, StreamGCError
from streamgc.rtc.pictures import Captured
from streamgc.runtime.assets import asset_root

LOOPBACK = "127.0.0.1"
TOKEN_BYTES = 16
_FILES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_FOREVER_S = 10.0 * 365 * 24 * 3600

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Agent:
    """One page's server and the call behind it."""

    def __init__(self, options: CallOptions, codec: Codec, token: str) -> None:
        """Raises `InputError` for options that only `--headless` has."""
        _check(options)
        chosen = options.codec
        self._options, self._token = options, token
        self._fps = chosen.fps
        source = Path(options.input).name if options.input else "camera"
        call = AgentCallOptions(
            server_url(options.server),
            options.ticket,
            chosen,
            ice_servers(options),
            options.impairment,
            source,
            sgc=not is_screen(options.input),
        )
        wrapped = AgentCodec(codec, chosen.background, chosen.preserve, chosen.framing)
        self.call = AgentCall(call, wrapped, self._tell)
        self._leg: BrowserLeg | None = None
        self._page: web.WebSocketResponse | None = None
        self._outbox: asyncio.Queue[said.ToPage] = asyncio.Queue()
        self._clip: asyncio.Task[None] | None = None
        self._port = 0

    def application(self) -> web.Application:
        """The aiohttp application, with its checks."""
        app = web.Application(middlewares=[self._guard], client_max_size=said.OFFER_MAX + 1024)
        app.add_routes(
            [
                web.get(f"/{{token}}/{path}", handler)
                for path, handler in (("", self._index), ("control", self._control), ("{file}", self._static))
            ]
        )
        app.add_routes([web.post("/{token}/offer", self._offer)])
        return app

    async def start(self, port: int) -> None:
        """The port is known: requests are answered from now on, and the room of the command line is joined."""
        self._port = port
        if is_screen(self._options.input):
            screen = Camera(self._options.input, None, self._fps)
            self._clip = asyncio.create_task(self._play(from_camera(screen, _FOREVER_S)), name="page-screen")
        elif self._options.input:
            size = Size(*self._options.codec.shown)
            pictures = await asyncio.to_thread(load_clip, self._options.input, size, self._fps)
            self._clip = asyncio.create_task(self._play(play(pictures, self._fps, _FOREVER_S)), name="page-clip")
        if self._options.room != NEW_ROOM:
            await self.call.join(self._options.room)

    async def close(self) -> None:
        """Leave the call, tell the page, end everything."""
        if self._clip is not None:
            self._clip.cancel()
            await asyncio.gather(self._clip, return_exceptions=True)
        await self.call.close()
        if self._page is not None:
            await self._page.close(code=1001, message=b"the agent ends")
        if self._leg is not None:
            await self._leg.close()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """403 for a foreign Host or Origin and for a wrong token; our headers on everything."""
        hosts = {f"{name}:{self._port}" for name in (LOOPBACK, "localhost")}
        if request.headers.get("Host", "") not in hosts:
            raise web.HTTPForbidden(text="this page is served to this machine only", headers=_HEADERS)
        origin = request.headers.get("Origin")
        acts = request.method != "GET" or request.headers.get("Upgrade", "").lower() == "websocket"
        if (acts or origin is not None) and origin not in {f"http://{host}" for host in hosts}:
            raise web.HTTPForbidden(text="another page may not drive this call", headers=_HEADERS)
        token = request.match_info.get("token", "")
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            raise web.HTTPForbidden(text="wrong address: use the one that streamgc printed", headers=_HEADERS)
        try:
            response = await handler(request)
        except web.HTTPException as error:
            error.headers.update(_HEADERS)
            raise
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    async def _index(self, request: web.Request) -> web.StreamResponse:
        return _file("index.html")

    async def _static(self, request: web.Request) -> web.StreamResponse:
        return _file(request.match_info["file"])

    async def _offer(self, request: web.Request) -> web.Response:
        """The tab's session description in, ours out; a later tab takes the place of an earlier one."""
        leg = BrowserLeg(self._fps, self._on_camera, self.call.sound)
        try:
            answer = await leg.answer(said.parse_offer(await request.read()).sdp)
        except StreamGCError as error:
            await leg.close()
            raise web.HTTPBadRequest(text=str(error)) from error
        old, self._leg = self._leg, leg
        self.call.attach(leg.remote, leg.own, leg.loudspeaker)
        if old is not None:
            await old.close()
        body = msgspec.json.encode(said.AgentAnswer(answer))
        return web.Response(body=body, content_type="application/json")

    async def _control(self, request: web.Request) -> web.StreamResponse:
        """The control WebSocket of the newest tab."""
        socket = web.WebSocketResponse(heartbeat=15.0, max_msg_size=said.CONTROL_MAX)
        await socket.prepare(request)
        old, self._page = self._page, socket
        if old is not None and not old.closed:
            with contextlib.suppress(ConnectionError):
                await old.send_str(said.to_page(said.Replaced()))
                await old.close()
        self._outbox = asyncio.Queue()
        for message in self.call.hello():
            self._outbox.put_nowait(message)
        writing = asyncio.create_task(_write(socket, self._outbox), name="page-writer")
        try:
            async for frame in socket:
                if frame.type is WSMsgType.TEXT:
                    await self._take(frame.data)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            if self._page is socket:
                self._page = None
        return socket

    async def _take(self, data: str) -> None:
        try:
            await self._do(said.parse_from_page(data))
        except StreamGCError as error:
            self.call.trouble(str(error))

    async def _do(self, order: said.FromPage) -> None:
        call = self.call
        match order:
            case said.Create():
                await call.create()
            case said.JoinRoom(room=room):
                await call.join(room)
            case said.HangUp():
                await call.hang_up()
            case said.SetBackground(mode=mode):
                call.set_background(mode)
            case said.SetPreserve(policy=policy):
                call.set_preserve(policy)
            case said.Pick(x=x, y=y):
                call.pick(x, y)
            case said.SetCamera(on=on):
                call.set_camera(on)
            case said.SetMicrophone(on=on):
                call.set_microphone(on)
            case said.SetView(view=view):
                call.set_view(view)
            case said.SetMark(on=on):
                call.set_mark(on)
            case said.SetQuality(kbps=kbps):
                call.set_quality(kbps)

    def _tell(self, message: said.ToPage) -> None:
        if self._page is not None:
            self._outbox.put_nowait(message)

    def _on_camera(self, captured: Any) -> None:
        if self._clip is None:
            self.call.camera(captured)

    async def _play(self, pictures: AsyncIterator[Captured]) -> None:
        try:
            async for captured in pictures:
                self.call.camera(captured)
        except StreamGCError as error:  # no screen to grab
            self.call.trouble(str(error))


@asynccontextmanager
async def serving(options: CallOptions, codec: Codec | None = None, port: int = 0) -> AsyncIterator[tuple[str, Agent]]:
    """Serve the page inside the block; yields its address and the agent. Raises `InputError` for a busy port and what
    loading the codec raises."""
    loaded = codec if codec is not None else await asyncio.to_thread(load_codec, options.codec)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    agent = Agent(options, loaded, token)
    runner = web.AppRunner(agent.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, LOOPBACK, port).start()
        except OSError as error:
            raise InputError(f"cannot listen on {LOOPBACK}:{port}: {error.strerror or error}") from error
        bound: int = runner.addresses[0][1]
        await agent.start(bound)
        yield f"http://{LOOPBACK}:{bound}/{token}/", agent
    finally:
        await agent.close()
        await runner.cleanup()


def run_page(options: CallOptions, port: int = 0, announce: Callable[[str], None] = print) -> None:
    """`streamgc call ROOM`: serve the page until interrupted; `announce` gets its address. No browser is started.

    Raises a `StreamGCError` with one clear line: a model that is missing, a busy port, options that need --headless.
    """
    spare_what_is_there()
    asyncio.run(_serve(options, port, announce))


async def _serve(options: CallOptions, port: int, announce: Callable[[str], None]) -> None:
    ended = asyncio.Event()
    stop_on_signals(ended.set)
    async with serving(options, port=port) as (url, _):
        announce(url)
        if options.seconds:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(options.seconds):
                    await ended.wait()
        else:
            await ended.wait()


def _check(options: CallOptions) -> None:
    asked = {
        "--record": options.record,
        "--statistics": options.statistics,
        "--metrics-port": options.metrics_port,
        "--camera": options.camera,
        "--virtual-camera": options.virtual_camera,
        "--receive-only": options.receive_only,
    }
    wrong = [name for name, value in asked.items() if value]
    if wrong:
        raise InputError(f"{', '.join(wrong)} needs --headless: in the page the browser has the camera")


def _file(name: str) -> web.Response:
    """One file of the page; 404 for anything that is none of it."""
    path = asset_root("demo") / name
    kind = _FILES.get(path.suffix)
    if kind is None or path.name != name or not path.is_file():
        raise web.HTTPNotFound(text="no such file")
    return web.Response(body=path.read_bytes(), content_type=kind, charset="utf-8")


async def _write(socket: web.WebSocketResponse, outbox: asyncio.Queue[said.ToPage]) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            await socket.send_str(said.to_page(await outbox.get()))
