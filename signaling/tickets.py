"""Who may use a server with a shared secret: tickets that expire, signed with HMAC-SHA256.

A ticket is `<unix time of expiry>.<hex MAC>`; it is sent as `Authorization: Bearer …`, or by browsers – which cannot
set headers on a WebSocket – as the query parameter `ticket`.
"""

import hashlib
import hmac
import secrets
import time

ROOM_BYTES = 16


def make_room() -> str:
    """An unguessable room token: 128 random bits, 22 characters."""
    return secrets.token_urlsafe(ROOM_BYTES)


def make_ticket(secret: str, lifetime_s: float = 3600.0, now: float | None = None) -> str:
    """A ticket that is good for `lifetime_s` seconds."""
    expiry = str(int((time.time() if now is None else now) + lifetime_s))
    return f"{expiry}.{_mac(secret, expiry)}"


def is_valid(ticket: str, secret: str, now: float | None = None) -> bool:
    """Whether the ticket was made with `secret` and has not expired; never raises."""
    expiry, _, mac = ticket.partition(".")
    if not (expiry.isascii() and expiry.isdigit() and len(expiry) < 16 and mac.isascii()):
        return False
    signed = hmac.compare_digest(mac, _mac(secret, expiry))
    return signed and int(expiry) >= (time.time() if now is None else now)


def _mac(secret: str, expiry: str) -> str:
    return hmac.new(secret.encode(), f"streamgc-signalling:{expiry}".encode(), hashlib.sha256).hexdigest()
