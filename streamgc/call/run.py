"""`streamgc call`: one side of a call in the terminal."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from aiortc import RTCIceServer
from rich.console import Console
from rich.live import Live

from streamgc.call.codec import Codec, CodecOptions, load_codec
from streamgc.call.devices import is_screen
from streamgc.call.garbage import spare_what_is_there
from streamgc.call.ice import named_servers
from streamgc.call.rendezvous import make_room, parse_link, server_url
from streamgc.call.session import Event, Hooks, Session, SessionOptions
from streamgc.call.sinks import VideoFile, require_video_path
from streamgc.call.sources import Camera, Size, load_clip, load_sound, play, play_sound
from streamgc.call.table import table
from streamgc.call.virtual_camera import VirtualCamera
from streamgc.errors import InputError, StreamGCError
from streamgc.profiling.process import age_s
from streamgc.rtc.connection import ConnectionOptions
from streamgc.rtc.impairment import Impairment
from streamgc.rtc.opus import Samples
from streamgc.rtc.pictures import Captured, Picture
from streamgc.rtc.snapshot import Snapshots
from streamgc.rtc.statistics import Statistics, to_json_line

if TYPE_CHECKING:
    from streamgc.call.metrics import MetricsEndpoint

NEW_ROOM = "new"
_FOREVER_S = 10.0 * 365 * 24 * 3600
SOUND_MAX_S = 120.0
"""Of a file's sound that are kept in memory."""


@dataclass(frozen=True)
class CallOptions:
    """What `streamgc call` takes."""

    room: str = NEW_ROOM  # a token, a link that ends in one, or "new"
    server: str = "127.0.0.1:8765"
    ticket: str = ""
    camera: str = ""  # device; empty = the first
    input: str = ""  # a video file in place of the camera, or a screen: see devices.py
    receive_only: bool = False
    record: str = ""  # file for what is received
    virtual_camera: bool = False  # show what is received as a camera of this machine
    statistics: str = ""  # file for JSON lines
    metrics_port: int = 0  # Prometheus on loopback; 0 = none
    seconds: float = 0.0  # 0 = until the end
    codec: CodecOptions = field(default_factory=CodecOptions)
    impairment: Impairment | None = None
    stun: tuple[str, ...] = ()  # stun:host:port
    turn: tuple[str, ...] = ()  # turn:host:port, with the two below
    turn_user: str = ""
    turn_password: str = ""
    sound: bool = True
    wire_kbps: float = 0.0  # ceiling for everything that is sent, headers included; 0 = none


def run_call(options: CallOptions, console: Console | None = None, loading: "Future[Codec] | None" = None) -> None:
    """Join, exchange pictures until one side leaves, print what happens. `loading`: the codec of these options.

    Raises a `StreamGCError` with one clear line: no camera, no such file, no server, no such room, room full, no path
    to the peer.
    """
    codec = loading.result() if loading is not None else load_codec(options.codec)
    spare_what_is_there()
    asyncio.run(_Call(options, codec, console or Console()).run())


def ice_servers(options: CallOptions) -> tuple[RTCIceServer, ...]:
    """STUN and TURN servers for aiortc; raises `InputError`."""
    return named_servers(options.stun, options.turn, options.turn_user, options.turn_password)


def stop_on_signals(stop: Callable[[], None]) -> None:
    """Have SIGINT and SIGTERM call `stop` in the running loop, so that what was begun is finished. Loops on Windows
    take no handlers: there Ctrl-C raises KeyboardInterrupt, which ends the command, too."""
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, stop)


