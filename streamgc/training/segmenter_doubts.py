"""A second opinion on the teachers' masks: where a network that has learned from all of them sees somebody else than
the teacher does, nobody knows.

Selfie segmentation takes car seats, dark rooms behind a face and other people's shoulders for the person, always the
same way, and a network that is trained on for long learns it. One that is trained for short, on real masks too, does
not: noise is learned last (Arpit et al., "A closer look at memorization in deep networks", ICML 2017).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from streamgc.networks.segmenter import Segmenter
from streamgc.scene.heatmap import dilate
from streamgc.training.segmenter_data import UNKNOWN, Item, Items

Mask = npt.NDArray[np.bool_]
DOUBT = 127
"""Person value of a pixel about which the two disagree: not a person's, and `training/segmenter_scenes.py` gives it
hardly any weight."""
SURE, UNSURE = 150, 100
"""A pixel is disputed where one says at least the first, and the other at most the second."""
BORDER = 2
"""Half width in pixels of what is no dispute but a border drawn elsewhere."""
SHORT_SIDE_ASKED = 256
"""Pixels of the shorter side of what the network is shown, at most."""
LARGE = 0.005
"""Disputed share of a person from which nobody is cut out of the picture, nor believed to be alone in it."""


def disputed(teacher: npt.NDArray[np.uint8], network: npt.NDArray[np.uint8]) -> Mask:
    """Where two person masks u8 (H, W) contradict each other over more than a border's width."""
    against = ((teacher >= SURE) & (network <= UNSURE)) | ((teacher <= UNSURE) & (network >= SURE))
    core = ~dilate(~against, BORDER)
    return dilate(core, 2 * BORDER) & against


def doubted(item: Item, network: npt.NDArray[np.uint8]) -> Item:
    """The item with what is disputed marked as unknown; as it was where nothing is."""
    where = disputed(item.person, network)
    if not where.any():
        return item
    large = where.sum() > LARGE * max(1, int((item.person > 127).sum()))
    return item._replace(
        person=np.where(where, np.uint8(DOUBT), item.person),
        labels=np.where(where, np.uint8(UNKNOWN), item.labels),
        single=item.single and not bool(large),
    )


def opinion_of(network: Segmenter) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]:
    """A picture (H, W, 3) to the network's person mask u8 (H, W)."""

    @torch.no_grad()
    def ask(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        height, width = picture.shape[:2]
        scale = min(1.0, SHORT_SIDE_ASKED / min(height, width))
        size = [max(32, round(side * scale / 32) * 32) for side in (height, width)]
        x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
        matte = network(F.interpolate(x, size, mode="bilinear", antialias=True)).matte
        whole = F.interpolate(torch.sigmoid(matte), (height, width), mode="bilinear")
        return (whole[0, 0] * 255).round().byte().numpy()

    return ask


def second_opinion(
    cache: Path, ask: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]], target: Path
) -> tuple[int, int]:
    """Write the items of a cache to another with what is disputed marked; how many are, and of how many that teachers
    masked. Real masks and empty rooms stay as they are."""
    target.mkdir(parents=True, exist_ok=True)
    items, index = Items(cache), []
    marked = asked = 0
    partial = target / "items.bin.part"
    with partial.open("wb") as blob:
        for number, entry in enumerate(items.index):
            item = items[number]
            if item.kind == "pseudo":
                asked += 1
                now = doubted(item, ask(item.picture))
                marked += now is not item
                item = now
            index.append({**entry, "single": item.single, "offset": blob.tell()})
            for array in (item.picture, item.person, item.owner, item.labels):
                blob.write(np.ascontiguousarray(array).tobytes())
    os.replace(partial, target / "items.bin")
    listing = target / "items.json.part"
    listing.write_text(json.dumps(index))
    os.replace(listing, target / "items.json")
    return marked, asked
