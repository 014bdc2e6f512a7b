"""The call that the page drives: rooms, one session at a time, what is sent and what is shown, figures."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import msgspec
import numpy as np
from aiortc import RTCIceServer

from streamgc.call.agent_codec import AgentCodec
from streamgc.call.agent_leg import Screen
from streamgc.call.agent_messages import (
    Authentication,
    Figures,
    Hello,
    Phase,
    Settings,
    Situation,
    ToPage,
    Trouble,
    View,
)
from streamgc.call.agent_mirror import Mirror
from streamgc.call.agent_rival import HEADER_BYTES, RivalMeter
from streamgc.call.agent_sound import Loudspeaker
from streamgc.call.codec import CodecOptions
from streamgc.call.messages import Refusal
from streamgc.call.rendezvous import GONE, make_room, parse_link, server_url
from streamgc.call.session import Event, Hooks, Session, SessionOptions
from streamgc.call.sources import Size
from streamgc.errors import PeerUnreachable, SignallingError, StreamGCError
from streamgc.rtc.connection import Connection, ConnectionOptions
from streamgc.rtc.impairment import Impairment
from streamgc.rtc.opus import Samples
from streamgc.rtc.pictures import Captured, Encoded, Picture
from streamgc.rtc.snapshot import Snapshots
from streamgc.rtc.sound import Sound
from streamgc.rtc.statistics import Statistics

CAMERA_OFF_FPS = 4.0
CROWDED = 0.7
"""Below this share of the pictures a second that are wanted, the page says that the link is full."""
_DARK = 40
_PHASES = {
    Event.WAITING: Phase.WAITING,
    Event.CONNECTING: Phase.CONNECTING,
    Event.CONNECTED: Phase.CONNECTED,
    Event.SILENT: Phase.SILENT,
    Event.RECONNECTING: Phase.RECONNECTING,
    Event.LEFT: Phase.LEFT,
}
_REASONS = {
    Refusal.ROOM_FULL.value: "room-full",
    Refusal.NO_SUCH_ROOM.value: "no-room",
    Refusal.MALFORMED.value: "no-room",
    Refusal.UNAVAILABLE.value: "server-gone",
    GONE: "server-gone",
}


@dataclass(frozen=True)
class AgentCallOptions:
    """What a call of the page needs to know."""

    server: str
    ticket: str = ""
    codec: CodecOptions = field(default_factory=CodecOptions)
    ice_servers: tuple[RTCIceServer, ...] = ()
    impairment: Impairment | None = None
    source: str = "camera"
    sgc: bool = True  # False for a screen


class AgentCall:
    """Everything between the page's buttons and a `Session`. `tell` takes what the page should know.

    Pictures for the page go to `remote` and `own`, which the tab's leg replaces with its screens.
    """

    def __init__(self, options: AgentCallOptions, codec: AgentCodec, tell: Callable[[ToPage], None]) -> None:
        self._options, self._codec, self._tell = options, codec, tell
        self.remote: Screen | None = None
        self.own: Screen | None = None
        self._loudspeaker: Loudspeaker | None = None
        self.situation = Situation(Phase.IDLE)
        self.settings = Settings(codec.background, codec.preserve, True, True, "off", False, options.codec.kbps)
        self._session: Session | None = None
        self._task: asyncio.Task[None] | None = None
        self._mirror = Mirror(codec, self._on_mirror)
        self._rival = RivalMeter(Size(options.codec.width, options.codec.height), options.codec.fps)
        self._server = options.server
        self._code = ""
        self._dark_at = 0.0
        self._last_remote: Picture | None = None

    def hello(self) -> list[ToPage]:
        """What a page that has just come must know."""
        options = self._options.codec
        codec = self._codec
        about = Hello(
            codec.model_name,
            codec.engine,
            options.width,
            options.height,
            options.fps,
            self._options.source,
            codec.switchable,
        )
        return [about, self.settings, self.situation, Authentication(self._code)]

    def attach(self, remote: Screen | None, own: Screen | None, loudspeaker: Loudspeaker | None = None) -> None:
        """Show pictures and play sound on these from now on."""
        self.remote, self.own, self._loudspeaker = remote, own, loudspeaker
        if remote is not None and self._last_remote is not None:
            remote.put(self._last_remote)

    def camera(self, captured: Captured) -> None:
        """A picture of the camera; while the camera is off a dark one takes its place."""
        now = time.monotonic()
        if not self.settings.camera:
            if now - self._dark_at < 1 / CAMERA_OFF_FPS:
                return
            self._dark_at = now
            captured = captured._replace(picture=np.full_like(captured.picture, _DARK))
        session = self._session
        if session is None or not session.connected.is_set():
            return
        if self.settings.camera:
            self._rival.see(captured.picture, now)
        session.put(captured)

    def sound(self, sound: Sound) -> None:
        """Sound of the microphone."""
        session = self._session
        if session is not None and session.connected.is_set():
            session.put_sound(sound)

    async def create(self) -> None:
        """Make a room and wait in it."""
        await self._end()
        self._set(Situation(Phase.STARTING))
        try:
            room = await make_room(self._options.server, self._options.ticket)
        except StreamGCError as error:
            self._failed(error)
            return
        self._begin(self._options.server, room)

    async def join(self, text: str) -> None:
        """Join the room of a token or link, which may name its server; raises `SignallingError` for what is no link."""
        server, room = parse_link(text, self._options.server)
        await self._end()
        self._begin(server, room)

    async def hang_up(self) -> None:
        """Leave the call."""
        await self._end()
        self._set(Situation(Phase.ENDED, room=self.situation.room))

    def set_background(self, mode: str) -> None:
        """Raises `InputError`."""
        self._codec.set_background(mode)
        self._change(replace_settings(self.settings, background=mode))

    def set_preserve(self, policy: str) -> None:
        """Raises `InputError`."""
        self._codec.set_preserve(policy)
        self._change(replace_settings(self.settings, preserve=policy))

    def pick(self, x: float, y: float) -> None:
        """Keep only the person at a place of the coded picture."""
        self._change(replace_settings(self.settings, preserve=self._codec.pick(x, y)))

    def set_camera(self, on: bool) -> None:
        """Camera on or off."""
        self._change(replace_settings(self.settings, camera=on))

    def set_microphone(self, on: bool) -> None:
        """Microphone on or off, also for later calls."""
        if self._session is not None:
            self._session.mute(not on)
        self._change(replace_settings(self.settings, microphone=on))

    def set_view(self, view: View) -> None:
        """What the second picture shows."""
        self._mirror.looking = view == "theirs"
        self._change(replace_settings(self.settings, view=view))

    def set_mark(self, on: bool) -> None:
        """Whether synthesised regions are striped."""
        self._codec.mark = on
        self._change(replace_settings(self.settings, mark=on))

    def set_quality(self, kbps: float) -> None:
        """Ceiling for frame messages, kbit/s, from now on and for later connections."""
        if self._session is not None and self._session.connection is not None:
            self._session.connection.rate.ceiling_kbps = kbps
        self._change(replace_settings(self.settings, kbps=kbps))

    async def close(self) -> None:
        """Leave, and end everything."""
        await self._end()
        await self._mirror.close()
        await self._rival.close()

    def _begin(self, server: str, room: str) -> None:
        options = self._options
        connection = ConnectionOptions(
            model=self._codec.model_hash,
            kbps=self.settings.kbps,
            fps=options.codec.fps,
            ice_servers=options.ice_servers,
            impairment=options.impairment,
            sgc=options.sgc,
            sound=True,
        )
        hooks = Hooks(
            self._on_shown,
            self._on_sent,
            self._on_event,
            self._on_statistics,
            self._on_connection,
            self._on_code,
            self._on_heard,
        )
        self._server = server
        self._session = Session(SessionOptions(server, room, connection, options.ticket), self._codec, hooks)
        self._session.mute(not self.settings.microphone)
        self._last_remote = None
        self._set(self._at(Phase.STARTING, room=room))
        self._task = asyncio.create_task(self._run(self._session), name="page-call")

    async def _run(self, session: Session) -> None:
        try:
            await session.run()
        except StreamGCError as error:
            self._failed(error)
        except Exception as error:  # a fault of ours must not leave the page waiting for ever
            self._set(Situation(Phase.FAILED, f"internal error: {type(error).__name__}: {error}", "other"))
            raise

    async def _end(self) -> None:
        session, task = self._session, self._task
        self._session = self._task = None
        if session is not None and task is not None:
            session.stop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5.0):
                    await asyncio.gather(task, return_exceptions=True)

    def _failed(self, error: StreamGCError) -> None:
        text = str(error)
        reason = "unreachable" if isinstance(error, PeerUnreachable) else "other"
        if isinstance(error, SignallingError):
            reason = _REASONS.get(error.kind, "other")
        self._set(Situation(Phase.FAILED, text, reason, room=self.situation.room))

    def _at(self, phase: Phase, text: str = "", room: str = "") -> Situation:
        room = room or self.situation.room
        base = server_url(self._server)
        command = f"streamgc call {room} --server {urlsplit(base).netloc if base.startswith('http:') else base}"
        return Situation(phase, text, "", room, f"{base}/{room}", command)

    def _set(self, situation: Situation) -> None:
        self.situation = situation
        self._tell(situation)

    def _change(self, settings: Settings) -> None:
        self.settings = settings
        self._tell(settings)

    def _on_connection(self, connection: Connection) -> None:
        connection.rate.ceiling_kbps = self.settings.kbps  # which may have been changed since the session began
        self._mirror.restart()
        self._on_code("")

    def _on_code(self, code: str) -> None:
        self._code = code
        self._tell(Authentication(code))

    def _on_event(self, event: Event, text: str) -> None:
        self._set(self._at(_PHASES[event], text))

    def _on_shown(self, picture: Picture, number: int | None, at_ns: int) -> None:
        self._last_remote = picture
        if self.remote is not None:
            self.remote.put(picture)

    def _on_heard(self, samples: Samples, at_ns: int) -> None:
        if self._loudspeaker is not None:
            self._loudspeaker.put(samples)

    def _on_sent(self, number: int, captured: Captured, encoded: Encoded) -> None:
        if encoded.message:  # none when a conventional codec sends
            self._mirror.take(encoded.message, time.monotonic_ns())
        if self.settings.view == "kept" and self.own is not None and encoded.kept is not None:
            self.own.put(encoded.kept)

    def _on_mirror(self, picture: Picture) -> None:
        if self.settings.view == "theirs" and self.own is not None:
            self.own.put(picture)

    def _on_statistics(self, statistics: Statistics, snapshots: Snapshots) -> None:
        self._tell(figures(statistics, self._rival.kbps, self._options.codec.fps))

    def trouble(self, text: str) -> None:
        """Tell the page that something was not done."""
        self._tell(Trouble(text))


def replace_settings(settings: Settings, **changes: object) -> Settings:
    """`settings` with some values changed."""
    changed: Settings = msgspec.structs.replace(settings, **changes)
    return changed


def figures(statistics: Statistics, vp8_kbps: float | None, fps: float) -> Figures:
    """What the page shows of a second; `vp8_kbps` is for `fps` pictures a second and is scaled to those really sent.

    The sound that goes with our pictures is added to it: VP8 would need that too.
    """
    sent, received = statistics.sent, statistics.received
    sound_kbps = sent.sound_kbps
    if sent.sound_packet_ms and sound_kbps:
        sound_kbps += HEADER_BYTES * 8 / sent.sound_packet_ms
    own_ms = sum(times["p50"] for times in statistics.stages.values())
    rtt = statistics.rtt_ms
    return Figures(
        at_s=statistics.at_s,
        kbps_sent=sent.kbps_onwire,
        kbps_received=received.kbps_onwire,
        kbps_payload=sent.kbps_payload,
        fps_sent=sent.fps,
        fps_shown=received.fps,
        rtt_ms=rtt,
        latency_ms=None if rtt is None else round(rtt / 2 + own_ms, 1),
        loss=max(received.loss, sent.loss_reported),
        codec=statistics.codec,
        note=statistics.note,
        vp8_kbps=None if vp8_kbps is None else round(vp8_kbps * min(1.0, sent.fps / fps) + sound_kbps, 1),
        crowded=0 < sent.target_fps < CROWDED * fps,
        sound_kbps=sent.sound_kbps,
    )
