"""What deploy/ says works: the image's files suffice, and Caddy hands peers to whichever instance lives."""

import asyncio
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from streamgc.call.messages import Describe, PeerJoined
from streamgc.call.rendezvous import Rendezvous, make_room
from streamgc.errors import SignallingError
from tests.test_signaling_redis import Instance, Store, free_port
from tests.test_signaling_redis import store as store  # a fixture

REPOSITORY = Path(__file__).resolve().parents[1]
DEPLOY = REPOSITORY / "deploy"


def copy_image(target: Path) -> None:
    """What the Dockerfile copies."""
    for sources, destination in re.findall(r"^COPY (.+) (\S+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE):
        for source in sources.split():
            found = REPOSITORY / source
            if found.is_dir():
                shutil.copytree(found, target / destination)
            else:
                (target / destination).mkdir(parents=True, exist_ok=True)
                shutil.copy(found, target / destination)


async def test_the_images_files_suffice(tmp_path: Path) -> None:
    await asyncio.to_thread(copy_image, tmp_path)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "signaling", "--port", "0"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=pipe,
    )
    try:
        assert process.stdout is not None
        url = (await asyncio.wait_for(process.stdout.readline(), 20)).decode().rpartition(" ")[2].strip()
        room = await make_room(url)
        async with aiohttp.ClientSession() as session, session.get(f"{url}/{room}") as reply:
            assert "Join in this browser" in await reply.text()
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def caddy(folder: Path, ports: list[int]) -> AsyncIterator[str]:
    """Caddy with our file, over plain http before instances on these ports."""
    program = shutil.which("caddy")
    if program is None:
        pytest.skip("needs Caddy: apt-get install -y caddy")
    url = f"http://127.0.0.1:{free_port()}"
    upstreams = " ".join(f"127.0.0.1:{port}" for port in ports)
    # its administration would listen on a port that every Caddy of this machine has
    file = folder / "Caddyfile"
    await asyncio.to_thread(file.write_text, "{\n\tadmin off\n}\n" + (DEPLOY / "Caddyfile").read_text())
    environment = {**os.environ, "DOMAIN": url, "UPSTREAMS": upstreams, "HOME": str(folder)}
    quiet = asyncio.subprocess.DEVNULL
    arguments = ("run", "--config", str(file), "--adapter", "caddyfile")
    process = await asyncio.create_subprocess_exec(program, *arguments, env=environment, stdout=quiet, stderr=quiet)
    try:
        async with aiohttp.ClientSession() as session:
            for _ in range(100):
                try:
                    async with session.get(f"{url}/healthz") as reply:
                        if reply.status == 200:
                            break
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.1)
        yield url
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.timeout(90)
async def test_caddy_before_two_instances_of_which_one_dies(store: Store, tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    instances = await asyncio.gather(*(asyncio.to_thread(Instance, store, port) for port in ports))
    alive = list(instances)
    try:
        async with caddy(tmp_path, ports) as url:
            async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as reply:
                assert reply.status == 404
            room = await make_room(url)
            async with Rendezvous(url, room) as alice, Rendezvous(url, room) as bob:
                assert isinstance(await alice.receive(), PeerJoined)
                alive.remove(instances[0])
                instances[0].kill()  # least connections: one of the two sat on it
                lost, other = await who_is_gone(alice, bob)
                lost.leaving = False
                async with Rendezvous(url, room, peer=lost.peer) as again:
                    assert again.peer == lost.peer
                    assert again.peer_present
                    assert isinstance(await asyncio.wait_for(other.receive(), 10), PeerJoined)
                    await again.send(Describe("offer", "an offer"))
                    assert await other.receive() == Describe("offer", "an offer")
    finally:
        for instance in alive:
            instance.kill()


async def who_is_gone(*peers: Rendezvous) -> tuple[Rendezvous, Rendezvous]:
    """(the one whose server died, the other)."""
    tasks = [asyncio.create_task(peer.receive()) for peer in peers]
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=20)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    (gone,) = done
    assert isinstance(gone.exception(), SignallingError)
    place = tasks.index(gone)
    return peers[place], peers[1 - place]
