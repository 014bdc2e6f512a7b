"""Whom a call keeps: everyone, the main person, chosen ids or chosen classes. Everybody else is synthesised away."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streamgc.errors import InputError
from streamgc.scene.instances import Instances
from streamgc.scene.labels import COCO_PERSON, class_index


class Keep(StrEnum):
    """What is kept: all people, the main person, instances by id, or instances by class."""

    ALL = "all"
    MAIN = "main"
    IDS = "ids"
    CLASSES = "classes"


@dataclass(frozen=True)
class KeepPolicy:
    """The choice and its patience.

    hold_frames: when nobody is found, what was kept last stays this long; over the next fade_frames it fades out.
    switch_ratio: another person becomes the main one when larger and more central by this factor for switch_frames in a
    row. min_score: weaker instances are nobody.
    """

    keep: Keep = Keep.ALL
    ids: frozenset[int] = frozenset()
    classes: frozenset[int] = frozenset({COCO_PERSON})
    hold_frames: int = 5
    fade_frames: int = 10
    switch_ratio: float = 1.4
    switch_frames: int = 15
    min_score: float = 0.25


def parse_policy(text: str) -> KeepPolicy:
    """`all`, `main`, ids such as `id:0,id:3`, or class names such as `person,laptop`; raises InputError."""
    words = [w.strip() for w in text.split(",") if w.strip()]
    if words == ["all"]:
        return KeepPolicy()
    if words == ["main"]:
        return KeepPolicy(Keep.MAIN)
    try:
        if words and all(w.startswith("id:") for w in words):
            return KeepPolicy(Keep.IDS, ids=frozenset(int(w[3:]) for w in words))
        if words:
            return KeepPolicy(Keep.CLASSES, classes=frozenset(class_index(w) for w in words))
    except ValueError as error:
        raise InputError(f"--preserve {text}: {error}") from error
    raise InputError("--preserve needs all, main, id:N or class names")


class Selection(NamedTuple):
    """Which of the instances are kept: bool (N,). found: how many people there are. main: id of the main person or
    None.

    strength: 1 while somebody is kept or what was kept last is held; falls to 0 while it fades out. idle_frames: frames
    since anyone was.
    """

    kept: npt.NDArray[np.bool_]
    found: int
    main: int | None
    strength: float
    idle_frames: int


class Selector:
    """Applies a policy frame by frame; holds the main person and the patience."""

    def __init__(self, policy: KeepPolicy) -> None:
        self.policy = policy
        self._main: int | None = None
        self._challenger: int | None = None
        self._challenged = 0
        self._idle = 0

    def select(self, instances: Instances) -> Selection:
        """Which of the (tracked) instances are kept now."""
        policy = self.policy
        sure = instances.scores >= policy.min_score
        people = sure & (instances.classes == COCO_PERSON)
        if policy.keep is Keep.MAIN:
            kept = people & (instances.ids == self._choose_main(instances, people))
        elif policy.keep is Keep.IDS:
            kept = sure & np.isin(instances.ids, list(policy.ids))
        else:
            kept = sure & np.isin(instances.classes, list(policy.classes))
        self._idle = 0 if kept.any() else self._idle + 1
        beyond = self._idle - policy.hold_frames
        strength = 1.0 if beyond <= 0 else max(0.0, 1 - beyond / max(1, policy.fade_frames))
        return Selection(kept, int(people.sum()), self._main, strength, self._idle)

    def _choose_main(self, instances: Instances, people: npt.NDArray[np.bool_]) -> int:
        """Id of the main person (-1: none); changes only after a lead that lasts, or when the main person has been gone
        as long."""
        weights = {
            int(instances.ids[k]): prominence(instances.boxes[k], instances.size) for k in np.flatnonzero(people)
        }
        if not weights:
            return -1
        best = max(weights, key=lambda number: weights[number])
        if self._main is None:
            self._main = best
        elif best != self._main and weights[best] > self.policy.switch_ratio * weights.get(self._main, 0.0):
            self._challenged = self._challenged + 1 if best == self._challenger else 1
            self._challenger = best
            if self._challenged >= self.policy.switch_frames:
                self._main, self._challenged = best, 0
        else:
            self._challenged = 0
        return self._main


def prominence(box: npt.NDArray[np.float32], size: tuple[int, int]) -> float:
    """How main a person is: the side of the box's area times how central it is across, in 0..1 about."""
    height, width = size
    x0, y0, x1, y1 = (float(v) for v in box)
    area = max(0.0, x1 - x0) * max(0.0, y1 - y0) / (height * width)
    aside = abs((x0 + x1) / 2 - width / 2) / (width / 2)
    return float(np.sqrt(area) * (1 - 0.5 * min(1.0, aside)))
