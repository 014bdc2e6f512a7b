"""STUN and TURN servers: those that the user names, and those that the rendezvous server tells."""

from collections.abc import Iterable

from aiortc import RTCIceServer
from aiortc.rtcicetransport import parse_stun_turn_uri

from streamgc.call.messages import IceServer
from streamgc.errors import InputError


def named_servers(
    stun: Iterable[str], turn: Iterable[str], user: str = "", password: str = ""
) -> tuple[RTCIceServer, ...]:
    """For aiortc, which uses the first of each kind; raises `InputError` for what is no STUN or TURN URL, and for a
    TURN server without user and password."""
    servers = [RTCIceServer(_checked(url, "stun")) for url in stun]
    for url in turn:
        if not user or not password:
            raise InputError("a TURN server needs a user name and a password (--turn-user, --turn-password)")
        servers.append(RTCIceServer(_checked(url, "turn"), user, password))
    return tuple(servers)


def told_servers(told: Iterable[IceServer]) -> tuple[RTCIceServer, ...]:
    """For aiortc; what the server tells and is no STUN or TURN URL is left out."""
    servers = []
    for one in told:
        urls = [url for url in one.urls if _is_url(url)]
        if urls:
            servers.append(RTCIceServer(urls, one.username or None, one.credential or None))
    return tuple(servers)


def _checked(url: str, kind: str) -> str:
    if not url.startswith(kind) or not _is_url(url):
        raise InputError(f"not a {kind.upper()} URL: {url} (it looks like {kind}:host:port)")
    return url


def _is_url(url: str) -> bool:
    try:
        parse_stun_turn_uri(url)
    except ValueError:
        return False
    return True
