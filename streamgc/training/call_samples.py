"""Training samples for the call model: a key, and two pictures that follow it, cut from cached clips and stills.

``call_cache`` writes the cache: squares of 256², person masks, and keys as the call's AV1 coder leaves them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from streamgc.errors import TrainingError
from streamgc.scene.heatmap import cell_shares, dilate, spread_cells
from streamgc.training.call_moved import displacements, faces_within
from streamgc.training.face_moves import moved, some_expression
from streamgc.training.face_swaps import mirrored, some_parts, swapped

SQUARE = 256
FACE_NUMBERS = 7
"""Of a face: x and y of left eye, right eye and mouth, and the distance of the eyes, in pixels."""
FACE_WEIGHT, PART_WEIGHT = 1.5, 8.0
"""What a face, and its eyes and mouth, weigh more than the rest of a person, which weighs 1."""
CLOSE_UP = (12.0, 48.0)
"""Distance of the eyes in a sample that is cut around a face, in its pixels: that of somebody at the far end of a
sofa, and at a desk."""
MASK_LEVEL = 0.4
"""A pixel whose person probability is above this is blanked in; a margin is added around it."""
KEPT_FROM = 0.04
"""Share of a cell from which on it is kept."""


class Samples(NamedTuple):
    """One batch. ``pictures`` (B, 2, 3, S, S): the older, then the newer; all values in [0, 1]."""

    pictures: Tensor
    mattes: Tensor  # (B, 2, 1, S, S) 1 = kept by the blanking mask
    persons: Tensor  # (B, 2, 1, S, S) person probability
    key: Tensor  # (B, 3, S, S) blanked and coded
    attention: Tensor  # (B, 2, 1, S, S) ≥ 1: how much more the faces weigh
    moved: Tensor  # (B, 2, 2, S / 8, S / 8) how the key is moved to the pictures' faces, in pixels (x, y)


@dataclass(frozen=True)
class SampleSettings:
    """What a batch is drawn from."""

    batch: int = 6
    size: int = 128
    still_share: float = 0.25
    swapped_share: float = 0.5
    """Share of samples with a face whose eyes or mouth are, in the key or in the pictures after it, those of somebody
    else."""
    expression_share: float = 0.0
    """Share of samples with a face whose own eyes or mouth are moved, in the key or in the pictures after it. What
    ships was trained without (docs/results/training.md)."""
    close_share: float = 0.5
    """Share of samples with a face that are cut around it."""
    patch_share: float = 0.3
    """Share of samples in which something that the key does not hold moves into the picture."""
    moved_share: float = 0.15
    """Share of clips that are moved further than they move by themselves."""
    fresh_share: float = 0.35
    """Share of clips whose key is about half a second old; that of the others is about five times as old."""
    turned_share: float = 0.4
    """Share of clips drawn twice, of which the one is taken whose face has moved away further from the key: a face that
    turns is the hardest that a call shows, and seldom."""
    stirred_share: float = 0.3
    """The same for everything that is kept: hands."""


class Cache:
    """The arrays that ``call_cache`` wrote, memory-mapped."""

    def __init__(self, folder: Path) -> None:
        """Raises TrainingError when a part is missing."""
        names = ("frames", "masks", "starts", "key_index", "keys", "s_frames", "s_masks", "s_keys", "s_sets")
        missing = [name for name in names if not (folder / f"{name}.npy").is_file()]
        if missing:
            raise TrainingError(f"{folder}: no {', '.join(missing)}; run 'streamgc train cache' first")
        self.frames, self.masks, self.starts, self.key_index, self.keys, self.s_frames, self.s_masks, self.s_keys, _ = (
            np.load(folder / f"{name}.npy", mmap_mode=None if name in {"starts", "key_index", "s_sets"} else "r")
            for name in names
        )
        self.s_sets: NDArray[np.str_] = np.load(folder / "s_sets.npy")
        self.faces = _faces(folder / "faces.npy", len(self.frames))
        self.s_faces = _faces(folder / "s_faces.npy", len(self.s_frames))


class _Drawn(NamedTuple):
    """Two pictures of a clip or twice a still, before they are cropped and moved."""

    frames: NDArray[np.uint8]  # (2, 256, 256, 3)
    masks: NDArray[np.uint8]  # (2, 256, 256)
    key: NDArray[np.uint8]  # (256, 256, 3)
    still: bool
    faces: NDArray[np.float32]  # (2, 7)
    key_face: NDArray[np.float32]  # (7,)


class Sampler:
    """Draws batches; one random generator, so that a seed repeats a training."""

    def __init__(self, cache: Cache, settings: SampleSettings, seed: int) -> None:
        self.cache, self.settings = cache, settings
        self.random = np.random.default_rng(seed)
        self.clip_weights = clip_weights(cache)
        scarce = {"drivers_web": 2.5, "human_seg_vikram": 2.0, "facemask_portraits": 2.0, "ccp": 1.5}
        weights = np.array([scarce.get(str(name), 1.0) for name in cache.s_sets])
        self.still_weights = weights / weights.sum()
        self.donors = np.flatnonzero(~np.isnan(cache.s_faces).any(1))

    def batch(self) -> Samples:
        settings, size = self.settings, self.settings.size
        raw = [
            self._still() if self.random.random() < settings.still_share else self._clip()
            for _ in range(settings.batch)
        ]
        raw = [self._swapped(one) if self.random.random() < settings.swapped_share else one for one in raw]
        raw = [self._moved(one) if self.random.random() < settings.expression_share else one for one in raw]
        pictures = _tensor(np.stack([r[0] for r in raw]))  # (B, 2, 256, 256, 3)
        masks = torch.from_numpy(np.stack([r[1] for r in raw])).float()[:, :, None] / 255
        keys = _tensor(np.stack([r[2] for r in raw])[:, None])[:, 0]
        faces = torch.from_numpy(np.stack([[attention(face) for face in r[4]] for r in raw]))[:, :, None]
        grids = [self._grids(one) for one in raw]
        older, newer, of_key = (torch.from_numpy(np.stack([g[i] for g in grids])) for i in range(3))
        shown = torch.stack([_sample(pictures[:, 0], older), _sample(pictures[:, 1], newer)], 1)
        persons = torch.stack([_sample(masks[:, 0], older), _sample(masks[:, 1], newer)], 1)
        weights = torch.stack([_sample(faces[:, 0], older), _sample(faces[:, 1], newer)], 1)
        key = _sample(keys, of_key)
        shown, persons = self._insert_patches(shown, persons)
        shown, key = self._light(shown, key)
        radius = int(self.random.integers(1, 7))
        flat = (persons > MASK_LEVEL).float().flatten(0, 1)
        mattes = F.max_pool2d(flat, 2 * radius + 1, 1, radius).view(settings.batch, 2, 1, size, size)
        places = [
            faces_within(one.faces, one.key_face, grids_of, SQUARE, self.random)
            for one, grids_of in zip(raw, grids, strict=True)
        ]
        return Samples(shown, mattes, persons, key, weights, displacements(shown, mattes, key, places, self.random))

    def _clip(self) -> _Drawn:
        """Two frames of one clip and a coded key."""
        drawn = self._any_clip()
        roll = self.random.random() - self.settings.turned_share
        if roll < 0:
            drawn = max(drawn, self._any_clip(), key=face_change)
        elif roll < self.settings.stirred_share:
            drawn = max(drawn, self._any_clip(), key=kept_change)
        return drawn

    def _any_clip(self) -> _Drawn:
        cache, random = self.cache, self.random
        clip = int(random.choice(len(self.clip_weights), p=self.clip_weights))
        first, last = int(cache.starts[clip]), int(cache.starts[clip + 1])
        now = int(random.integers(first + 1, last))
        before = max(first, now - int(random.choice([1, 2, 3, 4, 5, 6], p=[0.15, 0.25, 0.3, 0.15, 0.1, 0.05])))
        low, high = np.searchsorted(cache.key_index, [first, last])
        # Of fresh keys the good parts must be left alone.
        age = int(random.exponential(8.0 if random.random() < self.settings.fresh_share else 40.0))
        wanted = min(max(now - age, first), last - 1)
        index = min(max(int(np.searchsorted(cache.key_index, wanted, side="right")) - 1, int(low)), int(high) - 1)
        quality = int(random.choice(4, p=[0.5, 0.3, 0.15, 0.05]))
        both = [before, now]
        faces, key_face = cache.faces[both], cache.faces[cache.key_index[index]]
        return _Drawn(cache.frames[both], cache.masks[both], cache.keys[index, quality], False, faces, key_face)

    def _still(self) -> _Drawn:
        cache = self.cache
        index = int(self.random.choice(len(self.still_weights), p=self.still_weights))
        frames, masks, faces = (np.stack([of[index]] * 2) for of in (cache.s_frames, cache.s_masks, cache.s_faces))
        return _Drawn(frames, masks, cache.s_keys[index], True, faces, faces[0])

    def _swapped(self, drawn: _Drawn) -> _Drawn:
        """With somebody else's eyes or mouth, or both: in the key, or in the pictures, of which the older may go
        without."""
        if not len(self.donors) or np.isnan(drawn.faces).any():
            return drawn
        random = self.random
        number = int(random.choice(self.donors))
        donor, donor_face = self.cache.s_frames[number], self.cache.s_faces[number]
        if random.random() < 0.5:
            donor, donor_face = mirrored(donor, donor_face)
        parts = some_parts(random)
        if random.random() < 0.5:
            return drawn._replace(key=swapped(drawn.key, drawn.key_face, donor, donor_face, parts))
        first = int(random.random() < 0.3)
        frames = drawn.frames.copy()
        for k in range(first, 2):
            frames[k] = swapped(frames[k], drawn.faces[k], donor, donor_face, parts)
        return drawn._replace(frames=frames)

    def _moved(self, drawn: _Drawn) -> _Drawn:
        """With eyes or mouth moved: in the key, or in the pictures, of which the older may go without."""
        if np.isnan(drawn.faces).any():
            return drawn
        random = self.random
        expression = some_expression(random)
        if random.random() < 0.3:
            return drawn._replace(key=moved(drawn.key, drawn.key_face, expression))
        first = int(random.random() < 0.5)
        frames = drawn.frames.copy()
        for k in range(first, 2):
            frames[k] = moved(frames[k], drawn.faces[k], expression)
        return drawn._replace(frames=frames)

    def _grids(self, drawn: _Drawn) -> list[NDArray[np.float32]]:
        """Sampling grids (S, S, 2) for older, newer and key: a crop around the person or the face, and made-up
        motion."""
        random, size, still = self.random, self.settings.size, drawn.still
        mask, face = drawn.masks[1], drawn.faces[1]
        side = size * math.exp(random.uniform(math.log(0.75), math.log(1.75)))
        ys, xs = np.nonzero(mask[::8, ::8] > 100)
        if not np.isnan(face).any() and random.random() < self.settings.close_share:
            distance = max(float(face[6]), 4.0)
            wanted = math.exp(random.uniform(*np.log(CLOSE_UP)))
            side = float(np.clip(size * distance / wanted, 0.6 * size, 2.2 * size))
            centre = face[:6].reshape(3, 2).mean(0) + random.normal(0, 0.25, 2) * side
        elif len(ys) and random.random() < 0.85:
            pick = int(random.integers(len(ys)))
            centre = np.array([xs[pick] * 8.0, ys[pick] * 8.0])
        else:
            centre = random.uniform(0, SQUARE, 2)
        half = side / 2
        margin = min(half * 0.9, SQUARE / 2)
        centre = np.clip(centre, margin, SQUARE - margin)
        line = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
        x, y = np.meshgrid(line, line)
        mirror = -1.0 if random.random() < 0.5 else 1.0
        base = np.stack([x * half * mirror, y * half], -1)
        strength = 1.0 if still else (0.35 if random.random() < self.settings.moved_share else 0.0)
        motion = self._motion(base, strength * math.exp(random.normal(0, 0.6)), half)
        step = random.uniform(0.7, 1.1)
        places = [base + step * motion, base + motion, base]
        return [((place + centre) / SQUARE * 2 - 1).astype(np.float32) for place in places]

    def _motion(self, base: NDArray[np.floating], strength: float, half: float) -> NDArray[np.floating]:
        """A displacement field in source pixels: shift, turn, zoom and a smooth elastic part."""
        if strength == 0:
            return np.zeros_like(base)
        random, size = self.random, self.settings.size
        turn, zoom = random.normal(0, 0.05) * strength, random.normal(0, 0.04) * strength
        affine = base @ np.array([[zoom, turn], [-turn, zoom]])
        knots = torch.from_numpy(random.normal(0, 3.0 * strength, (1, 2, 5, 5))).float()
        elastic = (
            F.interpolate(knots, size=(size, size), mode="bicubic", align_corners=True)[0].permute(1, 2, 0).numpy()
        )
        return np.asarray(affine + elastic + random.normal(0, 5.0 * strength, 2))

    def _insert_patches(self, shown: Tensor, persons: Tensor) -> tuple[Tensor, Tensor]:
        """Let an ellipse of another sample's picture move into some pictures: a hand, a cup, a second person."""
        batch, _, _, size, _ = shown.shape
        line = torch.arange(size, dtype=torch.float32)
        donors = shown[:, 1].roll(1, 0)
        shown, persons = shown.clone(), persons.clone()
        for i in range(batch):
            if self.random.random() > self.settings.patch_share:
                continue
            centre = self.random.uniform(0, size, 2)
            axes, angle = self.random.uniform(8, 30, 2), self.random.uniform(0, math.pi)
            velocity = self.random.normal(0, 5, 2)
            for k in range(2):
                dx = line[None] - float(centre[0] + velocity[0] * k)
                dy = line[:, None] - float(centre[1] + velocity[1] * k)
                u, v = dx * math.cos(angle) + dy * math.sin(angle), dy * math.cos(angle) - dx * math.sin(angle)
                inside = torch.sigmoid((1 - (u / float(axes[0])) ** 2 - (v / float(axes[1])) ** 2) * 6)[None]
                source = torch.roll(donors[i], (round(float(velocity[1] * k)), round(float(velocity[0] * k))), (1, 2))
                shown[i, k] = inside * source + (1 - inside) * shown[i, k]
                persons[i, k] = torch.maximum(persons[i, k], inside)
        return shown, persons

    def _light(self, shown: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Exposure and tint per sample, now and then changed between key and picture."""
        batch = shown.shape[0]
        gain = torch.from_numpy(np.exp(self.random.normal(0, 0.15, (batch, 3, 1, 1)))).float()
        drift = torch.ones(batch, 1, 1, 1)
        changed = torch.from_numpy(self.random.random(batch) < 0.2)
        drift[changed] = torch.from_numpy(np.exp(self.random.normal(0, 0.08, (int(changed.sum()), 1, 1, 1)))).float()
        return (shown * (gain * drift)[:, None]).clamp(0, 1), (key * gain).clamp(0, 1)


def clip_weights(cache: Cache) -> NDArray[np.float64]:
    """How often each clip is drawn, sum 1: long ones more often, but not as much as they are longer."""
    roots = np.sqrt(np.diff(cache.starts))
    return np.asarray(roots / roots.sum())


def kept_of(mask: NDArray[np.uint8], margin: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Of a person's probability ``mask`` (H, W), 0…255, with ``margin`` pixels around them: the matte, 0 or 255, and
    the cells (h, w) that a sender keeps."""
    matte = dilate(mask > 255 * MASK_LEVEL, margin)
    cells = cell_shares(matte) >= KEPT_FROM
    return (matte & spread_cells(cells, *matte.shape)).astype(np.uint8) * 255, cells


def attention(face: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much every place of a picture weighs, (64, 64) for its 256 × 256, ≥ 1; all ones where there is no face.

    ``face``: `FACE_NUMBERS` numbers, NaN without one. Soft discs, wide over the face, narrow over eyes and mouth.
    """
    side = SQUARE // 4
    weights = np.ones((side, side), np.float32)
    if np.isnan(face).any():
        return weights
    line = (np.arange(side, dtype=np.float32) + 0.5) * 4
    parts, distance = face[:6].reshape(3, 2), max(float(face[6]), 4.0)

    def disc(centre: NDArray[np.float32], radius: float) -> NDArray[np.float32]:
        squares = ((line[None] - centre[0]) ** 2 + (line[:, None] - centre[1]) ** 2) / radius**2
        return np.asarray(np.exp(-squares), np.float32)

    weights += FACE_WEIGHT * disc(parts.mean(0), 1.3 * distance)
    weights += PART_WEIGHT * np.max([disc(part, 0.45 * distance) for part in parts], 0)
    return weights


def face_change(drawn: _Drawn) -> float:
    """Mean difference in grey levels between the newer picture's face and the key, 0 where there is no face."""
    seen = attention(drawn.faces[1])
    if seen.max() <= 1:
        return 0.0
    difference = np.abs(drawn.frames[1, ::4, ::4].astype(np.float32) - drawn.key[::4, ::4]).mean(2)
    weight = np.minimum(seen - 1, FACE_WEIGHT)
    return float((difference * weight).sum() / weight.sum())


def kept_change(drawn: _Drawn) -> float:
    """Mean difference in grey levels between the newer picture's kept part and the key, 0 where nothing is kept."""
    kept = drawn.masks[1, ::4, ::4] > 255 * MASK_LEVEL
    difference = np.abs(drawn.frames[1, ::4, ::4].astype(np.float32) - drawn.key[::4, ::4]).mean(2)
    return float(difference[kept].mean()) if kept.any() else 0.0


def _faces(path: Path, count: int) -> NDArray[np.float32]:
    """NaN where the cache was built without a face finder."""
    return np.load(path) if path.is_file() else np.full((count, FACE_NUMBERS), np.nan, np.float32)


def _tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """(B, T, H, W, 3) uint8 → (B, T, 3, H, W) float in [0, 1]."""
    return torch.from_numpy(pictures).permute(0, 1, 4, 2, 3).float() / 255


def _sample(source: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)
