"""Scores of a coded clip against its original, on the person alone and on the whole frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from streamgc.errors import InputError
from streamgc.evaluation.clips import Clip, Frame
from streamgc.evaluation.metrics import (
    MS_SSIM_LEAST,
    PerceptualDistance,
    Trunk,
    flicker,
    ms_ssim,
    psnr,
    restore_outside,
)
from streamgc.evaluation.person import Mask, PersonMask

PersonSource = str | Path | Callable[[Frame], Mask]
"""The segmentation teacher's TFLite file, or a function from a picture to the mask of its person."""

FIRST, EVERY = 4, 8
"""Pictures 4, 12, 20 … of a clip are scored: past the first, and often enough at 15 a second."""


class Scorer:
    """The measuring instruments, loaded once: the teacher's masks and the perceptual networks.

    The masks of the clip in hand are kept, since every codec and rate of a clip is scored with the same ones.
    """

    def __init__(self, person: PersonSource, trunks: Sequence[Trunk] = ("alex", "vgg")) -> None:
        """Loads the trunks and the teacher, whose file or whose function is given; InputError or BackendMissing."""
        self._person = person if callable(person) else PersonMask(person)
        self._distances = {trunk: PerceptualDistance(trunk) for trunk in trunks}
        self._masks: tuple[list[Frame], list[Mask]] = ([], [])

    @property
    def trunks(self) -> tuple[Trunk, ...]:
        """The perceptual networks that are loaded."""
        return tuple(self._distances)

    def masks(self, frames: list[Frame]) -> list[Mask]:
        """The person in every frame of a clip, bool (H, W) each."""
        if self._masks[0] is not frames:
            self._masks = (frames, [self._person(frame) for frame in frames])
        return self._masks[1]

    def _scored(self, clip: Clip, shown: list[Frame]) -> list[tuple[Frame, Frame, Mask]]:
        if any(a.shape != b.shape for a, b in zip(clip.frames, shown, strict=False)):
            raise InputError(f"{clip.name}: the decoded pictures are not {clip.frames[0].shape[1]} pixels square")
        triples = list(zip(clip.frames, shown, self.masks(clip.frames), strict=False))
        scored = [triple for triple in triples[FIRST::EVERY] if triple[2].any()]
        if not scored:
            raise InputError(f"{clip.name}: no person in any of the scored frames ({len(triples)} frames coded)")
        return scored

    def person(self, clip: Clip, shown: list[Frame]) -> dict[str, float]:
        """PSNR and the ST-LPIPS trunks over the person, the original's pixels put back outside the mask.

        `shown` holds RGB uint8 pictures as large as the clip's. Raises InputError where no scored frame holds a
        person, or the pictures differ in size.
        """
        rows = []
        for original, picture, mask in self._scored(clip, shown):
            composed = restore_outside(original, picture, mask)
            row = {"psnr": psnr(original, composed, mask)}
            for trunk, distance in self._distances.items():
                row[trunk] = float(distance.map(original, composed)[mask].mean())
            rows.append(row)
        return _means(rows)

    def more(self, clip: Clip, shown: list[Frame]) -> dict[str, float]:
        """What is reported beside the verdict: MS-SSIM on the person, scores of the whole frame, and flicker.

        `flicker` is the coded picture's temporal difference where the source is still, `flicker_source` the
        source's own there, in grey levels; the `person_` pair the same on the person. NaN where nothing is still.
        """
        rows = []
        small = min(clip.frames[0].shape[:2]) < MS_SSIM_LEAST
        for original, picture, mask in self._scored(clip, shown):
            row = {
                "ms_ssim": nan if small else ms_ssim(original, restore_outside(original, picture, mask), mask),
                "frame_psnr": psnr(original, picture),
                "frame_ms_ssim": nan if small else ms_ssim(original, picture),
            }
            for trunk, distance in self._distances.items():
                row[f"frame_{trunk}"] = float(distance.map(original, picture).mean())
            rows.append(row)
        whole, person = flicker(clip.frames, shown), flicker(clip.frames, shown, self.masks(clip.frames))
        flickers = {
            "flicker": whole.shown,
            "flicker_source": whole.source,
            "person_flicker": person.shown,
            "person_flicker_source": person.source,
        }
        return {**_means(rows), **{name: round(value, 4) for name, value in flickers.items()}}


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """The row with null for NaN, which JSON does not know."""
    return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in row.items()}
