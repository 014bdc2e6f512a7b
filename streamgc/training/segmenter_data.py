"""The segmenter's data, cached once: stills and clip frames with real masks where there are some, the teachers' answers
elsewhere.

The cache is one binary file and an index. An item is a picture whose short side is at most 288, a person probability,
an owner map (which of several people a pixel belongs to) and coarse labels. `training/segmenter_scenes.py` makes
training samples from it.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from streamgc.errors import TrainingError
from streamgc.scene.labels import Label
from streamgc.training.teachers import Picture, Teachers, Teaching

SHORT_SIDE = 288
UNKNOWN = 255
"""Label id of a pixel whose label nobody knows; it is not trained on."""

MASKED_SETS = ("ccp", "human_seg_vikram", "coco128_seg")
FACE_SETS = {
    "ffhq_sg_256": 600,
    "ffhq_sg2_hi": 600,
    "fakefaces_sg": 500,
    "faces_misc_256": 300,
    "facemask_portraits": 342,
}
SEATED_SETS = ("drivers_web",)
EMPTY_SETS = ("houses", "bsds500")
FRAMES_A_CLIP = 18


class Item(NamedTuple):
    """One cached picture u8 (H, W, 3) with person u8 0..255 (H, W), owner u8 (H, W), labels u8 (H, W), `UNKNOWN` where
    not known.

    kind: `truth` (real mask), `pseudo` (teachers), `empty` (certainly nobody). single: owner can be trusted.
    """

    source: str
    kind: str
    single: bool
    picture: Picture
    person: npt.NDArray[np.uint8]
    owner: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


def read_picture(path: Path) -> Picture:
    """An image file as RGB u8 (H, W, 3) with a short side of at most 288; raises TrainingError."""
    try:
        with Image.open(path) as image:
            return _shrink(np.asarray(image.convert("RGB")))
    except OSError as error:
        raise TrainingError(f"cannot read {path}: {error}") from error


def read_mask(path: Path, height: int, width: int) -> npt.NDArray[np.uint8]:
    """A mask file (> 0 = person) as u8 0 or 255 (height, width), edges soft where it is resized; raises
    TrainingError."""
    try:
        with Image.open(path) as image:
            grey = Image.fromarray((np.asarray(image.convert("L")) > 0).astype(np.uint8) * 255)
    except OSError as error:
        raise TrainingError(f"cannot read {path}: {error}") from error
    return np.array(grey.resize((width, height), Image.Resampling.BILINEAR))


def hole_fraction(mask: npt.NDArray[Any]) -> float:
    """Area of the holes of a binary mask (H, W) over its filled area; masks with large holes are no truth."""
    from scipy.ndimage import binary_fill_holes

    filled = binary_fill_holes(mask)
    return float((filled.sum() - mask.sum()) / max(1, filled.sum()))


def clip_frames(path: Path, count: int) -> Iterator[Picture]:
    """About `count` frames of a clip, evenly spread; raises TrainingError when it cannot be decoded."""
    import av

    try:
        with av.open(str(path)) as container:
            total = sum(1 for packet in container.demux(video=0) if packet.size)
            step = max(1, total // count)
        with av.open(str(path)) as container:
            for index, frame in enumerate(container.decode(video=0)):
                if index % step == step // 2:
                    yield _shrink(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
    except av.FFmpegError as error:
        raise TrainingError(f"cannot decode {path}: {error}") from error


def outdoor_labels(picture: Picture, labels: npt.NDArray[np.uint8], sky: bool) -> None:
    """Sky and vegetation by colour, in place, where `labels` says room: for pictures known to be taken outside."""
    values = picture.astype(np.float32) / 255
    red, green, blue = values[..., 0], values[..., 1], values[..., 2]
    room = labels == Label.ROOM
    labels[room & (2 * green - red - blue > 0.08) & (green > red)] = Label.VEGETATION
    if sky:
        bright = values.mean(2)
        like = ((blue > red + 0.03) & (blue >= green - 0.02) & (bright > 0.35)) | (bright > 0.85)
        # Sky reaches down from the top of the picture without a break.
        from_top = np.minimum.accumulate(like.astype(np.uint8), axis=0) > 0
        labels[room & from_top] = Label.SKY


def _shrink(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    scale = SHORT_SIDE / min(height, width)
    if scale >= 1:
        return np.ascontiguousarray(picture)
    size = (round(width * scale), round(height * scale))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))


def _masked_item(name: str, picture: Picture, mask: npt.NDArray[np.uint8], teachers: Teachers) -> Item | None:
    """A picture with a real mask; None when the mask has holes or contradicts the teacher, hence is no truth."""
    solid = mask > 127
    taught = teachers.teach(picture)
    if not solid.any():
        return None
    if name == "human_seg_vikram":
        guess = taught.person > 127
        agreement = (solid & guess).sum() / max(1, (solid | guess).sum())
        if hole_fraction(solid) > 0.01 or agreement < 0.75:
            return None
    people = int(taught.owner.max())
    single = name == "ccp" or people <= 1
    owner = solid.astype(np.uint8)
    if not single:
        owner = np.where(solid, taught.owner, 0).astype(np.uint8)
    labels = taught.labels.copy()
    labels[(labels == Label.PERSON) & ~solid] = UNKNOWN
    labels[solid] = Label.PERSON
    if name == "ccp":
        outdoor_labels(picture, labels, sky=False)
    return Item(name, "truth", single, picture, mask, owner, labels)


def _pseudo_item(name: str, picture: Picture, taught: Teaching, labelled: bool) -> Item | None:
    if taught.person.max() < 128:
        return None
    labels = taught.labels.copy() if labelled else np.full(taught.person.shape, UNKNOWN, np.uint8)
    labels[(labels == Label.PERSON) & (taught.person < 64)] = UNKNOWN
    labels[taught.person > 127] = Label.PERSON
    single = int(taught.owner.max()) <= 1 or not taught.overlap
    return Item(name, "pseudo", single, picture, taught.person, taught.owner, labels)


def _empty_item(name: str, path: Path, teachers: Teachers) -> Item | None:
    picture = read_picture(path)
    detections = teachers.detect(picture, 0.15 if name == "bsds500" else 0.35)
    if (detections.classes == 0).any():
        return None
    labels = teachers.scene(picture, detections)
    labels[labels == Label.PERSON] = UNKNOWN
    if name == "bsds500" or path.stem.endswith("frontal"):
        outdoor_labels(picture, labels, sky=True)
    nobody = np.zeros(labels.shape, np.uint8)
    return Item(name, "empty", True, picture, nobody, nobody, labels)


def gather(data: Path, teachers: Teachers) -> Iterator[Item]:
    """Every item of the training split of a data folder (`train/stills/SET`, `train/masks/SET`, `train/clips`)."""
    stills, masks = data / "train" / "stills", data / "train" / "masks"
    for name in MASKED_SETS:
        for path in _files(stills / name):
            mask_path = masks / name / f"{path.stem}.png"
            if mask_path.exists():
                picture = read_picture(path)
                mask = read_mask(mask_path, *picture.shape[:2])
                if item := _masked_item(name, picture, mask, teachers):
                    yield item
    for name in EMPTY_SETS:
        for path in _files(stills / name):
            if item := _empty_item(name, path, teachers):
                yield item
    for path in _files(data / "train" / "clips"):
        for picture in clip_frames(path, FRAMES_A_CLIP):
            if item := _pseudo_item("clips", picture, teachers.teach(picture, whole=True), True):
                yield item
    for name, limit in {**dict.fromkeys(SEATED_SETS, 400), **FACE_SETS}.items():
        for path in _files(stills / name)[:limit]:
            picture = read_picture(path)
            labelled = name in SEATED_SETS
            if item := _pseudo_item(name, picture, teachers.teach(picture, whole=True, labels=labelled), labelled):
                yield item


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []


def build_cache(data: Path, weights: Path, cache: Path) -> int:
    """Run the teachers over the training data once; returns the number of items. Raises TrainingError when there are
    none."""
    cache.mkdir(parents=True, exist_ok=True)
    teachers = Teachers(weights)
    index: list[dict[str, Any]] = []
    partial = cache / "items.bin.part"
    with partial.open("wb") as blob:
        for item in gather(data, teachers):
            height, width = item.person.shape
            index.append(
                {
                    "source": item.source,
                    "kind": item.kind,
                    "single": item.single,
                    "height": height,
                    "width": width,
                    "offset": blob.tell(),
                }
            )
            for array in (item.picture, item.person, item.owner, item.labels):
                blob.write(np.ascontiguousarray(array).tobytes())
    if not index:
        raise TrainingError(f"no training pictures under {data / 'train'}")
    os.replace(partial, cache / "items.bin")
    listing = cache / "items.json.part"
    listing.write_text(json.dumps(index))
    os.replace(listing, cache / "items.json")
    return len(index)


class Items:
    """The cached items, memory-mapped; index it like a list."""

    def __init__(self, cache: Path) -> None:
        try:
            self.index: list[dict[str, Any]] = json.loads((cache / "items.json").read_text())
            self._blob = np.memmap(cache / "items.bin", np.uint8, "r")
        except (OSError, ValueError) as error:
            raise TrainingError(f"no usable cache in {cache}: {error}") from error

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Item:
        entry = self.index[number]
        height, width, start = entry["height"], entry["width"], entry["offset"]
        area = height * width
        block = np.asarray(self._blob[start : start + 6 * area])
        planes = block[3 * area :].reshape(3, height, width)
        picture = block[: 3 * area].reshape(height, width, 3)
        return Item(entry["source"], entry["kind"], entry["single"], picture, planes[0], planes[1], planes[2])
