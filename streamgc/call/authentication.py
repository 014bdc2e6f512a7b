"""The short authentication string: what two people read to each other to know that nobody sits between them.

As in ZRTP (RFC 6189, section 4.4.1.1) the string is made of both certificates and of a nonce of each side, and who
offers commits to its nonce before it sees the other's:

    offer + SHA-256(nonce of the offerer) →      ← answer + nonce of the answerer      nonce of the offerer →

A server that puts its own certificates in between has two such exchanges, one with each side. In each of them its own
part is fixed before it learns the nonce of the honest side, so it cannot search for a pair that gives both the same
string: every attempt succeeds with probability 2⁻³⁰, and `Session` allows one a second.
"""

import hashlib
import hmac
import secrets

from streamgc.rtc.fingerprints import Fingerprints

NONCE_BYTES = 32
CODE_BITS = 30
_ALPHABET = "ybndrfg8ejkmcpqxot1uwisza345h769"
"""z-base-32, made to be read aloud: no l, v, 0 or 2."""


class Handshake:
    """One side's part of one exchange of descriptions."""

    def __init__(self, offers: bool) -> None:
        self._offers = offers
        self._nonce = secrets.token_bytes(NONCE_BYTES)
        self._theirs = b""  # nonce
        self._commitment = b""

    @property
    def proof(self) -> str:
        """What goes with our description, hex: the commitment of an offer, the nonce of an answer."""
        return hashlib.sha256(self._nonce).hexdigest() if self._offers else self._nonce.hex()

    @property
    def revealed(self) -> str:
        """Our nonce, hex; the offerer gives it away when it has the answer, and not before."""
        return self._nonce.hex()

    def take_proof(self, proof: str) -> None:
        """What came with the peer's description, hex. Only the first counts: whoever knows our nonce already may not
        choose another one."""
        if self._theirs or self._commitment:
            return
        if self._offers:
            self._theirs = bytes.fromhex(proof)
        else:
            self._commitment = bytes.fromhex(proof)

    def take_revealed(self, nonce: str) -> bool:
        """The offerer's nonce; whether it is the one it has committed to. It is taken once."""
        given = bytes.fromhex(nonce)
        fits = hmac.compare_digest(hashlib.sha256(given).digest(), self._commitment)
        if self._offers or self._theirs or not fits:
            return False
        self._theirs = given
        return True

    def code(self, certificates: Fingerprints) -> str:
        """Six characters, like `k7m-qx4`; empty while the peer's nonce is missing."""
        if not self._theirs:
            return ""
        ours, theirs = (self._nonce, certificates.own), (self._theirs, certificates.theirs)
        (nonce, certificate), (other_nonce, other_certificate) = (ours, theirs) if self._offers else (theirs, ours)
        digest = hmac.digest(nonce + other_nonce, b"streamgc-sas-1" + certificate + other_certificate, "sha256")
        value = int.from_bytes(digest[:4]) >> (32 - CODE_BITS)
        letters = "".join(_ALPHABET[value >> shift & 31] for shift in range(CODE_BITS - 5, -1, -5))
        return f"{letters[:3]}-{letters[3:]}"
