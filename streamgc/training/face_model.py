"""Train what says what a face's eyes and mouth do (``streamgc train face``): `FaceEncoder`.

Every face is bent twice by known amounts (`networks.face.bend`), and each copy may be blurred and faded as G's pictures
are. What is learned:
    lids, lips and mouth: their sizes as dlib's contours have them, plus what they were bent by;
    gaze: between the two copies, how far the irises were moved (nobody knows where they were before);
    where eyes and mouth are.
Faces are as they were sent and as the call model shows them, so that both are measured alike.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from streamgc.codec.face import FACE_SYMBOLS
from streamgc.errors import TrainingError
from streamgc.networks.face import CENTRE_SCALE, MOST, SOFTENED, STEPS, USUAL, FaceEncoder, Measured, bend
from streamgc.networks.lite import warp
from streamgc.pipeline.face import EYES_APART, FACE_SIDE
from streamgc.training.face_samples import CONTOURS, NAMES
from streamgc.training.together import Together

BENT_SHARE = 0.85
"""Share of copies that are bent; each number by itself in six of ten."""
BLURRED_SHARE, MOST_BLURRED, TOGETHER = 0.5, 2.6, 3
"""Share of copies that are blurred, by how much at most, and how many in the same way."""
KEEP_OF_AVERAGE = 0.998
GAINS = (0.8, 4.0)
"""By how much numbers are enlarged at the least and at the most."""
LAST_LAYER = ("body.11.weight", "body.11.bias")
SWAPPED = (1, 0, 2)
"""Left eye, right eye, mouth, when left and right are exchanged."""


@dataclass(frozen=True)
class FaceTraining:
    """Settings of a run."""

    batch: int = 24
    rate: float = 1.5e-3
    last_rate: float = 3e-5
    minutes: float = 20.0
    seed: int = 0
    threads: int = 1


class Faces(NamedTuple):
    """A batch: ``pictures`` (B, 3, S, S) in [0, 1], ``centres`` (B, 3, 2) as in `Measured`, ``sizes`` (B, 6) in steps,
    NaN where nobody knows."""

    pictures: Tensor
    centres: Tensor
    sizes: Tensor


class FaceBatches:
    """Batches of the samples that `face_samples.write_samples` put into a folder."""

    def __init__(self, folder: Path, seed: int) -> None:
        """Raises TrainingError when there are none."""
        parts = sorted(folder.glob(f"{CONTOURS}*.npy"))
        if not parts:
            raise TrainingError(f"{folder}: no samples of faces; run 'streamgc train face-samples' first")
        numbers = [path.stem.removeprefix(CONTOURS) for path in parts]
        self._pictures = [
            [np.load(folder / f"{name}{number}.npy", mmap_mode="r") for name in NAMES] for number in numbers
        ]
        self._contours = [np.load(path) for path in parts]
        self._random = np.random.default_rng(seed)

    def draw(self, count: int) -> Faces:
        """``count`` faces as sent or as shown, some mirrored."""
        random = self._random
        pictures, contours = [], []
        for _ in range(count):
            part = int(random.integers(len(self._contours)))
            index = int(random.integers(len(self._contours[part])))
            kind = int(random.integers(len(NAMES)))
            pictures.append(self._pictures[part][kind][index])
            contours.append(self._contours[part][index, kind])
        planes = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
        centres, sizes = (torch.from_numpy(np.stack(of)) for of in zip(*map(measured, contours), strict=True))
        flip = torch.from_numpy(random.random(count) < 0.5)[:, None]
        other = centres[:, list(SWAPPED)]
        other = torch.stack([FACE_SIDE - other[..., 0], other[..., 1]], -1)
        exchanged = sizes[:, [0, 1, 3, 2, 4, 5]]
        return Faces(
            torch.where(flip[..., None, None], planes.flip(-1), planes),
            torch.where(flip[..., None], other, centres),
            torch.where(flip, exchanged, sizes),
        )


def measured(contours: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of dlib's 68 landmarks of a face that was cut out: centres (3, 2) and sizes (6,) in steps, as in `Faces`."""
    points = contours + 0.5
    left, right, mouth = points[36:42], points[42:48], points[48:60]

    def apart(upper: int, lower: int) -> float:
        return float(np.linalg.norm(points[upper] - points[lower])) / EYES_APART

    lids = [(apart(37, 41) + apart(38, 40)) / 2, (apart(43, 47) + apart(44, 46)) / 2]
    known = [*lids, apart(51, 57), apart(48, 54)]
    sizes = [math.nan, math.nan]
    for size, soft, usual, step in zip(known, SOFTENED[2:], USUAL[2:], STEPS[2:], strict=True):
        sizes.append((math.log(size + soft + 1e-3) - usual) / step)
    centres = np.stack([left.mean(0), right.mean(0), mouth.mean(0)])
    return centres.astype(np.float32), np.array(sizes, np.float32)


