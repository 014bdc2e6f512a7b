"""The page's agent: who may talk to it, what it makes of messages, and a call between two tabs made of aiortc."""

import asyncio
import fractions
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import av
import numpy as np
import pytest
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.rtp import RtpPacket
from hypothesis import given
from hypothesis import strategies as st

from streamgc.call.agent import Agent, serving
from streamgc.call.agent_call import figures
from streamgc.call.agent_codec import stripe
from streamgc.call.agent_leg import FixedRate, MarkerJitterBuffer
from streamgc.call.agent_messages import parse_from_page
from streamgc.call.agent_rival import vp8_kbps
from streamgc.call.codec import CodecOptions
from streamgc.call.rendezvous import parse_link
from streamgc.call.run import CallOptions
from streamgc.call.serve import SignalingOptions, local_server
from streamgc.call.sources import Size
from streamgc.errors import InputError, SignallingError
from streamgc.rtc.statistics import Received, Sent, Statistics
from tests.rtc_fakes import FakeCodec

CODEC = CodecOptions(width=64, height=64, fps=15.0)


@asynccontextmanager
async def agent(server: str = "127.0.0.1:9") -> AsyncIterator[tuple[str, Agent]]:
    async with serving(CallOptions(server=server, codec=CODEC), FakeCodec(shape=(64, 64))) as (url, one):
        yield url, one


def origin(url: str) -> str:
    return "/".join(url.split("/")[:3])


async def status(url: str, method: str = "GET", **headers: str) -> int:
    async with aiohttp.ClientSession() as session, session.request(method, url, headers=headers) as reply:
        await reply.read()
        return reply.status


async def test_the_page_is_served_with_its_headers() -> None:
    async with agent() as (url, _), aiohttp.ClientSession() as session, session.get(url) as reply:
        assert reply.status == 200
        assert "main.js" in await reply.text()
        assert "frame-ancestors 'none'" in reply.headers["Content-Security-Policy"]
        assert reply.headers["Referrer-Policy"] == "no-referrer"
        for name in ("main.js", "page.css", "icon.svg"):
            assert await status(url + name) == 200


async def test_a_wrong_token_is_refused_everywhere() -> None:
    async with agent() as (url, _):
        wrong = origin(url) + "/" + "A" * 22 + "/"
        for path in ("", "main.js", "control", "nothing"):
            assert await status(wrong + path) == 403
        assert await status(wrong + "offer", "POST", Origin=origin(url)) == 403
        assert await status(origin(url) + "/") == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.example"]
)
async def test_a_foreign_host_is_refused(host: str) -> None:
    """DNS rebinding: a name of the attacker's that points to loopback."""
    async with agent() as (url, _):
        assert await status(url, Host=host) == 403


@pytest.mark.parametrize("foreign", ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1", ""])
async def test_a_foreign_origin_is_refused(foreign: str) -> None:
    async with agent() as (url, _):
        assert await status(url, Origin=foreign) == 403
        assert await status(url + "offer", "POST", Origin=foreign) == 403
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(url + "control", headers={"Origin": foreign})
            assert refused.value.status == 403


async def test_what_acts_needs_an_origin() -> None:
    async with agent() as (url, _):
        assert await status(url + "offer", "POST") == 403
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(url + "control")


@pytest.mark.parametrize(
    "name", ["../pyproject.toml", "..%2fpyproject.toml", "%2e%2e%2fREADME.md", "main.py", ".hidden"]
)
async def test_only_files_of_the_page_are_served(name: str) -> None:
    async with agent() as (url, _):
        assert await status(url + name) in (403, 404)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"sdp": "v=0"}', b'{"sdp": 3}', b"\xff\xfe", b'{"sdp": "' + b"a" * 70_000 + b'"}']
)
async def test_a_bad_offer_is_an_error_and_the_agent_goes_on(body: bytes) -> None:
    async with agent() as (url, _), aiohttp.ClientSession() as session:
        async with session.post(url + "offer", data=body, headers={"Origin": origin(url)}) as reply:
            assert reply.status in (400, 413)
        assert await status(url) == 200


