"""The sender's eyes: the scene observer's findings in the units of frame messages."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from streamgc.pipeline.looking import View
from streamgc.pipeline.settings import SCALE, PictureFormat
from streamgc.profiling.spans import Spans
from streamgc.scene.framing import Crop, FramingSettings
from streamgc.scene.instances import Instances
from streamgc.scene.labels import COCO_PERSON
from streamgc.scene.observer import SceneObserver, SceneSettings, SceneStatistics, Segment
from streamgc.scene.pace import Pace
from streamgc.scene.policy import parse_policy
from streamgc.scene.segmenter import as_rgb

CROP_PLACE, CROP_SIZE = 2048, 1024
"""Units of ``codec.sections.Crop``: places in 1/2048, widths in 1/1024 of the source."""


class SceneEyes:
    """Looks with a segmenter; follows the kept people when framing is on.

    A segmenter that is slow for ``fps`` pictures a second runs on every n-th, and its mask is carried between. Where
    nobody waits, ``fps`` is None and every picture is segmented, so that what is seen does not depend on the load.
    """

    def __init__(
        self,
        segment: Segment,
        picture_format: PictureFormat,
        preserve: str,
        framing: bool,
        spans: Spans | None = None,
        fps: float | None = 15.0,
    ) -> None:
        """``preserve``: all, main, id:N or class names. Raises InputError."""
        self._pace = None if fps is None else Pace(fps)
        self._spans = Spans(enabled=False) if spans is None else spans
        self._framing = framing
        settings = SceneSettings(
            size=(picture_format.height, picture_format.width),
            policy=parse_policy(preserve),
            framing=FramingSettings(enabled=framing),
        )
        self._observer = SceneObserver(segment, settings)
        self.statistics: SceneStatistics | None = None

    def set_preserve(self, preserve: str) -> None:
        """Keep other people from the next picture on. Raises InputError."""
        self._observer.set_policy(parse_policy(preserve))

    def reset(self) -> None:
        """Forget what was kept."""
        self._observer.reset()

    def look(self, picture: NDArray[np.uint8]) -> View:
        """See ``looking.Eyes``."""
        started = self._spans.clock()
        seen = self._observer.observe(picture)
        self._record(started, self._spans.clock(), seen.statistics)
        self.statistics = seen.statistics
        if self._pace is not None and not seen.statistics.carried:
            self._observer.set_every(self._pace.took(seen.statistics.segment_ms))
        crop = _units(seen.crop, picture.shape[1], picture.shape[0]) if self._framing else None
        kept = seen.kept
        people, found, strength = seen.statistics.kept, seen.statistics.found, seen.statistics.strength
        height, width = seen.picture.shape[:2]
        large = partial(seen.crop.cut, as_rgb(picture), SCALE * height, SCALE * width)
        somebody = _people(kept.instances)
        return View(seen.picture, kept.matte, kept.cells, kept.labels, crop, people, found, strength, somebody, large)

    def _record(self, started: int, ended: int, statistics: SceneStatistics) -> None:
        """The observer's own times, one after the other, as spans."""
        if not self._spans.enabled:
            return
        for stage, milliseconds in (
            ("crop", statistics.crop_ms),
            ("segment", statistics.segment_ms),
            ("track", statistics.track_ms),
        ):
            middle = min(ended, started + int(milliseconds * 1e6))
            self._spans.add(stage, started, middle)
            started = middle
        self._spans.add("heatmap", started, ended)


def _people(instances: Instances) -> NDArray[np.uint8] | None:
    """Where anybody is, kept or not, u8 (H, W)."""
    masks = instances.masks[instances.classes == COCO_PERSON]
    if not len(masks):
        return None
    return np.asarray(masks[0] if len(masks) == 1 else masks.max(axis=0), np.uint8)


def _units(crop: Crop, width: int, height: int) -> tuple[int, int, int] | None:
    """A crop in a message's units; None for the whole picture."""
    if (crop.left, crop.top, crop.width, crop.height) == (0, 0, width, height):
        return None
    x = min(CROP_PLACE - 1, round(crop.left * CROP_PLACE / width))
    y = min(CROP_PLACE - 1, round(crop.top * CROP_PLACE / height))
    return x, y, min(CROP_SIZE, max(1, round(crop.width * CROP_SIZE / width)))