class _Call:
    def __init__(self, options: CallOptions, codec: Codec, console: Console) -> None:
        self._options, self._codec, self._console = options, codec, console
        self._live: Live | None = None
        self._seen = False
        self._record: _Recorder | None = None
        self._virtual: VirtualCamera | None = None
        self._lines = _appended(Path(options.statistics)) if options.statistics else None
        self._metrics = _metrics(options.metrics_port) if options.metrics_port else None

    async def run(self) -> None:
        options = self._options
        try:
            pictures = self._pictures()
            server, room = parse_link(options.room, options.server)
            if room == NEW_ROOM:
                room = await make_room(server, options.ticket)
                link = f"{server_url(server)}/{room}"
                self._console.print(
                    f"room: {link}\njoin with: streamgc call {link}\nor open it in a browser", soft_wrap=True
                )
            await self._talk(server_url(server), room, pictures)
        finally:
            if self._lines is not None:
                self._lines.close()
            if self._metrics is not None:
                self._metrics.close()

    async def _talk(self, server: str, room: str, pictures: AsyncIterator[Captured] | None) -> None:
        options = self._options
        connection = ConnectionOptions(
            model=self._codec.model_hash,
            kbps=options.codec.kbps,
            fps=options.codec.fps,
            ice_servers=ice_servers(options),
            impairment=options.impairment,
            sgc=not is_screen(options.input),
            sound=options.sound,
            wire_kbps=options.wire_kbps,
        )
        session = Session(
            SessionOptions(server, room, connection, options.ticket, send=pictures is not None),
            self._codec,
            Hooks(
                shown=self._on_shown,
                event=self._on_event,
                statistics=self._on_statistics,
                code=self._on_code,
                heard=self._on_heard,
            ),
        )
        stop_on_signals(session.stop)
        sending = asyncio.create_task(_send(session, pictures)) if pictures is not None else None
        speaking = self._speak(session)
        with contextlib.ExitStack() as stack:
            if options.record:
                recorder = _Recorder(Path(options.record), options.codec, options.sound)
                self._record = stack.enter_context(recorder)
            if options.virtual_camera:
                self._virtual = VirtualCamera(*options.codec.shown, options.codec.fps)
                stack.callback(self._virtual.close)
            self._live = stack.enter_context(Live(console=self._console, refresh_per_second=4))
            try:
                await session.run()
            finally:
                if speaking is not None:
                    speaking.cancel()
                if sending is not None:
                    sending.cancel()
                    outcome = (await asyncio.gather(sending, return_exceptions=True))[0]
        if sending is not None and isinstance(outcome, StreamGCError):
            raise outcome

    def _speak(self, session: Session) -> asyncio.Task[None] | None:
        """The sound of the file that is sent, over and over, from when the call is connected."""
        options = self._options
        spoken = options.sound and options.input and not is_screen(options.input)
        samples = load_sound(options.input, SOUND_MAX_S) if spoken else None
        if samples is None:
            return None

        async def speak() -> None:
            await session.connected.wait()
            async for sound in play_sound(samples, options.seconds or _FOREVER_S):
                session.put_sound(sound)

        return asyncio.create_task(speak(), name="clip-sound")

    def _pictures(self) -> AsyncIterator[Captured] | None:
        options = self._options
        if options.receive_only:
            return None
        size, fps = Size(*options.codec.shown), options.codec.fps
        seconds = options.seconds or _FOREVER_S
        if is_screen(options.input):
            return from_camera(Camera(options.input, None, fps), seconds)
        if options.input:
            if not Path(options.input).is_file():
                load_clip(options.input, size, fps)  # says what is wrong, before anything is started
            return _from_file(asyncio.create_task(asyncio.to_thread(load_clip, options.input, size, fps)), fps, seconds)
        codec = options.codec
        sides = 1 + codec.fine + codec.framing  # with framing, the codec cuts its own picture out of a larger one
        camera = Camera(options.camera, Size(sides * codec.width, sides * codec.height), fps)
        return from_camera(camera, seconds)

    def _on_shown(self, picture: Picture, number: int | None, at_ns: int) -> None:
        if not self._seen:
            self._seen = True
            self._console.print(f"first picture {age_s():.2f} s after the start")
        if self._record is not None:
            self._record.add(picture, at_ns)
        if self._virtual is not None:
            self._virtual.show(picture)

    def _on_heard(self, samples: Samples, at_ns: int) -> None:
        if self._record is not None:
            self._record.add_sound(samples, at_ns)

    def _on_event(self, event: Event, text: str) -> None:
        self._console.print(f"{event.value}{': ' + text if text else ''}")

    def _on_code(self, code: str) -> None:
        if code:
            self._console.print(f"code: {code}   (read it to each other: the other side must see the same)")
        else:
            self._console.print("no code to compare with the other side: trust in the signalling server is needed")

    def _on_statistics(self, statistics: Statistics, snapshots: Snapshots) -> None:
        if self._live is not None:
            self._live.update(table({"you": statistics}))
        if self._lines is not None:
            self._lines.write(to_json_line(statistics))
            self._lines.flush()
        if self._metrics is not None:
            self._metrics.update(statistics)


def _appended(path: Path) -> BinaryIO:
    try:
        return path.open("ab")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def _metrics(port: int) -> "MetricsEndpoint":
    from streamgc.call.metrics import MetricsEndpoint  # 60 ms of imports that few calls need

    return MetricsEndpoint(port)


async def _send(session: Session, pictures: AsyncIterator[Captured]) -> None:
    try:
        await session.send_all(pictures)
    finally:
        session.stop()


async def _from_file(loading: asyncio.Task[list[Picture]], fps: float, seconds: float) -> AsyncIterator[Captured]:
    """A clip that is read while the call is being set up. Raises `InputError` for what is no video."""
    async for captured in play(await loading, fps, seconds):
        yield captured


async def from_camera(camera: Camera, seconds: float) -> AsyncIterator[Captured]:
    """What a camera or a screen gives, for so long; raises `InputError` when it cannot be opened."""
    end = asyncio.get_running_loop().time() + seconds
    async with camera:
        async for captured in camera.pictures():
            if asyncio.get_running_loop().time() >= end:
                return
            yield captured


class _Recorder:
    """Writes what is shown at the time at which it is shown; the file is made at the first picture, which in a call
    with fine keys is smaller than those that follow."""

    def __init__(self, path: Path, codec: CodecOptions, sound: bool) -> None:
        self._path, self._codec, self._sound = path, codec, sound
        self._file: VideoFile | None = None
        self._start_ns = 0

    def __enter__(self) -> "_Recorder":
        require_video_path(self._path)  # now, and not with the first picture, when the call has begun
        return self

    def add(self, picture: Picture, at_ns: int) -> None:
        if self._file is None:
            height, width = picture.shape[:2]
            if (width, height) == (self._codec.width, self._codec.height):
                width, height = self._codec.shown
            self._file = VideoFile(self._path, width, height, self._codec.fps, sound=self._sound).__enter__()
            self._start_ns = at_ns
        self._file.add(picture, (at_ns - self._start_ns) / 1e9)

    def add_sound(self, samples: Samples, at_ns: int) -> None:
        if self._file is not None and self._sound:
            self._file.add_sound(samples, (at_ns - self._start_ns) / 1e9)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.__exit__(None, None, None)  # what was recorded is kept however the call ended
