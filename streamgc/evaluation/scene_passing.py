"""People who pass each other, with exactly known masks: does each keep their identity, does the main person stay it?

Clips are drawn: somebody stands in a room and sways a little, another walks across the picture, before or behind them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from streamgc.evaluation.scene import iou
from streamgc.scene.framing import FramingSettings
from streamgc.scene.instances import Instances
from streamgc.scene.observer import SceneObserver, SceneSettings, Segment
from streamgc.scene.policy import Keep, KeepPolicy
from streamgc.training.segmenter_scenes import Cutout, ItemSource, SceneMaker

Mask = npt.NDArray[np.bool_]
SIDE = 256
VISIBLE = 0.015
"""Share of the picture from which somebody counts as visible."""
SETTLED = 5
"""Frames before anything is judged."""


@dataclass(frozen=True)
class PassingResult:
    """Figures of `clips` clips of `frames` frames.

    both_found: share of the frames with both visible in which both were found (IoU ≥ 0.5 each). stayer_switches,
    walker_switches: changes of a person's id, a clip. main_kept: mean IoU of what the policy `main` keeps with who
    stands. main_flips: changes of the main person, a clip.
    """

    clips: int
    frames: int
    both_found: float
    stayer_switches: float
    walker_switches: float
    main_kept: float
    main_flips: float


class Moment(NamedTuple):
    """A frame RGB u8 (H, W, 3), and where who stands and who walks are visible, bool (H, W)."""

    frame: npt.NDArray[np.uint8]
    stayer: Mask
    walker: Mask


def _scaled(cutout: Cutout, height: int) -> Image.Image:
    width = max(8, round(cutout.image.width * height / cutout.image.height))
    return cutout.image.resize((width, height), Image.Resampling.BILINEAR)


def draw_clip(maker: SceneMaker, rng: np.random.Generator, frames: int) -> Iterator[Moment]:
    """A clip in which the one who walks crosses the picture from side to side."""
    room = maker.room(rng, SIDE, SIDE)
    stayer = _scaled(maker.cutout(rng), int(SIDE * rng.uniform(0.8, 1.0)))
    walker = _scaled(maker.cutout(rng), int(SIDE * rng.uniform(0.55, 0.75)))
    in_front, backwards = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
    middle = SIDE * rng.uniform(0.4, 0.6) - stayer.width / 2
    for number in range(frames):
        along = number / max(1, frames - 1)
        left = -walker.width + (1 - along if backwards else along) * (SIDE + walker.width)
        sway = 3 * np.sin(number / 4)
        places = {"stayer": (stayer, middle + sway), "walker": (walker, left)}
        order = ["stayer", "walker"] if in_front else ["walker", "stayer"]
        canvas = Image.fromarray(room)
        owner = np.zeros((SIDE, SIDE), np.uint8)
        for value, name in enumerate(order, 1):
            image, x = places[name]
            layer = Image.new("RGBA", (SIDE, SIDE))
            layer.paste(image, (int(x), SIDE - image.height))
            canvas.paste(layer, (0, 0), layer)
            owner[np.asarray(layer.getchannel("A")) > 127] = value
        yield Moment(np.asarray(canvas), owner == order.index("stayer") + 1, owner == order.index("walker") + 1)


def _who(instances: Instances, truth: Mask) -> int | None:
    """Id of the instance that is this person (IoU ≥ 0.5), or None."""
    fits = [iou(mask > 127, truth) for mask in instances.masks]
    best = int(np.argmax(fits)) if fits else -1
    return int(instances.ids[best]) if best >= 0 and fits[best] >= 0.5 else None


def _switches(ids: list[int | None]) -> int:
    known = [number for number in ids if number is not None]
    return sum(now != before for now, before in zip(known[1:], known, strict=False))


def evaluate_passing(
    segment: Segment, items: ItemSource, clips: int = 10, frames: int = 60, seed: int = 9
) -> PassingResult:
    """Figures over drawn clips; the observer keeps the main person, framing off."""
    maker = SceneMaker(items, limit_to_truth=True)
    rng = np.random.default_rng(seed)
    settings = SceneSettings((SIDE, SIDE), KeepPolicy(Keep.MAIN), framing=FramingSettings(enabled=False))
    both, kept = [], []
    stayers = walkers = flips = 0
    for _ in range(clips):
        observer = SceneObserver(segment, settings)
        ids: list[tuple[int | None, int | None]] = []
        mains: list[int | None] = []
        for number, moment in enumerate(draw_clip(maker, rng, frames)):
            seen = observer.observe(moment.frame)
            if number < SETTLED:
                continue
            instances = seen.kept.instances
            there = [mask.mean() >= VISIBLE for mask in (moment.stayer, moment.walker)]
            found = [
                _who(instances, mask) if seeable else None
                for mask, seeable in zip((moment.stayer, moment.walker), there, strict=True)
            ]
            if all(there):
                both.append(None not in found and found[0] != found[1])
            ids.append((found[0], found[1]))
            mains.append(seen.statistics.main)
            kept.append(iou(seen.kept.alpha > 127, moment.stayer))
        stayers += _switches([one for one, _ in ids])
        walkers += _switches([other for _, other in ids])
        flips += _switches(mains)
    return PassingResult(
        clips, frames, float(np.mean(both)), stayers / clips, walkers / clips, float(np.mean(kept)), flips / clips
    )
