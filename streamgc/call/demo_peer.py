"""One peer of the demo, in a process of its own: `python -m streamgc.call.demo_peer` with `PeerOptions` as JSON on
standard input.

Standard output carries `Statistics` as JSON lines; what happened to each frame goes to `<folder>/<name>.events` and
the pictures to raw files beside it. An error is one line on standard error and exit code 2.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TextIO

import msgspec
import psutil
from aiortc.codecs import h264, vpx

from streamgc.call.codec import load_codec
from streamgc.call.demo_options import LOW_KBPS, LOW_START_KBPS, RIVALS, PeerOptions
from streamgc.call.garbage import spare_what_is_there
from streamgc.call.session import Event, Hooks, Session, SessionOptions
from streamgc.call.sinks import RawFrames
from streamgc.call.sources import Camera, Size, load_clip, load_sound, play, play_sound
from streamgc.call.study import studied
from streamgc.codec.still import resize
from streamgc.errors import StreamGCError
from streamgc.profiling.luminance import brightness, level_at, paint
from streamgc.profiling.process import cpu_by_thread, thread_names
from streamgc.rtc.connection import Connection, ConnectionOptions
from streamgc.rtc.opus import Samples
from streamgc.rtc.pictures import Captured, Encoded, Picture
from streamgc.rtc.snapshot import Snapshots
from streamgc.rtc.statistics import Statistics, to_json_line


class SentFrame(msgspec.Struct, tag="sent", frozen=True):
    """A frame that left."""

    number: int
    position: int  # in the source
    captured_ns: int
    message: int  # bytes
    kept: int | None  # place in the raw file


class ShownFrame(msgspec.Struct, tag="shown", frozen=True):
    """A frame that was displayed; number None when it came by a conventional codec."""

    number: int | None
    at_ns: int
    place: int | None


class SpanRecord(msgspec.Struct, tag="span", frozen=True):
    """One stage of one frame."""

    stage: str
    frame: int | None
    start_ns: int
    end_ns: int
    thread: int


class Tick(msgspec.Struct, tag="tick", frozen=True):
    """Once a second: rates since the one before, and CPU seconds by thread since the peer began."""

    at_ns: int
    sent_kbps: float
    payload_kbps: float
    received_kbps: float
    cpu_s: dict[str, float]
    target_kbps: float = 0.0  # what frame messages may have


class PlainShown(msgspec.Struct, tag="plain", frozen=True):
    """When a picture that came by a conventional codec was captured and displayed."""

    captured_ns: int | None
    at_ns: int


class FirstHeard(msgspec.Struct, tag="heard", frozen=True):
    """When the first sample in the peer's sound file was heard."""

    at_ns: int


class Flashed(msgspec.Struct, tag="flashed", frozen=True):
    """The source's block changed its brightness in the picture handed over then."""

    captured_ns: int
    level: int


class Seen(msgspec.Struct, tag="seen", frozen=True):
    """How bright the block was in a displayed picture."""

    at_ns: int
    level: float


class Ended(msgspec.Struct, tag="ended", frozen=True):
    """The last record."""

    connected_ns: int
    ended_ns: int
    bytes_sent: int  # on the wire, while connected
    payload_sent: int
    bytes_setup: int
    captured: int
    cpu_percent: float
    rss_mb: float
    model: str
    model_hash: str
    engine: str
    codec: str
    repeats: int
    rtt_ms: float | None
    freeze_longest_s: float
    sent_dropped: dict[str, int]
    received_dropped: dict[str, int]
    sound: dict[str, float | None]  # the last snapshot's, what this peer sent and what it heard
    threads: dict[int, str]  # names, by what `SpanRecord.thread` holds


Record = SentFrame | ShownFrame | PlainShown | FirstHeard | SpanRecord | Tick | Flashed | Seen | Ended


