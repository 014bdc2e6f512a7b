"""The scene in one call: a camera's picture in; the cropped picture to code, what of it is kept, and statistics out.

Picture and mask stay paired: both leave in the same `Observation`. The segmenter looks at the cropped picture that will
be coded, so that the mask has its resolution; now and then it looks at the whole picture instead, to notice people
outside the crop.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streamgc.scene.framing import Crop, Framer, FramingSettings, largest_crop
from streamgc.scene.heatmap import Heatmap, HeatmapSettings, Kept
from streamgc.scene.instances import Instances, nobody
from streamgc.scene.policy import KeepPolicy, Selection, Selector
from streamgc.scene.segmenter import as_rgb
from streamgc.scene.tracking import Tracker

Picture = npt.NDArray[np.uint8]
Segment = Callable[[Picture], Instances]


@dataclass(frozen=True)
class SceneSettings:
    """size: (H, W) of the coded picture, multiples of 16. every: segment every n-th picture and carry the mask between.
    look_around: pictures between looks at the whole picture while the crop is smaller than it; 0 = never."""

    size: tuple[int, int] = (256, 256)
    policy: KeepPolicy = field(default_factory=KeepPolicy)
    heatmap: HeatmapSettings = field(default_factory=HeatmapSettings)
    framing: FramingSettings = field(default_factory=FramingSettings)
    every: int = 1
    look_around: int = 15


class SceneStatistics(NamedTuple):
    """found: people seen. kept: of them kept. main: id of the main person or None. strength, idle_frames: as in
    `Selection`. changed: share of the cells that changed since the picture before. segment_ms, total_ms: time spent.
    carried: the mask is an earlier one. crop_ms, track_ms: time spent cutting the picture, and following people and
    choosing whom to keep."""

    found: int
    kept: int
    main: int | None
    strength: float
    idle_frames: int
    changed: float
    segment_ms: float
    total_ms: float
    carried: bool
    crop_ms: float = 0.0
    track_ms: float = 0.0


class _Times(NamedTuple):
    """When the steps of an observation ended, seconds of time.perf_counter."""

    started: float
    cut: float
    segmented: float
    chosen: float


class Observation(NamedTuple):
    """picture: RGB u8 (H, W, 3) to code, not blanked. kept: what of it is kept. crop: where it was cut. moved: the crop
    is not the one before."""

    picture: Picture
    kept: Kept
    crop: Crop
    moved: bool
    statistics: SceneStatistics


class SceneObserver:
    """Observes pictures one after another; `segment` is a `Segmenter` or anything that gives `Instances` for a
    picture."""

    def __init__(self, segment: Segment, settings: SceneSettings | None = None) -> None:
        self.settings = settings or SceneSettings()
        self._segment = segment
        self._framer = Framer(self.settings.size, self.settings.framing)
        self._tracker = Tracker()
        self._selector = Selector(self.settings.policy)
        self._heatmap = Heatmap(self.settings.heatmap)
        self._crop: Crop | None = None
        self._source: tuple[int, int] | None = None
        self._last: Instances | None = None
        self._cells: npt.NDArray[np.bool_] | None = None
        self._outside: npt.NDArray[np.float32] = np.zeros((0, 4), np.float32)
        self._count = 0
        self._every = self.settings.every

    @property
    def last(self) -> Instances | None:
        """Who was in the last picture, with ids; None before the first."""
        return self._last

    def set_policy(self, policy: KeepPolicy) -> None:
        """Keep other people from the next picture on."""
        self._selector = Selector(policy)

    def set_every(self, every: int) -> None:
        """Segment every n-th picture from now on: the load decides."""
        self._every = max(1, every)

    def reset(self) -> None:
        """Forget what was kept, as a switch to a stricter background mode asks."""
        self._heatmap.reset()
        self._last = None

    def observe(self, frame: npt.NDArray[np.uint8]) -> Observation:
        """One picture u8 (H, W, 3) RGB or grey, of any size and shape; raises SceneError and InputError."""
        started = time.perf_counter()
        rgb = as_rgb(frame)
        source = (int(rgb.shape[0]), int(rgb.shape[1]))
        if source != self._source:
            self._source, self._last = source, None
            self._outside = np.zeros((0, 4), np.float32)
            self._heatmap.reset()
        crop = self._framer.current(source)
        moved = self._crop is not None and crop != self._crop
        self._crop = crop
        height, width = self.settings.size
        picture = crop.cut(rgb, height, width)
        before = time.perf_counter()
        self._look_around(rgb, crop)
        carried = self._last is not None and not moved and self._count % self._every != 0
        found = self._last if carried and self._last is not None else self._segment(picture)
        after = time.perf_counter()
        self._count += 1
        tracked = found if carried else self._tracker.update(found, crop.to_source(found.boxes, height, width))
        self._last = tracked
        selection = self._selector.select(tracked)
        chosen = time.perf_counter()
        kept = self._heatmap.update(tracked, selection)
        self._framer.update(self._all_boxes(tracked, selection, crop), source)
        times = _Times(started, before, after, chosen)
        return Observation(picture, kept, crop, moved, self._report(kept, selection, times, carried))

    def _look_around(self, rgb: Picture, crop: Crop) -> None:
        """Who is outside the crop, seen in the whole picture every `look_around` pictures."""
        settings = self.settings
        source = (int(rgb.shape[0]), int(rgb.shape[1]))
        whole = largest_crop(source, settings.size)
        everything = crop.width >= whole.width and whole.width * whole.height > 0.95 * source[0] * source[1]
        if settings.look_around == 0 or not settings.framing.enabled or everything:
            self._outside = np.zeros((0, 4), np.float32)
            return
        if self._count % settings.look_around:
            return
        seen = self._segment(rgb)
        boxes = seen.boxes[seen.scores >= settings.policy.min_score]
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = (centres[:, 0] > crop.left) & (centres[:, 0] < crop.left + crop.width)
        inside &= (centres[:, 1] > crop.top) & (centres[:, 1] < crop.top + crop.height)
        self._outside = boxes[~inside]

    def _all_boxes(self, tracked: Instances, selection: Selection, crop: Crop) -> npt.NDArray[np.float32]:
        """Boxes to frame, in the source's pixels: the kept people, and those outside the crop when everyone is kept."""
        inside = crop.to_source(tracked.boxes[selection.kept], *self.settings.size)
        policy = self._selector.policy
        if len(self._outside) and (policy.keep.value == "all" or not len(inside)):
            return np.concatenate([inside, self._outside])
        return inside

    def _report(self, kept: Kept, selection: Selection, times: _Times, carried: bool) -> SceneStatistics:
        changed = 0.0
        if self._cells is not None and self._cells.shape == kept.cells.shape:
            changed = float((self._cells != kept.cells).mean())
        self._cells = kept.cells
        return SceneStatistics(
            selection.found,
            int(selection.kept.sum()),
            selection.main,
            selection.strength,
            selection.idle_frames,
            changed,
            (times.segmented - times.cut) * 1e3,
            (time.perf_counter() - times.started) * 1e3,
            carried,
            (times.cut - times.started) * 1e3,
            (times.chosen - times.segmented) * 1e3,
        )


def keep_everything(picture: Picture) -> Instances:
    """A segmenter that finds one "person" filling the picture: for screens and documents, where everything is kept."""
    height, width = picture.shape[:2]
    whole = nobody(height, width)
    return whole._replace(
        masks=np.full((1, height, width), 255, np.uint8),
        boxes=np.array([[0, 0, width, height]], np.float32),
        scores=np.ones(1, np.float32),
        classes=np.zeros(1, np.int32),
        ids=np.full(1, -1, np.int32),
    )
