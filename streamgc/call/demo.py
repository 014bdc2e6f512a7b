"""`streamgc demo`: two peers in two processes on this host, a rendezvous server between them, a real clip and a real
connection."""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.live import Live

from streamgc.call.demo_options import DemoOptions, PeerOptions
from streamgc.call.rendezvous import make_room
from streamgc.call.report import read_log, report, write_pictures, write_report
from streamgc.call.serve import SignalingOptions, local_server
from streamgc.call.sources import Size, has_sound, load_clip, packaged_clip
from streamgc.call.table import table
from streamgc.errors import CallError, StreamGCError
from streamgc.rtc.pictures import Picture
from streamgc.rtc.statistics import Statistics, from_json_line

START_S = 60.0
"""Seconds that loading networks, connecting and ending may take beyond the call itself."""


def run_demo(options: DemoOptions, console: Console | None = None) -> dict[str, Any]:
    """Make the call, write `report.json`, `side_by_side.mp4` and `contact_sheet.png` into `options.out`, return the
    report.

    Raises a `StreamGCError` with one clear line for anything that cannot be used: a missing file, no camera, a model
    that is not there, peers that do not connect.
    """
    screen = console or Console()
    clip_path = "webcam" if options.input == "webcam" else str(options.input or packaged_clip())
    clip = _load(options, clip_path)
    with tempfile.TemporaryDirectory(prefix="streamgc-demo-") as name:
        folder = Path(name)
        latest: dict[str, Statistics] = {}
        with Live(console=screen, refresh_per_second=4, transient=False) as live:

            def update(name: str, statistics: Statistics) -> None:
                if statistics.state == "failed" and name in latest:
                    return  # the other side has hung up; what counted was said before
                latest[name] = statistics
                live.update(table(latest))

            asyncio.run(make_call(options, clip_path, folder, update))
        logs = [read_log(folder / f"{peer}.events") for peer in "ab"]
        whole = report(options, logs)
        write_pictures(options, folder, logs, clip)
    write_report(options.out / "report.json", whole)
    return whole


def _load(options: DemoOptions, path: str) -> list[Picture]:
    """The clip, for the side-by-side; read before anything is started, so that a bad file is told at once."""
    if path == "webcam":
        return []
    limit = int(min(options.seconds, 120.0) * options.codec.fps) + 1
    return load_clip(path, Size(*options.codec.shown), options.codec.fps, limit)


async def make_call(options: DemoOptions, clip: str, folder: Path, update: Callable[[str, Statistics], None]) -> None:
    """Run a server and two peers to the end of the call; each peer leaves `<name>.events` in `folder`.

    `update(name, statistics)` is called once a second for each peer. Raises what a peer that fails says.
    """
    async with local_server(SignalingOptions(port=0)) as server:
        room = await make_room(server)
        impairment = None if options.impairment.perfect else options.impairment
        common = PeerOptions(
            name="a",
            server=server,
            room=room,
            folder=str(folder),
            codec=options.codec,
            impairment=impairment,
            input=clip,
            seconds=options.seconds,
            receive=options.duplex,
            frames_kept=int(options.keep_seconds * options.codec.fps),
            study=options.study,
            rival=options.rival,
            sound=options.sound and has_sound(clip),
            wire_kbps=options.wire_kbps,
        )
        other = replace(
            common,
            name="b",
            input=clip if options.duplex else "",
            receive=True,
            impairment=replace(impairment, seed=impairment.seed + 1000) if impairment else None,
        )
        await _run_peers([common, other], options.seconds + START_S, update)


async def _run_peers(peers: list[PeerOptions], limit_s: float, update: Callable[[str, Statistics], None]) -> None:
    """Run the peers to their end; raises what the first of them that fails says."""
    processes: list[asyncio.subprocess.Process] = []
    try:
        for peer in peers:
            processes.append(await _start(peer))
        watching = [_watch(process, peer.name, update) for process, peer in zip(processes, peers, strict=True)]
        async with asyncio.timeout(limit_s):
            await asyncio.gather(*watching)
    except TimeoutError as error:
        raise CallError("the demo's peers did not finish in time") from error
    finally:
        for process in processes:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    # Not process.terminate(): that asks whether the process has ended and takes its code away from the
                    # thread that waits for it, which then prints that the process is unknown.
                    os.kill(process.pid, signal.SIGTERM)
        for process in processes:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await process.wait()


async def _start(peer: PeerOptions) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streamgc.call.demo_peer", stdin=pipe, stdout=pipe, stderr=pipe, limit=1 << 20
    )
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(peer))
    with contextlib.suppress(ConnectionError):
        await process.stdin.drain()
    process.stdin.close()
    return process


async def _watch(process: asyncio.subprocess.Process, name: str, update: Callable[[str, Statistics], None]) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.create_task(process.stderr.read())
    while line := await process.stdout.readline():
        with contextlib.suppress(msgspec.MsgspecError):
            update(name, from_json_line(line))
    said = (await errors).decode(errors="replace").strip()
    code = await process.wait()
    if code == 2:
        raise StreamGCError(said.splitlines()[-1] if said else "a peer of the demo failed")
    if code not in (0, 130):
        raise CallError(f"a peer of the demo crashed ({code}): {said.splitlines()[-1] if said else 'no message'}")
