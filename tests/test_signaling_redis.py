"""Several instances of the signalling server that share their rooms in a real redis-server."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from signaling import Settings, running
from signaling.redis_hub import RedisHub
from streamgc.call.messages import Describe, FromServer, PeerJoined, PeerLeft, Refusal, Refused
from streamgc.call.rendezvous import Rendezvous
from streamgc.call.rendezvous import make_room as ask_for_room
from streamgc.call.session import Event, Hooks, Session, SessionOptions
from streamgc.errors import InputError, SignallingError
from streamgc.profiling.spans import Spans
from streamgc.rtc.connection import ConnectionOptions
from tests.rtc_fakes import FakeCodec, FakeSender

REPOSITORY = Path(__file__).resolve().parents[1]
pytest.importorskip("redis", reason="needs the package redis: pip install 'streamgc[redis]'")
from redis import asyncio as redis  # noqa: E402


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Store:
    """A redis-server of this test's own, without files."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL)
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("redis-server does not listen")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def store() -> Iterator[Store]:
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server: apt-get install -y redis-server")
    one = Store()
    one.start()
    yield one
    one.stop()


@asynccontextmanager
async def instances(store: Store) -> AsyncIterator[tuple[str, str]]:
    settings = Settings(port=0, redis=store.url, connections_per_minute=6000)
    async with running(settings) as one, running(settings) as other:
        yield one, other


async def test_any_instance_serves_any_room(store: Store) -> None:
    async with instances(store) as (one, other):
        room = await ask_for_room(one)
        async with Rendezvous(other, room) as alice:
            assert not alice.peer_present
            async with Rendezvous(one, room) as bob:
                assert bob.peer_present
                assert isinstance(await alice.receive(), PeerJoined)
                await bob.send(Describe("offer", "an offer"))
                assert await alice.receive() == Describe("offer", "an offer")
                await alice.send(Describe("answer", "an answer"))
                assert await bob.receive() == Describe("answer", "an answer")
                with pytest.raises(SignallingError, match="two people are in this room already") as refused:
                    async with Rendezvous(other, room):
                        pass
                assert refused.value.kind == "room-full"
            assert await alice.receive() == PeerLeft(deliberate=True)
            await alice.send(Describe("offer", "to nobody"))
            assert await alice.receive() == Refused(Refusal.NO_PEER, "nobody else is in the room")


async def test_the_same_peer_moves_to_another_instance(store: Store) -> None:
    async with instances(store) as (one, other):
        room = await ask_for_room(one)
        async with Rendezvous(one, room) as alice, Rendezvous(one, room, peer=alice.peer) as again:
            assert again.peer == alice.peer
            with pytest.raises(SignallingError, match="joined from elsewhere"):
                await alice.receive()
            async with Rendezvous(other, room, peer=alice.peer) as moved:
                assert moved.peer == alice.peer
                assert not moved.peer_present
            alice.leaving = again.leaving = False


async def test_rooms_outlive_a_restart_of_redis_while_somebody_is_in_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signaling.redis_hub.BEAT_S", 0.2)
    async with instances(store) as (one, other):
        room = await ask_for_room(one)
        async with Rendezvous(one, room) as alice:
            store.stop()
            with pytest.raises(SignallingError, match="store does not answer"):
                await ask_for_room(other)
            store.start()
            for _ in range(50):
                await asyncio.sleep(0.2)
                try:
                    async with Rendezvous(other, room) as bob:
                        assert bob.peer_present
                        async with asyncio.timeout(10.0):
                            assert isinstance(await alice.receive(), PeerJoined)
                    return
                except SignallingError:
                    continue
    raise AssertionError("the room did not come back")


