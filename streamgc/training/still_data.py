"""Where training pictures come from: Cityscapes, folders of images, images with label maps or masks, video clips.

Every source is checked when it is opened; a folder that is wrong or partial gives a TrainingError that says what is
missing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image, UnidentifiedImageError

from streamgc.errors import TrainingError
from streamgc.training.still_samples import Labelled, LabelMap, Picture

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm")
CLIP_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".mpg", ".y4m")
CITYSCAPES_SIZE = (1024, 512)
CITYSCAPES_CLASSES = 34
LONG_SIDE = 768
LEAST_SHRINK = 1.25
MAX_SATURATION, MAX_VALUE = 0.9, 0.8
"""Mean HSV saturation and value beyond which a picture counts as non-photographic (Mentzer et al. 2018)."""
FRAMES_PER_CLIP = 40


class StillSource(ABC):
    """Pictures by number."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Labelled: ...


class ImageFolder(StillSource):
    """Every image under one or more folders, optionally by the Open Images rules of the paper."""

    def __init__(self, roots: Sequence[Path], *, open_images_rules: bool = False) -> None:
        """Raises TrainingError when a folder is missing or holds no usable image."""
        self._files = [path for root in roots for path in files_in(root, IMAGE_SUFFIXES, "images")]
        self._rules = open_images_rules
        if open_images_rules:
            found = len(self._files)
            self._files = [path for path in self._files if _large_enough(path) and not _too_saturated(path)]
            if not self._files:
                least = round(LONG_SIDE * LEAST_SHRINK)
                raise TrainingError(
                    f"none of {found} images passes the Open Images rules (long side ≥ {least} px, not too saturated)"
                )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Labelled:
        picture = read_image(self._files[index])
        if self._rules:
            shrink = LONG_SIDE / max(picture.shape[:2])
            size = (round(picture.shape[1] * shrink), round(picture.shape[0] * shrink))
            picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
        return Labelled(picture)


class LabelledFolder(StillSource):
    """``images/`` beside ``labels/`` (PNG class ids, with ``instances/`` 16-bit PNG if there) or ``masks/`` (> 0 =
    person), of the same stems; where ``images`` has sub-folders the others have them too.
    """

    def __init__(self, root: Path) -> None:
        """Raises TrainingError naming what is missing."""
        self._images = files_in(_folder(root / "images"), IMAGE_SUFFIXES, "images")
        self._binary = not (root / "labels").is_dir()
        labels = root / ("masks" if self._binary else "labels")
        if not labels.is_dir():
            raise TrainingError(f"{root} has neither labels/ nor masks/ beside images/")
        relative = [path.relative_to(root / "images").with_suffix(".png") for path in self._images]
        self._labels = [labels / path for path in relative]
        self._instances = [root / "instances" / path for path in relative] if (root / "instances").is_dir() else []
        _require(self._labels, labels)
        _require(self._instances, root / "instances")

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Labelled:
        picture = read_image(self._images[index])
        labels = read_labels(self._labels[index])
        if self._binary:
            labels = (labels > 0).astype(np.uint8)
        if labels.shape != picture.shape[:2]:
            raise TrainingError(f"{self._labels[index]} is {labels.shape}, its image {picture.shape[:2]}")
        instances = np.asarray(Image.open(self._instances[index]), np.int32) if self._instances else None
        return Labelled(picture, labels, labels.astype(np.int32) if instances is None else instances)


class Cityscapes(StillSource):
    """leftImg8bit and gtFine at 1024×512: 34 classes, instance ids."""

    def __init__(self, root: Path, split: str = "train") -> None:
        """Raises TrainingError naming the folder or the first label file that is missing."""
        pictures, truth = _folder(root / "leftImg8bit" / split), _folder(root / "gtFine" / split)
        self._images = [path for path in files_in(pictures, (".png",), "images") if "_leftImg8bit" in path.name]
        if not self._images:
            raise TrainingError(f"{pictures} holds no *_leftImg8bit.png")
        stems = [
            truth / path.parent.name / path.name.replace("_leftImg8bit.png", "_gtFine_{}.png") for path in self._images
        ]
        self._labels = [path.with_name(path.name.format("labelIds")) for path in stems]
        self._instances = [path.with_name(path.name.format("instanceIds")) for path in stems]
        _require(self._labels, truth)
        _require(self._instances, truth)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Labelled:
        picture = Image.open(self._images[index]).convert("RGB").resize(CITYSCAPES_SIZE, Image.Resampling.LANCZOS)
        nearest = Image.Resampling.NEAREST
        labels = np.asarray(Image.open(self._labels[index]).resize(CITYSCAPES_SIZE, nearest), np.uint8)
        instances = np.asarray(Image.open(self._instances[index]).resize(CITYSCAPES_SIZE, nearest), np.int32)
        # The licence plate has id -1, which the PNG holds as 255; it is part of a vehicle nobody evaluates.
        labels = np.where(labels < CITYSCAPES_CLASSES, labels, 0).astype(np.uint8)
        return Labelled(np.asarray(picture), labels, instances)


