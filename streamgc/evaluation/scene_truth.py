"""The segmenter against truth: stills with real masks, and composites of people over rooms whose instances are known
exactly."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streamgc.errors import InputError
from streamgc.evaluation.scene import iou
from streamgc.scene.framing import Crop, FramingSettings
from streamgc.scene.instances import Instances, nobody
from streamgc.scene.observer import SceneObserver, SceneSettings, Segment
from streamgc.training.segmenter_data import UNKNOWN, Item, hole_fraction, read_mask, read_picture
from streamgc.training.segmenter_light import Sample
from streamgc.training.segmenter_scenes import ItemSource, SceneMaker

Mask = npt.NDArray[np.bool_]

CAMERA = 512
"""Side in pixels of the composites that a call's framing looks at."""

SETTLED = 4
"""Pictures after which a crop that moves at once has come to rest."""

SHOWN = (0.5, 0.75)
"""Shares of a person that others leave visible, by which composites are told apart."""


@dataclass(frozen=True)
class StillsResult:
    """Mean person IoU over `pictures` stills of a set, the worst of them, and how many were left out for holes in their
    masks."""

    name: str
    pictures: int
    iou: float
    worst: float
    left_out: int


@dataclass(frozen=True)
class CompositesResult:
    """Composites of `people` people: mean IoU of the person mask, mean IoU of matched instances, share of composites in
    which every one was found (a match of IoU ≥ 0.5 each), and share with more instances than people.

    by_shown: for those of `SHOWN` that occur, in how many composites the others leave at least that share of everyone
    visible, and in which part of those every one was found.
    """

    people: int
    pictures: int
    iou: float
    instance_iou: float
    all_found: float
    too_many: float
    by_shown: dict[str, tuple[int, float]]


@dataclass(frozen=True)
class FramedResult:
    """Composites of `people` people at a camera's size: mean IoU of the person mask at that size when the segmenter
    looks at the whole picture, and when it looks at the crop where a call's framing comes to rest; share of composites
    in which everyone was found there; mean side of the crop as a share of the picture's."""

    people: int
    pictures: int
    whole_iou: float
    iou: float
    all_found: float
    crop: float


def person_mask(instances: Instances) -> Mask:
    """Everything that is person, bool (H, W)."""
    return np.asarray(instances.masks.max(axis=0) > 127) if len(instances.masks) else np.zeros(instances.size, bool)


def evaluate_stills(segment: Segment, data: Path, name: str) -> StillsResult:
    """Person IoU on `val/stills/NAME` against `val/masks/NAME`; masks whose holes exceed 1 % are no truth. Raises
    InputError."""
    scores, left_out = [], 0
    for path in sorted((data / "val" / "stills" / name).glob("*.jpg")):
        mask_path = data / "val" / "masks" / name / f"{path.stem}.png"
        if not mask_path.exists():
            continue
        picture = read_picture(path)
        truth = read_mask(mask_path, *picture.shape[:2]) > 127
        if not truth.any() or hole_fraction(truth) > 0.01:
            left_out += 1
            continue
        scores.append(iou(person_mask(segment(picture)), truth))
    if not scores:
        raise InputError(f"no stills with masks in {data / 'val' / 'stills' / name}")
    return StillsResult(name, len(scores), float(np.mean(scores)), float(np.min(scores)), left_out)


class ValidationItems:
    """People with real masks (CCP) and empty rooms of the validation split, in the form `SceneMaker` draws from."""

    def __init__(self, data: Path, people: int = 50, rooms: int = 60) -> None:
        self._items: list[Item] = []
        self.index: list[dict[str, Any]] = []
        for path in sorted((data / "val" / "stills" / "ccp").glob("*.jpg"))[:people]:
            picture = read_picture(path)
            mask = read_mask(data / "val" / "masks" / "ccp" / f"{path.stem}.png", *picture.shape[:2])
            self._add("ccp", "truth", picture, mask)
        for path in sorted((data / "val" / "stills" / "houses").glob("*.jpg"))[:rooms]:
            picture = read_picture(path)
            self._add("houses", "empty", picture, np.zeros(picture.shape[:2], np.uint8))
        if not self._items:
            raise InputError(f"no validation stills under {data / 'val'}")

    def _add(self, source: str, kind: str, picture: npt.NDArray[np.uint8], person: npt.NDArray[np.uint8]) -> None:
        labels = np.full(person.shape, UNKNOWN, np.uint8)
        owner = (person > 127).astype(np.uint8)
        self._items.append(Item(source, kind, True, picture, person, owner, labels))
        self.index.append({"source": source, "kind": kind})

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> Item:
        return self._items[number]


