"""Build the cache that the call model trains from: squares of 256², person masks, keys as AV1 leaves them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamgc.errors import TrainingError
from streamgc.pipeline.clips import read_clip
from streamgc.pipeline.files import square_up
from streamgc.pipeline.settings import BLANK, PictureFormat
from streamgc.scene.heatmap import dilate
from streamgc.training.call_samples import FACE_NUMBERS, MASK_LEVEL, SQUARE
from streamgc.training.key_pictures import coded_chain, coded_still

Picture = NDArray[np.uint8]
FindFace = Callable[[Picture], "NDArray[np.float32] | None"]
"""Picture (H, W, 3) → the seven numbers of `call_samples.FACE_NUMBERS`, or None where there is no face."""
FORMAT = PictureFormat(SQUARE, SQUARE)
FPS = 15.0
KEY_EVERY = 8
"""Frames between the keys of a clip."""
CHAIN_QUALITIES = (31, 38, 50)
"""CRF of the chains made of every clip; a fourth version of each key is the coarse one."""
STILL_QUALITIES = (28, 32, 36, 42, 50)
COARSE_CRF, COARSE_SHRINK = 50, 2
MARGIN = 6
"""Pixels around the person that the blanking mask adds."""
FACE_EVERY = 2
"""Frames of a clip between two searches for the face: they take as long as everything else together."""
ENLARGED = 3
_IS_PLACE = np.array([1, 1, 1, 1, 1, 1, 0], np.float32)
"""Of a face's numbers; the last is a distance, which has no origin."""
SMALLEST_PERSON = 0.06
"""Stills with less of a person in them are left out."""


@dataclass(frozen=True)
class CacheSettings:
    """What goes in: ``clips/`` and ``stills/SET/`` of a folder; masks in ``masks/SET/`` replace the teacher's."""

    clip_frames: int = 1500
    stills_per_set: int = 350
    sets: tuple[str, ...] = field(
        default=(
            "facemask_portraits",
            "drivers_web",
            "human_seg_vikram",
            "ccp",
            "fakefaces_sg",
            "ffhq_sg2_hi",
            "coco128_seg",
            "ffhq_sg_256",
            "faces_misc_256",
        )
    )
    seed: int = 0


def build_cache(
    data: Path, folder: Path, person: Callable[[Picture], NDArray[np.uint8]], settings: CacheSettings | None = None
) -> None:
    """Write the cache of ``data`` into ``folder``.

    ``person``: (H, W, 3) RGB uint8 to a probability mask (H, W) uint8. Raises TrainingError for a folder without clips.
    """
    settings = settings or CacheSettings()
    clips = sorted(path for path in (data / "clips").glob("*") if path.is_file())
    if not clips:
        raise TrainingError(f"{data}: no clips/ folder with videos in it")
    folder.mkdir(parents=True, exist_ok=True)
    _cache_clips(clips, folder, person, settings)
    _cache_stills(data, folder, person, settings)


def add_faces(folder: Path, find: FindFace) -> None:
    """Write where the faces of a cache are, beside it: what training weighs more."""
    frames, starts = np.load(folder / "frames.npy", mmap_mode="r"), np.load(folder / "starts.npy")
    faces = np.full((len(frames), FACE_NUMBERS), np.nan, np.float32)
    for first, last in pairwise(int(start) for start in starts):
        for index in range(first, last, FACE_EVERY):
            found = find(frames[index])
            if found is not None:
                faces[index : min(index + FACE_EVERY, last)] = found
    stills = np.load(folder / "s_frames.npy", mmap_mode="r")
    found_in_stills = [find_small(still, find) for still in stills]
    nowhere = np.full(FACE_NUMBERS, np.nan, np.float32)
    _save(folder, faces=faces, s_faces=[nowhere if face is None else face for face in found_in_stills])


def find_small(picture: Picture, find: FindFace) -> NDArray[np.float32] | None:
    """As ``find``, and where that finds nothing, in the picture `ENLARGED` times as large: somebody who stands."""
    found = find(picture)
    if found is not None:
        return found
    height, width = picture.shape[:2]
    large = Image.fromarray(picture).resize((ENLARGED * width, ENLARGED * height), Image.Resampling.BICUBIC)
    found = find(np.asarray(large))
    return None if found is None else ((found + (1 - ENLARGED) / 2 * _IS_PLACE) / ENLARGED).astype(np.float32)


def blanked(picture: Picture, mask: NDArray[np.uint8]) -> Picture:
    """The person and a margin over grey."""
    keep = dilate(mask > 255 * MASK_LEVEL, MARGIN)
    return np.where(keep[..., None], picture, np.uint8(BLANK))


def _cache_clips(
    clips: list[Path], folder: Path, person: Callable[[Picture], NDArray[np.uint8]], settings: CacheSettings
) -> None:
    frames: list[Picture] = []
    masks: list[NDArray[np.uint8]] = []
    keys: list[NDArray[np.uint8]] = []
    starts, key_index = [0], []
    for clip in clips:
        print(f"clip {clip.name}", flush=True)
        for picture in square_up(read_clip(clip, FPS, settings.clip_frames), SQUARE, SQUARE):
            frames.append(picture)
            masks.append(person(picture))
        chosen = list(range(starts[-1], len(frames), KEY_EVERY))
        starts.append(len(frames))
        sources = [blanked(frames[i], masks[i]) for i in chosen]
        versions = [list(coded_chain(sources, quality)) for quality in CHAIN_QUALITIES]
        versions.append([coded_still(source, COARSE_CRF, COARSE_SHRINK) for source in sources])
        keys.extend(np.stack(of_one) for of_one in zip(*versions, strict=True))
        key_index += chosen
    _save(folder, frames=frames, masks=masks, keys=keys, starts=starts, key_index=key_index)


def _cache_stills(
    data: Path, folder: Path, person: Callable[[Picture], NDArray[np.uint8]], settings: CacheSettings
) -> None:
    chance = random.Random(settings.seed)
    frames, masks, keys, sets = [], [], [], []
    for name in settings.sets:
        print(f"stills {name}", flush=True)
        for path in _some(data / "stills" / name, settings.stills_per_set, chance):
            picture = _square(Image.open(path).convert("RGB"))
            own = data / "masks" / name / f"{path.stem}.png"
            mask = (
                _square(Image.open(own).convert("L").point(lambda v: 255 * (v > 0)).convert("RGB"))[..., 0]
                if own.is_file()
                else person(picture)
            )
            if (mask > BLANK).mean() < SMALLEST_PERSON:
                continue
            source = blanked(picture, mask)
            coarse = chance.random() < 0.1
            key = (
                coded_still(source, COARSE_CRF, COARSE_SHRINK)
                if coarse
                else coded_still(source, chance.choice(STILL_QUALITIES))
            )
            frames.append(picture)
            masks.append(mask)
            keys.append(key)
            sets.append(name)
    if not frames:
        raise TrainingError(f"{data}: no stills/ with people in them")
    _save(folder, s_frames=frames, s_masks=masks, s_keys=keys, s_sets=sets)


def _some(folder: Path, most: int, chance: random.Random) -> Iterator[Path]:
    paths = sorted(folder.glob("*"))
    chance.shuffle(paths)
    yield from paths[:most]


def _square(image: Image.Image) -> Picture:
    return next(square_up(iter([np.asarray(image)]), SQUARE, SQUARE))


def _save(folder: Path, **arrays: Any) -> None:
    for name, values in arrays.items():
        temporary = folder / f".{name}.partial.npy"
        np.save(temporary, np.asarray(values))
        temporary.replace(folder / f"{name}.npy")
