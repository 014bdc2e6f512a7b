"""Still-image training: every mode with every family learns, resumes exactly, and two processes do what one does."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from streamgc.errors import TrainingError
from streamgc.networks.still_spec import Family
from streamgc.training.still_batches import Batches
from streamgc.training.still_commands import require_device
from streamgc.training.still_data import StillSource
from streamgc.training.still_losses import feature_matching, gan_discriminator, gan_generator, masked_mse, ms_ssim_loss
from streamgc.training.still_model import StillTrainer, read_checkpoint
from streamgc.training.still_samples import Labelled
from streamgc.training.still_settings import MODES, Mode, StillTraining, read_settings


class Painted(StillSource):
    """Coloured rectangles with their label map."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Labelled:
        random = np.random.default_rng(index)
        labels = np.zeros((72, 80), np.uint8)
        instances = np.zeros((72, 80), np.int32)
        for number in range(1, 4):
            top, left = random.integers(0, 50, 2)
            labels[top : top + 24, left : left + 24] = number % 3
            instances[top : top + 24, left : left + 24] = number
        colours = random.integers(0, 256, (4, 3)).astype(np.uint8)
        return Labelled(colours[instances], labels, instances)


def tiny(mode: Mode, family: Family, **changes: object) -> StillTraining:
    values: dict[str, object] = {
        "mode": mode,
        "family": family,
        "channels": 2,
        "nested": (1, 2) if family == "lite" else (),
        "classes": 3,
        "width": 1 / 30 if family == "paper" else 1 / 16,
        "discriminator_filters": 4,
        "blocks": 1,
        "batch": 2,
        "crop": (32, 48),
        "steps": 30,
        "checkpoint_steps": 1000,
        "perceptual": 0.0,
        "gan": 0.1,
        "feature_matching": 0.5,
        "rate": 2e-3,
        "threads": 1,
        **changes,
    }
    return StillTraining(**values)  # type: ignore[arg-type]


def shown_error(trainer: StillTrainer) -> float:
    """Mean squared error over the first batches, where the mode preserves."""
    batches = Batches(trainer.settings, Painted())
    errors = []
    with torch.no_grad():
        for step in range(4):
            batch = batches.draw(step)
            planes = None if trainer.settings.task == "gc" else batch.planes
            shown = trainer.networks(batch.picture, planes, batch.keep, batch.present, batch.noise).picture
            errors.append(float(masked_mse(shown, batch.picture, batch.keep)))
    batches.close()
    return float(np.mean(errors))


@pytest.mark.parametrize("family", ["paper", "lite"])
@pytest.mark.parametrize("mode", MODES)
def test_thirty_steps_of_every_mode_and_family(mode: Mode, family: Family, tmp_path: Path) -> None:
    settings = tiny(mode, family, beta=0.1 if mode == "gc" else 0.0, noise=1 if mode == "sc-rb" else 0)
    trainer = StillTrainer(settings, Painted(), tmp_path)
    before = {name: value.clone() for name, value in trainer.networks.state_dict().items()}
    error = shown_error(trainer)
    seen: list[dict[str, float]] = []
    trainer.train(note=lambda step, scalars: seen.append(scalars))
    trainer.close()
    assert len(seen) == 30
    # From labels alone, thirty steps do not find the colours that each picture draws for itself.
    assert mode == "pix2pix" or shown_error(trainer) < 0.98 * error
    after = trainer.networks.state_dict()
    trained = [name for name, _ in trainer.networks.named_parameters()]
    assert all(not torch.equal(before[name], after[name]) for name in trained if name.endswith("weight"))
    assert ("d" in seen[0]) == (mode not in ("mse", "aedc"))
    assert (tmp_path / "checkpoint.pt").is_file()
    with Image.open(tmp_path / "samples.png") as grid:
        assert grid.size == (96, 64)
    if family == "paper":
        assert all(bool(value) for name, value in after.items() if name.endswith("frozen"))