def evaluate_composites(
    segment: Segment, items: ItemSource, people: int, count: int = 100, seed: int = 5
) -> CompositesResult:
    """Composites drawn from `items`, at the size a call's network uses."""
    masks, instances, extra = [], [], 0
    found: list[bool] = []
    shown: list[float] = []
    for sample in _drawn(items, people, count, seed, 256):
        answer = segment(np.ascontiguousarray(sample.frame))
        masks.append(iou(person_mask(answer), sample.owner > 0))
        best = match(answer, sample, people)
        instances.extend(best)
        found.append(min(best) >= 0.5)
        shown.append(min(sample.shown))
        extra += answer.number > people
    by_shown = {}
    for share in SHOWN:
        those = [hit for hit, least in zip(found, shown, strict=True) if least >= share]
        if those:
            by_shown[f"{share:g}"] = (len(those), float(np.mean(those)))
    return CompositesResult(
        people,
        count,
        float(np.mean(masks)),
        float(np.mean(instances)),
        float(np.mean(found)),
        extra / count,
        by_shown,
    )


def evaluate_framed(segment: Segment, items: ItemSource, people: int, count: int = 40, seed: int = 5) -> FramedResult:
    """Composites as a call sees them: the framing follows the people in a larger picture, and the segmenter looks at
    the crop. Drawn as in `evaluate_composites`."""
    settings = SceneSettings(framing=FramingSettings(glide=1, patience=1))
    whole, framed, found, crops = [], [], [], []
    for sample in _drawn(items, people, count, seed, CAMERA):
        observer = SceneObserver(segment, settings)
        scores = []
        for _ in range(SETTLED):
            seen = observer.observe(np.ascontiguousarray(sample.frame))
            answer = _in_source(observer.last, seen.crop, sample.owner)
            scores.append(iou(person_mask(answer), sample.owner > 0))
        whole.append(scores[0])
        framed.append(scores[-1])
        found.append(min(match(answer, sample, people)) >= 0.5)
        crops.append(seen.crop.width / CAMERA)
    means = (float(np.mean(values)) for values in (whole, framed, found, crops))
    return FramedResult(people, count, *means)


def _in_source(found: Instances | None, crop: Crop, source: npt.NDArray[np.uint8]) -> Instances:
    """Who was found in a crop, as masks of the whole picture; those outside it were not looked at."""
    if found is None or not len(found.masks):
        return nobody(*source.shape)
    masks = np.stack([crop.paste(mask, np.zeros_like(source)) for mask in found.masks])
    return found._replace(masks=masks)


def _drawn(items: ItemSource, people: int, count: int, seed: int, side: int) -> Iterator[Sample]:
    """So many composites of a square; one in which less than 1.5 % of the picture is of some person is drawn anew."""
    maker = SceneMaker(items, limit_to_truth=True)
    rng = np.random.default_rng(seed)
    while count:
        sample = maker.composite(rng, side, side, people)
        areas = np.bincount(sample.owner.ravel(), minlength=people + 1)[1 : people + 1]
        if areas.min() >= 0.015 * sample.owner.size:
            count -= 1
            yield sample


def match(answer: Instances, sample: Sample, people: int) -> list[float]:
    """IoU of each known person with the instance that fits it best, each instance used once."""
    table = np.zeros((people, max(1, answer.number)))
    for person in range(people):
        truth = sample.owner == person + 1
        for number in range(answer.number):
            table[person, number] = iou(answer.masks[number] > 127, truth)
    scores = [0.0] * people
    for _ in range(min(people, answer.number)):
        row, column = divmod(int(table.argmax()), table.shape[1])
        scores[row] = max(0.0, float(table[row, column]))
        table[row], table[:, column] = -1, -1
    return scores
