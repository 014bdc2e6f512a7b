"""What one peer of a call wrote down: spans, frames, and once a second rates and CPU by thread. A file of it can be
joined with the other peer's, from whichever machine that came."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from streamgc.errors import InputError

FORMAT = 1


class Stage(msgspec.Struct, frozen=True, array_like=True):
    """One stage of one frame, on the clock of the peer that recorded it."""

    stage: str
    frame: int | None
    start_ns: int
    end_ns: int
    thread: int  # threading.get_ident

    @property
    def milliseconds(self) -> float:
        """Its length in ms."""
        return (self.end_ns - self.start_ns) / 1e6


class SentMark(msgspec.Struct, frozen=True, array_like=True):
    """A frame that left: its number, when the source handed it over, the bytes of its message."""

    number: int
    captured_ns: int
    message: int


class ShownMark(msgspec.Struct, frozen=True, array_like=True):
    """A frame that was displayed, and when."""

    number: int
    at_ns: int


class Second(msgspec.Struct, frozen=True, kw_only=True):
    """Rates since the record before, and CPU seconds that each thread has used since it began."""

    at_ns: int
    sent_kbps: float = 0.0  # on the wire
    payload_kbps: float = 0.0
    received_kbps: float = 0.0
    cpu_s: dict[str, float] = {}


class Recording(msgspec.Struct, kw_only=True):
    """Everything of one peer. `host` names the boot of its machine: with equal hosts the clocks are the same."""

    format: int = FORMAT
    peer: str
    host: str
    stages: list[Stage] = []
    sent: list[SentMark] = []
    shown: list[ShownMark] = []
    seconds: list[Second] = []
    dropped: dict[str, int] = {}  # by cause
    threads: dict[int, str] = {}  # names, by what `Stage.thread` holds


def host_name() -> str:
    """What tells this boot of this machine from every other; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def write_recording(path: Path, recording: Recording) -> None:
    """Write as JSON; the file appears under its name when it is complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(msgspec.json.encode(recording))
    os.replace(temporary, path)


def read_recording(path: Path) -> Recording:
    """The inverse. Raises `InputError` for a file that is missing, or is no recording of this format."""
    try:
        recording = msgspec.json.decode(path.read_bytes(), type=Recording)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise InputError(f"{path} is no recording of a call: {error}") from None
    if recording.format != FORMAT:
        raise InputError(f"{path} has format {recording.format}; this streamgc reads format {FORMAT}")
    return recording
