"""Training samples for the segmenter: crops of real pictures, and composites of people over rooms with exactly known
instances.

A composite pastes one to three people (cut out by their masks) over an empty room; touching and passing people are
common, and who owns which pixel is known. Every sample is then degraded as webcams and networks do.
"""

from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from streamgc.errors import TrainingError
from streamgc.scene.affinity import OFFSET_UNIT
from streamgc.scene.labels import Label
from streamgc.training.segmenter_data import UNKNOWN, Item
from streamgc.training.segmenter_light import Sample, dark_border, degrade, dimmed

Mask = npt.NDArray[np.uint8]


class ItemSource(Protocol):
    """Numbered items with an index of their sources and kinds: `segmenter_data.Items`, or a validation set."""

    index: list[dict[str, Any]]

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, number: int) -> Item:
        """One of them."""
        ...


class Targets(NamedTuple):
    """What the heads learn: heat f32 (H/4, W/4) with Gaussians at centres, offset f32 (2, H/4, W/4) in `OFFSET_UNIT`s,
    where f32 (H/4, W/4) weighs the cells of known
    people, those of small ones more, and is 0 elsewhere, centres: their number."""

    heat: npt.NDArray[np.float32]
    offset: npt.NDArray[np.float32]
    where: npt.NDArray[np.float32]
    centres: int


PEOPLE = (0.34, 0.44, 0.22)
"""Shares of the composites that show one, two and three people."""
NESTED = 0.25
"""Of the composites whose last person is small and stands before another: such are taken for one person most often."""
DIM = 0.25
"""Of the samples with people, how many have their room darkened: dark hair before it has a faint border only."""
DARK_HAIRED = 0.16
"""Of the samples, how many show somebody with dark hair or cloth before a room that was lighter and is darkened: such
hair is cut off first."""
DARK_BORDER = 0.35
"""`dark_border` from which an item is one of those."""
SMALL_ALONE = 0.3
"""Of the composites of one person, how many show a small one: its border is most of its error."""
SMALL_HEIGHT = (0.22, 0.6)
"""Smallest and largest height of such a person, of the picture's."""
SEEN = 12
"""Cells at /4 below which a person has no centre and is not asked for."""
QUERIES = 3
"""Cells of each person that are asked for who is of the same person, one of them where its centre is looked for."""


class Cutout(NamedTuple):
    """A person to paste: RGBA image, and whether the mask is cut by the lower edge."""

    image: Image.Image
    cut_below: bool


def targets_of(owner: Mask, known: bool) -> Targets:
    """Centre and offset targets of an owner map u8 (H, W).

    The centre is the mean of the upper half of what is seen of a person: head and shoulders move less than the mean of
    all when somebody stands before the legs, and two people's heads are seldom in one place.
    """
    grid = owner[2::4, 2::4]
    height, width = grid.shape
    heat = np.zeros((height, width), np.float32)
    offset = np.zeros((2, height, width), np.float32)
    where = np.zeros((height, width), np.float32)
    rows = (np.arange(height, dtype=np.float32) * 4 + 1.5)[:, None]
    columns = (np.arange(width, dtype=np.float32) * 4 + 1.5)[None]
    centres = 0
    for number in range(1, int(grid.max(initial=0)) + 1):
        mine = grid == number
        area = int(mine.sum())
        if area < SEEN:
            continue
        centres += 1
        y, x = centre_of(mine) * 4 + 1.5
        sigma = float(np.clip(0.08 * 4 * np.sqrt(area), 5, 16))
        np.maximum(heat, np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma * sigma)), out=heat)
        offset[0][mine] = np.broadcast_to((y - rows) / OFFSET_UNIT, mine.shape)[mine]
        offset[1][mine] = np.broadcast_to((x - columns) / OFFSET_UNIT, mine.shape)[mine]
        # Who is mostly hidden has few cells; they must not drown in those of who stands before.
        where[mine] = np.clip(28 / np.sqrt(area), 0.5, 3)
    if not known:
        where[:] = 0
    return Targets(heat, offset, where, centres)


