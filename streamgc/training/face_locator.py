"""Train what finds the face that a call codes (``streamgc train face-locator``).

From the call model's cache and its faces (dlib's, at training time), turned, moved and sized as calls have them. A
place's logit is trained as whether the middle of the eyes is in it, its other numbers only there.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from streamgc.networks.face import FaceLocator
from streamgc.pipeline.face import Place, place_of
from streamgc.pipeline.faces import PLACE_SIDE, USUAL_DISTANCE
from streamgc.pipeline.settings import BLANK
from streamgc.scene.heatmap import dilate
from streamgc.training.call_samples import MASK_LEVEL, SQUARE, Cache, clip_weights

DISTANCES = (11.0, 80.0)
"""Pixels between the eyes of faces that are learned."""
LARGEST_SCALE = 2.2
TURN = 0.22
"""Spread of how far heads are turned sideways, radians."""
STILL_SHARE = 0.45
COVERED_SHARE = 0.12
"""Share of pictures whose face is covered by what is below it, cloth or hands: there is none then."""
BLANKED_SHARE = 0.85
"""Share of pictures with the room blanked; in others somebody stands where the mask has a hole, or has none."""


@dataclass(frozen=True)
class LocatorTraining:
    """Settings of a run."""

    batch: int = 16
    rate: float = 2e-3
    last_rate: float = 5e-5
    minutes: float = 8.0
    seed: int = 0
    threads: int = 2


class LocatorBatches:
    """Pictures and where their face is."""

    def __init__(self, cache: Cache, seed: int) -> None:
        self._cache = cache
        self._random = np.random.default_rng(seed)
        self._clip_weights = clip_weights(cache)
        # Where no face was found there may yet be one, too small or turned too far for the finder: nobody knows.
        self._stills = np.flatnonzero(~np.isnan(cache.s_faces).any(1))

    def draw(self, count: int) -> tuple[Tensor, list[Place | None]]:
        """(B, 3, 256, 256) in [0, 1], and the place of the face in each; None where there is none."""
        drawn = [self._one() for _ in range(count)]
        return torch.stack([picture for picture, _ in drawn]), [place for _, place in drawn]

    def _one(self) -> tuple[Tensor, Place | None]:
        random, cache = self._random, self._cache
        if random.random() < STILL_SHARE:
            index = int(random.choice(self._stills))
            picture, mask, face = cache.s_frames[index], cache.s_masks[index], cache.s_faces[index]
        else:
            clip = int(random.choice(len(self._clip_weights), p=self._clip_weights))
            index = int(random.integers(cache.starts[clip], cache.starts[clip + 1]))
            picture, mask, face = cache.frames[index], cache.masks[index], cache.faces[index]
            if np.isnan(face).any():
                return self._one()
        if random.random() < BLANKED_SHARE:
            kept = dilate(mask > 255 * MASK_LEVEL, int(random.integers(1, 8)))
            picture = np.where(kept[..., None], picture, np.uint8(BLANK))
        place = place_of(face[:2], face[2:4])
        if random.random() >= COVERED_SHARE:
            return self._moved(picture, place)
        return self._moved(_covered(picture, place), place)[0], None

    def _moved(self, picture: NDArray[np.uint8], place: Place) -> tuple[Tensor, Place | None]:
        """Turned, mirrored, sized and moved, in another light."""
        random = self._random
        centre = np.array([place.x, place.y])
        scale = min(LARGEST_SCALE, math.exp(random.uniform(*np.log(DISTANCES))) / place.distance)
        target = random.uniform((20, 20), (236, 200)) if scale < 0.8 else centre + random.normal(0, 15, 2)
        turn = float(random.normal(0, TURN))
        mirror = -1.0 if random.random() < 0.5 else 1.0
        cosine, sine = math.cos(turn), math.sin(turn)
        # From the new picture's places to the old one's: back from the target, turned, sized, mirrored.
        back = np.array([[mirror, 0], [0, 1]]) @ np.array([[cosine, sine], [-sine, cosine]]) / scale
        line = np.arange(SQUARE, dtype=np.float32) + 0.5
        places = np.stack(np.meshgrid(line, line), -1) - target
        grid = (places @ back.T + centre) / SQUARE * 2 - 1
        source = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() - BLANK
        blur = max(1, round(1 / scale))
        if blur > 1:  # one sample of several pixels is noise
            source = F.avg_pool2d(source, blur)
        moved = F.grid_sample(source, torch.from_numpy(grid[None].astype(np.float32)), align_corners=False)[0] + BLANK
        gain = torch.from_numpy(np.exp(random.normal(0, 0.2, (3, 1, 1)))).float()
        picture_now = (moved / 255 * gain).clamp(0, 1)
        turned = mirror * place.turn + turn
        found = Place(float(target[0]), float(target[1]), place.distance * scale, turned)
        inside = 0 <= found.x < SQUARE and 0 <= found.y < SQUARE
        return picture_now, found if inside else None


def _covered(picture: NDArray[np.uint8], place: Place) -> NDArray[np.uint8]:
    """The picture with its face under what lies a face's height lower, or higher where it ends."""
    half = round(1.1 * place.distance)
    top, left = (max(0, round(at) - half) for at in (place.y + 0.4 * place.distance, place.x))
    bottom, right = min(SQUARE, top + 2 * half + half // 2), min(SQUARE, left + 2 * half)
    source = min(SQUARE - (bottom - top), bottom)
    covered = picture.copy()
    covered[top:bottom, left:right] = picture[source : source + bottom - top, left:right]
    return covered


def locator_loss(out: Tensor, places: list[Place | None]) -> tuple[Tensor, Tensor]:
    """Of the locator's output (B, 5, h, w); and the mean error of the middle where there is a face, in distances of the
    eyes."""
    wanted = torch.zeros_like(out[:, :1])
    weight = torch.ones_like(wanted)
    parts: list[Tensor] = []
    errors: list[Tensor] = []
    height, width = out.shape[-2:]
    for index, place in enumerate(places):
        if place is None:
            continue
        x, y = place.x / PLACE_SIDE, place.y / PLACE_SIDE
        column, row = min(width - 1, int(x)), min(height - 1, int(y))
        for j in range(max(0, row - 1), min(height, row + 2)):
            for i in range(max(0, column - 1), min(width, column + 2)):
                target = out.new_tensor(
                    [x - i - 0.5, y - j - 0.5, math.log(place.distance / USUAL_DISTANCE), place.turn]
                )
                # An error of the place matters as much as it is of the distance.
                scale = out.new_tensor([PLACE_SIDE / place.distance] * 2 + [1.0, 1.0])
                parts.append(F.smooth_l1_loss(out[index, 1:, j, i] * scale, target * scale, beta=0.05))
                if (j, i) == (row, column):
                    wanted[index, 0, j, i] = 1
                    off = (out[index, 1:3, j, i] - target[:2]) * PLACE_SIDE / place.distance
                    errors.append(off.detach().norm())
                else:
                    weight[index, 0, j, i] = 0  # neighbours are neither
    logits = out[:, :1]
    focal = (wanted - torch.sigmoid(logits)).abs() ** 2
    there = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * focal.detach() * weight
    loss = there.sum() / max(1, sum(place is not None for place in places))
    if parts:
        loss = loss + 2 * torch.stack(parts).mean()
    return loss, torch.stack(errors).mean() if errors else out.new_zeros(())


def train_locator(cache: Cache, target: Path, settings: LocatorTraining) -> FaceLocator:
    """Train from nothing, and put the weights into ``target``."""
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    batches, network = LocatorBatches(cache, settings.seed), FaceLocator()
    optimiser = torch.optim.Adam(network.parameters(), settings.rate)
    started = said = time.monotonic()
    losses: list[float] = []
    errors: list[float] = []
    steps = 0
    while (share := (time.monotonic() - started) / 60 / settings.minutes) < 1:
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * (settings.last_rate / settings.rate) ** share
        pictures, places = batches.draw(settings.batch)
        loss, error = locator_loss(network(pictures), places)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        steps += 1
        losses.append(float(loss.detach()))
        errors.append(float(error))
        if time.monotonic() - said > 30:
            said = time.monotonic()
            print(f"steps {steps} loss {np.mean(losses):.4f} place off by {np.mean(errors):.3f} eyes", flush=True)
            losses, errors = [], []
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".partial")
    torch.save(network.state_dict(), temporary)
    temporary.replace(target)
    return network.eval()
