"""Label maps for pictures that have none: what the shipped segmenter sees, in the layout `labelled` reads.

Under the output folder: ``images/`` (PNG), ``labels/`` (PNG, ids of `streamgc.scene.labels`) and ``instances/`` (16-bit
PNG: the label, and 256 × (n + 1) more for the n-th person), all of the same stems.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from streamgc.errors import TrainingError
from streamgc.scene.instances import Instances
from streamgc.scene.labels import Label
from streamgc.training.still_data import IMAGE_SUFFIXES, files_in, read_image
from streamgc.training.still_samples import Labelled, Picture

Look = Callable[[Picture], Instances]
SOLID = 128
"""Matte value from which a pixel is the person's."""


def labelled_by(look: Look, picture: Picture, mask: np.ndarray | None = None) -> Labelled:
    """A picture with what the segmenter says of it; a known person ``mask`` (H, W) bool counts instead of its matte."""
    height, width = picture.shape[:2]
    seen = look(picture)
    cells = Image.fromarray(seen.labels).resize((width, height), Image.Resampling.NEAREST)
    labels = np.array(cells, np.uint8)
    # Cells say person to 16 pixels; the matte says it to one.
    labels[labels == Label.PERSON] = Label.ROOM
    owner = np.full((height, width), -1, np.int32)
    if len(seen.masks):
        owner = np.where(seen.masks.max(0) >= SOLID, seen.masks.argmax(0), -1).astype(np.int32)
    if mask is not None:
        owner = np.where(mask, np.maximum(owner, 0), -1)
    labels[owner >= 0] = Label.PERSON
    return Labelled(picture, labels, labels + 256 * (owner + 1).astype(np.int32))


def write_labelled(
    folders: Sequence[Path],
    out: Path,
    look: Look,
    *,
    masks: Sequence[Path] = (),
    side: int = 0,
    note: Callable[[int, int], None] = lambda done, count: None,
) -> int:
    """Label every image of ``folders`` into ``out``; how many there were.

    ``masks``: folders of PNG person masks (> 0) of the images' stems, one for each folder; ``side``: the longer side
    is brought to this, 0 leaves it. Raises TrainingError for folders without images or masks of another size.
    """
    if masks and len(masks) != len(folders):
        raise TrainingError(f"{len(masks)} folders of masks for {len(folders)} folders of images")
    jobs = [
        (path, masks[index] / f"{path.stem}.png" if masks else None, f"{folder.name}-{path.stem}")
        for index, folder in enumerate(folders)
        for path in files_in(folder, IMAGE_SUFFIXES, "images")
    ]
    for name in ("images", "labels", "instances"):
        (out / name).mkdir(parents=True, exist_ok=True)
    for number, (path, mask, name) in enumerate(jobs, 1):
        picture = _fitted(read_image(path), side, Image.Resampling.LANCZOS)
        item = labelled_by(look, picture, None if mask is None else _mask(mask, side, picture))
        assert item.labels is not None
        assert item.instances is not None
        for kind, pixels in (
            ("images", item.picture),
            ("labels", item.labels),
            ("instances", item.instances.astype(np.uint16)),
        ):
            Image.fromarray(pixels).save(out / kind / f"{name}.png")
        note(number, len(jobs))
    return len(jobs)


def _fitted(pixels: np.ndarray, side: int, method: Image.Resampling) -> np.ndarray:
    longest = max(pixels.shape[:2])
    if not side or longest == side:
        return pixels
    size = (max(1, round(pixels.shape[1] * side / longest)), max(1, round(pixels.shape[0] * side / longest)))
    return np.asarray(Image.fromarray(pixels).resize(size, method))


def _mask(path: Path, side: int, picture: Picture) -> np.ndarray:
    try:
        with Image.open(path) as image:
            pixels = (np.asarray(image.convert("L")) > 0).astype(np.uint8)
    except OSError as error:
        raise TrainingError(f"cannot read the mask {path}: {error}") from None
    mask = _fitted(pixels, side, Image.Resampling.NEAREST)
    if mask.shape != picture.shape[:2]:
        raise TrainingError(f"{path} is {mask.shape}, its image {picture.shape[:2]}")
    return mask > 0
