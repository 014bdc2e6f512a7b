"""The picture codec as a call needs it: loaded once, with a fresh sender and receiver for every connection."""

import importlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, cast

from streamgc.errors import InputError
from streamgc.pipeline.settings import SCALE
from streamgc.profiling.spans import Spans
from streamgc.rtc.pictures import Picture, PictureReceiver, PictureSender
from streamgc.runtime.engine import Precision

DEFAULT_FACTORY = "streamgc.pipeline.call_codec:load_codec"
"""Where the shipped codec is made."""


@dataclass(frozen=True)
class CodecOptions:
    """What the user chooses of the codec."""

    width: int = 256
    height: int = 256
    fps: float = 15.0
    kbps: float = 8.0  # ceiling for frame messages
    background: str = "memory"
    preserve: str = "all"
    framing: bool = True
    fine: bool = False  # keys, and what the peer sees, twice as wide and high
    model: str = "lite"
    backend: str = "auto"
    threads: int = 0  # 0 = half the cores, at most 4
    factory: str = DEFAULT_FACTORY
    precision: Precision = "auto"
    segmenter: str = "segmenter"  # a model's name or folder, or YOLO weights

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height of what the peer sees."""
        scale = SCALE if self.fine else 1
        return scale * self.width, scale * self.height


class Codec(Protocol):
    """A loaded codec."""

    @property
    def model_name(self) -> str: ...

    @property
    def model_hash(self) -> str: ...  # 16 hex digits of weights and tables

    @property
    def engine(self) -> str: ...  # what runs the networks, with its precision

    def sender(self, spans: Spans) -> PictureSender:
        """A sender in its first state."""
        ...

    def receiver(self, spans: Spans) -> PictureReceiver:
        """A receiver in its first state."""
        ...

    def conventional(self) -> Callable[[Picture], Picture] | None:
        """Makes a picture fit to be sent by a conventional codec; None when the background mode forbids it."""
        ...


def load_codec(options: CodecOptions) -> Codec:
    """Load the codec that the options name; raises `InputError` for a factory that does not exist, and what loading
    raises."""
    return _factory(options.factory)(options)


def start_loading(options: CodecOptions) -> "Future[Codec]":
    """`load_codec` on a thread of its own, while whoever asks imports what a call needs.

    Networks load outside of Python, imports in it: what loading itself imports comes first, so that the two go side by
    side. Raises `InputError` for a factory that does not exist.
    """
    factory = _factory(options.factory)
    executor = ThreadPoolExecutor(1, thread_name_prefix="load-codec")
    loading = executor.submit(factory, options)
    executor.shutdown(wait=False)
    return loading


def _factory(text: str) -> Callable[[CodecOptions], Codec]:
    module, _, name = text.partition(":")
    try:
        return cast(Callable[[CodecOptions], Codec], getattr(importlib.import_module(module), name))
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"there is no codec {text}: {error}") from error
