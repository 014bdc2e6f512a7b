"""What `streamgc profile` takes."""

from dataclasses import dataclass, field
from pathlib import Path

from streamgc.call.codec import CodecOptions
from streamgc.call.demo_options import DemoOptions, Study
from streamgc.errors import InputError
from streamgc.rtc.impairment import Impairment

SECONDS_MIN = 3.0
"""Below this there is hardly a steady second to look at."""


@dataclass(frozen=True)
class ProfileOptions:
    """One measurement. `warm_up_s` at the beginning of a call are left out of the figures: the first key, rate control
    finding its level, caches that fill."""

    input: str = ""  # a video file; empty = the packaged clip
    seconds: float = 20.0
    warm_up_s: float = 2.0
    codec: CodecOptions = field(default_factory=CodecOptions)
    duplex: bool = False
    impairment: Impairment = field(default_factory=Impairment)
    study: Study = field(default_factory=Study)
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.seconds < SECONDS_MIN:
            raise InputError(f"--seconds {self.seconds:g}: a profile lasts at least {SECONDS_MIN:g} s")
        if not 1 <= self.study.slow <= 100:
            raise InputError(f"--slow {self.study.slow:g}: 1 to 100 times")

    def demo(self) -> DemoOptions:
        """The call to make: as the demo's, but no picture is kept."""
        return DemoOptions(
            self.input, self.seconds, self.codec, self.duplex, self.impairment, keep_seconds=0.0, study=self.study
        )
