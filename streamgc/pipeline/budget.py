"""Where the bytes go: the frame's code, keys, the room. One allowance a frame, steered by what was really spent.

Codes and keys have accounts of their own: what a person who moves costs in codes does not put off the next key, and
what is saved up for a key, or owed for one, does not make codes finer or coarser.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from streamgc.codec.symbols import MIXED

OVERHEAD = 3
"""Bytes of a message's header."""
STRENGTH_MIN, STRENGTH_MAX = 0.003, 3.0
"""Range of λ in the quantiser (weighted squared latent error per bit): at the least, channels whose errors weigh a
twentieth are still sent."""
REACTION, SETTLING_REACTION = 0.2, 0.4
"""The logarithm of λ changes by so much of how far a code's bytes are off, in parts of what they should be; just after
the start, where λ is a guess, by the second."""
DEBT_REACTION = 0.1
"""The same, of what codes owe, in parts of `CODES_SECONDS`."""
SLICE_BYTES = 160
"""A key travels in slices of so many bytes, small enough for a path that turns out narrow half-way."""
SLICE_LEAST = 80
"""The same on a narrow path, where few bytes may leave at once."""
START_BYTES = 12_000
"""Bytes of the first key in one message: all of it, at 256² four to nine packets at once. That is under the ten
segments that any TCP connection may begin with (RFC 6928), and the key is at work by the fourth picture. What it costs
is paid back slowly."""
PACKET_BYTES = 900
"""Of the first key in each message once it was sent: the rest of a packet is the picture's."""
START_KEY_SHARE = 0.75
"""Of the rate for the first key where the path is narrow: until it is there, pictures are made of the coarse one."""
EARLY_SECONDS = (0.3, 1.0)
"""Between so many seconds after the start one more key may be had on the start's account: the first shows how somebody
sat down, and a key saved up for comes after three seconds."""
EARLY_ERROR = 14.0
"""Error of a key, in grey levels (`importance.key_error`), from which that is done."""
KEY_AHEAD = 2.0
"""So many times a key's usual cost may be spent before it is saved up, without a word to λ; what is spent is paid back
before the next key. A key leaves whole whatever it costs: its last slice would come seconds later."""
LENDING_SECONDS = 3.0
"""So long after the start, which overdraws the rate and has its own early key, something new may be shown on credit."""
LENDING_KEYS = 1.5
"""It is lent where no more than so many times a key's usual cost is owed."""
SETTLING_SECONDS, SETTLING_KBIT = 2.0, 20.0
"""So long after the start, or for so much of the rate where that is sooner, all of it is for codes: the first key is
fresh, and the early one is the start's. At a higher rate a later key is cheap the sooner."""
KEY_SAVED, KEY_SAVED_NARROW = 0.2, 0.8
"""A key is made once so much of its usual cost is saved up, and the rest is paid back before the next; on a narrow path
it could not leave at once."""
CODES_SECONDS = 1.0
"""So much of the rate codes may have saved up, or owe."""
OWED_SECONDS = 4.0
"""So much of the rate may be owed for keys, beside `KEY_AHEAD` of them."""
PAY_BACK_SECONDS = 60.0
"""The start's excess over the rate is paid back over so long."""
KEY_COST = 700.0
"""Bytes expected of a key before one has been coded."""
USUAL_STRENGTH, USUAL_KBPS = 0.3, 3.0
"""λ with which a call of so many kbit/s begins; it falls with the square of the rate."""
FIRST_STRENGTHS = 0.01, 0.5
"""Least and most λ to begin with."""


@dataclass(frozen=True)
class Shares:
    """How a rate is divided. Measured on the validation clips; see docs/results/call.md."""

    layout: int
    """Channels of every kept cell, or `MIXED`."""
    key_share: float
    """Part of the rate for keys (and rooms)."""
    crf: int
    """Quality of the keys."""
    rich_faces: bool = False
    """Of a mixed code only cells of eyes and mouth may be rich."""
    face_care: float = 4.0
    """So many times more eyes and mouth weigh in the code."""
    key_care: float = 2.0
    """The same where keys are compared."""


