"""What an error in each channel of ŵ costs the picture: the sender's λ weighs it by this.

E's channels are alike in size and not in importance: two carry motion, on which everything hangs, the others what a
cell shows beyond it. Each is measured where it is used, on training clips, by changing some of its symbols by one.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from streamgc.networks.lite import CHANNELS, Generated, quantise
from streamgc.training.call_model import LEAST, CallModel, kept_cells
from streamgc.training.call_moved import moved_key
from streamgc.training.call_samples import Cache, Sampler, SampleSettings
from streamgc.training.perceptual import PerceptualLoss

CHANGED = 0.15
"""Share of the kept cells in which a symbol is changed: few enough to change one by one."""
LEAST_WEIGHT = 0.02
SAMPLES = SampleSettings(batch=12, still_share=0.0, stirred_share=0.5)


@torch.no_grad()
def channel_weights(model: CallModel, cache: Cache, batches: int = 24, seed: int = 7) -> list[float]:
    """The eight weights, 1 in the mean of the first two: by how much a changed symbol raises the mean squared error and
    the perceptual distance of the person, in parts of what it does in the first two; the mean of both."""
    perceptual = PerceptualLoss()
    sampler, random = Sampler(cache, SAMPLES, seed), torch.Generator().manual_seed(seed)
    raised = np.zeros((CHANNELS, 2))
    for _ in range(batches):
        samples = sampler.batch()
        truth, matte, key = samples.pictures[:, 1], samples.mattes[:, 1], samples.key
        moved = samples.moved[:, 1]
        kept, features = kept_cells(matte), model.reference(key)
        blanked = torch.where(matte > 0, truth, torch.full_like(truth, 0.5))
        _, symbols = quantise(model.encoder(blanked, matte, moved_key(key, moved)).latent)
        plane = torch.cat([1 - kept, kept, torch.zeros_like(kept)], 1)
        present, weight = torch.ones_like(symbols), matte * samples.persons[:, 1]

        def distances(made: Generated, truth: Tensor = truth, weight: Tensor = weight) -> tuple[float, float]:
            error = ((made.picture - truth) ** 2 * weight).sum() / (3 * weight.sum() + 1)
            shown = made.picture * (weight > 0) + truth * (weight == 0)
            return float(error), float(perceptual(shown, truth, weight))

        before = np.array(distances(model.generator(symbols, present, plane, key, features, moved)))
        where = (torch.rand(kept.shape, generator=random) < CHANGED) * kept
        step = torch.where(torch.rand(kept.shape, generator=random) < 0.5, -1.0, 1.0) * where
        for channel in range(CHANNELS):
            changed = symbols.clone()
            changed[:, channel] = (changed[:, channel] + step[:, 0]).clamp(-2, 2)
            squares = float((changed - symbols).square().sum()) + 1
            after = np.array(distances(model.generator(changed, present, plane, key, features, moved)))
            raised[channel] += (after - before) / squares
    shares = (raised / raised[:LEAST].mean(0)).mean(1)
    return [round(max(LEAST_WEIGHT, float(share)), 3) for share in shares]
