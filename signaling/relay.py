"""The STUN and TURN servers that peers are told, with credentials for a day.

The credentials are those of coturn's `use-auth-secret` (draft-uberti-behave-turn-rest): the user name is the time of
expiry, the password its HMAC-SHA1 under the secret that both servers hold.
"""

import base64
import hashlib
import hmac
import time
from dataclasses import dataclass

from streamgc.call.messages import IceServer
from streamgc.errors import InputError

LIFETIME_S = 24 * 3600


@dataclass(frozen=True)
class Relay:
    """Which servers there are."""

    stun: tuple[str, ...] = ()  # stun:host:port
    turn: tuple[str, ...] = ()  # turn:host:port?transport=udp
    secret: str = ""  # coturn's static-auth-secret

    def __post_init__(self) -> None:
        """Raises `InputError`."""
        for urls, schemes in ((self.stun, ("stun:", "stuns:")), (self.turn, ("turn:", "turns:"))):
            for url in urls:
                if not url.startswith(schemes):
                    raise InputError(f"not a {schemes[0][:-1].upper()} URL: {url}")
        if bool(self.turn) != bool(self.secret):
            raise InputError("--turn needs the secret that the TURN server has too (--turn-secret), and the reverse")

    def servers(self, now: float | None = None) -> tuple[IceServer, ...]:
        """What a peer that joins now is told."""
        found = [IceServer(self.stun)] if self.stun else []
        if self.turn:
            user = str(int((time.time() if now is None else now) + LIFETIME_S))
            mac = hmac.digest(self.secret.encode(), user.encode(), hashlib.sha1)
            found.append(IceServer(self.turn, user, base64.b64encode(mac).decode()))
        return tuple(found)