class Clips(StillSource):
    """Frames of the video clips under a folder, spread evenly, at most `FRAMES_PER_CLIP` each; held in memory."""

    def __init__(self, root: Path, per_clip: int = FRAMES_PER_CLIP) -> None:
        """Raises TrainingError when there are no clips or one cannot be decoded."""
        self._frames = [frame for path in files_in(root, CLIP_SUFFIXES, "clips") for frame in _decode(path, per_clip)]

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Labelled:
        return Labelled(self._frames[index])


class Joined(StillSource):
    """Several sources one after the other."""

    def __init__(self, sources: Sequence[StillSource]) -> None:
        self._sources = list(sources)

    def __len__(self) -> int:
        return sum(len(source) for source in self._sources)

    def __getitem__(self, index: int) -> Labelled:
        for source in self._sources:
            if index < len(source):
                return source[index]
            index -= len(source)
        raise IndexError(index)


def open_source(layout: str, roots: Sequence[Path], *, open_images_rules: bool = False) -> StillSource:
    """The source of a layout (see `StillTraining.layout`) over one or more folders. Raises TrainingError."""
    if not roots:
        raise TrainingError("no data folder was given")
    if layout == "images":
        return ImageFolder(roots, open_images_rules=open_images_rules)
    makers = {"labelled": LabelledFolder, "cityscapes": Cityscapes, "clips": Clips}
    if layout not in makers:
        raise TrainingError(f"unknown data layout {layout!r}; there are: images, {', '.join(makers)}")
    return Joined([makers[layout](root) for root in roots])


def files_in(root: Path, suffixes: Sequence[str], what: str) -> list[Path]:
    """Files under a folder by suffix, sorted. Raises TrainingError when the folder is missing or has none."""
    files = sorted(path for path in _folder(root).rglob("*") if path.suffix.lower() in suffixes)
    if not files:
        raise TrainingError(f"{root} holds no {what} ({', '.join(suffixes)})")
    return files


def read_image(path: Path) -> Picture:
    """RGB (H, W, 3). Raises TrainingError naming a file that is no image."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise TrainingError(f"{path} cannot be read as an image: {error}") from None


def read_labels(path: Path) -> LabelMap:
    """Class ids (H, W) of a grey or palette PNG. Raises TrainingError."""
    try:
        with Image.open(path) as image:
            labels = np.asarray(image if image.mode in ("L", "P") else image.convert("L"), np.uint8)
    except (OSError, UnidentifiedImageError) as error:
        raise TrainingError(f"{path} cannot be read as a label map: {error}") from None
    return labels


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise TrainingError(f"there is no folder {path}")
    return path


def _require(paths: Sequence[Path], folder: Path) -> None:
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise TrainingError(
            f"{folder}: {len(missing)} of {len(paths)} files are missing, the first is {missing[0].name}"
        )


def _large_enough(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return max(image.size) >= LONG_SIDE * LEAST_SHRINK
    except (OSError, UnidentifiedImageError) as error:
        raise TrainingError(f"{path} cannot be read as an image: {error}") from None


def _too_saturated(path: Path) -> bool:
    with Image.open(path) as image:
        hsv = np.asarray(image.convert("RGB").resize((64, 64)).convert("HSV"), np.float32) / 255
    return bool(hsv[..., 1].mean() > MAX_SATURATION or hsv[..., 2].mean() > MAX_VALUE)


def _decode(path: Path, count: int) -> list[Picture]:
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            step = max(1, (stream.frames or 4 * count) // count)
            frames = []
            for number, frame in enumerate(container.decode(stream)):
                if number % step == 0:
                    frames.append(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
                if len(frames) == count:
                    break
    except (av.FFmpegError, IndexError) as error:
        raise TrainingError(f"{path} cannot be decoded: {error}") from None
    if not frames:
        raise TrainingError(f"{path} holds no frames")
    return frames
