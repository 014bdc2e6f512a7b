"""The bytes that really cross the network, counted at the UDP socket, and the place where a bad network is put in
between."""

from collections.abc import Callable
from typing import Any

from streamgc.rtc.impairment import DATAGRAM_OVERHEAD, Link


class Wire:
    """Counts the datagrams of one peer connection in both directions, with IPv4 and UDP headers."""

    def __init__(self, link: Link | None = None) -> None:
        self._link = link
        self._attached: list[Any] = []
        self.bytes_sent = self.bytes_received = 0
        self.datagrams_sent = self.datagrams_received = 0

    def attach(self, protocols: list[Any]) -> None:
        """Put the wire between aioice's protocols (one a local address) and their sockets."""
        for protocol in protocols:
            if protocol in self._attached:
                continue
            self._attached.append(protocol)
            protocol.transport = _Counted(protocol.transport, self)
            protocol.datagram_received = self._receiving(protocol.datagram_received)

    def send(self, size: int, deliver: Callable[[], None]) -> None:
        """Count a datagram of `size` bytes that leaves, and hand it to the network."""
        self.bytes_sent += size + DATAGRAM_OVERHEAD
        self.datagrams_sent += 1
        if self._link is None:
            deliver()
        else:
            self._link.push(size, deliver)

    def close(self) -> None:
        """Forget what the emulated network still holds."""
        if self._link is not None:
            self._link.close()
        self._attached.clear()

    def _receiving(self, receive: Callable[[bytes, Any], None]) -> Callable[[bytes, Any], None]:
        def received(data: bytes, address: Any) -> None:
            self.bytes_received += len(data) + DATAGRAM_OVERHEAD
            self.datagrams_received += 1
            receive(data, address)

        return received


class _Counted:
    """An asyncio datagram transport whose `sendto` passes over a wire."""

    def __init__(self, transport: Any, wire: Wire) -> None:
        self._transport, self._wire = transport, wire

    def sendto(self, data: bytes, address: Any = None) -> None:
        """As asyncio.DatagramTransport.sendto; a datagram that arrives after the socket closed is dropped."""
        data = bytes(data)
        # the transport of a TURN allocation cannot be asked, and drops what comes too late by itself
        closing: Callable[[], bool] = getattr(self._transport, "is_closing", lambda: False)

        def deliver() -> None:
            if not closing():
                self._transport.sendto(data, address)

        self._wire.send(len(data), deliver)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
