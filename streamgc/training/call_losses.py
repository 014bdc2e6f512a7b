"""What the call model is charged for a generated picture, and for two that flicker (``training/call_model.py`` adds the
bits).

Everything is asked inside the blanking mask only: the paper's masked distortion. Faces weigh more than the rest of a
person, their eyes and mouths most (`call_samples.attention`), and so does what the key does not show (`novelty`).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from streamgc.networks.lite import Generated
from streamgc.training.call_adversary import Adversary
from streamgc.training.call_settings import CallTraining
from streamgc.training.perceptual import PerceptualLoss
from streamgc.training.together import Together

STILL_LEVEL = 3 / 255
"""Mean change of a place's surroundings up to which it stands still."""
SINGLED_OUT = 2.0
"""Attention above which a place belongs to a face or to something new, not to the rest."""
NEW_LIMIT = 4.0
"""A place is new at most so many times as much as the mean."""
NEW_FLOOR = 6 / 255
"""Added to the mean change, so that noise in a picture that equals its key is not news."""
ALPHA_WEIGHT = 0.4
"""Of alpha's cross-entropy where a picture is kept: what a moved key leaves beside a head is for alpha to hide."""
ALPHA_ELSEWHERE = 0.1
"""What a place that is not kept weighs beside one that is."""


def novelty(truth: Tensor, key: Tensor, matte: Tensor) -> Tensor:
    """How much each place of ``truth`` (B, 3, S, S) differs from ``key``, in parts of what the kept places do in the
    mean, (B, 1, S, S) in 0…`NEW_LIMIT`; 0 where nothing is kept (``matte`` (B, 1, S, S))."""
    change = F.avg_pool2d((truth - key).abs().mean(1, keepdim=True) * matte, 9, 1, 4)
    mean = change.sum((1, 2, 3), keepdim=True) / (matte.sum((1, 2, 3), keepdim=True) + 1)
    return (change / (mean + NEW_FLOOR)).clamp(max=NEW_LIMIT) * matte


class Losses:
    """Everything that is added up for one generated picture."""

    def __init__(self, settings: CallTraining, place: Together) -> None:
        self.settings = settings
        self.perceptual = PerceptualLoss() if settings.perceptual > 0 else None
        self.adversary = Adversary(place) if settings.adversarial > 0 else None

    def __call__(
        self,
        made: Generated,
        truth: Tensor,
        matte: Tensor,
        person: Tensor,
        attention: Tensor,
        random: np.random.Generator,
        sharp: bool,
    ) -> tuple[Tensor, Tensor]:
        """Loss, and the weighted mean squared error for the log. ``sharp``: the dear losses are asked, too."""
        weight = matte * (0.25 + 0.75 * person) * attention
        area = weight.sum() * 3 + 1
        error = (made.picture - truth) * weight
        mse = ((made.picture - truth) ** 2 * weight).sum() / area
        loss = error.abs().sum() / area + 8 * mse
        pooled = [(made.warped * matte, truth * matte)]
        for _ in range(2):
            pooled.append((F.avg_pool2d(pooled[-1][0], 4), F.avg_pool2d(pooled[-1][1], 4)))
        loss = loss + 0.3 * sum(((a - b).abs().mean() for a, b in pooled), loss.new_zeros(())) / matte.mean().clamp(
            min=0.05
        )
        doubt = F.binary_cross_entropy_with_logits(made.alpha, person, reduction="none")
        asked = matte + ALPHA_ELSEWHERE * (1 - matte)
        loss = loss + ALPHA_WEIGHT * (doubt * asked).sum() / asked.sum()
        gradient = (made.flow[..., 1:] - made.flow[..., :-1]).abs().mean() + (
            made.flow[..., 1:, :] - made.flow[..., :-1, :]
        ).abs().mean()
        loss = loss + 0.0005 * gradient
        if self.perceptual is not None and sharp:
            seen = self._perceptual(made.picture, truth, matte, weight, attention, random)
            loss = loss + self.settings.perceptual * seen
        if self.adversary is not None and sharp:
            some = slice(0, self.settings.perceptual_samples)
            shown = made.picture[some] * matte[some] + truth[some] * (1 - matte[some])
            loss = loss + self.settings.adversarial * self.adversary.judge(
                *self._crops((shown, truth[some]), attention[some], random)
            )
        return loss, mse.detach()

    def unsteady(self, made: list[Tensor], truths: Tensor, mattes: Tensor) -> Tensor:
        """Mean change between the two pictures ``made`` (B, 3, S, S) where those of ``truths`` (B, 2, 3, S, S) stand
        still, and both are kept by ``mattes`` (B, 2, 1, S, S): it is flicker."""
        change = (truths[:, 1] - truths[:, 0]).abs().amax(1, keepdim=True)
        still = (F.avg_pool2d(change, 5, 1, 2) <= STILL_LEVEL).float() * mattes[:, 0] * mattes[:, 1]
        return ((made[1] - made[0]).abs() * still).sum() / (still.sum() * 3 + 1)

    def _perceptual(
        self,
        picture: Tensor,
        truth: Tensor,
        matte: Tensor,
        weight: Tensor,
        attention: Tensor,
        random: np.random.Generator,
    ) -> Tensor:
        """On some samples: either sharp quarters or the whole crops at half size, the room's pixels put back."""
        assert self.perceptual is not None
        some = slice(0, self.settings.perceptual_samples)
        picture, truth, matte, weight = picture[some], truth[some], matte[some], weight[some]
        shown = picture * matte + truth * (1 - matte)
        if random.random() < 0.4:
            shown, truth, weight = (F.avg_pool2d(t, 2) for t in (shown, truth, weight))
        else:
            shown, truth, weight = self._crops((shown, truth, weight), attention[some], random)
        result: Tensor = self.perceptual(shown, truth, weight)
        return result

    def _crops(self, planes: tuple[Tensor, ...], attention: Tensor, random: np.random.Generator) -> list[Tensor]:
        """One quarter of each sample, the same of all ``planes``."""
        part = planes[0].shape[-1] // 2
        corners = [self._corner(one, part, random) for one in attention]
        return [
            torch.stack([one[..., y : y + part, x : x + part] for one, (y, x) in zip(plane, corners, strict=True)])
            for plane in planes
        ]

    def _corner(self, attention: Tensor, part: int, random: np.random.Generator) -> tuple[int, int]:
        """Where a crop of ``part`` pixels begins, (y, x): somewhere, or so that what weighs most is in it: eyes or
        mouth, something new."""
        room = attention.shape[-1] - part
        y, x = (int(v) for v in random.integers(0, room + 1, 2))
        if random.random() < self.settings.face_crops and float(attention.max()) > SINGLED_OUT:
            place = np.array(divmod(int(attention.flatten().argmax()), attention.shape[-1]))
            shift = random.integers(part // 4, 3 * part // 4 + 1, 2)
            y, x = (int(v) for v in (place - shift).clip(0, room))
        return y, x
