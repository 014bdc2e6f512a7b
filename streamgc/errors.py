"""Every error that StreamGC raises on purpose.

    StreamGCError
    ├── InputError            a file, camera or option that cannot be used
    ├── BitstreamError        bytes that are no valid stream
    │   └── ModelMismatch     a valid stream of another model
    ├── SceneError            a segmenter's output that cannot be used
    ├── EngineError           a network that cannot be compiled or run
    │   ├── BackendMissing    a backend that was asked for and is not installed
    │   └── ModelError        a model folder that is unknown, incomplete or inconsistent
    ├── TrainingError         data or settings that cannot be trained on
    └── CallError             signalling or connection
        ├── SignallingError   what the rendezvous server refused or could not do
        └── PeerUnreachable   no path between the peers

The command line prints the message of any of these on one line and exits with code 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar


class StreamGCError(Exception):
    """Base of all deliberate errors; its text is one line a user can act on."""


class InputError(StreamGCError):
    """A file, camera or option that cannot be used."""


class BitstreamError(StreamGCError):
    """Bytes that are no valid stream: truncated, corrupted or foreign."""


class ModelMismatch(BitstreamError):
    """A valid stream whose model or tables are not the ones loaded."""


class SceneError(StreamGCError):
    """A segmenter output of wrong shape, type or value; the text names the tensor."""


class EngineError(StreamGCError):
    """A network that cannot be parsed, compiled or run."""


class BackendMissing(EngineError):
    """A backend was asked for by name and is not available here."""


class ModelError(EngineError):
    """A model folder is unknown, incomplete, or its parts do not belong together."""


class TrainingError(StreamGCError):
    """Data or settings that cannot be trained on."""


class CallError(StreamGCError):
    """A call that could not be set up or went down."""


class SignallingError(CallError):
    """The rendezvous server refused, or could not be reached; `kind` says which: `server-gone`, or its refusal's."""

    def __init__(self, text: str, kind: str = "") -> None:
        super().__init__(text)
        self.kind = kind


class PeerUnreachable(CallError):
    """No network path between the two peers was found."""


Choice = TypeVar("Choice", bound=str)


def one_of(value: str, choices: Sequence[Choice], option: str) -> Choice:
    """``value``, if it is one of the choices. Raises InputError."""
    for choice in choices:
        if value == choice:
            return choice
    raise InputError(f"{option} {value}: one of {', '.join(choices)}")
