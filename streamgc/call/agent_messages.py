"""What the web page and its local agent say to each other over the control WebSocket: JSON, typed, of limited size."""

from enum import StrEnum
from typing import Annotated, Literal

import msgspec

from streamgc.errors import CallError, InputError

CONTROL_MAX = 4096
"""Bytes of one control message."""
OFFER_MAX = 65_536
"""Bytes of a session description of the tab."""

BackgroundName = Literal["memory", "synth", "private", "replace"]
View = Literal["off", "kept", "theirs"]


class Phase(StrEnum):
    """Where a call is; the page has a state for each."""

    IDLE = "idle"  # no room yet
    STARTING = "starting"  # joining a room
    WAITING = "waiting"  # alone in the room
    CONNECTING = "connecting"
    CONNECTED = "connected"
    SILENT = "silent"  # nothing has come for a while
    RECONNECTING = "reconnecting"
    LEFT = "left"  # the other side has hung up
    ENDED = "ended"  # we have hung up
    FAILED = "failed"  # Situation.reason says why


class Create(msgspec.Struct, tag="create", frozen=True, forbid_unknown_fields=True):
    """Make a room and wait in it."""


class JoinRoom(msgspec.Struct, tag="join", frozen=True, forbid_unknown_fields=True):
    """Join a room by its token or link."""

    room: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]


class HangUp(msgspec.Struct, tag="hangup", frozen=True, forbid_unknown_fields=True):
    """Leave the call."""


class SetBackground(msgspec.Struct, tag="background", frozen=True, forbid_unknown_fields=True):
    """Another background mode from the next picture on."""

    mode: BackgroundName


class SetPreserve(msgspec.Struct, tag="preserve", frozen=True, forbid_unknown_fields=True):
    """Keep other people from the next picture on: a policy as `--preserve` takes it."""

    policy: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Pick(msgspec.Struct, tag="pick", frozen=True, forbid_unknown_fields=True):
    """Keep only the person at this place of the coded picture; nobody there = keep everyone."""

    x: Annotated[float, msgspec.Meta(ge=0, le=1)]  # from the left
    y: Annotated[float, msgspec.Meta(ge=0, le=1)]  # from the top


class SetCamera(msgspec.Struct, tag="camera", frozen=True, forbid_unknown_fields=True):
    """Camera on or off; off, a grey picture is sent in its place."""

    on: bool


class SetMicrophone(msgspec.Struct, tag="microphone", frozen=True, forbid_unknown_fields=True):
    """Microphone on or off; off, no sound is sent."""

    on: bool


class SetView(msgspec.Struct, tag="view", frozen=True, forbid_unknown_fields=True):
    """What the second picture shows: nothing, what is kept of me, or what the other side sees of me."""

    view: View


class SetMark(msgspec.Struct, tag="mark", frozen=True, forbid_unknown_fields=True):
    """Whether synthesised regions are marked."""

    on: bool


class SetQuality(msgspec.Struct, tag="quality", frozen=True, forbid_unknown_fields=True):
    """Ceiling for frame messages, kbit/s."""

    kbps: Annotated[float, msgspec.Meta(ge=1, le=64)]


FromPage = (
    Create
    | JoinRoom
    | HangUp
    | SetBackground
    | SetPreserve
    | Pick
    | SetCamera
    | SetMicrophone
    | SetView
    | SetMark
    | SetQuality
)


class Hello(msgspec.Struct, tag="hello", frozen=True):
    """The first message to a page."""

    model: str
    engine: str
    width: int
    height: int
    fps: float
    source: str  # "camera" of the tab, or the name of a file
    switchable: bool  # whether background and people can be changed during a call


class Settings(msgspec.Struct, tag="settings", frozen=True):
    """What is set now; sent after each change."""

    background: str
    preserve: str
    camera: bool
    microphone: bool
    view: View
    mark: bool
    kbps: float


class Situation(msgspec.Struct, tag="situation", frozen=True):
    """Where the call is."""

    phase: Phase
    text: str = ""
    reason: str = ""  # of a failure: server-gone, room-full, no-room, unreachable, other
    room: str = ""
    link: str = ""
    command: str = ""  # what the other side may type


class Figures(msgspec.Struct, tag="figures", frozen=True):
    """One second of the call; rates on the wire count IP, UDP, SRTP, RTCP, ICE and DTLS."""

    at_s: float
    kbps_sent: float
    kbps_received: float
    kbps_payload: float  # sent
    fps_sent: float
    fps_shown: float
    rtt_ms: float | None
    latency_ms: float | None  # half a round trip and this side's stages
    loss: float  # 0..1, the worse direction
    codec: str
    note: str
    vp8_kbps: float | None  # the same pictures (agent_rival.py) and the same sound
    crowded: bool  # the path takes so little that fewer pictures are sent
    sound_kbps: float  # sent, Opus alone; 0 while there is none


class Authentication(msgspec.Struct, tag="authentication", frozen=True):
    """The short authentication string of the connection that is up; see authentication.py."""

    code: str  # empty = none yet, or the other side has none to compare


class Trouble(msgspec.Struct, tag="trouble", frozen=True):
    """Something asked for was not done."""

    text: str


class Replaced(msgspec.Struct, tag="replaced", frozen=True):
    """Another tab has taken this call over."""


ToPage = Hello | Settings | Situation | Figures | Authentication | Trouble | Replaced


class TabOffer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tab's session description."""

    sdp: Annotated[str, msgspec.Meta(min_length=1, max_length=OFFER_MAX)]


class AgentAnswer(msgspec.Struct, frozen=True):
    """The agent's session description."""

    sdp: str


_FROM_PAGE: msgspec.json.Decoder[FromPage] = msgspec.json.Decoder(FromPage)
_OFFER: msgspec.json.Decoder[TabOffer] = msgspec.json.Decoder(TabOffer)


def parse_from_page(data: str) -> FromPage:
    """Raises `InputError` for anything that is no control message."""
    if len(data) > CONTROL_MAX:
        raise InputError(f"a control message of more than {CONTROL_MAX} bytes")
    try:
        return _FROM_PAGE.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InputError("not a control message") from error


def parse_offer(data: bytes) -> TabOffer:
    """Raises `CallError` for anything that is no offer of a tab."""
    try:
        return _OFFER.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise CallError("not a tab's offer") from error


def to_page(message: ToPage) -> str:
    """The message as JSON."""
    return msgspec.json.encode(message).decode()
