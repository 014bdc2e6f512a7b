"""Train a still-image model in any mode and family (``streamgc train gc|gc-d|sc-ri|sc-rb|mse|aedc|pix2pix``).

Batches are a pure function of seed and step, and a checkpoint holds everything else, so a run that is killed goes on
from its last checkpoint exactly as if it had not been. Under torchrun the batch is shared out and gradients are
averaged by torch's DistributedDataParallel.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from streamgc.errors import TrainingError
from streamgc.networks.discriminator import Discriminator
from streamgc.networks.still import LiteNetworks
from streamgc.networks.still_build import build_still
from streamgc.networks.still_spec import FreezableInstanceNorm, StillNetworks, StillOutput
from streamgc.training.perceptual import PerceptualLoss
from streamgc.training.still_batches import Batches, StillBatch
from streamgc.training.still_data import StillSource
from streamgc.training.still_losses import (
    code_bits,
    feature_matching,
    gan_discriminator,
    gan_generator,
    masked_mse,
    ms_ssim_loss,
)
from streamgc.training.still_settings import StillTraining
from streamgc.training.still_start import linear_start, load_start
from streamgc.training.vgg import VggLoss

CHECKPOINT = "checkpoint.pt"
CHECKPOINT_SECONDS = 300.0
"""A checkpoint is written at least this often, however slow the steps are."""
LOG_STEPS = 20
CHANGEABLE = ("steps", "checkpoint_steps", "threads")
"""Settings that a resumed run may change."""

Scalars = dict[str, float]


class StillTrainer:
    """One run in one folder: ``settings.json``, ``checkpoint.pt``, ``log.jsonl``, TensorBoard events, sample grids."""

    def __init__(
        self,
        settings: StillTraining,
        source: StillSource,
        folder: Path,
        *,
        device: str = "cpu",
        vgg19: Path | None = None,
        start: Path | None = None,
    ) -> None:
        """Goes on from the folder's checkpoint; without one from ``start``, weights that were shipped (safetensors),
        or afresh. Raises TrainingError when checkpoint or weights do not go with the settings.
        """
        self.settings, self.folder = settings, folder
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.device = torch.device(device)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        torch.manual_seed(settings.seed)
        self.networks = self._fresh(source, start).to(self.device)
        self.discriminator: Discriminator | None = None
        if settings.adversarial:
            judge = Discriminator(settings.discriminator_planes, settings.discriminator_filters)
            self.discriminator = judge.to(self.device)
        for module in (self.networks, self.discriminator):
            if module is not None:
                cast(Any, module).to(memory_format=torch.channels_last)
        self._perceptual = self._perceptual_loss(vgg19)
        self._optimisers = {"codec": self._adam(self.networks)}
        if self.discriminator is not None:
            self._optimisers["discriminator"] = self._adam(self.discriminator)
        self.step = 0
        self.counts = torch.ones(settings.channels, 5)
        self.averaged: dict[str, Tensor] = {}
        if settings.average:
            self.averaged = {name: value.detach().clone() for name, value in self.networks.state_dict().items()}
        self._resume()
        self._codec = self._shared(self.networks)
        self._judge = None if self.discriminator is None else self._shared(self.discriminator)
        self._batches = Batches(settings, source, self.rank, self.world)
        self._writer: Any = None

    def _fresh(self, source: StillSource, start: Path | None) -> StillNetworks:
        networks = build_still(self.settings.spec)
        if (self.folder / CHECKPOINT).is_file():
            return networks
        if self.settings.linear_start and isinstance(networks, LiteNetworks):
            linear_start(networks, source, nested=self.settings.nested, seed=self.settings.seed)
        if start is not None:
            load_start(networks, start)
        return networks

    def _adam(self, module: nn.Module) -> torch.optim.Adam:
        return torch.optim.Adam(module.parameters(), lr=self.settings.rate, betas=(0.5, 0.999))

    def _shared(self, module: nn.Module) -> nn.Module:
        if self.world == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=devices, broadcast_buffers=False)

    def _perceptual_loss(self, vgg19: Path | None) -> VggLoss | PerceptualLoss | None:
        settings = self.settings
        if settings.mode in ("mse", "aedc") or settings.perceptual <= 0:
            return None
        loss = VggLoss(vgg19) if settings.perceptual_form == "pix2pixhd" else PerceptualLoss()
        return loss.to(self.device)

    def train(self, steps: int | None = None, note: Callable[[int, Scalars], None] | None = None) -> Scalars:
        """Go on to the last step, or for ``steps`` more; the scalars of the last step.

        ``note`` is told every step and its scalars. Raises TrainingError when a loss is no longer finite.
        """
        settings = self.settings
        last = settings.steps if steps is None else min(settings.steps, self.step + steps)
        self._prepare_folder()
        scalars: Scalars = {}
        saved = time.monotonic()
        with self._progress() as progress:
            task = progress.add_task(settings.mode, total=settings.steps, completed=self.step, loss="")
            while self.step < last:
                scalars = self.train_step()
                if note is not None:
                    note(self.step, scalars)
                if self.step % LOG_STEPS == 0:
                    progress.update(task, loss=" ".join(f"{name} {value:.3f}" for name, value in scalars.items()))
                    self._log(scalars)
                progress.update(task, completed=self.step)
                due = self.step % settings.checkpoint_steps == 0 or time.monotonic() - saved > CHECKPOINT_SECONDS
                if due or self.step == last:
                    self.save()
                    saved = time.monotonic()
        return scalars

    def _progress(self) -> Progress:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        return Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[loss]}"), disable=self.rank > 0)

    def train_step(self) -> Scalars:
        """One update of E, F and G, and of D. Raises TrainingError when a loss is no longer finite."""
        settings = self.settings
        if settings.freeze_at < 1 and self.step >= settings.freeze_at * settings.steps:
            self._freeze()
        for optimiser in self._optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = self._rate()
        batch = self._batches.get(self.step).to(self.device)
        batch = batch._replace(picture=batch.picture.contiguous(memory_format=torch.channels_last))
        self.networks.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.bf16):
            output: StillOutput = self._codec(
                batch.picture, None if settings.task == "gc" else batch.planes, batch.keep, batch.present, batch.noise
            )
        output = output._replace(picture=output.picture.float())
        losses = self._codec_losses(batch, output)
        total = torch.stack(list(losses.values())).sum()
        if not bool(torch.isfinite(total)):
            raise TrainingError(f"step {self.step}: the loss is {float(total)}; try a lower rate")
        self._update("codec", total)
        scalars = {"loss": float(total.detach()), **{name: float(value.detach()) for name, value in losses.items()}}
        if self._judging:
            scalars["d"] = self._train_discriminator(batch, output.picture.detach())
        self.step += 1
        self._average_weights()
        return self._mean_over_processes(scalars)

    @property
    def _judging(self) -> bool:
        return self.discriminator is not None and self.step >= self.settings.gan_from * self.settings.steps

    def _rate(self) -> float:
        left = 1 - self.step / self.settings.steps
        falling = self.settings.falling
        return self.settings.rate * (min(1.0, left / falling) if falling else 1.0)

    def _update(self, name: str, loss: Tensor) -> None:
        self._optimisers[name].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.settings.clip:
            for group in self._optimisers[name].param_groups:
                nn.utils.clip_grad_norm_(group["params"], self.settings.clip)
        self._optimisers[name].step()

    def _codec_losses(self, batch: StillBatch, output: StillOutput) -> dict[str, Tensor]:
        settings = self.settings
        if settings.mode == "aedc":
            losses = {"ms_ssim": ms_ssim_loss(output.picture, batch.picture)}
        else:
            weight = settings.mse if settings.task != "labels" else 0.0
            losses = {"mse": weight * masked_mse(output.picture, batch.picture, batch.keep)}
        if self._perceptual is not None:
            losses["perceptual"] = settings.perceptual * self._seen_difference(batch, output.picture)
        if self._judging:
            losses |= self._adversarial_losses(batch, output.picture)
        if output.symbols is not None and output.latent is not None:
            bits = code_bits(output.latent, self._count(output.symbols, batch), batch.keep, batch.present)
            pixels = output.picture.shape[-2] * output.picture.shape[-1]
            if settings.beta:
                losses["rate"] = settings.beta * bits.mean() / pixels
        return losses

    def _seen_difference(self, batch: StillBatch, shown: Tensor) -> Tensor:
        scale = self.settings.perceptual_scales[self.step % len(self.settings.perceptual_scales)]
        side = self.settings.perceptual_crop * scale
        a, b = shown, batch.picture
        if 0 < side < min(a.shape[-2:]):
            a, b = (self._window(x, batch.corner, side) for x in (a, b))
        if scale > 1:
            a, b = (nn.functional.avg_pool2d(x, scale) for x in (a, b))
        if isinstance(self._perceptual, VggLoss):
            found: Tensor = self._perceptual(a, b)
            return found
        assert self._perceptual is not None
        distance: Tensor = self._perceptual((a + 1) / 2, (b + 1) / 2, torch.ones_like(a[:, :1]))
        return distance

    @staticmethod
    def _window(x: Tensor, corner: Tensor, side: int) -> Tensor:
        rows, columns = x.shape[-2] - side, x.shape[-1] - side
        places = [(round(float(v) * rows), round(float(u) * columns)) for v, u in corner]
        return torch.stack([x[i, :, r : r + side, c : c + side] for i, (r, c) in enumerate(places)])

    def _adversarial_losses(self, batch: StillBatch, shown: Tensor) -> dict[str, Tensor]:
        assert self.discriminator is not None
        planes = batch.planes if self.settings.needs_labels else None
        self.discriminator.requires_grad_(False)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bf16):
            with torch.no_grad():
                real = self.discriminator(batch.picture, planes)
            fake = self.discriminator(shown, planes)
        self.discriminator.requires_grad_(True)
        return {
            "gan": self.settings.gan * gan_generator(fake),
            "fm": self.settings.feature_matching * feature_matching(real, fake),
        }

    def _train_discriminator(self, batch: StillBatch, shown: Tensor) -> float:
        assert self._judge is not None
        planes = batch.planes if self.settings.needs_labels else None
        both = torch.cat([batch.picture, shown])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bf16):
            judged = self._judge(both, None if planes is None else torch.cat([planes, planes]))
        count = len(shown)
        real = [[feature[:count].float() for feature in scale] for scale in judged]
        fake = [[feature[count:].float() for feature in scale] for scale in judged]
        loss = gan_discriminator(real, fake)
        self._update("discriminator", loss)
        return float(loss.detach())

    def _count(self, symbols: Tensor, batch: StillBatch) -> Tensor:
        """Follow the symbols' frequencies per channel, of this process; their log2, (C, 5)."""
        there = torch.ones_like(symbols[:, :1]) if batch.keep is None else batch.keep
        if batch.present is not None:
            there = there * batch.present
        there = there.expand_as(symbols)
        found = torch.stack([((symbols == value) * there).sum((0, 2, 3)) for value in range(-2, 3)], 1).cpu()
        self.counts = 0.99 * self.counts + found
        return (self.counts / self.counts.sum(1, keepdim=True)).log2().to(symbols.device)

    def _freeze(self) -> None:
        """Freeze the normalisation, with the statistics of all processes."""
        for module in self.networks.modules():
            if isinstance(module, FreezableInstanceNorm) and not bool(module.frozen):
                if self.world > 1:
                    for statistic in (module.running_mean, module.running_var):
                        assert statistic is not None
                        dist.all_reduce(statistic)
                        statistic /= self.world
                module.freeze()

    def _average_weights(self) -> None:
        if not self.averaged:
            return
        decay = min(self.settings.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.networks.state_dict().items():
                if value.is_floating_point():
                    self.averaged[name].mul_(decay).add_(value, alpha=1 - decay)
                else:
                    self.averaged[name].copy_(value)

    def _mean_over_processes(self, scalars: Scalars) -> Scalars:
        if self.world == 1:
            return scalars
        values = torch.tensor(list(scalars.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(values)
        return dict(zip(scalars, (values / self.world).tolist(), strict=True))

    # What is kept on disk.

    def _prepare_folder(self) -> None:
        if self.rank:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "settings.json").write_text(json.dumps(self.settings.as_dict(), indent=2) + "\n")
        if self._writer is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return
            self._writer = SummaryWriter(str(self.folder / "events"), purge_step=self.step)

    def _log(self, scalars: Scalars) -> None:
        if self.rank:
            return
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": self.step, **{key: round(v, 6) for key, v in scalars.items()}}) + "\n")
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, self.step)

    def save(self) -> None:
        """Write the checkpoint and a grid of samples; only the first process does."""
        if self.rank:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        state: dict[str, Any] = {
            "settings": self.settings.as_dict(),
            "step": self.step,
            "networks": self.networks.state_dict(),
            "discriminator": None if self.discriminator is None else self.discriminator.state_dict(),
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self._optimisers.items()},
            "counts": self.counts,
            "averaged": self.averaged,
        }
        temporary = self.folder / (CHECKPOINT + ".tmp")
        torch.save(state, temporary)
        os.replace(temporary, self.folder / CHECKPOINT)
        grid = self.sample_grid()
        Image.fromarray(grid).save(self.folder / "samples.png")
        if self._writer is not None:
            self._writer.add_image("samples", grid, self.step, dataformats="HWC")
            self._writer.flush()

    def sample_grid(self) -> np.ndarray:
        """Originals over what the networks make of them now, RGB uint8; always the same samples."""
        batch = self._batches.draw(0).to(self.device)
        self.networks.eval()
        with torch.no_grad():
            planes = None if self.settings.task == "gc" else batch.planes
            shown = self.networks(batch.picture, planes, batch.keep, batch.present, batch.noise).picture
        rows = [torch.cat(list(x[:4].cpu()), 2) for x in (batch.picture, shown)]
        pixels = ((torch.cat(rows, 1) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())

    def _resume(self) -> None:
        path = self.folder / CHECKPOINT
        if not path.is_file():
            return
        state = read_checkpoint(path, self.device)
        ours, theirs = self.settings.as_dict(), state["settings"]
        other = [key for key in ours if ours[key] != theirs.get(key) and key not in CHANGEABLE]
        if other:
            raise TrainingError(f"{path} was trained with another {', '.join(other)}: choose another folder")
        self.networks.load_state_dict(state["networks"])
        if self.discriminator is not None:
            self.discriminator.load_state_dict(state["discriminator"])
        for name, optimiser in self._optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.step, self.counts, self.averaged = state["step"], state["counts"], state["averaged"]

    def close(self) -> None:
        """Stop the background work and close the log."""
        self._batches.close()
        if self._writer is not None:
            self._writer.close()


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """A checkpoint's content. Raises TrainingError when it cannot be read."""
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError) as error:
        raise TrainingError(f"cannot read the checkpoint {path}: {error}") from None
    return state
