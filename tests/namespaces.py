"""Two network namespaces joined by TUN devices over an emulated network: what kernels with netem do, without it. Root.

Programs in the namespaces use real sockets, routes and addresses; every IP packet between them passes through a `Link`.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import functools
import os
import struct
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from streamgc.rtc.impairment import DATAGRAM_OVERHEAD, Impairment, Link

DEVICE = "streamgc0"
ADDRESSES = ("10.77.0.1", "10.77.0.2")
_SET_NAME = 0x400454CA
_TUN_WITHOUT_HEADER = 0x0001 | 0x1000
_PACKET_MAX = 2048


def available() -> bool:
    """Whether this process may make namespaces and TUN devices."""
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        return False
    return subprocess.run(["ip", "netns", "list"], capture_output=True, check=False).returncode == 0


class Namespaces:
    """Both ends; `names` are for `ip netns exec`."""

    def __init__(self, impairment: Impairment) -> None:
        self.names = tuple(f"streamgc-{os.getpid()}-{end}" for end in "ab")
        self.cut = False  # nothing passes
        self._links = [Link(replace(impairment, seed=impairment.seed + end)) for end in (0, 1)]
        self._devices: list[int] = []

    def up(self) -> None:
        """Make namespaces and devices, and begin to forward."""
        for name, address in zip(self.names, ADDRESSES, strict=True):
            ip("netns", "add", name)
            self._devices.append(_tun_in(name))
            for command in (
                ("addr", "add", f"{address}/24", "dev", DEVICE), ("link", "set", "lo", "up"),
                ("link", "set", DEVICE, "up"), ("route", "add", "default", "dev", DEVICE),
            ):  # fmt: skip
                ip("-n", name, *command)
        loop = asyncio.get_running_loop()
        for end, device in enumerate(self._devices):
            loop.add_reader(device, self._forward, end)

    def down(self) -> None:
        """Remove everything."""
        loop = asyncio.get_running_loop()
        for device in self._devices:
            loop.remove_reader(device)
            os.close(device)
        for link in self._links:
            link.close()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def move(self, end: int, address: str) -> None:
        """Give an end another address, as when a machine changes its network."""
        ip("-n", self.names[end], "addr", "flush", "dev", DEVICE)
        ip("-n", self.names[end], "addr", "add", f"{address}/24", "dev", DEVICE)
        ip("-n", self.names[end], "route", "replace", "default", "dev", DEVICE)

    async def start(self, end: int, *command: str, **environment: str) -> asyncio.subprocess.Process:
        """Run a program in a namespace."""
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", self.names[end], *command,
            stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, **environment},
        )  # fmt: skip

    def _forward(self, end: int) -> None:
        other = self._devices[1 - end]
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = os.read(self._devices[end], _PACKET_MAX)
                if packet[0] >> 4 != 4 or self.cut:
                    continue
                size = max(0, len(packet) - DATAGRAM_OVERHEAD)
                self._links[end].push(size, functools.partial(_write, other, packet))


@asynccontextmanager
async def joined(impairment: Impairment) -> AsyncIterator[Namespaces]:
    """Two joined namespaces for the time of a block."""
    both = Namespaces(impairment)
    try:
        both.up()
        yield both
    finally:
        both.down()


def ip(*arguments: str) -> None:
    """The command of that name; raises when it fails."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _tun_in(name: str) -> int:
    """A TUN device that lives in a namespace, and is read from here."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/var/run/netns/{name}", os.O_RDONLY)
    try:
        if libc.setns(there, 0):
            raise OSError(ctypes.get_errno(), "setns")
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, _SET_NAME, struct.pack("16sH", DEVICE.encode(), _TUN_WITHOUT_HEADER))
        return device
    finally:
        libc.setns(home, 0)
        os.close(home)
        os.close(there)


def _write(device: int, packet: bytes) -> None:
    with contextlib.suppress(OSError):  # the device has gone
        os.write(device, packet)
