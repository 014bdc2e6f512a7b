"""Where still trainings begin: at a linear codec, at shipped weights, at label maps of the segmenter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from streamgc.errors import InputError, TrainingError
from streamgc.evaluation.contours import evaluate_contours, resize_labels
from streamgc.networks.quantiser import quantise
from streamgc.networks.still import LiteNetworks, smooth_shuffle
from streamgc.networks.still_spec import StillSpec
from streamgc.scene.instances import Instances, nobody
from streamgc.scene.labels import Label
from streamgc.training.still_data import LabelledFolder, StillSource
from streamgc.training.still_labels import labelled_by, write_labelled
from streamgc.training.still_model import StillTrainer
from streamgc.training.still_samples import Labelled
from streamgc.training.still_settings import StillTraining
from streamgc.training.still_start import linear_start, load_start


class Slopes(StillSource):
    """Pictures that rise along some direction, in some colour."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> Labelled:
        random = np.random.default_rng(index)
        rows, columns = np.mgrid[0:128, 0:128] / 128 - 0.5
        plane = rows * random.uniform(-1, 1) + columns * random.uniform(-1, 1)
        picture = 128 + 90 * plane[..., None] * random.uniform(-1, 1, 3) + random.uniform(-60, 60, 3)
        return Labelled(picture.clip(0, 255).astype(np.uint8))


def spec(task: str = "gc") -> StillSpec:
    return StillSpec("lite", task, 4, 3 if task == "sc" else 0, 1 / 4, 0, 1)  # type: ignore[arg-type]


def batch(count: int = 6) -> torch.Tensor:
    pictures = np.stack([Slopes()[index].picture for index in range(count)])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def test_a_linear_start_codes_pictures_before_any_step() -> None:
    torch.manual_seed(1)
    networks = LiteNetworks(spec())
    x = batch()
    with torch.no_grad():
        before = float((networks(x).picture - x).square().mean())
        linear_start(networks, Slopes(), nested=(2, 4))
        output = networks(x)
    assert float((output.picture - x).square().mean()) < 0.2 * before
    assert output.symbols is not None
    assert output.symbols.unique().tolist() == [-2, -1, 0, 1, 2]
    many = LiteNetworks(StillSpec("lite", "gc", 800, 0, 1 / 16, 0, 1))
    with pytest.raises(TrainingError, match="800 components"):
        linear_start(many, Slopes())


