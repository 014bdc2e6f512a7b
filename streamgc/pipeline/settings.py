"""What both ends of a call agree on, and what the sender may choose for itself."""

from __future__ import annotations

from dataclasses import dataclass

from streamgc.codec.message import Background
from streamgc.errors import InputError

CELL = 16
"""Picture pixels along a side of a code cell."""
SMALLEST, LARGEST = 64, 1024
"""Sides of the code picture in pixels."""
SCALE = 2
"""A large key's side over the code picture's."""
BLANK = 128
"""RGB value of what is not kept, in the encoder's input and in key pictures."""


@dataclass(frozen=True)
class PictureFormat:
    """Size of the code picture in pixels, both sides multiples of 16."""

    width: int = 256
    height: int = 256

    def __post_init__(self) -> None:
        for side in (self.width, self.height):
            if side % CELL or not SMALLEST <= side <= LARGEST:
                raise InputError(
                    f"{self.width}x{self.height}: both sides must be multiples of {CELL} from {SMALLEST} to {LARGEST}"
                )

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of cells."""
        return self.height // CELL, self.width // CELL

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True)
class SenderSettings:
    """The sender's choices for one call."""

    format: PictureFormat = PictureFormat()
    fps: float = 15.0
    kbps: float = 8.0
    """Payload rate to aim at, kbit/s (1000 bits)."""
    background: Background = Background.MEMORY
    preserve: str = "all"
    framing: bool = True
    """Follow the kept people with a smooth crop."""
    fine: bool = False
    """Keys twice as wide and high as the code's picture, and so is what the receiver shows."""

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height of what the receiver shows."""
        scale = SCALE if self.fine else 1
        return scale * self.format.width, scale * self.format.height


def parse_format(text: str) -> PictureFormat:
    """``256x256`` → PictureFormat. Raises InputError."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise InputError(f"size {text!r} is not WIDTHxHEIGHT, for instance 256x256")
    return PictureFormat(int(parts[0]), int(parts[1]))


def parse_background(text: str) -> Background:
    """A mode's name → Background. Raises InputError."""
    try:
        return Background[text.upper()]
    except KeyError:
        names = ", ".join(mode.name.lower() for mode in Background)
        raise InputError(f"background {text!r} is none of {names}") from None
