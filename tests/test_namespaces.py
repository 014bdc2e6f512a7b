"""End to end over real sockets in two network namespaces, as root: loss, a 30 s outage, another address."""

import asyncio
import json
import sys
import time
from pathlib import Path

import pytest

from streamgc.rtc.impairment import Impairment
from tests.namespaces import ADDRESSES, Namespaces, available, joined
from tests.test_call_sources import write_talking

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not available(), reason="needs root, ip and /dev/net/tun")]

PORT = 8765
ROOT = Path(__file__).parents[1]
_SERVER = f"""
from streamgc.call.serve import SignalingOptions, run_signaling
run_signaling(SignalingOptions(host="{ADDRESSES[0]}", port={PORT}), lambda url: print(url, flush=True))
"""
_PEER = """
import sys
from streamgc.call.codec import CodecOptions
from streamgc.call.run import CallOptions, run_call
codec = CodecOptions(width=64, height=64, factory="tests.rtc_fakes:load_fake")
run_call(CallOptions(sys.argv[1], sys.argv[2], codec=codec, input=sys.argv[3], receive_only=not sys.argv[3],
                     statistics=sys.argv[4]))
"""


class Call:
    """A server, a peer that sends and one that receives."""

    def __init__(self, net: Namespaces, folder: Path) -> None:
        self._net, self._folder = net, folder
        self._running: list[asyncio.subprocess.Process] = []

    async def begin(self) -> None:
        server = await self._start(0, "-c", _SERVER)
        assert server.stdout is not None
        await asyncio.wait_for(server.stdout.readline(), 30)
        make = await self._net.start(
            0, sys.executable, "-c",
            f"import asyncio; from streamgc.call.rendezvous import make_room; "
            f"print(asyncio.run(make_room('{ADDRESSES[0]}:{PORT}', '')))", PYTHONPATH=str(ROOT),
        )  # fmt: skip
        room = (await make.communicate())[0].decode().strip()
        clip = self._folder / "clip.mp4"
        write_talking(clip, 5)
        for end, source in ((0, str(clip)), (1, "")):
            await self._start(
                end, "-c", _PEER, room, f"{ADDRESSES[0]}:{PORT}", source, str(self._folder / f"{end}.lines")
            )

    async def end(self) -> None:
        for process in reversed(self._running):
            if process.returncode is None:
                process.terminate()
        for process in self._running:
            await asyncio.wait_for(process.communicate(), 15)

    def shown(self) -> float:
        """Pictures shown in all the receiver's connections."""
        counts, before = 0.0, 0.0
        for line in self.lines():
            shown = line["received"]["frames_shown"]
            counts += shown - before if shown >= before else shown
            before = shown
        return counts

    def lines(self, end: int = 1) -> list[dict[str, dict[str, float]]]:
        path = self._folder / f"{end}.lines"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    async def until_shown(self, more: int, seconds: float) -> None:
        wanted = self.shown() + more
        end = time.monotonic() + seconds
        while self.shown() < wanted:
            assert time.monotonic() < end, f"{self.shown()} pictures, not {wanted}: {self.lines()[-1:]}"
            await asyncio.sleep(0.5)

    async def _start(self, end: int, *words: str) -> asyncio.subprocess.Process:
        process = await self._net.start(end, sys.executable, *words, PYTHONPATH=str(ROOT))
        self._running.append(process)
        return process


@pytest.mark.timeout(240)
async def test_a_call_survives_loss_an_outage_of_thirty_seconds_and_another_address(tmp_path: Path) -> None:
    async with joined(Impairment(loss=0.05, delay_ms=40, jitter_ms=5)) as net:
        call = Call(net, tmp_path)
        try:
            await call.begin()
            await call.until_shown(60, 40)
            sent = call.lines(0)[-1]["sent"]
            assert 0 < sent["loss_reported"] < 0.2
            assert sent["sound_packets"] > 10

            net.cut = True
            await asyncio.sleep(30)
            stopped = call.shown()
            net.cut = False
            await call.until_shown(60, 40)
            assert call.shown() > stopped

            net.move(1, "10.77.0.99")
            await call.until_shown(60, 60)
        finally:
            await call.end()
