"""Codes of recent frames: what may serve as a reference."""

from __future__ import annotations

from typing import NamedTuple

from streamgc.codec.symbols import Code

AGES = 7
"""A reference is at most so many frames old."""
DEPTH = 16
"""Frames kept; both sides evict by number alone, so that they agree."""


class Remembered(NamedTuple):
    """A frame's code and the key it was conditioned on."""

    code: Code
    key: int


class History:
    """Codes by absolute frame number."""

    def __init__(self) -> None:
        self._codes: dict[int, Remembered] = {}

    def put(self, number: int, code: Code, key: int) -> None:
        self._codes[number] = Remembered(code, key)
        for old in [n for n in self._codes if n <= number - DEPTH]:
            del self._codes[old]

    def get(self, number: int) -> Remembered | None:
        return self._codes.get(number)

    def newest_before(self, number: int, confirmed: set[int], key: int) -> tuple[Remembered, int] | None:
        """The newest confirmed frame with the same key, at most 7 frames back, and its age."""
        for age in range(1, AGES + 1):
            found = self._codes.get(number - age)
            if found is not None and number - age in confirmed and found.key == key:
                return found, age
        return None

    def clear(self) -> None:
        self._codes.clear()


def unwrap(number: int, near: int, modulus: int = 256) -> int:
    """The absolute number closest to ``near`` that equals ``number`` modulo ``modulus``."""
    return near + (number - near + modulus // 2) % modulus - modulus // 2
