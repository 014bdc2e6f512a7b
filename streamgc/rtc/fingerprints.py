"""The certificates that a peer connection really uses, for peers that compare them."""

from typing import Any, NamedTuple

from aiortc import RTCPeerConnection
from cryptography.hazmat.primitives.hashes import SHA256


class Fingerprints(NamedTuple):
    """SHA-256 of the DTLS certificates of both ends."""

    own: bytes
    theirs: bytes


def fingerprints(pc: RTCPeerConnection) -> Fingerprints | None:
    """Those of the one transport of `pc`, taken from its finished DTLS handshake and not from a session description.

    None before the handshake, and when the peer has split the media over several transports: a code over one of them
    would say nothing about the others.
    """
    transports: set[Any] = {one.receiver.transport for one in pc.getTransceivers()}
    if len(transports) != 1:
        return None
    transport = transports.pop()
    if transport.state != "connected":
        return None
    theirs = transport._ssl.get_peer_certificate(as_cryptography=True)
    own = transport._RTCDtlsTransport__local_certificate._cert
    return Fingerprints(own.fingerprint(SHA256()), theirs.fingerprint(SHA256()))
