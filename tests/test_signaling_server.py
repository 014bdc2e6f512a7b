"""The rendezvous server over real sockets: rooms of two, and everything that a client may do wrong."""

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signaling import Settings, running
from signaling.limits import AddressLimit, Bucket
from signaling.tickets import is_valid, make_room, make_ticket
from streamgc.call.messages import (
    Describe,
    Join,
    PeerJoined,
    PeerLeft,
    Refusal,
    Refused,
    encode,
    parse_from_client,
    parse_from_server,
)
from streamgc.call.rendezvous import Rendezvous, server_url
from streamgc.call.rendezvous import make_room as ask_for_room
from streamgc.call.serve import SignalingOptions, local_server
from streamgc.errors import InputError, SignallingError

SETTINGS = Settings(port=0, heartbeat_s=1.0)


@pytest.fixture
async def server() -> AsyncIterator[str]:
    async with running(SETTINGS) as url:
        yield url


async def test_two_peers_exchange_descriptions(server: str) -> None:
    room = await ask_for_room(server)
    async with Rendezvous(server, room) as alice:
        assert not alice.peer_present
        async with Rendezvous(server, room) as bob:
            assert bob.peer_present
            assert await alice.receive() == PeerJoined()
            await bob.send(Describe("offer", "v=0 offer"))
            assert await alice.receive() == Describe("offer", "v=0 offer")
            await alice.send(Describe("answer", "v=0 answer"))
            assert await bob.receive() == Describe("answer", "v=0 answer")
        assert await alice.receive() == PeerLeft(deliberate=True)


async def test_a_third_peer_is_told_so_and_the_two_go_on(server: str) -> None:
    room = await ask_for_room(server)
    async with Rendezvous(server, room) as alice, Rendezvous(server, room) as bob:
        await alice.receive()
        with pytest.raises(SignallingError, match="two people"):
            async with Rendezvous(server, room):
                pass
        await bob.send(Describe("offer", "still here"))
        assert await alice.receive() == Describe("offer", "still here")


async def test_a_peer_that_comes_back_takes_its_old_place(server: str) -> None:
    room = await ask_for_room(server)
    async with Rendezvous(server, room) as alice, Rendezvous(server, room) as bob:
        await alice.receive()
        async with Rendezvous(server, room, peer=bob.peer) as again:
            assert again.peer == bob.peer
            assert again.peer_present
            assert await alice.receive() == PeerJoined()
            with pytest.raises(SignallingError, match="elsewhere"):
                await bob.receive()
            await again.send(Describe("offer", "second"))
            assert await alice.receive() == Describe("offer", "second")


async def test_an_unknown_room_is_refused(server: str) -> None:
    with pytest.raises(SignallingError, match="no such room"):
        async with Rendezvous(server, make_room()):
            pass


async def test_joining_twice_and_talking_to_nobody(server: str) -> None:
    room = await ask_for_room(server)
    async with Rendezvous(server, room) as alice:
        await alice.send(Join(room))
        with pytest.raises(SignallingError, match="already"):
            await alice.receive()
        await alice.send(Describe("offer", "hello?"))
        assert await alice.receive() == Refused(Refusal.NO_PEER, "nobody else is in the room")


@pytest.mark.parametrize(
    "data",
    ["", "{", "[]", '{"type":"nonsense"}', '{"type":"join"}', '{"type":"join","room":"short"}', "\\ud800", "9" * 400],
)
async def test_malformed_messages_are_answered_and_the_server_goes_on(server: str, data: str) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{server}/ws") as socket:
        await socket.send_str(data)
        reply = parse_from_server(await socket.receive_str())
        assert isinstance(reply, Refused)
        assert reply.code is Refusal.MALFORMED
        await socket.send_str(encode(Join(make_room())).decode())
        reply = parse_from_server(await socket.receive_str())
        assert isinstance(reply, Refused)
        assert reply.code is Refusal.NO_SUCH_ROOM


async def test_an_oversized_message_closes_only_its_connection(server: str) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(f"{server}/ws") as socket:
            await socket.send_str("x" * 100_000)
            assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        async with session.get(f"{server}/healthz") as reply:
            assert (await reply.json())["status"] == "ok"


async def test_a_flood_is_cut_off() -> None:
    async with (
        running(Settings(port=0, messages_per_second=5)) as url,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/ws") as socket,
    ):
        for _ in range(8):
            await socket.send_str("{}")
        codes = []
        async for message in socket:
            parsed = parse_from_server(message.data)
            assert isinstance(parsed, Refused)
            codes.append(parsed.code)
        assert codes == [Refusal.MALFORMED] * 5 + [Refusal.TOO_FAST]


async def test_a_wrong_protocol_version_is_named(server: str) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{server}/ws") as socket:
        await socket.send_str(json.dumps({"type": "join", "room": make_room(), "protocol": 99}))
        reply = parse_from_server(await socket.receive_str())
        assert isinstance(reply, Refused)
        assert reply.code is Refusal.WRONG_VERSION


async def test_secret_origin_and_address_limit() -> None:
    settings = Settings(port=0, secret="s3cret", origins=("https://good.example",), connections_per_minute=12)
    async with running(settings) as url, aiohttp.ClientSession() as session:
        ticket = {"Authorization": f"Bearer {make_ticket('s3cret')}"}
        async with session.post(f"{url}/rooms") as reply:
            assert reply.status == 401
        async with session.post(f"{url}/rooms", headers={**ticket, "Origin": "https://bad.example"}) as reply:
            assert reply.status == 403
        room = await ask_for_room(url, ticket["Authorization"].split()[1])
        async with Rendezvous(url, room, ticket=make_ticket("s3cret")) as peer:
            assert not peer.peer_present
        async with session.post(f"{url}/rooms", headers=ticket) as reply:
            assert reply.status == 429


