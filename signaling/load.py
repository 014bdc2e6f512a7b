"""`python -m signaling.load`: what one instance carries, and what a room costs.

Starts a server in a process of its own, fills it with idle rooms of two, and then has pairs of peers find each other
at a steady rate: make a room, join it twice, offer, answer, reveal, leave.
"""

import argparse
import asyncio
import contextlib
import json
import resource
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field

import aiohttp
import msgspec
import psutil

from streamgc.call.messages import (
    Describe,
    FromClient,
    FromServer,
    Join,
    Joined,
    Leave,
    PeerJoined,
    Reveal,
    RoomMade,
    encode,
    parse_from_server,
)
from streamgc.errors import InputError, StreamGCError

DESCRIPTION = "v=0\r\n" + "a=x" * 900
"""As long as a real description with audio and video: 2.7 kB."""
NONCE = "0" * 64
TOGETHER = 50
"""Idle peers that join at the same time."""
PATIENCE_S = 10.0


@dataclass
class Result:
    """What was measured; times in ms, memory in kB."""

    rooms: int
    kb_per_room: float = 0.0
    rss_mb: float = 0.0
    asked_per_s: float = 0.0
    done_per_s: float = 0.0
    failed: int = 0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    server_cpu: float = 0.0  # of one core
    times: list[float] = field(default_factory=list)


class Client:
    """One peer's WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def say(self, message: FromClient) -> None:
        """Send."""
        await self._socket.send_str(encode(message).decode())

    async def hear(self, kind: type[FromServer]) -> None:
        """Take the next message, which must be one of `kind`; raises `StreamGCError`."""
        frame = await self._socket.receive()
        message = parse_from_server(frame.data) if frame.type is aiohttp.WSMsgType.TEXT else None
        if not isinstance(message, kind):
            raise StreamGCError(f"expected {kind.__name__}, got {message}")


@asynccontextmanager
async def joined(session: aiohttp.ClientSession, url: str, room: str) -> AsyncIterator[Client]:
    """A peer in a room."""
    async with session.ws_connect(f"{url}/ws") as socket:
        client = Client(socket)
        await client.say(Join(room))
        await client.hear(Joined)
        yield client


async def new_room(session: aiohttp.ClientSession, url: str) -> str:
    """A room's token."""
    async with session.post(f"{url}/rooms") as reply:
        if reply.status != 200:
            raise StreamGCError(f"{reply.status}: {(await reply.text())[:200]}")
        return msgspec.json.decode(await reply.read(), type=RoomMade).room


async def handshake(session: aiohttp.ClientSession, url: str) -> float:
    """Two peers find each other; ms from asking for the room to the last message."""
    start = time.perf_counter()
    room = await new_room(session, url)
    async with joined(session, url, room) as alice, joined(session, url, room) as bob:
        await alice.hear(PeerJoined)
        await bob.say(Describe("offer", DESCRIPTION, NONCE))
        await alice.hear(Describe)
        await alice.say(Describe("answer", DESCRIPTION, NONCE))
        await bob.hear(Describe)
        await bob.say(Reveal(NONCE))
        await alice.hear(Reveal)
        took = (time.perf_counter() - start) * 1000
        await bob.say(Leave())
    return took


async def fill(session: aiohttp.ClientSession, url: str, rooms: int, stack: contextlib.AsyncExitStack) -> None:
    """Idle rooms of two; their peers stay until the stack closes."""
    gate = asyncio.Semaphore(TOGETHER)

    async def one() -> None:
        async with gate:
            room = await new_room(session, url)
            for _ in range(2):
                await stack.enter_async_context(joined(session, url, room))

    await asyncio.gather(*(one() for _ in range(rooms)))


async def drive(session: aiohttp.ClientSession, url: str, rate: float, seconds: float, result: Result) -> None:
    """Handshakes at `rate` a second for `seconds`; late ones do not delay the next."""
    start = time.perf_counter()

    async def one(number: int) -> None:
        await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
        try:
            async with asyncio.timeout(PATIENCE_S):
                result.times.append(await handshake(session, url))
        except (StreamGCError, aiohttp.ClientError, TimeoutError, OSError):
            result.failed += 1

    await asyncio.gather(*(one(number) for number in range(round(rate * seconds))))
    result.done_per_s = round(len(result.times) / (time.perf_counter() - start), 1)


async def measure(rooms: int, rate: float, seconds: float, redis: str = "") -> Result:
    """The whole measurement."""
    arguments = ["--port", "0", "--connections-per-minute", "1000000", *(["--redis", redis] if redis else [])]
    command = (sys.executable, "-m", "signaling", *arguments)
    server = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert server.stdout is not None
        url = (await server.stdout.readline()).decode().rpartition(" ")[2].strip()
        if not url:
            raise InputError("the server did not start")
        process = psutil.Process(server.pid)
        result = Result(rooms, asked_per_s=rate)
        async with contextlib.AsyncExitStack() as stack:
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
            await handshake(session, url)  # what is loaded at the first use is no room's cost
            empty = process.memory_info().rss
            await fill(session, url, rooms, stack)
            result.rss_mb = round(process.memory_info().rss / 1e6, 1)
            result.kb_per_room = round((process.memory_info().rss - empty) / max(1, rooms) / 1e3, 1)
            before = process.cpu_times()
            await drive(session, url, rate, seconds, result)
            after = process.cpu_times()
        result.server_cpu = round((after.user + after.system - before.user - before.system) / seconds, 2)
        result.p50_ms, result.p95_ms, result.p99_ms = percentiles(result.times)
        return result
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.terminate()
        await server.wait()


def percentiles(times: Sequence[float]) -> tuple[float, float, float]:
    """p50, p95 and p99; zeros without times."""
    if len(times) < 2:
        return 0.0, 0.0, 0.0
    cuts = statistics.quantiles(times, n=100)
    return round(cuts[49], 1), round(cuts[94], 1), round(cuts[98], 1)


def main() -> int:
    """Print the result as JSON; exit code 1 when a handshake failed."""
    parser = argparse.ArgumentParser(prog="signaling.load", description=__doc__)
    parser.add_argument("--rooms", type=int, default=2000, help="idle rooms of two peers")
    parser.add_argument("--rate", type=float, default=200.0, help="handshakes a second")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--redis", default="", help="as for the server")
    given = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the server inherits it
    result = asyncio.run(measure(given.rooms, given.rate, given.seconds, given.redis))
    shown = {name: value for name, value in asdict(result).items() if name != "times"}
    print(json.dumps(shown, indent=2))
    return 1 if result.failed else 0


if __name__ == "__main__":
    sys.exit(main())