class Peer:
    """Runs a session and writes down what happens."""

    def __init__(self, options: PeerOptions, out: TextIO) -> None:
        self._options, self._out = options, out
        folder = Path(options.folder)
        self._events = (folder / f"{options.name}.events").open("wb")
        self._kept = RawFrames(folder / f"{options.name}.kept", options.frames_kept)
        self._shown = RawFrames(folder / f"{options.name}.shown", options.frames_kept)
        self._heard = (folder / f"{options.name}.heard").open("wb")
        self._speaking: asyncio.Task[None] | None = None
        self._codec = studied(load_codec(options.codec), options.study)
        connection = ConnectionOptions(
            model=self._codec.model_hash,
            kbps=options.codec.kbps,
            fps=options.codec.fps,
            impairment=options.impairment,
            codec=RIVALS.get(options.rival, ""),
            sound=options.sound,
            wire_kbps=options.wire_kbps,
        )
        if options.rival.endswith("-low"):
            lower_minima()
        self._session = Session(
            SessionOptions(
                options.server,
                options.room,
                connection,
                send=bool(options.input),
                receive=options.receive,
                rejoin=False,
            ),
            self._codec,
            Hooks(
                self._on_shown,
                self._on_sent,
                self._on_event,
                self._on_statistics,
                self._on_connection,
                plain=self._on_plain,
                heard=self._on_heard,
            ),
        )
        self._process = psutil.Process()
        self._connection: Connection | None = None
        self._connected_ns = 0
        self._cpu_at_start = 0.0
        self._setup_bytes = 0
        self._last: Statistics | None = None
        self._threads: dict[int, str] = {}

    async def run(self) -> None:
        """The whole call."""
        source = asyncio.create_task(self._send()) if self._options.input else None
        try:
            await self._session.run()
        finally:
            outcome = None
            if source is not None:
                source.cancel()
                (outcome,) = await asyncio.gather(source, return_exceptions=True)
            self._finish()
        if isinstance(outcome, StreamGCError):
            raise outcome

    async def _speak(self, samples: Samples) -> None:
        """The clip's sound, beginning with its pictures."""
        await self._session.connected.wait()
        async for sound in play_sound(samples, self._options.seconds):
            self._session.put_sound(sound)

    async def _send(self) -> None:
        options = self._options
        size, fps = Size(*options.codec.shown), options.codec.fps
        try:
            if options.input == "webcam":
                async with Camera("", size, fps) as camera:
                    await self._session.send_all(_for_seconds(camera.pictures(), options.seconds))
            else:
                pictures = load_clip(options.input, size, fps, limit=_frames_needed(options))
                samples = load_sound(options.input, len(pictures) / fps) if options.sound else None
                if samples is not None:
                    self._speaking = asyncio.create_task(self._speak(samples))
                played = play(pictures, fps, options.seconds)
                await self._session.send_all(self._flash(played) if options.study.flash else played)
        finally:
            if self._speaking is not None:
                self._speaking.cancel()
            self._session.stop()

    async def _flash(self, pictures: AsyncIterator[Captured]) -> AsyncIterator[Captured]:
        since, last = 0, 0
        async for captured in pictures:
            since = since or captured.captured_ns
            level = level_at(captured.captured_ns, since)
            if level != last:
                self._write(Flashed(captured.captured_ns, level))
                last = level
            yield captured._replace(picture=paint(captured.picture, level))

    def _on_connection(self, connection: Connection) -> None:
        self._connection = connection

    def _on_event(self, event: Event, text: str) -> None:
        if event is Event.CONNECTED and self._connection is not None:
            self._connected_ns = time.monotonic_ns()
            self._setup_bytes = self._connection.wire.bytes_sent
            times = self._process.cpu_times()
            self._cpu_at_start = times.user + times.system

    def _on_sent(self, number: int, captured: Captured, encoded: Encoded) -> None:
        kept = self._kept.add(encoded.kept) if encoded.kept is not None else None
        self._write(SentFrame(number, captured.position, captured.captured_ns, len(encoded.message), kept))

    def _on_shown(self, picture: Picture, number: int | None, at_ns: int) -> None:
        self._write(ShownFrame(number, at_ns, self._shown.add(resize(picture, *self._options.codec.shown))))
        if self._options.study.flash:
            self._write(Seen(at_ns, brightness(picture)))

    def _on_heard(self, samples: Samples, at_ns: int) -> None:
        if not self._heard.tell():
            self._write(FirstHeard(at_ns))
        self._heard.write(samples.tobytes())

    def _on_plain(self, captured_ns: int | None, at_ns: int) -> None:
        self._write(PlainShown(captured_ns, at_ns))

    def _on_statistics(self, statistics: Statistics, snapshots: Snapshots) -> None:
        for span in snapshots.spans:
            self._write(SpanRecord(span.stage, span.frame, span.start_ns, span.end_ns, span.thread))
        sent = statistics.sent
        self._write(
            Tick(
                time.monotonic_ns(),
                sent.kbps_onwire,
                sent.kbps_payload,
                statistics.received.kbps_onwire,
                cpu_by_thread(),
                sent.target_kbps,
            )
        )
        self._threads.update(thread_names())
        self._last = statistics
        with contextlib.suppress(BrokenPipeError):
            self._out.write(to_json_line(statistics).decode())
            self._out.flush()

    def _write(self, record: Record) -> None:
        self._events.write(msgspec.json.encode(record) + b"\n")

    def _finish(self) -> None:
        connection, last = self._connection, self._last
        if connection is not None and last is not None and self._connected_ns:
            now = time.monotonic_ns()
            times = self._process.cpu_times()
            seconds = max(1e-3, (now - self._connected_ns) / 1e9)
            self._write(
                Ended(
                    connected_ns=self._connected_ns,
                    ended_ns=now,
                    bytes_sent=connection.wire.bytes_sent - self._setup_bytes,
                    payload_sent=connection.outgoing.counts.payload_bytes if connection.outgoing else 0,
                    bytes_setup=self._setup_bytes,
                    captured=connection.outgoing.counts.captured if connection.outgoing else 0,
                    cpu_percent=100 * (times.user + times.system - self._cpu_at_start) / seconds,
                    rss_mb=self._process.memory_info().rss / 1e6,
                    model=self._codec.model_name,
                    model_hash=self._codec.model_hash,
                    engine=self._codec.engine,
                    codec=connection.codec,
                    repeats=last.sent.repeats,
                    rtt_ms=last.rtt_ms,
                    freeze_longest_s=last.received.freeze_longest_s,
                    sound={
                        "sent_kbps": last.sent.sound_kbps,
                        "sent_packets": last.sent.sound_packets,
                        "packet_ms": last.sent.sound_packet_ms,
                        "heard_packets": last.received.sound_packets,
                        "late": last.received.sound_late,
                        "concealed_ms": last.received.sound_concealed_ms,
                        "skew_ms": last.received.skew_ms,
                    },
                    sent_dropped=last.sent.frames_dropped,
                    received_dropped=last.received.frames_dropped,
                    threads=self._threads,
                )
            )
        for file in (self._events, self._kept, self._shown, self._heard):
            file.close()


def lower_minima() -> None:
    """Let aiortc's own codecs go as low as REMB tells them, and begin low."""
    for module in (vpx, h264):
        for name, kbps in (("MIN_BITRATE", LOW_KBPS), ("DEFAULT_BITRATE", LOW_START_KBPS)):
            setattr(module, name, round(kbps * 1000))


def _frames_needed(options: PeerOptions) -> int:
    return min(1800, int(options.seconds * options.codec.fps) + 1)


async def _for_seconds(pictures: AsyncIterator[Captured], seconds: float) -> AsyncIterator[Captured]:
    end = time.monotonic() + seconds
    async for captured in pictures:
        if time.monotonic() >= end:
            return
        yield captured


def main() -> int:
    """Read the options, run, say in one line what went wrong."""
    options = msgspec.json.decode(sys.stdin.buffer.read(), type=PeerOptions)
    try:
        peer = Peer(options, sys.stdout)
        spare_what_is_there()
        asyncio.run(peer.run())
    except StreamGCError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
