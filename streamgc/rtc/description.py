"""The SGC part of a session description, read and written in its text.

aiortc copies its own codec parameters into what it negotiates, so the peer's never come through; and its list of
codecs belongs to the process, while the model belongs to a connection. Hence the text.
"""

import re
from typing import NamedTuple

from streamgc.errors import SignallingError

SDP_MAX = 32_768
"""Characters of the longest session description that is read."""

FORMAT_VERSION = 0
"""The version of payload and frame messages; peers must have the same."""

_RTPMAP = re.compile(r"^a=rtpmap:(\d{1,3}) SGC/90000\r?$", re.MULTILINE)
_PARAMETERS = re.compile(r"version=(\d{1,4});model=([0-9a-f]{16})")


class Parameters(NamedTuple):
    """What two peers must have in common."""

    version: int
    model: str  # 16 hex digits: the hash of the networks' weights and the context tables

    def against(self, theirs: "Parameters | None") -> str:
        """Why two peers cannot speak SGC, for the user."""
        if theirs is None:
            return "the peer does not know SGC"
        if theirs.version != self.version:
            return f"the peer has format version {theirs.version}, we have {self.version}"
        return f"the peer has model {theirs.model}, we have {self.model}"


def write_parameters(text: str, parameters: Parameters) -> str:
    """Add the parameters to every SGC entry of a description, or for the whole session when there is none."""
    values = f"version={parameters.version};model={parameters.model}"
    if _RTPMAP.search(text):
        return _RTPMAP.sub(rf"\g<0>\na=fmtp:\g<1> {values}\r", text)
    session, media, rest = text.partition("m=")
    return f"{session}a=x-streamgc:{values}\r\n{media}{rest}"


def read_parameters(text: str) -> Parameters | None:
    """The peer's parameters, or None when it does not know SGC or does not say which.

    Raises `SignallingError` for a description longer than `SDP_MAX`.
    """
    if len(text) > SDP_MAX:
        raise SignallingError(f"a session description of {len(text)} characters is longer than {SDP_MAX}")
    entry = _RTPMAP.search(text)
    attribute = rf"fmtp:{entry[1]} " if entry else "x-streamgc:"
    line = re.search(rf"^a={attribute}(.*?)\r?$", text, re.MULTILINE)
    found = _PARAMETERS.fullmatch(line[1]) if line else None
    return Parameters(int(found[1]), found[2]) if found else None


def has_video(text: str) -> bool:
    """Whether a description has a video section at all."""
    return re.search(r"^m=video ", text, re.MULTILINE) is not None


def has_sound(text: str) -> bool:
    """Whether a description has an audio section."""
    return re.search(r"^m=audio ", text, re.MULTILINE) is not None