class FaceTrainer:
    """One run: steps, log, checkpoints; picks up where a checkpoint in ``folder`` left off."""

    def __init__(
        self,
        samples: Path,
        folder: Path,
        settings: FaceTraining,
        place: Together | None = None,
        start: Path | None = None,
    ) -> None:
        """``start``: shipped weights (safetensors) to begin from when ``folder`` has no checkpoint. Raises
        TrainingError."""
        torch.set_num_threads(settings.threads)
        self.place = Together() if place is None else place
        torch.manual_seed(settings.seed)
        self.folder, self.settings = folder, settings
        self.encoder = FaceEncoder().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if start is not None:
            self._load(start)
        self.average = {name: value.detach().clone() for name, value in self.encoder.state_dict().items()}
        self.optimiser = torch.optim.Adam(self.encoder.parameters(), settings.rate, betas=(0.9, 0.99))
        self.steps = 0
        self._resume()
        seed = settings.seed + self.steps + 1_000_003 * self.place.number
        self.copies = Copies(np.random.default_rng(seed))
        self.batches = FaceBatches(samples, seed)
        self.log: dict[str, list[float]] = {}

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def _load(self, start: Path) -> None:
        try:
            given = {name: value.float() for name, value in load_file(start).items()}
            own = {name: given[f"encoder.{name}"] for name in self.encoder.state_dict()}
            self.encoder.load_state_dict(own)
        except (OSError, KeyError, RuntimeError, SafetensorError) as error:
            raise TrainingError(f"{start} holds no weights of this network") from error

    def _resume(self) -> None:
        if not self.checkpoint.is_file():
            return
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        try:
            self.encoder.load_state_dict(state["encoder"])
            self.average = state["average"]
            self.optimiser.load_state_dict(state["optimiser"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise TrainingError(f"{self.checkpoint} is of another network: take another --run") from error
        self.steps = int(state["steps"])

    def save(self) -> None:
        """Checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.checkpoint.with_suffix(".partial")
        torch.save(
            {
                "encoder": self.encoder.state_dict(),
                "average": self.average,
                "optimiser": self.optimiser.state_dict(),
                "steps": self.steps,
                "settings": asdict(self.settings),
            },
            temporary,
        )
        temporary.replace(self.checkpoint)

    def run(self) -> None:
        """Train for the settings' minutes."""
        started = saved = time.monotonic()
        while True:
            passed = self.place.agree(time.monotonic() - started)
            share = passed / 60 / self.settings.minutes
            if share >= 1:
                break
            fall = max(0.0, (share - 0.3) / 0.7)
            for group in self.optimiser.param_groups:
                group["lr"] = self.settings.rate * (self.settings.last_rate / self.settings.rate) ** fall
            self.step()
            if self.place.leads and time.monotonic() - saved > 60:
                self.save()
                self.report(passed)
                saved = time.monotonic()
        if self.place.leads:
            self.save()
            self.report(60 * self.settings.minutes)

    def step(self) -> None:
        """One step of the optimiser."""
        loss = self._loss(self.batches.draw(self.settings.batch))
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = list(self.encoder.parameters())
        self.place.average(parameters)
        nn.utils.clip_grad_norm_(parameters, 5.0)
        self.optimiser.step()
        self.steps += 1
        keep = min(KEEP_OF_AVERAGE, 1 - 1 / (self.steps + 1))
        with torch.no_grad():
            for name, value in self.encoder.state_dict().items():
                self.average[name].lerp_(value, 1 - keep)

    def report(self, seconds: float) -> None:
        """A line of what was measured since the last one."""
        means = {name: round(float(np.mean(values)), 3) for name, values in self.log.items() if values}
        line = {"steps": self.steps, "minutes": round(seconds / 60, 1), **means}
        print(" ".join(f"{name} {value}" for name, value in line.items()), flush=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.log = {}

    def _loss(self, faces: Faces) -> Tensor:
        copies = [self.copies.make(faces) for _ in range(2)]
        pictures = torch.cat([copy.pictures for copy in copies]).contiguous(memory_format=torch.channels_last)
        both: Measured = self.encoder(pictures)
        numbers = both.numbers.chunk(2)
        centres = torch.cat([copy.centres for copy in copies])
        place = F.smooth_l1_loss(both.centres / CENTRE_SCALE, centres / CENTRE_SCALE, beta=0.1)
        moved = (numbers[0] - numbers[1]) - (copies[0].sizes - copies[1].sizes)
        # Both copies' sizes hold the face's own; in their difference it is gone, known or not.
        gaze = F.smooth_l1_loss(moved[:, :2], torch.zeros_like(moved[:, :2]), beta=0.3)
        pairs = F.smooth_l1_loss(moved[:, 2:], torch.zeros_like(moved[:, 2:]), beta=0.3)
        sizes = torch.cat([copy.sizes for copy in copies])[:, 2:].clamp(-4.4, 4.4)
        own = F.smooth_l1_loss(both.numbers[:, 2:], sizes, beta=0.5)
        level = both.numbers[:, :2].mean(0).square().sum()  # of a gaze that nobody knows, the mean is 0
        self._note(place=place, gaze=moved[:, :2].abs().mean(), pairs=moved[:, 2:].abs().mean(), own=own)
        return 2 * place + 3 * gaze + pairs + own + 0.1 * level

    def _note(self, **values: Tensor) -> None:
        for name, value in values.items():
            self.log.setdefault(name, []).append(float(value.detach()))


@dataclass(frozen=True)
class Copies:
    """Makes copies of faces that are bent by known amounts."""

    random: np.random.Generator
    blurred_share: float = BLURRED_SHARE

    def make(self, faces: Faces) -> Faces:
        """Moved a little as a whole, bent by known amounts, in another light, and perhaps blurred; ``sizes`` are the
        bent face's, with nothing known of gaze but what it was moved by."""
        random, count = self.random, len(faces.pictures)
        shift = torch.from_numpy(random.normal(0, 2.5, (count, 2))).float()
        scale = torch.from_numpy(np.exp(random.normal(0, 0.04, count))).float()
        turn = torch.from_numpy(random.normal(0, 0.05, count)).float()
        pictures, centres = _moved(faces.pictures, faces.centres, shift, scale, turn)
        by = self._amounts(count)
        pictures = warp(pictures, bend(by, centres), 1, "bicubic")
        sizes = faces.sizes.nan_to_num(0.0) + by / torch.tensor(STEPS)
        sizes[:, 2:] += torch.log(scale)[:, None] / torch.tensor(STEPS[2:])
        gain = torch.from_numpy(np.exp(random.normal(0, 0.15, (count, 3, 1, 1)))).float()
        return Faces((self._blurred(pictures) * gain).clamp(0, 1), centres, sizes)

    def _amounts(self, count: int) -> Tensor:
        """By how much faces are bent, (B, 6), in the units of `STEPS`; lids mostly together."""
        random = self.random
        most = np.array(MOST)
        by = np.clip(random.normal(0, 0.55, (count, FACE_SYMBOLS)), -1, 1) * most
        by[:, 2] = np.where(random.random(count) < 0.7, by[:, 3] + random.normal(0, 0.05, count), by[:, 2])
        by *= random.random((count, FACE_SYMBOLS)) < 0.6
        by *= random.random((count, 1)) < BENT_SHARE
        return torch.from_numpy(by).float()

    def _blurred(self, pictures: Tensor) -> Tensor:
        """Some of them as small faces and few bits leave them."""
        random = self.random
        result = []
        for some in torch.split(pictures, TOGETHER):
            if random.random() < self.blurred_share:
                small = round(FACE_SIDE / math.exp(random.uniform(0, math.log(MOST_BLURRED))))
                one = F.interpolate(some, size=(small, small), mode="bilinear", antialias=True, align_corners=False)
                one = F.interpolate(one, size=(FACE_SIDE, FACE_SIDE), mode="bicubic", align_corners=False)
                contrast = float(random.uniform(0.7, 1.1))
                some = one * contrast + one.mean((1, 2, 3), keepdim=True) * (1 - contrast)
            result.append(some + random.uniform(0, 0.02) * torch.randn_like(some))
        return torch.cat(result)


def calibrated(weights: Mapping[str, Tensor], samples: Path, faces: int = 384, seed: int = 5) -> dict[str, Tensor]:
    """An encoder's weights, its numbers enlarged so that a sharp face that is bent by a step is measured a step
    further: learned from blurred faces, too, they say too little."""
    encoder = FaceEncoder().eval()
    encoder.load_state_dict(dict(weights))
    batches, copies = FaceBatches(samples, seed), Copies(np.random.default_rng(seed), blurred_share=0.0)
    asked, found = [], []
    for _ in range(faces // 64):
        drawn = batches.draw(64)
        first, second = copies.make(drawn), copies.make(drawn)
        with torch.no_grad():
            found.append(encoder(first.pictures).numbers - encoder(second.pictures).numbers)
        asked.append(first.sizes - second.sizes)
    x, y = torch.cat(asked), torch.cat(found)
    gain = ((x * x).sum(0) / (x * y).sum(0).clamp(min=1e-6)).clamp(*GAINS)
    result = dict(weights)
    for name in LAST_LAYER:
        result[name] = weights[name].clone()
        result[name][:FACE_SYMBOLS] *= gain.view(-1, *[1] * (weights[name].dim() - 1))
    return result


def _moved(pictures: Tensor, centres: Tensor, shift: Tensor, scale: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures enlarged by ``scale`` (B,), turned (B,) and shifted (B, 2) pixels, and where their centres are then."""
    middle = FACE_SIDE / 2
    cosine, sine = torch.cos(turn), torch.sin(turn)
    there = torch.stack([torch.stack([cosine, -sine], -1), torch.stack([sine, cosine], -1)], -2) * scale[:, None, None]
    moved = (centres - middle) @ there.transpose(1, 2) + middle + shift[:, None]
    back = torch.linalg.inv(there)
    line = torch.arange(FACE_SIDE, dtype=torch.float32) + 0.5
    places = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1) - middle
    grid = ((places[None] - shift[:, None, None]) @ back.transpose(1, 2)[:, None]) / middle
    return F.grid_sample(pictures, grid, mode="bicubic", padding_mode="border", align_corners=False), moved


def train_face(settings: tuple[Path, Path, FaceTraining, Path | None], place: Together) -> None:
    """Samples' folder, run's folder, settings, weights to begin from; see `train_together`."""
    samples, folder, training, start = settings
    FaceTrainer(samples, folder, training, place, start).run()