async def test_the_page_of_a_link_may_use_its_server_and_no_other_page() -> None:
    async with running(Settings(port=0, origins=("https://good.example",))) as url, aiohttp.ClientSession() as session:
        async with session.post(f"{url}/rooms", headers={"Origin": url}) as reply:
            room = (await reply.json())["room"]
        for foreign in ("https://bad.example", "null", url + "0"):
            async with session.post(f"{url}/rooms", headers={"Origin": foreign}) as reply:
                assert reply.status == 403
        async with session.get(f"{url}/{room}") as reply:
            assert reply.headers["Content-Security-Policy"].startswith("default-src 'none'")
            assert "guest.js" in await reply.text()
        for path in ("guest/guest.js", "guest/guest.css"):
            async with session.get(f"{url}/{path}") as reply:
                assert reply.status == 200
        for path in ("guest/..%2fserver.py", "guest/nothing.js", "short"):
            async with session.get(f"{url}/{path}") as reply:
                assert reply.status == 404


async def test_nothing_is_logged_but_its_kind(server: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "streamgc.signaling")
    room = await ask_for_room(server)
    async with Rendezvous(server, room) as alice, Rendezvous(server, room) as bob:
        await bob.send(Describe("offer", "v=0 a secret description"))
        await alice.receive()
        with pytest.raises(SignallingError):
            async with Rendezvous(server, room):
                pass
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{server}/ws") as socket:
            await socket.send_str("nonsense about somebody")
            await socket.receive()
    said = [(record.getMessage(), getattr(record, "kind", "")) for record in caplog.records]
    assert set(said) == {("refused", "room-full"), ("refused", "malformed")}


async def test_metrics_count_by_kind(server: str) -> None:
    room = await ask_for_room(server)
    async with Rendezvous(server, room), aiohttp.ClientSession() as session:
        with pytest.raises(SignallingError):
            async with Rendezvous(server, make_room()):
                pass
        async with session.get(f"{server}/metrics") as reply:
            text = await reply.text()
    assert 'streamgc_refused_total{kind="no-such-room"} 1.0' in text
    assert "streamgc_rooms 1.0" in text
    assert room not in text


async def test_rooms_expire_and_are_limited() -> None:
    async with running(Settings(port=0, rooms_max=2, room_expiry_s=0.2)) as url:
        room = await ask_for_room(url)
        await ask_for_room(url)
        with pytest.raises(SignallingError, match="no room left"):
            await ask_for_room(url)
        await asyncio.sleep(0.25)
        with pytest.raises(SignallingError, match="no such room"):
            async with Rendezvous(url, room):
                pass
        await ask_for_room(url)


async def test_a_busy_port_is_said_in_one_line(server: str) -> None:
    port = int(server.rpartition(":")[2])
    with pytest.raises(InputError, match=r"cannot listen on 127\.0\.0\.1"):
        async with local_server(SignalingOptions(port=port)):
            pass


async def test_no_server_is_said_in_one_line() -> None:
    with pytest.raises(SignallingError, match=r"no signalling server at http://127\.0\.0\.1:9"):
        await ask_for_room("127.0.0.1:9")
    with pytest.raises(SignallingError, match="no signalling server"):
        async with Rendezvous("ws://127.0.0.1:9", make_room()):
            pass


@pytest.mark.parametrize("text", ["ftp://x", "http://", "http://host:port", ""])
def test_what_is_no_server_address(text: str) -> None:
    with pytest.raises(SignallingError, match="not the address"):
        server_url(text)


@given(st.one_of(st.text(), st.binary()))
def test_no_bytes_break_the_parser(data: str | bytes) -> None:
    for parse in (parse_from_client, parse_from_server):
        try:
            parse(data)
        except SignallingError:
            continue
        raise AssertionError("random data parsed as a message")


def test_tickets_expire_and_cannot_be_forged() -> None:
    ticket = make_ticket("secret", lifetime_s=60, now=1000)
    assert is_valid(ticket, "secret", now=1059)
    assert not is_valid(ticket, "secret", now=1061)
    assert not is_valid(ticket, "other", now=1000)
    assert not is_valid(ticket.replace("1060", "9060"), "secret", now=1000)
    for bad in ("", ".", "12", "x.y", "²." + "0" * 64, "1.é"):
        assert not is_valid(bad, "secret", now=0)


def test_buckets_refill_and_addresses_are_bounded() -> None:
    now = [0.0]
    bucket = Bucket(rate=2, burst=3, clock=lambda: now[0])
    assert [bucket.allow() for _ in range(4)] == [True, True, True, False]
    now[0] = 0.5
    assert [bucket.allow() for _ in range(2)] == [True, False]
    limit = AddressLimit(per_minute=4, clock=lambda: now[0])
    assert [limit.allow("a") for _ in range(2)] == [True, False]
    for number in range(20_000):
        limit.allow(str(number))
    assert len(limit._buckets) <= 10_000


async def test_requests_that_cannot_be_served_leave_no_address_in_the_log(
    server: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    host, port = server.removeprefix("http://").rsplit(":", 1)
    for request in (b"GARBAGE \x00\x01\r\n\r\n", b"GET /ws HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        assert b" 400 " in await reader.readline()
        writer.close()
    bad = {"Origin": "http://["}
    async with aiohttp.ClientSession() as session, session.get(f"{server}/ws", headers=bad) as reply:
        assert reply.status in {400, 403}
    said = [caplog.handler.format(record) for record in caplog.records if "asyncio" not in record.name]
    assert said, "it is said that something went wrong"
    assert not any(word in line for line in said for word in ("127.0.0.1", host, "GARBAGE", "http://["))