SHARES = (
    (4.0, Shares(MIXED, 0.22, 35, rich_faces=True, face_care=12.0, key_care=8.0)),
    (6.0, Shares(MIXED, 0.28, 28)),
    (math.inf, Shares(MIXED, 0.28, 31)),
)
"""Upper limits in kbit/s and what holds below them."""


def shares_for(kbps: float) -> Shares:
    """The division of a rate."""
    return next(shares for limit, shares in SHARES if kbps < limit)


class Budget:
    """Per-frame allowance and λ. Not thread-safe: one sender owns it."""

    def __init__(self, kbps: float, fps: float, shares: Shares | None = None) -> None:
        self.fps = self._usual_fps = fps
        self._fixed = shares
        usual = USUAL_STRENGTH * (USUAL_KBPS / max(1.0, kbps)) ** 2
        self.strength = max(FIRST_STRENGTHS[0], min(FIRST_STRENGTHS[1], usual))
        self._for_codes = self._for_keys = 0.0
        self._owed = self._unpaid = 0.0
        self._starting, self.narrow = True, False
        self._since_start = 0
        self._early_made = False
        self._early_bytes = 0
        self._key_cost = KEY_COST
        self.set_rate(kbps)

    def set_rate(self, kbps: float, fps: float | None = None, burst: float = math.inf, narrow: bool = False) -> None:
        """Payload to aim at from now on, kbit/s, and how many pictures a second there are; None = as many as before.
        The next message may have ``burst`` bytes before it stands in a queue, which counts on a ``narrow`` path;
        elsewhere a key leaves whole."""
        self.kbps = max(1.0, kbps)
        self.fps = fps or self.fps
        if narrow and not self.narrow:
            self._for_codes = self._for_keys = 0.0  # what was saved, or owed, was of another path
        self._burst, self.narrow = burst, narrow
        self.shares = self._fixed or shares_for(self.kbps * self._usual_fps / self.fps)  # what counts is a frame's part

    @property
    def frame_bytes(self) -> float:
        """All of a frame's allowance: the rate, less what is paid back of the start's excess."""
        return max(0.5 * self.kbps * 125, self.kbps * 125 - self._owed / PAY_BACK_SECONDS) / self.fps

    @property
    def code_bytes(self) -> float:
        """What the code of a frame should cost on average."""
        return max(2.0, self.frame_bytes * (1 - self._key_share) - OVERHEAD)

    @property
    def affords_key(self) -> bool:
        """Whether enough is saved up for another key."""
        saved = KEY_SAVED_NARROW if self.narrow else KEY_SAVED
        return self._settled and self._for_keys >= saved * self._key_cost

    @property
    def lends_key(self) -> bool:
        """Whether a key may be borrowed for, because it shows something new: where not much is owed for the last.
        It takes the place of the next that would have been saved up for, so the rate of a minute is the same. On a
        narrow path it would not leave whole."""
        settled = self._since_start >= LENDING_SECONDS * self.fps
        return settled and not self.narrow and self._for_keys >= -LENDING_KEYS * self._key_cost

    def grants_early_key(self, error: float) -> bool:
        """Whether a key whose error (grey levels) is this large may be replaced on the start's account."""
        first, last = (seconds * self.fps for seconds in EARLY_SECONDS)
        early = not self._starting and first <= self._since_start < last
        return early and not self.narrow and not self._early_made and error > EARLY_ERROR

    def start_bytes(self, again: bool = False) -> int:
        """Bytes of long objects in one frame while the receiver has no key: all that there is, once; `again`, when
        some of it was lost, a packet at a time."""
        return PACKET_BYTES if again or self.narrow else START_BYTES

    def object_bytes(self, code: int, key: int) -> int:
        """Bytes of long objects beside a frame's code of so many once the call runs: what is saved up, and, where the
        path is not narrow, `KEY_AHEAD` keys more, and in any case the ``key`` that is under way, in bytes: that leaves
        whole, and is paid back before the next."""
        if self._early_bytes:
            return self._early_bytes
        ahead = 0.0 if self.narrow else KEY_AHEAD * self._key_cost
        return max(0 if self.narrow else key, int(self._for_keys + ahead + self.frame_bytes) - code)

    def burst_bytes(self, code: int, again: bool = False) -> float:
        """Of long objects, once so many bytes are beside a frame's code no other slice begins: on a narrow path, and
        when the first key is sent `again`."""
        return self._burst - OVERHEAD - code if self.narrow or again else math.inf

    @property
    def slice_bytes(self) -> int:
        """Size of a key's slices once the call runs: smaller ones where little may leave at once."""
        return int(max(SLICE_LEAST, self.frame_bytes)) if self.narrow else SLICE_BYTES

    @property
    def _settled(self) -> bool:
        """Whether the start is long enough ago for keys to be saved for; on a narrow path it always is."""
        return self.narrow or self._since_start >= min(SETTLING_SECONDS, SETTLING_KBIT / self.kbps) * self.fps

    @property
    def _key_share(self) -> float:
        """Part of a frame's allowance that is not for its code."""
        if self.narrow and self._starting:
            return START_KEY_SHARE
        return self.shares.key_share if self._settled else 0.0

    def spent(self, message: int, carried: int, start: bool) -> None:
        """A message of so many bytes went out, ``carried`` of them of long objects; what the start costs is paid back
        slowly."""
        allowance, share = self.frame_bytes, self._key_share
        self._starting = start
        self._since_start = 0 if start else self._since_start + 1
        if start or self._early_bytes:
            self._early_bytes = 0
            if not self.narrow:  # there the start keeps to the rate
                excess = max(0.0, message - allowance)
                self._owed += excess
                self._unpaid += excess
            return
        self._unpaid -= self.kbps * 125 / self.fps - allowance
        if self._unpaid <= 0:
            self._owed = self._unpaid = 0.0
        self._book(allowance * (1 - share) - (message - carried), allowance * share - carried)

    def _book(self, codes: float, keys: float) -> None:
        """Add to both accounts; what is more than one may hold goes to the other. On a narrow path, where every byte
        stands in the same queue, there is one."""
        second = self.kbps * 125
        if self.narrow:
            saved = self._for_keys + codes + keys
            self._for_codes, self._for_keys = 0.0, max(-OWED_SECONDS * second, min(OWED_SECONDS * second, saved))
            return
        codes, keys = self._for_codes + codes, self._for_keys + keys
        most = CODES_SECONDS * second
        keys += max(0.0, codes - most)
        codes = min(codes, most) + max(0.0, keys - self._key_cost)
        self._for_codes = max(-most, min(most, codes))
        self._for_keys = max(-OWED_SECONDS * second - KEY_AHEAD * self._key_cost, min(self._key_cost, keys))

    def key_made(self, size: int, early: bool = False) -> None:
        """A key that follows another has so many bytes; an ``early`` one leaves whole, on the start's account."""
        if early:
            self._early_made, self._early_bytes = True, size
        self._key_cost = 0.7 * self._key_cost + 0.3 * size

    def coded(self, code: int) -> None:
        """Steer λ by what a frame's code cost, in bytes, and by what codes have saved up, or owe; on a narrow path, by
        what lies above one key's cost, or below two."""
        error = max(-1.0, min(1.5, (code - self.code_bytes) / self.code_bytes))
        spare = self._for_codes
        if self.narrow:
            spare = self._for_keys - max(-KEY_AHEAD * self._key_cost, min(self._key_cost, self._for_keys))
        debt = max(-1.0, min(1.0, -spare / (CODES_SECONDS * self.kbps * 125)))
        reaction = REACTION if self._settled else SETTLING_REACTION
        self.strength *= math.exp(reaction * error + DEBT_REACTION * debt)
        self.strength = max(STRENGTH_MIN, min(STRENGTH_MAX, self.strength))
