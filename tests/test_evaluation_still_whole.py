"""`evaluate rd|miou|selective|sample|pictures` from pictures to what they write, on models of two steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from streamgc.errors import InputError, ModelError
from streamgc.runtime.store import Model

pytest.importorskip("torch")
pytest.importorskip("stlpips_pytorch")

from streamgc.evaluation.miou import evaluate_miou
from streamgc.evaluation.rd import evaluate_rd
from streamgc.evaluation.sampling import SamplingSettings, evaluate_sampling
from streamgc.evaluation.selective import evaluate_selective
from streamgc.evaluation.still_pictures import write_pictures
from streamgc.pipeline.stills import open_still_codec
from tests.test_pipeline_stills import shipped
from tests.test_training_still import Painted


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    return {mode: shipped(tmp_path_factory.mktemp(mode), mode) for mode in ("gc", "sc-ri")}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painted(tmp_path_factory.mktemp("data"))


def painted(root: Path, times: int = 1) -> Path:
    """Three painted pictures, so many times as large, and their labels."""
    for name in ("images", "labels"):
        (root / name).mkdir()
    for index in range(3):
        item = Painted()[index]
        assert item.labels is not None
        for name, array in (("images", item.picture), ("labels", item.labels)):
            large = array.repeat(times, axis=0).repeat(times, axis=1)
            Image.fromarray(large).save(root / name / f"{index}.png")
    return root


def test_rate_and_distortion(models: dict[str, Model], data: Path, tmp_path: Path) -> None:
    found = evaluate_rd(
        [data / "images"], models=[models["gc"].folder], rivals=["hevc", "hevc/2"], qualities=2, limit=2,
        out=tmp_path, json_file=tmp_path / "rd.json", backend="openvino",
    )  # fmt: skip
    assert found["images"] == 2
    assert [(row["codec"], row["quality"]) for row in found["means"] if row["codec"] == "gc"] == [("gc", 1), ("gc", 2)]
    assert {row["rival"] for row in found["bits_needed"]} == {"hevc", "hevc/2"}
    assert {row["channels"] for row in found["savings"]} == {1, 2}
    assert json.loads((tmp_path / "rd.json").read_text())["means"] == found["means"]
    assert len((tmp_path / "rd.csv").read_text().splitlines()) == 1 + 2 * (2 + 2 + 2)
    assert len(list((tmp_path / "pictures").iterdir())) == 2
    assert (tmp_path / "rd.png").is_file()


def test_meaning(models: dict[str, Model], data: Path, tmp_path: Path) -> None:
    """An encoder serves as the segmentation network: its latent (1, C, h, w) looks like scores of C classes."""
    network = models["gc"].folder / "encoder.onnx"
    folders = [model.folder for model in models.values()]
    found = evaluate_miou(data, network, models=folders, rivals=["hevc"], truth="network", out=tmp_path, limit=2)
    rows = found["rows"]
    assert (rows[0]["codec"], rows[0]["miou"]) == ("original", 1.0)
    assert [row["codec"] for row in rows].count("sc-ri") == 2
    best = max(row["miou"] for row in rows if row["codec"] == "hevc")
    assert rows[1]["miou"] <= best <= 1
    assert (tmp_path / "miou.png").is_file()
    with pytest.raises(InputError, match="has its own"):
        evaluate_miou(data, network, models=folders, truth="network", classes="cityscapes")


def test_selection(models: dict[str, Model], data: Path, tmp_path: Path) -> None:
    large = painted(tmp_path, 4)  # in small ones what is kept costs as much to say as what is not
    found = evaluate_selective(large, models["sc-ri"].folder, classes=[1], out=tmp_path, limit=2)
    (row,) = found["classes"]
    assert row["pictures"] == 2
    assert 0 < row["bpp"] < row["bpp_whole"]
    assert row["saved"] == pytest.approx(1 - row["bpp"] / row["bpp_whole"])
    with Image.open(tmp_path / "pictures" / "0-1.png") as sheet:
        assert sheet.width == 3 * 320
    with pytest.raises(ModelError, match="not selective"):
        evaluate_selective(data, models["gc"].folder)


def test_samples_and_pictures(models: dict[str, Model], data: Path, tmp_path: Path) -> None:
    codec = open_still_codec(models["gc"].folder)
    chosen = SamplingSettings(steps=2, batch=4, critic_steps=1, width=16, noise=4)
    pictures = [np.asarray(Image.open(path)) for path in sorted((data / "images").iterdir())]
    shares = evaluate_sampling(codec, pictures, tmp_path, side=64, count=4, channels=1, settings=chosen)
    assert shares.sum(1) == pytest.approx([1, 1, 1])
    with Image.open(tmp_path / "wgan.png") as grid:
        assert grid.size == (4 * 64, 64)
    with pytest.raises(InputError, match="5 channels"):
        evaluate_sampling(codec, pictures, tmp_path, channels=5)
    codec.close()
    rate = write_pictures([data / "images"], models["gc"].folder, 1, tmp_path / "ours", limit=2)
    assert 0 < rate < write_pictures([data / "images"], "hevc", 20, tmp_path / "theirs", limit=2)
    assert len(list((tmp_path / "ours").iterdir())) == 2
    with pytest.raises(InputError, match="would be overwritten"):
        write_pictures([data / "images"], "jpeg", 20, data / "images")