async def test_options_of_the_terminal_are_not_silently_ignored() -> None:
    with pytest.raises(InputError, match="--headless"):
        async with serving(CallOptions(codec=CODEC, record="out.mkv"), FakeCodec()):
            pytest.fail("it was served")


@given(
    st.text(max_size=200)
    | st.recursive(st.none() | st.text(), lambda inner: st.dictionaries(st.text(), inner)).map(json.dumps)
)
def test_control_messages_are_parsed_or_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_from_page(text)


def test_links() -> None:
    assert parse_link("abc", "http://a:1") == ("http://a:1", "abc")
    assert parse_link(" b.example:2/abc/ ", "http://a:1") == ("http://b.example:2", "abc")
    assert parse_link("https://b.example/abc", "http://a:1") == ("https://b.example", "abc")
    with pytest.raises(SignallingError):
        parse_link("ftp://b/abc", "http://a:1")


def packet(number: int, stamp: int, data: bytes, marker: bool) -> RtpPacket:
    made = RtpPacket(sequence_number=number, timestamp=stamp, marker=int(marker), payload=data)
    made._data = data  # type: ignore[attr-defined]
    return made


def test_a_frame_is_complete_with_its_marker() -> None:
    buffer = MarkerJitterBuffer()
    assert buffer.add(packet(65535, 1, b"a", False)) == (False, None)
    frame = buffer.add(packet(0, 1, b"b", True))[1]
    assert frame is not None
    assert (frame.data, frame.timestamp) == (b"ab", 1)
    assert buffer.add(packet(1, 1, b"", False))[1] is None  # padding
    assert buffer.add(packet(3, 2, b"d", True))[1] is None  # the one before is missing
    late = buffer.add(packet(2, 2, b"c", False))[1]
    assert late is not None
    assert late.data == b"cd"


def test_the_browser_is_told_a_fixed_rate() -> None:
    rate = FixedRate(1000)
    assert rate.add(0, 0, 100, 7) == (1000, [7])
    assert rate.add(0, 100, 100, 7) is None
    assert rate.add(0, 260, 100, 7) == (1000, [7])


def test_only_what_is_made_up_is_striped() -> None:
    picture = np.full((24, 24, 3), 100, np.uint8)
    alpha = np.zeros((24, 24), np.uint8)
    alpha[:, :12] = 255
    marked = stripe(picture, alpha)
    assert (marked[:, :12] == 100).all()
    assert 0.3 < (marked[:, 12:] != 100).any(2).mean() < 0.7