def test_shuffles_begin_without_a_grid() -> None:
    torch.manual_seed(2)
    for kernel, factor in ((3, 4), (1, 2)):
        layer = torch.nn.Conv2d(5, 2 * factor**2, kernel, padding=kernel // 2)
        smooth_shuffle(layer, factor)
        shown = torch.pixel_shuffle(layer(torch.ones(1, 5, 6, 6)), factor)[..., factor:-factor, factor:-factor]
        assert torch.allclose(shown, shown[..., :1, :1].expand_as(shown), atol=1e-5)
    ramp = torch.arange(6.0).expand(1, 5, 6, 6)
    layer = torch.nn.Conv2d(5, 16, 3, padding=1)
    smooth_shuffle(layer, 4)
    steps = torch.pixel_shuffle(layer(ramp), 4)[0, 0, 12].diff()[4:-5]
    assert torch.allclose(steps, steps[:1].expand_as(steps), atol=1e-4)


def test_a_gc_model_starts_an_sc_model(tmp_path: Path) -> None:
    torch.manual_seed(3)
    whole, part = LiteNetworks(spec()), LiteNetworks(spec("sc"))
    save_file({name: value.contiguous() for name, value in whole.state_dict().items()}, tmp_path / "gc.safetensors")
    load_start(part, tmp_path / "gc.safetensors")
    planes = torch.zeros(6, 4, 128, 128)
    planes[:, 1] = 1
    x = batch()
    with torch.no_grad():
        latent = part.encode(x, planes)
        assert torch.allclose(latent, whole.encode(x, None), atol=1e-5)
        symbols = quantise(latent)[1]
        ours = part.decode(symbols, None, None, planes)
        assert torch.allclose(ours, whole.decode(symbols, None, None, None), atol=1e-5)
    (tmp_path / "no.safetensors").write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match="cannot read the weights"):
        load_start(part, tmp_path / "no.safetensors")
    save_file({"other": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(TrainingError, match="holds no weights"):
        load_start(part, tmp_path / "other.safetensors")


def test_a_model_grows_channels_and_keeps_its_pictures(tmp_path: Path) -> None:
    torch.manual_seed(4)
    few = LiteNetworks(spec())
    linear_start(few, Slopes())
    save_file({name: value.contiguous() for name, value in few.state_dict().items()}, tmp_path / "four.safetensors")
    x = batch()
    latent = few.encode(x, None)
    for task in ("gc", "sc"):
        many = LiteNetworks(replace(spec(task), channels=7))
        load_start(many, tmp_path / "four.safetensors")
        planes = torch.zeros(6, 4, 128, 128) if task == "sc" else None
        with torch.no_grad():
            grown = many.encode(x, planes)
            assert torch.allclose(grown[:, :4], latent, atol=1e-5)
            sent = (torch.arange(7) < 4).float()[None, :, None, None]
            shown = many.decode(quantise(grown)[1], None, sent.expand(6, 7, 1, 1), planes)
            assert torch.allclose(shown, few.decode(quantise(latent)[1], None, None, None), atol=1e-5)


def test_a_run_begins_at_its_start_and_then_at_its_checkpoint(tmp_path: Path) -> None:
    settings = StillTraining(
        channels=4, nested=(2, 4), width=1 / 4, blocks=1, steps=3, batch=2, crop=(64, 64), gan=0.0, perceptual=0.0,
        linear_start=True, rate=1e-3, threads=1, perceptual_scales=(1, 2),
    )  # fmt: skip
    trainer = StillTrainer(settings, Slopes(), tmp_path / "run")
    first = trainer.train(steps=1)
    assert first["mse"] < 1.0
    weights = {name: value.clone() for name, value in trainer.networks.state_dict().items()}
    save_file({name: value.contiguous() for name, value in weights.items()}, tmp_path / "w.safetensors")
    trainer.close()
    for folder, start in ((tmp_path / "new", tmp_path / "w.safetensors"), (tmp_path / "run", None)):
        again = StillTrainer(settings, Slopes(), folder, start=start)
        assert all(torch.equal(value, weights[name]) for name, value in again.networks.state_dict().items())
        again.close()


def test_pictures_without_labels_get_them(tmp_path: Path) -> None:
    def look(picture: np.ndarray) -> Instances:
        height, width = picture.shape[:2]
        cells = np.full((-(-height // 16), -(-width // 16)), Label.SOFA, np.uint8)
        cells[:, :2] = Label.PERSON
        mask = np.zeros((1, height, width), np.uint8)
        mask[0, :, :20] = 255
        alone = nobody(height, width, cells)
        return alone._replace(masks=mask) if picture[0, 0, 0] else alone

    picture = np.full((48, 64, 3), 200, np.uint8)
    item = labelled_by(look, picture)
    assert item.labels is not None
    assert item.instances is not None
    assert (item.labels[:, :20] == Label.PERSON).all()
    assert (item.labels[:, 20:32] == Label.ROOM).all()
    assert sorted(np.unique(item.instances)) == [Label.ROOM, Label.SOFA, 256 + Label.PERSON]
    known = labelled_by(look, picture * 0, np.eye(48, 64, dtype=bool))
    assert known.labels is not None
    assert (known.labels == Label.PERSON).sum() == 48

    (tmp_path / "set").mkdir()
    Image.fromarray(picture).save(tmp_path / "set" / "a.png")
    assert write_labelled([tmp_path / "set"], tmp_path / "out", look, side=32) == 1
    read = LabelledFolder(tmp_path / "out")[0]
    assert read.picture.shape == (24, 32, 3)
    assert read.instances is not None
    assert int(read.instances.max()) == 257
    with pytest.raises(TrainingError, match="folders of masks"):
        write_labelled([tmp_path / "set"], tmp_path / "out", look, masks=[tmp_path, tmp_path])
    with pytest.raises(TrainingError, match="cannot read the mask"):
        write_labelled([tmp_path / "set"], tmp_path / "out", look, masks=[tmp_path])


def test_what_contours_cost(tmp_path: Path) -> None:
    coarse = np.zeros((32, 64), np.uint8)
    coarse[8:24, 10:40] = 1
    coarse[20:30, 50:60] = 2
    Image.fromarray(coarse).save(tmp_path / "a.png")
    assert resize_labels(coarse, 64, 32).tolist() == coarse.tolist()
    found = evaluate_contours([tmp_path], out=tmp_path / "out", json_file=tmp_path / "out" / "c.json")
    assert found["maps"] == 1
    assert found["miou"] > 0.99
    assert found["bpp"] < 0.01
    assert 0.5 < found["double_size_costs"] < 2
    assert (tmp_path / "out" / "contours.csv").is_file()
    assert (tmp_path / "out" / "c.json").is_file()
    with pytest.raises(InputError, match="no label maps"):
        evaluate_contours([tmp_path / "nothing"])
