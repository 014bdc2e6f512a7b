"""Train the call model: E, the reference features and G, conditioned on a coded key (``streamgc train call``).

Loss per picture, everything inside the blanking mask only (the paper's masked distortion):
    L1 + 8 MSE + 0.3 multi-scale L1 of the warped key + perceptual (VGG) + 0.4 alpha cross-entropy
    + adversarial (LSGAN, feature matching) + change where the source stands still + where eyes and mouths are
    + β · bits per kept cell.
β is steered so that each channel count meets its target rate: the fine knob of a call is λ in the sender's quantiser.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from streamgc.errors import TrainingError
from streamgc.networks.lite import CELL, CHANNELS, LEVELS, Encoder, Reference, quantise
from streamgc.training.call_designs import ALIGNED, generator_of
from streamgc.training.call_losses import Losses, novelty
from streamgc.training.call_moved import moved_key
from streamgc.training.call_samples import FACE_WEIGHT, KEPT_FROM, PART_WEIGHT, Cache, Sampler, Samples
from streamgc.training.call_settings import CallTraining
from streamgc.training.together import Together, train_together

Counts = NDArray[np.int64]
SHARE_OF_BETA = {2: 1.0, 4: 1 / 6, 8: 1 / 60}
"""Where β came to rest for each channel count, in parts of that of two channels."""
RICH_SHARES = (0.03, 0.35)
"""Least and largest share of the kept cells that are rich in a mixed sample."""
LEAST = 2
"""Channels of every kept cell."""
RICH_PRICE = 0.1
"""β of what rich cells add, in parts of that of eight channels everywhere."""
NEW_LAYER = "encoder.attend."
"""What weights of before lack."""
WIDER_LAYER = "generator.embed.weight"
"""What was narrower: G did not know how the key is moved."""
MIXED = 0
"""Stands for a channel count: two channels in most cells, eight in the rich ones."""
PAINTED = -1
"""Stands for a channel count: eight channels everywhere, as cheap as rich cells; the key is of another picture."""


class Prior(nn.Module):
    """Training's stand-in for the context tables: symbol probabilities given the same cell in an earlier frame."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2 * CHANNELS, 64, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(64, 64, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(64, CHANNELS * LEVELS, 1),
        )

    def forward(self, before: Tensor, present: Tensor) -> Tensor:
        """log2 probabilities (B, 8, h, w, 5) from an earlier code (B, 8, h, w)."""
        logits = self.body(torch.cat([before * present, present.expand_as(before)], 1))
        batch, _, height, width = logits.shape
        shaped = logits.view(batch, CHANNELS, LEVELS, height, width).permute(0, 1, 3, 4, 2)
        return torch.log_softmax(shaped, -1) / math.log(2)


class CallModel(nn.Module):
    """All that is trained together, in one of `call_designs`."""

    def __init__(self, design: str = ALIGNED) -> None:
        super().__init__()
        self.encoder, self.reference, self.generator, self.prior = Encoder(), Reference(), generator_of(design), Prior()