async def test_who_comes_while_an_instance_does_not_listen_is_made_known_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signaling.redis_hub.BEAT_S", 0.2)
    monkeypatch.setattr("signaling.redis_hub._RETRY_S", 2.0)
    one, other = RedisHub(store.url, 10, 60.0), RedisHub(store.url, 10, 60.0)
    control = redis.Redis.from_url(store.url, decode_responses=True)
    heard: list[FromServer] = []
    arrival = asyncio.Event()

    async def to_alice(message: FromServer) -> None:
        heard.append(message)
        if message == PeerJoined():
            arrival.set()

    async def to_bob(message: FromServer) -> None:
        pass

    try:
        room = await one.create()
        await one.join(room, "", to_alice)
        (channel,) = await control.pubsub_channels()
        await control.client_kill_filter(_type="pubsub")
        bob = await other.join(room, "", to_bob)
        assert (await control.pubsub_numsub(channel))[0][1] == 0, "the instance listens again too early for this test"
        assert PeerJoined() not in heard
        await asyncio.wait_for(arrival.wait(), 10.0)
        await asyncio.sleep(2.5)  # several beats, and listening again
        assert heard.count(PeerJoined()) == 1
        await other.leave(bob, True)
        await other.join(room, "", to_bob)
        await asyncio.sleep(1.0)
        assert heard[-2:] == [PeerLeft(True), PeerJoined()]
    finally:
        await one.close()
        await other.close()
        await control.aclose()


async def test_rooms_expire_and_are_limited_over_all_instances(store: Store) -> None:
    settings = Settings(port=0, redis=store.url, rooms_max=2, room_expiry_s=1.0)
    async with running(settings) as one, running(settings) as other:
        room = await ask_for_room(one)
        await ask_for_room(other)
        with pytest.raises(SignallingError, match="no room left"):
            await ask_for_room(one)
        await asyncio.sleep(1.3)
        with pytest.raises(SignallingError, match="no such room"):
            async with Rendezvous(other, room):
                pass
        await ask_for_room(one)


def test_what_is_no_redis_url() -> None:
    with pytest.raises(InputError, match="not the URL of a Redis server"):
        RedisHub("http://x", 1, 1.0)


class Instance:
    """`python -m signaling` in a process of its own, which can be killed."""

    def __init__(self, store: Store, port: int) -> None:
        arguments = [sys.executable, "-m", "signaling", "--port", str(port), "--redis", store.url]
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            arguments, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert b"signalling on" in self._process.stdout.readline()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class Balancer:
    """One address before several instances, as a proxy would be: new connections go to the first that answers."""

    def __init__(self, ports: list[int]) -> None:
        self._ports = ports

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for port in self._ports:
            try:
                upstream = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                continue
            await asyncio.gather(_pump(reader, upstream[1]), _pump(upstream[0], writer))
            return
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@pytest.mark.timeout(90)
async def test_an_instance_killed_in_the_middle_of_a_handshake(store: Store) -> None:
    """Alice sits on the first instance. It is killed when Bob's offer has reached her, before her answer has left;
    she comes back through the other one, takes her seat, and the call comes up."""
    ports = [free_port(), free_port()]
    first, second = await asyncio.gather(*(asyncio.to_thread(Instance, store, port) for port in ports))
    killed = asyncio.Event()
    events: list[Event] = []
    waiting = asyncio.Event()

    def note(event: Event, text: str) -> None:
        events.append(event)
        waiting.set()

    class Killing(FakeCodec):
        """Kills the instance when the first connection is made, which is when an offer has come."""

        def sender(self, spans: Spans) -> FakeSender:
            if not killed.is_set():
                killed.set()
                first.kill()
            return super().sender(spans)

    try:
        async with Balancer(ports).listening() as balanced:
            room = await ask_for_room(second.url)
            alice = Session(
                SessionOptions(balanced, room, ConnectionOptions(model="")),
                Killing(),
                Hooks(event=note),
            )
            bob = Session(SessionOptions(second.url, room, ConnectionOptions(model="")), FakeCodec())
            async with asyncio.TaskGroup() as group:
                group.create_task(alice.run())
                await waiting.wait()
                group.create_task(bob.run())
                await asyncio.wait_for(asyncio.gather(alice.connected.wait(), bob.connected.wait()), 40)
                assert killed.is_set()
                assert Event.RECONNECTING in events
                alice.stop()
    finally:
        if not killed.is_set():
            first.kill()
        second.kill()
