"""What `streamgc demo` takes, and what its peers are told."""

from dataclasses import dataclass, field
from pathlib import Path

from streamgc.call.codec import CodecOptions
from streamgc.errors import InputError
from streamgc.rtc.impairment import Impairment

RIVALS = {"vp8": "VP8", "vp8-low": "VP8", "h264": "H264", "h264-low": "H264"}
"""The codecs of aiortc by the names they are compared under; `-low` with its lowest rates taken off, so that they may
go as low as they are told to."""

LOW_KBPS, LOW_START_KBPS = 5.0, 30.0
"""What the rivals with lowered minima may go down to, and begin with."""


@dataclass(frozen=True)
class Study:
    """What a profile does to a call, beside watching it."""

    slow: float = 1.0  # the receiver takes so many times as long for a picture
    flash: bool = False  # a block of the picture changes its brightness once a second


@dataclass(frozen=True)
class DemoOptions:
    """The demo's options; network impairments hold for both directions."""

    input: str = ""  # a video file, "webcam", or empty for the packaged clip
    seconds: float = 10.0
    codec: CodecOptions = field(default_factory=CodecOptions)
    duplex: bool = False
    impairment: Impairment = field(default_factory=Impairment)
    out: Path = Path("out")
    keep_seconds: float = 60.0  # of the call that go into the video
    rival: str = ""  # one of RIVALS in place of our codec
    sound: bool = True  # if the input has it
    wire_kbps: float = 0.0  # ceiling for everything on the wire; 0 = none
    study: Study = field(default_factory=Study)

    def __post_init__(self) -> None:
        if self.seconds < 1 or not 1 <= self.codec.fps <= 60:
            raise InputError("a demo lasts at least a second, at 1 to 60 frames a second")
        if self.codec.kbps < 1:
            raise InputError("the rate is at least 1 kbit/s")
        if self.rival and self.rival not in RIVALS:
            raise InputError(f"no such codec: {self.rival}; one of {', '.join(RIVALS)}")


@dataclass(frozen=True)
class PeerOptions:
    """What one process of the demo is told, as JSON."""

    name: str
    server: str
    room: str
    folder: str  # for events and raw frames
    codec: CodecOptions
    impairment: Impairment | None
    input: str  # empty = sends nothing
    seconds: float
    receive: bool
    frames_kept: int
    rival: str = ""
    sound: bool = False
    wire_kbps: float = 0.0
    study: Study = field(default_factory=Study)