def centre_of(mine: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Row and column, in cells, of the mean of the upper half of the set cells; there must be some."""
    cells = np.argwhere(mine)  # goes from the top downwards
    return np.asarray(cells[: -(-len(cells) // 2)].mean(axis=0))


def queries_of(owner: Mask, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Row and column at /4, and person, of the cells that are asked: (Q, 3), `QUERIES` for each person of an owner map
    u8 (H, W). One is near the centre, where a call asks first; any other may be asked when centres fail."""
    grid = owner[2::4, 2::4]
    asked: list[list[int]] = []
    for number in range(1, int(grid.max(initial=0)) + 1):
        cells = np.argwhere(grid == number)
        if len(cells) < SEEN:
            continue
        middle = centre_of(grid == number) + rng.normal(0, 0.06 * np.sqrt(len(cells)), 2)
        picks = [int(np.square(cells - middle).sum(axis=1).argmin()), *rng.integers(0, len(cells), QUERIES - 1)]
        asked.extend([*cells[pick], number] for pick in picks)
    return np.array(asked, np.int64).reshape(-1, 3)


def cutout_of(item: Item) -> Cutout | None:
    """The person of an item, to be pasted elsewhere; None where there is not one, certainly and whole but for what the
    lower edge cuts."""
    person = item.person
    solid = person > 127
    area = int(solid.sum())
    doubtful = int(((person > 60) & (person < 190)).sum())
    if not item.single or item.owner.max() > 1 or area < 0.05 * person.size or area > 0.85 * person.size:
        return None
    if (item.kind == "pseudo" and doubtful > 0.1 * area) or solid[0].mean() > 0.05:
        return None
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    alpha = person[top:bottom, left:right]
    if item.kind == "pseudo":
        alpha = np.clip((alpha.astype(np.float32) - 90) * (255 / 90), 0, 255).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(item.picture[top:bottom, left:right])).convert("RGBA")
    image.putalpha(Image.fromarray(np.ascontiguousarray(alpha)))
    return Cutout(image, bool(solid[-3:].any(0).mean() > 0.2))


def cell_labels(labels: Mask) -> Mask:
    """Majority label u8 (h, w) of each 4×4 block of a label map at /4; `UNKNOWN` where that is the majority."""
    height, width = labels.shape[0] // 4, labels.shape[1] // 4
    small = np.where(labels == UNKNOWN, 15, labels).astype(np.int64)[: 4 * height, : 4 * width]
    cell = np.arange(height * width).reshape(height, 1, width, 1)
    key = (small.reshape(height, 4, width, 4) + cell * 16).ravel()
    counts = np.bincount(key, minlength=height * width * 16).reshape(height, width, 16)
    best = counts.argmax(2).astype(np.uint8)
    best[best == 15] = UNKNOWN
    return np.asarray(best, np.uint8)


