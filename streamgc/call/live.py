"""Watching a call that is under way, from another process: `streamgc profile --live PID`.

Every session listens on a socket that only its own user can open (a Unix socket, mode 600, in the user's runtime
folder). While nobody is connected it costs one comparison a frame; whoever connects gets, once a second, the spans and
frames of that second as a line of JSON. Systems without Unix sockets have no socket; there the metrics endpoint
(`--metrics-port`) says the same in percentiles.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import msgspec
from rich.table import Table

from streamgc.errors import InputError
from streamgc.profiling.process import cpu_by_thread, thread_names
from streamgc.profiling.recording import Recording, Second, SentMark, ShownMark, Stage, host_name
from streamgc.profiling.spans import Span
from streamgc.profiling.timeline import stage_order
from streamgc.rtc.statistics import Statistics

LINE_MAX = 1 << 22
"""Bytes of a second's line: some thousand spans."""

SCRAPE_S = 3.0


def socket_path(process: int) -> Path:
    """Where the session of a process listens."""
    folder = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(folder) / f"streamgc-{process}.sock"


class LiveFeed:
    """The session's end of the socket. Its methods are called on the event loop."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._watchers: set[asyncio.StreamWriter] = set()
        self._sent: list[SentMark] = []
        self._shown: list[ShownMark] = []

    async def open(self) -> None:
        """Listen; where that cannot be, the call goes on without."""
        path = socket_path(os.getpid())
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._watched, path)
        except (OSError, AttributeError, NotImplementedError):  # the last two: no Unix sockets on this system
            self._server = None
        finally:
            os.umask(before)

    def sent(self, number: int, captured_ns: int, message: int) -> None:
        """A frame left."""
        if self._watchers:
            self._sent.append(SentMark(number, captured_ns, message))

    def shown(self, number: int, at_ns: int) -> None:
        """A frame was displayed."""
        if self._watchers:
            self._shown.append(ShownMark(number, at_ns))

    def second(self, statistics: Statistics, spans: list[Span]) -> None:
        """Tell whoever watches what a second was like."""
        if not self._watchers:
            return
        sent, received = statistics.sent, statistics.received
        recording = Recording(
            peer=str(os.getpid()),
            host=host_name(),
            stages=[Stage(*span) for span in spans],
            sent=self._sent,
            shown=self._shown,
            seconds=[
                Second(
                    at_ns=time.monotonic_ns(),
                    sent_kbps=sent.kbps_onwire,
                    payload_kbps=sent.kbps_payload,
                    received_kbps=received.kbps_onwire,
                    cpu_s=cpu_by_thread(),
                )
            ],
            dropped={**sent.frames_dropped, **received.frames_dropped},
            threads=thread_names(),
        )
        self._sent, self._shown = [], []
        line = msgspec.json.encode(recording) + b"\n"
        for watcher in list(self._watchers):
            if watcher.is_closing() or watcher.transport.get_write_buffer_size() > LINE_MAX:
                self._forget(watcher)
            else:
                watcher.write(line)

    async def close(self) -> None:
        """Stop listening and remove the socket."""
        for watcher in list(self._watchers):
            self._forget(watcher)
        if self._server is not None:
            self._server.close()
            socket_path(os.getpid()).unlink(missing_ok=True)

    async def _watched(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._watchers.add(writer)
        with contextlib.suppress(ConnectionError):
            await reader.read(1)  # a watcher says nothing; it ends
        self._forget(writer)

    def _forget(self, watcher: asyncio.StreamWriter) -> None:
        self._watchers.discard(watcher)
        if not self._watchers:
            self._sent, self._shown = [], []
        watcher.close()


async def watch(process: int, seconds: float) -> Recording:
    """What a running call of this user does for a while. Raises `InputError` when there is no such call."""
    try:
        reader, writer = await asyncio.open_unix_connection(socket_path(process), limit=LINE_MAX)
    except (OSError, AttributeError):
        raise InputError(f"--live {process}: no call of yours has this process id") from None
    whole = Recording(peer=str(process), host=host_name())
    counted: dict[str, int] | None = None
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds + 1.0):
                while line := await reader.readline():
                    one = msgspec.json.decode(line, type=Recording)
                    counted = one.dropped if counted is None else counted
                    whole.stages += one.stages
                    whole.sent += one.sent
                    whole.shown += one.shown
                    whole.seconds += one.seconds
                    whole.threads |= one.threads
                    whole.dropped = {cause: n - counted.get(cause, 0) for cause, n in one.dropped.items()}
                    if whole.seconds[-1].at_ns - whole.seconds[0].at_ns >= (seconds - 1) * 1e9:
                        break
    finally:
        writer.close()
    if not whole.seconds:
        raise InputError(f"--live {process}: the call said nothing; is it connected?")
    return whole


def scrape(url: str) -> dict[str, dict[str, float]]:
    """Percentiles by stage, and dropped frames by cause under "drops", from a metrics endpoint. Raises `InputError`."""
    from prometheus_client.parser import text_string_to_metric_families  # slow to import, and a call needs it not

    if not url.startswith(("http://127.0.0.1", "http://localhost", "http://[::1]")):
        raise InputError(
            f"--live {url}: a process id, or the http:// address of a call's --metrics-port on this machine"
        )
    address = url if url.rstrip("/").endswith("/metrics") else f"{url.rstrip('/')}/metrics"
    try:
        with urlopen(address, timeout=SCRAPE_S) as reply:
            text = reply.read(LINE_MAX).decode()
        families = list(text_string_to_metric_families(text))
    except (URLError, OSError, ValueError) as error:
        raise InputError(f"--live {url}: no metrics there ({error})") from None
    found: dict[str, dict[str, float]] = {}
    for family in families:
        for sample in family.samples:
            if sample.name == "streamgc_stage_ms":
                found.setdefault(sample.labels["stage"], {})[sample.labels["percentile"]] = sample.value
            elif sample.name.endswith("_frames_dropped"):
                found.setdefault("drops", {})[sample.labels["cause"]] = sample.value
    if not found:
        raise InputError(f"--live {url}: these are no metrics of a call")
    return found


def live_table(stages: Mapping[str, Mapping[str, float]]) -> Table:
    """What `scrape` found, for the terminal."""
    drops = stages.get("drops", {})
    said = ", ".join(f"{cause} {number:.0f}" for cause, number in drops.items())
    shown = Table(title="a running call, last 300 frames", caption=f"dropped: {said or 'nothing'}")
    shown.add_column("stage")
    for name in ("p50 ms", "p95", "p99"):
        shown.add_column(name, justify="right")
    for stage in sorted(stages.keys() - {"drops"}, key=stage_order):
        shown.add_row(stage, *(f"{stages[stage].get(name, 0.0):.1f}" for name in ("p50", "p95", "p99")))
    return shown