def completed(model: CallModel, given: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    """The weights ``given`` for a model. Those of before E paid attention lack its last layer, which begins anew; of
    before G knew how the key is moved, two inputs, which begin at zero. Raises TrainingError, naming the ``source``,
    when they are of another network."""
    own = model.state_dict()
    if WIDER_LAYER in given and (missing := own[WIDER_LAYER].shape[1] - given[WIDER_LAYER].shape[1]) == 2:
        given = {**given, WIDER_LAYER: F.pad(given[WIDER_LAYER], (0, 0, 0, 0, 0, missing))}
    fits = all(name in own and own[name].shape == value.shape for name, value in given.items())
    if not fits or any(not name.startswith(NEW_LAYER) for name in own.keys() - given.keys()):
        raise TrainingError(f"{source} holds the weights of another network")
    return {**own, **given}


def kept_cells(matte: Tensor) -> Tensor:
    """(B, 1, H, W) blanking mask → (B, 1, h, w): a cell is kept when more than `KEPT_FROM` of it is."""
    return (F.avg_pool2d(matte, CELL) > KEPT_FROM).float()


def planes(kept: Tensor, random: np.random.Generator, lost_shares: NDArray[np.float64]) -> Tensor:
    """One-hot plane (B, 3, h, w) with lost cells drawn at random in some samples, each by its share of ``lost_shares``
    (B,)."""
    lost = torch.zeros_like(kept)
    for i, lost_share in enumerate(lost_shares):
        if random.random() < lost_share:
            share = 1.0 if random.random() < 0.15 else random.uniform(0.05, 0.5)
            lost[i] = torch.from_numpy(random.random(kept.shape[1:]) < share).float()
    lost = lost * kept
    return torch.cat([1 - kept, kept - lost, lost], 1)


def rich_cells(change: Tensor, kept: Tensor, random: np.random.Generator) -> Tensor:
    """(B, 1, h, w): of the ``kept`` cells a random share, those of most ``change`` (B, 1, h, w) first, not strictly."""
    batch = kept.shape[0]
    jitter = torch.from_numpy(np.exp(random.normal(0, 0.4, tuple(kept.shape)))).float()
    rank = (change * jitter * kept).flatten(1)
    shares = torch.from_numpy(random.uniform(*RICH_SHARES, batch)).float()
    count = (shares * kept.flatten(1).sum(1)).ceil().long().clamp(min=1)
    limit = rank.sort(1, descending=True).values.gather(1, (count - 1)[:, None])
    return ((rank >= limit) & (rank > 0)).float().view_as(kept)


class CallTrainer:
    """One run: steps, log, checkpoints; picks up where a checkpoint in ``folder`` left off."""

    def __init__(
        self,
        cache: Cache,
        folder: Path,
        settings: CallTraining,
        start: Path | None = None,
        place: Together | None = None,
    ) -> None:
        """``start``: shipped weights (safetensors) to begin from when ``folder`` has no checkpoint."""
        torch.set_num_threads(settings.threads)
        self.place = Together() if place is None else place
        torch.manual_seed(settings.seed)
        self.folder, self.settings = folder, settings
        self.model = CallModel(settings.design).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if start is not None:
            given = {name: value.float() for name, value in load_file(start).items()}
            self.model.load_state_dict(completed(self.model, given, start))
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.optimiser = torch.optim.Adam(self.model.parameters(), settings.rate, betas=(0.9, 0.99))
        self.beta = {channels: settings.beta * SHARE_OF_BETA[channels] for channels, _ in settings.target_bits}
        self.losses = Losses(settings, self.place)
        self.steps, self.seconds = 0, 0.0
        self._resume()
        seed = settings.seed + self.steps + 1_000_003 * self.place.number
        self.random = np.random.default_rng(seed)
        self.sampler = Sampler(cache, settings.samples, seed)
        self.log: dict[str, list[float]] = {}

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def _resume(self) -> None:
        if not self.checkpoint.is_file():
            return
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        if state.get("design", self.settings.design) != self.settings.design:
            raise TrainingError(
                f"{self.checkpoint} is of the design {state['design']!r}: take --design or another --run"
            )
        try:
            self.model.load_state_dict(state["model"])
            self.average = state["average"]
            self.optimiser.load_state_dict(state["optimiser"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise TrainingError(f"{self.checkpoint} is of another network: take another --run, and --start") from error
        self.steps = int(state["steps"])
        self.beta.update(state["beta"])
        if self.losses.adversary is not None and "adversary" in state:
            self.losses.adversary.load(state["adversary"])

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "steps": self.steps,
            "design": self.settings.design,
            "beta": self.beta,
        }
        if self.losses.adversary is not None:
            state["adversary"] = self.losses.adversary.state()
        temporary = self.checkpoint.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self.checkpoint)
        (self.folder / "settings.json").write_text(json.dumps(asdict(self.settings), indent=1))

    def run(self) -> None:
        """Train for ``settings.minutes`` of the leader's clock; the leader prints a line every 100 steps and saves.

        The next batch is drawn on a thread of its own while a step runs, always in the same order.
        """
        started = saved = time.monotonic()
        budget = self.settings.minutes * 60
        with ThreadPoolExecutor(1, thread_name_prefix="draw") as drawing:
            drawn = drawing.submit(self.sampler.batch)
            while (elapsed := self.place.agree(time.monotonic() - started)) < budget:
                rate = self._rate_at(elapsed / budget)
                for group in self.optimiser.param_groups:
                    group["lr"] = rate
                samples, drawn = drawn.result(), drawing.submit(self.sampler.batch)
                self.step(samples)
                if self.steps % 100 == 0:
                    self._report(elapsed, rate)
                if self.place.leads and time.monotonic() - saved > self.settings.checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()
        if self.place.leads:
            self.save()

    def _rate_at(self, part: float) -> float:
        """Learning rate when this part of the time has gone: a warm-up of 200 steps, then half a cosine."""
        warm = min(1.0, (self.steps + 1) / 200)
        return self.settings.rate * warm * (0.5 * (1 + math.cos(math.pi * part)) * 0.95 + 0.05)

    def step(self, samples: Samples) -> None:
        """One update on two pictures a sample: the older one also serves as the context of the newer one's bits."""
        model, batch = self.model, samples.key.shape[0]
        counts = self.random.choice([2, 2, 2, 4, 8], batch)
        counts[self.random.random(batch) < self.settings.mixed_share] = MIXED
        counts[self.random.random(batch) < self.settings.painted_share] = PAINTED
        own, moves = self._keys(samples, counts)
        own = own.contiguous(memory_format=torch.channels_last)
        features = model.reference(own)
        before = torch.zeros(batch, CHANNELS, samples.pictures.shape[-2] // CELL, samples.pictures.shape[-1] // CELL)
        loss = torch.zeros(())
        lost_shares = np.where(counts == PAINTED, 0.0, self.settings.lost_share)
        pictures = []
        for index in range(2):
            truth, matte, person = samples.pictures[:, index], samples.mattes[:, index], samples.persons[:, index]
            kept, moved = kept_cells(matte), moves[:, index]
            key = moved_key(own, moved)
            news = novelty(truth, key, matte)
            attention = samples.attention[:, index] + self.settings.novelty * news
            present = self._present(counts, news * samples.attention[:, index], kept)
            blanked = torch.where(matte > 0, truth, torch.full_like(truth, 0.5))
            latent, looked = model.encoder(blanked, matte, key)
            symbols, hard = quantise(latent)
            made = model.generator(symbols, present, planes(kept, self.random, lost_shares), own, features, moved)
            part, mse = self.losses(made, truth, matte, person, attention, self.random, sharp=index == 1)
            wanted = F.avg_pool2d(samples.attention[:, index] - 1, CELL) / (FACE_WEIGHT + PART_WEIGHT)
            missed = F.binary_cross_entropy_with_logits(looked, wanted, reduction="none")
            loss = loss + part + self.settings.attention * (missed * kept).sum() / (kept.sum() + 1)
            pictures.append(made.picture)
            self._note("psnr", -10 * math.log10(float(mse) + 1e-9))
            if index == 1:
                self._note_painted(made.picture, truth, matte, counts)
                loss = loss + self._rate(latent, hard, before, present, kept, counts)
                copied = ((key - truth) ** 2 * matte * person).sum() / ((matte * person).sum() * 3 + 1)
                self._note("copy", -10 * math.log10(float(copied) + 1e-9))
            before = (hard * kept * present).detach()
        unsteady = self.losses.unsteady(pictures, samples.pictures, samples.mattes)
        self._note("unsteady", 255 * float(unsteady.detach()))
        loss = loss + self.settings.steady * unsteady
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.place.average(model.parameters())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        self.optimiser.step()
        if self.losses.adversary is not None:
            self._note("adversary", self.losses.adversary.learn())
        self.steps += 1
        self._note("loss", float(loss.detach()))
        self._average_weights()

    def _keys(self, samples: Samples, counts: Counts) -> tuple[Tensor, Tensor]:
        """The keys (B, 3, S, S) and how they are moved (B, 2, 2, S / 8, S / 8); but that of another sample, not moved,
        where the code is to paint everything: drawing what no key shows is learned from whole pictures, not from the
        few cells of a picture that are new."""
        painted = torch.from_numpy(counts == PAINTED)
        keys = torch.where(painted.view(-1, 1, 1, 1), samples.key.roll(1, 0), samples.key)
        return keys, torch.where(painted.view(-1, 1, 1, 1, 1), 0.0, samples.moved)

    def _present(self, counts: Counts, news: Tensor, kept: Tensor) -> Tensor:
        """Which channels each cell carries, (B, 8, h, w); rich ones are where ``news`` (B, 1, H, W) is."""
        number = torch.arange(CHANNELS).view(1, CHANNELS, 1, 1)
        everywhere = np.select([counts == MIXED, counts == PAINTED], [LEAST, CHANNELS], counts)
        least = torch.from_numpy(everywhere).view(-1, 1, 1, 1)
        mixed = torch.from_numpy(counts == MIXED).float().view(-1, 1, 1, 1)
        rich = rich_cells(F.avg_pool2d(news, CELL), kept, self.random) * mixed
        return torch.maximum((number < least).float(), rich)

    def _rate(
        self, latent: Tensor, hard: Tensor, before: Tensor, present: Tensor, kept: Tensor, counts: Counts
    ) -> Tensor:
        """β · bits per kept cell, β following the target of each sample's channel count; the prior learns beside it.

        E's gradient comes from the cost interpolated between neighbouring symbols: what rounding will cost, made
        smooth.
        """
        log_probabilities = self.model.prior(before, present)
        mask = present * kept
        index = (hard + 2).long().unsqueeze(-1)
        surprise = -log_probabilities.gather(-1, index).squeeze(-1)
        cells = kept.sum((1, 2, 3)) + 1
        learn = ((surprise * mask).sum((1, 2, 3)) / cells).mean()
        costs = -log_probabilities.detach()
        low = latent.detach().clamp(-2, 1.999).floor()
        part = (latent.clamp(-2, 2) - low).clamp(0, 1)
        below = costs.gather(-1, (low + 2).long().unsqueeze(-1)).squeeze(-1)
        above = costs.gather(-1, (low + 3).long().unsqueeze(-1)).squeeze(-1)
        smooth = (((1 - part) * below + part * above) * mask * self._prices(counts)).sum((1, 2, 3)) / cells
        # Generous at first: a code that is squeezed before G can read it dies out, and G learns to copy the key.
        ramp = min(1.0, self.steps / self.settings.ramp_steps) if self.settings.ramp_steps else 1.0
        targets = {channels: bits * (3 - 2 * ramp) for channels, bits in self.settings.target_bits}
        real = ((surprise.detach() * mask).sum((1, 2, 3)) / cells).tolist()
        for c, value in zip(counts, real, strict=True):
            self._note({MIXED: "bits mixed", PAINTED: "bits painted"}.get(int(c), f"bits{c}"), value)
            if c in (MIXED, PAINTED):
                continue
            drift = max(-1.0, min(1.0, value / targets[int(c)] - 1))
            self.beta[int(c)] = min(max(self.beta[int(c)] * math.exp(0.004 * drift), 1e-5), 0.2)
        total: Tensor = smooth.mean() + 0.02 * learn
        return total

    def _prices(self, counts: Counts) -> Tensor:
        """β of every channel, (B, 8, 1, 1). What rich cells add is cheap: they are few, and are to draw what is new."""
        prices = np.array([[self.beta.get(int(c), self.beta[LEAST])] * CHANNELS for c in counts], np.float32)
        prices[counts == MIXED, LEAST:] = RICH_PRICE * self.beta[8]
        prices[counts == PAINTED] = RICH_PRICE * self.beta[8]
        return torch.from_numpy(prices).view(-1, CHANNELS, 1, 1)

    def _average_weights(self) -> None:
        decay = min(0.999, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.average[name].mul_(decay).add_(value, alpha=1 - decay)

    def _note(self, name: str, value: float) -> None:
        self.log.setdefault(name, []).append(value)

    @torch.no_grad()
    def _note_painted(self, made: Tensor, truth: Tensor, matte: Tensor, counts: Counts) -> None:
        """How well what no key shows is drawn, dB."""
        painted = torch.from_numpy(counts == PAINTED)
        if painted.any():
            inside = matte[painted]
            error = ((made[painted] - truth[painted]) ** 2 * inside).sum() / (3 * inside.sum() + 1)
            self._note("painted", -10 * math.log10(float(error) + 1e-9))

    def _report(self, elapsed: float, rate: float) -> None:
        if not self.place.leads:
            self.log.clear()
            return
        means = " ".join(f"{name} {np.mean(values):.3f}" for name, values in sorted(self.log.items()))
        betas = " ".join(f"β{c} {b:.5f}" for c, b in self.beta.items())
        print(f"{elapsed:.0f}s step {self.steps} lr {rate:.1e} {means} {betas}", flush=True)
        self.log.clear()


class CallRun(NamedTuple):
    """A training as `train_call` starts it: in ``processes`` of ``training.threads`` threads."""

    cache: Path
    folder: Path
    training: CallTraining
    start: Path | None = None


def train_call(run: CallRun, processes: int) -> None:
    """Train, in several processes that average their gradients. Raises TrainingError."""
    if run.start is not None and not run.start.is_file():
        raise TrainingError(f"{run.start}: no such file of weights to start from")
    Cache(run.cache)  # what is missing is said once, before the others start
    train_together(_train, run, processes)


def _train(run: CallRun, place: Together) -> None:
    CallTrainer(Cache(run.cache), run.folder, run.training, run.start, place).run()