class SceneMaker:
    """Draws samples from the cache; the same generator state gives the same samples."""

    def __init__(self, items: ItemSource, limit_to_truth: bool = False) -> None:
        self._items = items
        self._noise = np.random.default_rng(0).standard_normal(1 << 21, dtype=np.float32)
        kinds: dict[str, list[int]] = {"ccp": [], "truth": [], "clips": [], "seated": [], "faces": [], "empty": []}
        for number, entry in enumerate(items.index):
            source, kind = entry["source"], entry["kind"]
            if kind == "empty":
                kinds["empty"].append(number)
            elif kind == "truth":
                kinds["ccp" if source == "ccp" else "truth"].append(number)
            elif source == "clips":
                kinds["clips"].append(number)
            else:
                kinds["seated" if source == "drivers_web" else "faces"].append(number)
        if not kinds["empty"]:
            raise TrainingError("the cache holds no rooms without people")
        shares = {"ccp": 0.32, "truth": 0.13, "clips": 0.23, "seated": 0.1, "faces": 0.22}
        if limit_to_truth:
            shares = {"ccp": 0.7, "truth": 0.3}
        self._kinds = kinds
        self._names = [n for n in shares if kinds[n]]
        if not self._names:
            raise TrainingError("the cache holds no people")
        weights = np.array([shares[n] for n in self._names])
        self._shares = weights / weights.sum()

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Sample:
        """One degraded sample of size (height, width), multiples of 16."""
        roll = rng.random()
        if rng.random() < DARK_HAIRED and self._dark_haired:
            sample = dimmed(rng, self._dark_haired_sample(rng, height, width))
        elif roll >= 0.95:
            sample = self._plain(rng, self._items[int(rng.choice(self._kinds["empty"]))], height, width)
        else:
            if roll < 0.3:
                sample = self._plain(rng, self._person_item(rng), height, width)
            else:
                sample = self._drawn_composite(rng, height, width)
            if rng.random() < DIM:
                sample = dimmed(rng, sample)
        if rng.random() < 0.5:
            sample = _flip(sample)
        if rng.random() < 0.04 and height == width:
            sample = _turn(sample, int(rng.integers(1, 4)))
        return sample._replace(frame=degrade(rng, sample.frame, self._noise))

    @cached_property
    def _dark_haired(self) -> list[int]:
        """The items with a dark, lit border; found when they are first asked for, a second in a thousand items."""
        people = [number for name in self._names for number in self._kinds[name]]
        return [number for number in people if dark_border(self._items[number]) > DARK_BORDER]

    def _dark_haired_sample(self, rng: np.random.Generator, height: int, width: int) -> Sample:
        """Somebody of `_dark_haired`, where they were or before a room."""
        item = self._items[int(rng.choice(self._dark_haired))]
        cutout = cutout_of(item) if rng.random() < 0.5 else None
        if cutout is None:
            return self._plain(rng, item, height, width)
        return self.composite(rng, height, width, 1, person=cutout)

    def _drawn_composite(self, rng: np.random.Generator, height: int, width: int) -> Sample:
        """A composite of as many people, and as small ones, as training needs."""
        people = int(rng.choice([1, 2, 3], p=PEOPLE))
        return self.composite(rng, height, width, people, rng.random() < (SMALL_ALONE if people == 1 else NESTED))

    def composite(
        self,
        rng: np.random.Generator,
        height: int,
        width: int,
        people: int | None = None,
        small: bool = False,
        person: Cutout | None = None,
    ) -> Sample:
        """An undegraded composite of `people` people (drawn at random when None, or each of them `person`) over an
        empty room; `small`: the last of them is, and stands before the one before."""
        room = self._items[int(rng.choice(self._kinds["empty"]))]
        base = self._plain(rng, room, height, width)
        canvas = Image.fromarray(base.frame)
        kept = np.zeros((height, width), np.uint8)
        owner = np.zeros((height, width), np.uint8)
        count = people if people is not None else int(rng.choice([1, 2, 3], p=PEOPLE))
        previous: tuple[float, float] | None = None
        whole: list[int] = []
        for number in range(1, count + 1):
            cutout = self.cutout(rng) if person is None else person
            layer, previous = self._place(rng, height, width, cutout, previous, small and number == count)
            alpha = np.asarray(layer.getchannel("A"))
            canvas.paste(layer, (0, 0), layer)
            kept = np.maximum(kept, alpha)
            owner[alpha > 127] = number
            whole.append(int((alpha > 127).sum()))
        labels = base.labels.copy()
        cells = (kept > 127).reshape(height // 16, 16, width // 16, 16).mean((1, 3))
        labels[cells > 0.5] = Label.PERSON
        labels[(cells > 0.2) & (cells <= 0.5)] = UNKNOWN
        weight = np.full((height, width), 255, np.uint8)
        left = np.bincount(owner.ravel(), minlength=count + 1)[1:]
        shown = tuple(float(seen / max(1, all_of_it)) for seen, all_of_it in zip(left, whole, strict=True))
        return Sample(np.asarray(canvas), kept, weight, owner, True, labels, shown)

    def _person_item(self, rng: np.random.Generator) -> Item:
        name = self._names[int(rng.choice(len(self._names), p=self._shares))]
        return self._items[int(rng.choice(self._kinds[name]))]

    def _plain(self, rng: np.random.Generator, item: Item, height: int, width: int) -> Sample:
        """A random window of an item, resized to (height, width) with a little stretch."""
        tall, wide = item.person.shape
        aspect = height / width * rng.uniform(0.85, 1.18)
        largest = min(tall, wide * aspect)
        # Often all of it: a call sees whole people, too, not windows of them.
        window_height = largest * (1.0 if rng.random() < 0.35 else rng.uniform(0.5, 1.0) ** 0.7)
        window_width = min(wide, window_height / aspect)
        top = rng.uniform(0, tall - window_height) if tall > window_height else 0.0
        left = rng.uniform(0, wide - window_width) if wide > window_width else 0.0
        box = (left, top, left + window_width, top + window_height)
        smooth, nearest = Image.Resampling.BILINEAR, Image.Resampling.NEAREST
        size = (width, height)
        frame = np.asarray(Image.fromarray(item.picture).resize(size, smooth, box))
        person = np.asarray(Image.fromarray(item.person).resize(size, smooth, box))
        owner = np.asarray(Image.fromarray(item.owner).resize(size, nearest, box))
        labels = np.asarray(Image.fromarray(item.labels).resize((width // 4, height // 4), nearest, box))
        weight = np.full(person.shape, 255, np.uint8)
        if item.kind == "pseudo":
            weight[:] = 160
            weight[(person > 76) & (person < 178)] = 16
            person = np.clip((person.astype(np.float32) - 76) * (255 / 102), 0, 255).astype(np.uint8)
        return Sample(frame, person, weight, owner, item.single, cell_labels(labels))

    def room(self, rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.uint8]:
        """A window of an empty room, RGB u8 (height, width, 3)."""
        return self._plain(rng, self._items[int(rng.choice(self._kinds["empty"]))], height, width).frame

    def cutout(self, rng: np.random.Generator) -> Cutout:
        """A person to paste; raises TrainingError when the cache holds none."""
        for _ in range(40):
            cutout = cutout_of(self._person_item(rng))
            if cutout is not None:
                flipped = cutout.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                return cutout._replace(image=flipped) if rng.random() < 0.5 else cutout
        raise TrainingError("the cache holds no person that can be cut out")

    def _place(
        self,
        rng: np.random.Generator,
        height: int,
        width: int,
        cutout: Cutout,
        previous: tuple[float, float] | None,
        small: bool = False,
    ) -> tuple[Image.Image, tuple[float, float]]:
        """A transparent RGBA layer (height, width) with `cutout`, and its centre and width; near the previous one
        mostly, before its middle when `small`."""
        wide, tall = cutout.image.size
        new_height = height * (rng.uniform(0.3, 1.15) if cutout.cut_below else rng.uniform(0.35, 1.7))
        new_height = min(new_height, 1.3 * width * tall / wide)
        new_width = new_height * wide / tall * rng.uniform(0.9, 1.1)
        centre = rng.uniform(0.05, 0.95) * width
        if small and previous is None:
            new_height = height * rng.uniform(*SMALL_HEIGHT)
            new_width = new_height * wide / tall
        elif small and previous is not None:
            new_height = float(np.clip(previous[1] * rng.uniform(0.25, 0.7) * tall / wide, 0.2 * height, 0.7 * height))
            new_width = new_height * wide / tall
            centre = float(np.clip(previous[0] + previous[1] * rng.uniform(-0.45, 0.45), 0, width))
        elif previous is not None and rng.random() < 0.75:
            away = (previous[1] + new_width) / 2 * rng.uniform(0.45, 1.15)
            side = 1 if previous[0] < width / 2 else -1
            centre = previous[0] + away * (side if rng.random() < 0.8 else -side)
            centre = float(np.clip(centre, 0, width))
        if cutout.cut_below:
            top = height - new_height + rng.uniform(0, 0.15) * new_height
        else:
            top = rng.uniform(-0.05, max(0.1, 1 - 0.6 * new_height / height)) * height
        image = cutout.image.resize((max(8, int(new_width)), max(8, int(new_height))), Image.Resampling.BILINEAR)
        # A person stands in the light of another picture: brightness and colour shift, alpha does not.
        tone = [*(rng.uniform(0.75, 1.25) * rng.uniform(0.93, 1.07, 3)), 1.0]
        image = image.point([min(255, int(value * gain)) for gain in tone for value in range(256)])
        if not cutout.cut_below and rng.random() < 0.3:
            image = image.rotate(rng.uniform(-20, 20), Image.Resampling.BILINEAR)
        if rng.random() < 0.4:
            image.putalpha(image.getchannel("A").filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.0))))
        layer = Image.new("RGBA", (width, height))
        layer.paste(image, (int(centre - image.width / 2), int(top)))
        return layer, (centre, new_width)


def _flip(sample: Sample) -> Sample:
    return Sample(
        sample.frame[:, ::-1],
        sample.person[:, ::-1],
        sample.weight[:, ::-1],
        sample.owner[:, ::-1],
        sample.known,
        sample.labels[:, ::-1],
    )


def _turn(sample: Sample, quarters: int) -> Sample:
    frame, person, weight, owner, labels = (
        np.ascontiguousarray(np.rot90(a, quarters))
        for a in (sample.frame, sample.person, sample.weight, sample.owner, sample.labels)
    )
    return Sample(frame, person, weight, owner, sample.known, labels)
