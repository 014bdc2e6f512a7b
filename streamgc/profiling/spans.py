"""How long each stage of a frame took, and when.

A `Spans` is handed to whatever does the work; each stage is timed by a `with` block:

    spans = Spans()
    with spans.frame(number):
        with spans("segment"):
            ...

The clock is `time.monotonic_ns`, which on Linux is CLOCK_MONOTONIC and is therefore the same for all processes of one
machine: spans of the two ends of a call on one host can be laid over each other.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Protocol

SENDER_STAGES = (
    "capture",
    "wait",
    "crop",
    "segment",
    "track",
    "heatmap",
    "blank",
    "key",
    "align",
    "encode",
    "quantise",
    "face",
    "code",
    "packetise",
    "pace",
)
RECEIVER_STAGES = ("reassemble", "decode", "reference", "generate", "paint", "composite", "slowed", "display")
STAGES = (*SENDER_STAGES, "network", *RECEIVER_STAGES)
"""The stages of a frame in the order it passes them; other names may be used too. `slowed` is there only in a study."""

REPORT_OUT, REPORT_IN = "report out", "report in"
"""Spans that are no stages: how long the newest message (its number modulo 256) was held when a transport report left,
at the receiver, and when it came, at the sender. The ends of a call find each other's clock by them (`clock.py`)."""

REPORTS = (REPORT_OUT, REPORT_IN)

CAPACITY = 65_536
"""Spans kept until they are drained; the oldest go first."""


class Span(NamedTuple):
    """One stage of one frame."""

    stage: str
    frame: int | None  # frame number, or None when the work belongs to no frame
    start_ns: int  # time.monotonic_ns
    end_ns: int
    thread: int  # threading.get_ident of who did the work

    @property
    def milliseconds(self) -> float:
        """The length of the span in ms."""
        return (self.end_ns - self.start_ns) / 1e6


class Timer(Protocol):
    """What `spans(...)` returns: something to put after `with`."""

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class _Nothing:
    """The timer of a recorder that is off; one object serves all."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


_NOTHING = _Nothing()


class _Stage:
    """Times one block; recorded also when the block raises, because the time was spent."""

    __slots__ = ("_frame", "_owner", "_stage", "_start")

    def __init__(self, owner: "Spans", stage: str, frame: int | None) -> None:
        self._owner, self._stage, self._frame, self._start = owner, stage, frame, 0

    def __enter__(self) -> None:
        self._start = self._owner.clock()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner.add(self._stage, self._start, self._owner.clock(), self._frame)


class _FrameScope:
    """Says which frame this thread works on, for the spans inside the block."""

    __slots__ = ("_local", "_number", "_outer")

    def __init__(self, local: threading.local, number: int) -> None:
        self._local, self._number, self._outer = local, number, None

    def __enter__(self) -> None:
        self._outer = getattr(self._local, "number", None)
        self._local.number = self._number

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._local.number = self._outer


class Spans:
    """A recorder of spans; safe to use from several threads.

    Off (`Spans(enabled=False)`) it costs one call and one attribute look-up a stage, and keeps nothing.
    """

    def __init__(
        self, enabled: bool = True, capacity: int = CAPACITY, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.enabled = enabled
        self.clock = clock
        self._spans: deque[Span] = deque(maxlen=capacity)
        self._local = threading.local()

    def __call__(self, stage: str, frame: int | None = None) -> Timer:
        """Time the block that follows as `stage` of `frame` (default: the frame of the enclosing `frame()` block)."""
        return _Stage(self, stage, frame) if self.enabled else _NOTHING

    def frame(self, number: int) -> Timer:
        """Attribute the spans inside the block, on this thread, to frame `number`."""
        return _FrameScope(self._local, number) if self.enabled else _NOTHING

    def add(self, stage: str, start_ns: int, end_ns: int, frame: int | None = None) -> None:
        """Record a span measured elsewhere, for instance one that starts in another process."""
        if not self.enabled:
            return
        number = frame if frame is not None else getattr(self._local, "number", None)
        self._spans.append(Span(stage, number, start_ns, end_ns, threading.get_ident()))

    def drain(self) -> list[Span]:
        """Return what was recorded since the last drain, oldest first, and forget it."""
        drained = []
        while True:
            try:
                drained.append(self._spans.popleft())
            except IndexError:
                return drained

    def __len__(self) -> int:
        return len(self._spans)
