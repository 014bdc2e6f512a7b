"""How often a picture is segmented, by the load: every one while the segmenter is quick, every n-th where it is not."""

from collections import deque
from statistics import median

WINDOW = 9
"""Runs of the segmenter whose median time decides."""
CALM = 0.7
"""Share of the limit below which a denser pace would do: between the two, nothing changes."""


class Pace:
    """Chooses n so that the segmenter takes at most `share` of the time, and n at most `most`: a mask that is carried
    longer than that trails what moves. fps: pictures a second."""

    def __init__(self, fps: float, share: float = 0.3, most: int = 4) -> None:
        self.every = 1
        self._allowed_ms = share * 1000 / fps
        self._most = most
        self._times: deque[float] = deque(maxlen=WINDOW)

    def took(self, milliseconds: float) -> int:
        """Note a run of the segmenter; returns every how many pictures it shall run from now on."""
        self._times.append(milliseconds)
        if len(self._times) < WINDOW:
            return self.every
        needed = median(self._times) / self._allowed_ms
        if needed > self.every and self.every < self._most:
            self.every += 1
            self._times.clear()
        elif self.every > 1 and needed < CALM * (self.every - 1):
            self.every -= 1
            self._times.clear()
        return self.every
