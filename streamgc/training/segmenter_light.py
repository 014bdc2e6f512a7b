"""Light and cameras for the segmenter's samples: rooms are darkened, pictures degraded as webcams and networks do."""

import io
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from streamgc.scene.heatmap import dilate
from streamgc.training.segmenter_data import Item

Mask = npt.NDArray[np.uint8]
DIM_LEVELS = (8.0, 60.0)
"""Darkest and lightest mean of such a room, in grey levels."""
DIM_GAMMA = (1.0, 2.2)
"""What the whole picture is raised to: shadows become black, as cameras make them."""
FRINGE = 2
"""Pixels inside the border of a person in which the old room shows through: they are darkened with it."""
DARK, LIT = 48, 70
"""Grey levels (of the brightest channel) below which hair is dark, and above which what lies behind it is not."""
RIM = 10
"""Pixels on either side of a person's border that are asked whether they are dark."""


class Sample(NamedTuple):
    """One training sample of size (H, W).

    frame: RGB u8 (H, W, 3). person: u8 0..255 (H, W). weight: u8 (H, W), 0 where the person mask is not known. owner:
    u8 (H, W), 0 nobody, k the k-th person. known: owners can be trusted. labels: u8 (H/16, W/16), `UNKNOWN` where not
    known. shown: of composites, the share of each person (of what is inside the frame) that nobody hides.
    """

    frame: npt.NDArray[np.uint8]
    person: Mask
    weight: Mask
    owner: Mask
    known: bool
    labels: Mask
    shown: tuple[float, ...] = ()


def tone_table(rng: np.random.Generator, shift: bool, dark: bool) -> list[int]:
    """A lookup table of 3 × 256 values for random gain, gamma and contrast a channel, and low light."""
    values = np.tile(np.linspace(0, 1, 256), (3, 1))
    if shift:
        gain = rng.uniform(0.75, 1.25) * rng.uniform(0.9, 1.1, (3, 1))
        values = values ** rng.uniform(0.75, 1.35) * gain
        values = (values - 0.45) * rng.uniform(0.75, 1.25) + 0.45
    if dark:
        values = values * rng.uniform(0.15, 0.5)
    table: list[int] = (np.clip(values, 0, 1) * 255).astype(int).ravel().tolist()
    return table


def degrade(
    rng: np.random.Generator, frame: npt.NDArray[np.uint8], noise: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """Light, colour, blur, noise, low resolution and JPEG, each at random; `noise` is a long run of normal values."""
    image = Image.fromarray(frame)
    height, width = frame.shape[:2]
    roll = rng.random(6)
    if roll[0] < 0.15:
        factor = rng.uniform(0.35, 0.8)
        image = image.resize((int(width * factor), int(height * factor)), Image.Resampling.BILINEAR)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    elif roll[0] < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.6)))
    image = image.point(tone_table(rng, roll[1] < 0.7, roll[2] < 0.08))
    if roll[3] < 0.05:
        image = image.convert("L").convert("RGB")
    result = np.asarray(image)
    if roll[4] < 0.35 or roll[2] < 0.08:
        start = int(rng.integers(0, len(noise) - result.size))
        grain = noise[start : start + result.size].reshape(result.shape) * np.float32(rng.uniform(1, 10))
        result = np.clip(result + grain, 0, 255).astype(np.uint8)
    if roll[5] < 0.3:
        buffer = io.BytesIO()
        Image.fromarray(result).save(buffer, "JPEG", quality=int(rng.integers(20, 80)))
        result = np.asarray(Image.open(buffer))
    return np.asarray(result, np.uint8)


def dimmed(rng: np.random.Generator, sample: Sample) -> Sample:
    """The sample with a dark room and black shadows; who is in it stays in the light."""
    alpha = Image.fromarray(np.ascontiguousarray(sample.person)).filter(ImageFilter.MinFilter(2 * FRINGE + 1))
    inside = np.asarray(alpha.filter(ImageFilter.BoxBlur(1)), np.float32)[..., None] / 255
    values = 255 * (sample.frame.astype(np.float32) / 255) ** rng.uniform(*DIM_GAMMA)
    room = values[sample.person < 64]
    level = float(np.exp(rng.uniform(*np.log(DIM_LEVELS))))
    gain = min(1.0, level / max(1.0, float(room.mean()) if room.size else 1.0))
    return sample._replace(frame=(values * (gain + (1 - gain) * inside)).astype(np.uint8))


def dark_border(item: Item) -> float:
    """Which share of the border of an item's head and shoulders, 0..1, has dark hair or cloth inside and something
    lighter outside; 0 where some of it has the dark outside too: there teachers take a dark room for hair."""
    person, brightest = item.person[::2, ::2], item.picture[::2, ::2].max(axis=-1)
    solid, room = person > 127, person <= 60
    rows = np.flatnonzero(solid.any(axis=1))
    if len(rows) == 0:
        return 0.0
    above = np.arange(len(person)) < rows[0] + 0.75 * (rows[-1] - rows[0])
    dark = dilate(solid & dilate(room, RIM // 2) & above[:, None] & (brightest < DARK), RIM // 2 - 1)
    outside = room & dilate(solid, RIM // 2) & ~dilate(solid, 1) & above[:, None]
    behind = outside & dark
    lit = int((behind & (brightest > LIT)).sum())
    return lit / max(1, int(outside.sum())) if lit > 0.85 * behind.sum() else 0.0
