"""Peers are told STUN and TURN servers, and get through a real coturn with what they are told."""

import asyncio
import base64
import hashlib
import hmac
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from signaling import Relay, Settings, running
from streamgc.call.ice import named_servers, told_servers
from streamgc.call.messages import IceServer
from streamgc.call.rendezvous import Rendezvous, make_room
from streamgc.call.session import Hooks, Session, SessionOptions
from streamgc.errors import InputError
from streamgc.rtc.connection import Connection, ConnectionOptions
from tests.rtc_fakes import FakeCodec

SECRET = "a secret of two servers"


def test_credentials_are_those_of_coturn() -> None:
    stun, turn = Relay(("stun:s.example:3478",), ("turn:t.example:3478",), SECRET).servers(now=1000.0)
    assert stun == IceServer(("stun:s.example:3478",))
    assert turn.username == "87400"  # a day later
    expected = hmac.new(SECRET.encode(), b"87400", hashlib.sha1).digest()
    assert turn.credential == base64.b64encode(expected).decode()


def test_what_is_no_relay() -> None:
    with pytest.raises(InputError, match="not a STUN URL"):
        Relay(stun=("http://x",))
    with pytest.raises(InputError, match="not a TURN URL"):
        Relay(turn=("stun:x",), secret=SECRET)
    with pytest.raises(InputError, match="needs the secret"):
        Relay(turn=("turn:x",))
    with pytest.raises(InputError, match="not a STUN URL"):
        named_servers(["stun:"], [])
    with pytest.raises(InputError, match="user name and a password"):
        named_servers([], ["turn:x:3478"])


def test_nonsense_that_a_server_tells_is_left_out() -> None:
    told = told_servers([IceServer(("nonsense", "stun:s.example:3478")), IceServer(("turn:",))])
    assert [one.urls for one in told] == [["stun:s.example:3478"]]


async def test_whoever_joins_is_told() -> None:
    settings = Settings(port=0, relay=Relay(("stun:s.example:3478",), ("turn:t.example:3478",), SECRET))
    async with running(settings) as url, Rendezvous(url, await make_room(url)) as peer:
        assert [one.urls for one in peer.ice] == [("stun:s.example:3478",), ("turn:t.example:3478",)]
        assert peer.ice[1].credential


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def own_address() -> str:
    """This machine's address, at which coturn listens: aioice offers no loopback candidates where there is another."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        address: str = probe.getsockname()[0]
        return address


@asynccontextmanager
async def coturn(folder: Path) -> AsyncIterator[str]:
    """A turnserver of this test's own, with the options of deploy/turnserver.conf that do not name a host."""
    program = shutil.which("turnserver")
    if program is None:
        pytest.skip("needs a TURN server: apt-get install -y coturn")
    address, port = own_address(), free_port()
    arguments = [
        "--use-auth-secret",
        f"--static-auth-secret={SECRET}",
        "--realm=test",
        "--no-tls",
        "--no-dtls",
        "--no-cli",
    ]
    arguments += [f"--listening-ip={address}", f"--relay-ip={address}", f"--listening-port={port}", "-n"]
    arguments += [
        "--allow-loopback-peers",
        "--log-file=stdout",
        f"--pidfile={folder / 'pid'}",
        f"--userdb={folder / 'db'}",
    ]
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(program, *arguments, stdout=quiet, stderr=quiet, cwd=folder)
    await asyncio.sleep(1.0)
    try:
        yield f"turn:{address}:{port}"
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.timeout(60)
async def test_a_call_through_a_real_relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides know each other's relayed candidates alone, so that every packet takes the way through coturn."""

    def only_relayed(connection: Connection) -> None:
        text = connection.offer, connection.answer

        async def offer() -> str:
            return without_direct_ways(await text[0]())

        async def answer(theirs: str) -> str:
            return without_direct_ways(await text[1](theirs))

        monkeypatch.setattr(connection, "offer", offer)
        monkeypatch.setattr(connection, "answer", answer)

    async with coturn(tmp_path) as turn, running(Settings(port=0, relay=Relay(turn=(turn,), secret=SECRET))) as url:
        room = await make_room(url)
        sides = [
            Session(
                SessionOptions(url, room, ConnectionOptions(model="")), FakeCodec(), Hooks(new_connection=only_relayed)
            )
            for _ in range(2)
        ]
        async with asyncio.TaskGroup() as group:
            for side in sides:
                group.create_task(side.run())
            await asyncio.wait_for(asyncio.gather(*(side.connected.wait() for side in sides)), 30)
            for side in sides:
                assert side.connection is not None
                assert "typ relay" in side.connection.pc.remoteDescription.sdp
                assert "typ host" not in side.connection.pc.remoteDescription.sdp
            sides[0].stop()


def without_direct_ways(sdp: str) -> str:
    lines = sdp.split("\r\n")
    assert any("typ relay" in line for line in lines)
    return "\r\n".join(line for line in lines if not line.startswith("a=candidate:") or "typ relay" in line)