def test_a_killed_run_goes_on_exactly(tmp_path: Path) -> None:
    settings = tiny("sc-ri", "lite", steps=6, checkpoint_steps=3, average=0.9)
    whole = StillTrainer(settings, Painted(), tmp_path / "whole")
    whole.train()
    whole.close()
    first = StillTrainer(settings, Painted(), tmp_path / "parts")
    first.train(steps=4)
    # What a kill -9 leaves behind: the checkpoint of step 4 and a half-written next one.
    (tmp_path / "parts" / "checkpoint.pt.tmp").write_bytes(b"half")
    first.close()
    second = StillTrainer(settings, Painted(), tmp_path / "parts")
    assert second.step == 4
    second.train()
    second.close()
    for name, value in whole.networks.state_dict().items():
        assert torch.equal(value, second.networks.state_dict()[name]), name
    for name, value in whole.averaged.items():
        assert torch.equal(value, second.averaged[name]), name
    with pytest.raises(TrainingError, match="another mse"):
        StillTrainer(replace(settings, mse=3.0), Painted(), tmp_path / "parts")


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.test_training_still import Painted, tiny
from streamgc.training.still_model import StillTrainer, read_checkpoint
StillTrainer(tiny("gc", "lite", steps=40, checkpoint_steps=2, average=0.9), Painted(), Path({out!r})).train()
"""


@pytest.mark.slow
def test_signal_nine_costs_the_last_interval_only(tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parent.parent)
    checkpoint = tmp_path / "killed" / "checkpoint.pt"
    process = subprocess.Popen([sys.executable, "-c", KILLED.format(root=root, out=str(checkpoint.parent))])
    try:
        deadline = time.monotonic() + 200
        while not checkpoint.is_file() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    step = int(read_checkpoint(checkpoint)["step"])
    assert 2 <= step < 40
    settings = tiny("gc", "lite", steps=40, checkpoint_steps=2, average=0.9)
    networks = []
    for folder in (checkpoint.parent, tmp_path / "whole"):
        trainer = StillTrainer(settings, Painted(), folder)
        assert trainer.step == (step if folder == checkpoint.parent else 0)
        trainer.train()
        trainer.close()
        networks.append(trainer.networks.state_dict())
    for name, value in networks[0].items():
        assert torch.equal(value, networks[1][name]), name


@pytest.mark.slow
def test_bf16_trains(tmp_path: Path) -> None:
    """Slow where the machine has no bf16 instructions."""
    losses: list[float] = []
    trainer = StillTrainer(tiny("gc", "lite", steps=12, bf16=True), Painted(), tmp_path)
    trainer.train(note=lambda step, scalars: losses.append(scalars["mse"]))
    trainer.close()
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert all(value.dtype == torch.float32 for value in trainer.networks.parameters())


PROCESS = """
import sys, torch, torch.distributed as dist
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.test_training_still import Painted, tiny
from streamgc.training.still_model import StillTrainer, read_checkpoint
dist.init_process_group("gloo")
trainer = StillTrainer(tiny("gc-d", "paper", steps=4, batch=4, freeze_at=1.0), Painted(), Path({out!r}))
losses = []
trainer.train(note=lambda step, scalars: losses.append(scalars["loss"]))
trainer.close()
if dist.get_rank() == 0:
    Path({out!r}, "losses.txt").write_text(" ".join(map(repr, losses)))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parent.parent)
    script = tmp_path / "process.py"
    script.write_text(PROCESS.format(root=root, out=str(tmp_path / "two")))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    both = [float(value) for value in (tmp_path / "two" / "losses.txt").read_text().split()]
    single: list[float] = []
    trainer = StillTrainer(tiny("gc-d", "paper", steps=4, batch=4, freeze_at=1.0), Painted(), tmp_path / "one")
    trainer.train(note=lambda step, scalars: single.append(scalars["loss"]))
    trainer.close()
    assert both == pytest.approx(single, rel=2e-4)


def test_losses_by_hand() -> None:
    verdict = [[torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.25)]]
    other = [[torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.5)]]
    assert gan_generator(verdict).item() == pytest.approx(0.75**2)
    assert gan_discriminator(verdict, other).item() == pytest.approx((0.75**2 + 0.5**2) / 2)
    assert feature_matching(verdict, other).item() == pytest.approx(1.0)
    shown, truth = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
    truth[..., :16] = 1
    keep = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    assert masked_mse(shown, truth, None).item() == pytest.approx(0.5)
    assert masked_mse(shown, truth, keep).item() == 0
    assert masked_mse(shown, truth, 1 - keep).item() == pytest.approx(1)
    picture = torch.rand(2, 3, 64, 64) * 2 - 1
    assert ms_ssim_loss(picture, picture).item() == pytest.approx(0, abs=1e-5)
    assert ms_ssim_loss(picture, -picture).item() > 0.5


def test_perceptual_losses_train_too(tmp_path: Path) -> None:
    pytest.importorskip("stlpips_pytorch")
    for form in ("pix2pixhd", "lpips"):
        settings = tiny("gc", "lite", steps=2, perceptual=1.0, perceptual_form=form, perceptual_crop=32, batch=1)
        trainer = StillTrainer(settings, Painted(), tmp_path / form)
        assert trainer.train()["perceptual"] > 0
        trainer.close()


def test_settings_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('mode = "gc"\nchannels = 8\nnested = [2, 4, 8]\ncrop = [128, 128]\n')
    settings = read_settings(path, steps=10)
    assert settings.nested == (2, 4, 8)
    assert settings.steps == 10
    for text, found in (
        ("chanels = 4", "unknown chanels"),
        ('channels = "x"', "channels"),
        ("crop = [30, 32]", "crop"),
    ):
        path.write_text(text)
        with pytest.raises(TrainingError, match=found):
            read_settings(path)
    with pytest.raises(TrainingError, match="classes"):
        read_settings(None, mode="sc-ri")
    with pytest.raises(TrainingError, match="cannot read"):
        read_settings(tmp_path / "none.toml")


def test_devices_that_are_not_there_are_said_in_a_line() -> None:
    require_device("cpu")
    for name in ("gpu", "cuda:99"):
        with pytest.raises(TrainingError, match=f"device {name}: [^\n]+$"):
            require_device(name)
