"""Who is who over time: boxes matched by overlap with where each was heading, and a short memory for those who are
hidden.

A greedy IoU tracker with constant velocity (as SORT without its Kalman filter): calls have a few slow people, who pass
each other and leave for a moment; more is not needed and costs a dependency.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from streamgc.scene.instances import Instances

Box = npt.NDArray[np.float32]


@dataclass
class _Track:
    number: int
    kind: int
    box: Box
    velocity: Box = field(default_factory=lambda: np.zeros(4, np.float32))
    unseen: int = 0

    def expected(self) -> Box:
        return self.box + self.velocity * min(self.unseen + 1, 5)

    def seen(self, box: Box) -> None:
        step = (box - self.box) / (self.unseen + 1)
        self.velocity = (0.5 * self.velocity + 0.5 * step).astype(np.float32)
        self.box = box
        self.unseen = 0


def box_iou(boxes: Box, others: Box) -> npt.NDArray[np.float32]:
    """Intersection over union f32 (N, M) of boxes (N, 4) and (M, 4)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    sides = np.clip(high - low, 0, None)
    common = sides[..., 0] * sides[..., 1]
    areas = [(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (boxes, others)]
    return np.asarray(common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-6), np.float32)


class Tracker:
    """Gives instances ids that stay. Boxes may come in any fixed coordinates; ids are never used twice.

    memory: frames an unseen instance is remembered. overlap: IoU from which two boxes are the same instance.
    """

    def __init__(self, memory: int = 45, overlap: float = 0.25) -> None:
        self._memory = memory
        self._overlap = overlap
        self._tracks: list[_Track] = []
        self._next = 0

    def update(self, instances: Instances, boxes: Box | None = None) -> Instances:
        """The instances with their ids; `boxes` f32 (N, 4) replace theirs where a moving crop makes those jump."""
        found = instances.boxes if boxes is None else boxes
        ids = np.full(instances.number, -1, np.int32)
        scores = self._scores(found, instances.classes)
        free = set(range(len(self._tracks)))
        while scores.size:
            row, column = np.unravel_index(int(scores.argmax()), scores.shape)
            if scores[row, column] <= 0:
                break
            track = self._tracks[int(row)]
            track.seen(found[column].copy())
            ids[column] = track.number
            free.discard(int(row))
            scores[row], scores[:, column] = 0, 0
        for index in free:
            self._tracks[index].unseen += 1
        self._tracks = [t for t in self._tracks if t.unseen <= self._memory]
        for column in np.flatnonzero(ids < 0):
            self._tracks.append(_Track(self._next, int(instances.classes[column]), found[column].copy()))
            ids[column] = self._next
            self._next += 1
        return instances._replace(ids=ids)

    def _scores(self, found: Box, classes: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """How well each track (rows) fits each instance (columns); 0 = not at all."""
        if not self._tracks or not len(found):
            return np.zeros((0, 0), np.float32)
        expected = np.stack([t.expected() for t in self._tracks])
        overlap = box_iou(expected, found)
        # Who was hidden for a while comes back near where they left, perhaps not overlapping: distance in box sizes
        # counts a little.
        centres = (expected[:, None, :2] + expected[:, None, 2:] - found[None, :, :2] - found[None, :, 2:]) / 2
        sizes = np.maximum((found[:, 2:] - found[:, :2]).mean(1), 1.0)
        nearness = 1 - np.hypot(centres[..., 0], centres[..., 1]) / sizes[None]
        scores = np.where(overlap >= self._overlap, 1 + overlap, np.where(nearness > 0.5, nearness, 0))
        kinds = np.array([t.kind for t in self._tracks])
        unseen = np.array([t.unseen for t in self._tracks])
        scores = np.where(kinds[:, None] == classes[None], scores, 0) * (0.98 ** unseen[:, None])
        return scores.astype(np.float32)