def test_vp8_needs_more_for_more_movement() -> None:
    random = np.random.default_rng(1)
    noise = random.integers(0, 255, (20, 20, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    still = [noise] * 12
    moving = [np.roll(noise, 5 * step, 1) for step in range(12)]
    size = Size(128, 128)
    quiet, busy = vp8_kbps(still, size, 15.0), vp8_kbps(moving, size, 15.0)
    assert 5 < quiet < busy  # headers alone are 6 kbit/s


def test_vp8_is_compared_at_the_rate_that_is_sent() -> None:
    sent = Sent(kbps_onwire=3.0, fps=5.0)
    second = Statistics(1.0, "connected", "SGC", "", "", "", sent, Received(), 40.0, {"encode": {"p50": 10.0}})
    assert figures(second, 90.0, 15.0).vp8_kbps == 30.0
    assert figures(second, None, 15.0).vp8_kbps is None
    assert figures(second, 90.0, 15.0).latency_ms == 30.0


def test_a_link_that_takes_fewer_pictures_is_called_full() -> None:
    def crowded(target_fps: float) -> bool:
        sent = Sent(target_fps=target_fps)
        return figures(Statistics(1.0, "connected", "SGC", "", "", "", sent, Received(), 40.0, {}), None, 15.0).crowded

    assert crowded(7.5)
    assert not crowded(15.0)
    assert not crowded(0.0)  # not known yet


def test_the_sound_counts_for_both() -> None:
    sent = Sent(kbps_onwire=20.0, fps=15.0, sound_kbps=8.0, sound_packet_ms=100)
    second = Statistics(1.0, "connected", "SGC", "", "", "", sent, Received(), 40.0, {})
    assert figures(second, 90.0, 15.0).vp8_kbps == 90.0 + 8.0 + 50 * 8 / 100


class Colours(MediaStreamTrack):
    """A camera of one colour."""

    kind = "video"

    def __init__(self, colour: int) -> None:
        super().__init__()
        self._colour, self._count = colour, 0

    async def recv(self) -> av.VideoFrame:
        await asyncio.sleep(1 / 15)
        self._count += 1
        frame = av.VideoFrame.from_ndarray(np.full((96, 128, 3), self._colour, np.uint8), format="rgb24")
        frame.pts, frame.time_base = self._count * 6000, fractions.Fraction(1, 90_000)
        return frame


class Tone(MediaStreamTrack):
    """A microphone that hears one frequency."""

    kind = "audio"

    def __init__(self, hertz: float) -> None:
        super().__init__()
        self._hertz, self._count, self._start = hertz, 0, time.monotonic()

    async def recv(self) -> av.AudioFrame:
        await asyncio.sleep(max(0.0, self._start + self._count / 48_000 - time.monotonic()))
        places = np.arange(self._count, self._count + 960)
        samples = (8000 * np.sin(2 * np.pi * self._hertz * places / 48_000)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, self._count, fractions.Fraction(1, 48_000)
        self._count += 960
        return frame


class Tab:
    """What the page does, without a browser; with `hertz` it has a microphone that hears a tone."""

    def __init__(self, url: str, colour: int, hertz: float = 0.0) -> None:
        self._url, self._headers = url, {"Origin": origin(url)}
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.pc.addTransceiver(Colours(colour), "sendonly")
        self._screens = [self.pc.addTransceiver("video", "recvonly") for _ in range(2)]
        self._talk = self.pc.addTransceiver(Tone(hertz), "sendrecv") if hertz else None

    async def __aenter__(self) -> "Tab":
        self._session = aiohttp.ClientSession(headers=self._headers)
        self._socket = await self._session.ws_connect(self._url + "control")
        await self.until("settings")
        await self.pc.setLocalDescription(await self.pc.createOffer())
        async with self._session.post(self._url + "offer", json={"sdp": self.pc.localDescription.sdp}) as reply:
            assert reply.status == 200
            answer = await reply.json()
        await self.pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.pc.close()
        await self._socket.close()
        await self._session.close()

    async def send(self, kind: str, **values: Any) -> None:
        await self._socket.send_json({"type": kind, **values})

    async def until(self, kind: str, **wanted: Any) -> dict[str, Any]:
        """The next message of this kind with these values."""
        async with asyncio.timeout(40):
            while True:
                message: dict[str, Any] = await self._socket.receive_json()
                if message["type"] == kind and all(message[name] == value for name, value in wanted.items()):
                    return message

    async def sees(self, colour: int, screen: int = 0) -> None:
        """Wait for a picture of this colour."""
        track: Any = self._screens[screen].receiver.track
        async with asyncio.timeout(40):
            while True:
                frame = await track.recv()
                if abs(float(frame.to_ndarray(format="rgb24").mean()) - colour) < 8:
                    return

    async def hears(self) -> float:
        """The loudest frequency of the next half second of sound that is not silence; the player stretches a little."""
        assert self._talk is not None
        track: Any = self._talk.receiver.track
        heard = np.zeros(0)
        async with asyncio.timeout(40):
            while len(heard) < 24_000:
                samples = (await track.recv()).to_ndarray().reshape(-1, 2)[:, 0].astype(float)
                loud = len(samples) and np.abs(samples).max() > 500
                heard = np.concatenate([heard, samples]) if loud else np.zeros(0)
        spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
        return float(spectrum.argmax()) * 48_000 / len(heard)

    async def hears_nothing(self) -> None:
        """Wait for half a second of silence."""
        assert self._talk is not None
        track: Any = self._talk.receiver.track
        quiet = 0
        async with asyncio.timeout(40):
            while quiet < 25:
                samples = (await track.recv()).to_ndarray()
                quiet = quiet + 1 if np.abs(samples.astype(int)).max() < 100 else 0


@asynccontextmanager
async def call_of_two(*tones: float) -> AsyncIterator[tuple[Tab, Tab, Agent]]:
    """Two tabs in a call through their agents, with the first one's agent; their microphones give these tones, in
    hertz."""
    async with (
        local_server(SignalingOptions(port=0)) as server,
        agent(server) as (alice_url, one),
        agent(server) as (bob_url, _),
        Tab(alice_url, 60, *tones[:1]) as alice,
        Tab(bob_url, 200, *tones[1:]) as bob,
    ):
        await alice.send("create")
        waiting = await alice.until("situation", phase="waiting")
        await bob.send("join", room=waiting["link"])
        await asyncio.gather(*(tab.until("situation", phase="connected") for tab in (alice, bob)))
        yield alice, bob, one


async def test_two_tabs_hear_each_other_and_mute() -> None:
    async with call_of_two(440.0, 1000.0) as (alice, bob, _):
        assert await alice.hears() == pytest.approx(1000, rel=0.08)
        assert await bob.hears() == pytest.approx(440, rel=0.08)
        assert len((await bob.until("authentication"))["code"]) == 7  # sound goes over the same transport
        await alice.send("microphone", on=False)
        await alice.until("settings", microphone=False)
        await bob.hears_nothing()
        await alice.send("microphone", on=True)
        assert await bob.hears() == pytest.approx(440, rel=0.08)


async def test_two_tabs_talk_through_their_agents() -> None:
    async with call_of_two() as (alice, bob, _):
        await asyncio.gather(alice.sees(200), bob.sees(60))
        second = await bob.until("figures", codec="SGC")
        assert second["kbps_sent"] >= 0
        await alice.send("view", view="theirs")
        await alice.sees(60, screen=1)
        await bob.send("camera", on=False)
        await bob.until("settings", camera=False)
        await alice.sees(40)
        await alice.send("quality", kbps=1000)
        await alice.until("trouble")
        await alice.send("hangup")
        await alice.until("situation", phase="ended")
        await bob.until("situation", phase="left")


async def test_the_rate_that_was_set_holds_for_the_next_connection_too() -> None:
    async with call_of_two() as (alice, _, one):
        await alice.send("quality", kbps=4)
        await alice.until("settings", kbps=4)
        session = one.call._session
        assert session is not None
        connection = session.connection
        assert connection is not None
        assert connection.rate.ceiling_kbps == 4
        await connection.pc.close()
        await alice.until("situation", phase="reconnecting")
        await alice.until("situation", phase="connected")
        renewed = session.connection
        assert renewed is not None
        assert renewed is not connection
        assert renewed.rate.ceiling_kbps == 4


async def test_a_later_tab_takes_over() -> None:
    async with agent() as (url, _), Tab(url, 60) as first, Tab(url, 60):
        await first.until("replaced")


async def test_failures_are_named() -> None:
    async with local_server(SignalingOptions(port=0)) as server, agent(server) as (url, _), Tab(url, 60) as tab:
        await tab.send("join", room="A" * 22)
        assert (await tab.until("situation", phase="failed"))["reason"] == "no-room"
        await tab.send("join", room="127.0.0.1:9/" + "A" * 22)
        assert (await tab.until("situation", phase="failed"))["reason"] == "server-gone"
