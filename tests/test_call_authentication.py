"""The short authentication string: equal for honest peers, different when somebody sits between them."""

import asyncio
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgc.call.authentication import Handshake
from streamgc.call.messages import Describe, FromServer, Reveal
from streamgc.call.rendezvous import Rendezvous, make_room
from streamgc.call.serve import SignalingOptions, local_server
from streamgc.call.session import Hooks, Session, SessionOptions
from streamgc.rtc.connection import Connection, ConnectionOptions
from streamgc.rtc.fingerprints import Fingerprints
from tests.rtc_fakes import FakeCodec, FakeReceiver, FakeSender

CERTIFICATES = st.binary(min_size=32, max_size=32)


def exchange(offerer: Handshake, answerer: Handshake) -> bool:
    answerer.take_proof(offerer.proof)
    offerer.take_proof(answerer.proof)
    return answerer.take_revealed(offerer.revealed)


@given(CERTIFICATES, CERTIFICATES)
def test_both_sides_get_the_same_code(alice: bytes, bob: bytes) -> None:
    offerer, answerer = Handshake(offers=True), Handshake(offers=False)
    assert exchange(offerer, answerer)
    code = offerer.code(Fingerprints(alice, bob))
    assert code == answerer.code(Fingerprints(bob, alice))
    assert len(code) == 7
    assert code[3] == "-"


@given(CERTIFICATES, CERTIFICATES, CERTIFICATES)
def test_another_certificate_gives_another_code(alice: bytes, bob: bytes, mallory: bytes) -> None:
    if mallory == bob:
        return
    offerer, answerer = Handshake(offers=True), Handshake(offers=False)
    assert exchange(offerer, answerer)
    assert offerer.code(Fingerprints(alice, mallory)) != answerer.code(Fingerprints(bob, alice))


def test_a_nonce_that_was_not_committed_to_is_refused() -> None:
    offerer, answerer = Handshake(offers=True), Handshake(offers=False)
    answerer.take_proof(offerer.proof)
    assert not answerer.take_revealed(secrets.token_hex(32))
    assert answerer.code(Fingerprints(b"a" * 32, b"b" * 32)) == ""
    assert answerer.take_revealed(offerer.revealed)
    assert not answerer.take_revealed(offerer.revealed)  # a second time


def test_a_second_nonce_after_ours_is_known_changes_nothing() -> None:
    offerer = Handshake(offers=True)
    offerer.take_proof(Handshake(offers=False).proof)
    certificates = Fingerprints(b"a" * 32, b"m" * 32)
    before = offerer.code(certificates)
    offerer.take_proof(Handshake(offers=False).proof)
    assert offerer.code(certificates) == before


def test_the_offer_gives_nothing_of_the_nonce_away() -> None:
    handshake = Handshake(offers=True)
    assert handshake.proof != handshake.revealed
    assert Handshake(offers=True).proof != Handshake(offers=True).proof


class Side:
    """A session and the codes it was told."""

    def __init__(self, server: str, room: str) -> None:
        self.codes: list[str] = []
        self.told = asyncio.Event()
        options = SessionOptions(server, room, ConnectionOptions(model=""))
        self.session = Session(options, FakeCodec(), Hooks(code=self._take))

    def _take(self, code: str) -> None:
        self.codes.append(code)
        self.told.set()


async def test_two_sessions_tell_the_same_code() -> None:
    async with local_server(SignalingOptions(port=0)) as server:
        room = await make_room(server)
        alice, bob = Side(server, room), Side(server, room)
        async with asyncio.TaskGroup() as group:
            for one in (alice, bob):
                group.create_task(one.session.run())
            await asyncio.wait_for(asyncio.gather(alice.told.wait(), bob.told.wait()), 20)
            alice.session.stop()
    assert alice.codes == bob.codes
    assert len(alice.codes[0]) == 7


class Between:
    """A server that joins two connections of its own: to each honest side it plays the other one."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []

    async def towards(self, rendezvous: Rendezvous, offers: bool) -> None:
        """Serve one honest side."""
        connection = Connection(ConnectionOptions(model=FakeCodec().model_hash), FakeSender(), FakeReceiver())
        self.connections.append(connection)
        handshake = Handshake(offers)
        if offers:
            await rendezvous.send(Describe("offer", await connection.offer(), handshake.proof))
        while True:
            message: FromServer = await rendezvous.receive()
            if isinstance(message, Reveal):
                assert handshake.take_revealed(message.nonce)
            elif isinstance(message, Describe) and message.kind == "offer":
                handshake.take_proof(message.proof)
                await rendezvous.send(Describe("answer", await connection.answer(message.text), handshake.proof))
            elif isinstance(message, Describe):
                handshake.take_proof(message.proof)
                await connection.accept(message.text)
                await rendezvous.send(Reveal(handshake.revealed))


@pytest.mark.timeout(60)
async def test_whoever_sits_between_two_calls_is_seen() -> None:
    """Two rooms stand for a hostile server's two sides: both calls come up, and their codes differ."""
    between = Between()
    async with local_server(SignalingOptions(port=0)) as server:
        rooms = [await make_room(server) for _ in range(2)]
        alice, bob = Side(server, rooms[0]), Side(server, rooms[1])
        async with Rendezvous(server, rooms[0]) as to_alice:
            tasks = [asyncio.create_task(between.towards(to_alice, offers=False))]
            tasks.append(asyncio.create_task(alice.session.run()))
            tasks.append(asyncio.create_task(bob.session.run()))
            await asyncio.sleep(0.3)
            async with Rendezvous(server, rooms[1]) as to_bob:
                tasks.append(asyncio.create_task(between.towards(to_bob, offers=True)))
                await asyncio.wait_for(asyncio.gather(alice.told.wait(), bob.told.wait()), 30)
                for one in (alice, bob):
                    one.session.stop()
                await asyncio.gather(tasks[1], tasks[2])
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(one.close() for one in between.connections))
    assert alice.codes[0]
    assert bob.codes[0]
    assert alice.codes[0] != bob.codes[0]
