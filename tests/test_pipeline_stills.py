"""Stills end to end: train a few steps, ship, compress and decompress pictures of any size, for GC and SC."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer import Typer
from typer.testing import CliRunner

from streamgc.errors import BitstreamError, InputError, ModelError, ModelMismatch
from streamgc.pipeline.still_commands import compress, decompress
from streamgc.pipeline.stills import StillCodec
from streamgc.runtime.store import Model, ModelStore

torch = pytest.importorskip("torch")

from streamgc.networks.still_export import to_label_planes, to_signed  # noqa: E402
from streamgc.training.still_model import StillTrainer  # noqa: E402
from streamgc.training.still_samples import label_planes  # noqa: E402
from streamgc.training.still_ship import load_trained, ship_still  # noqa: E402
from tests.test_training_still import Painted, tiny  # noqa: E402


def shipped(folder: Path, mode: str, **changes: object) -> Model:
    settings = replace(tiny(mode, "lite", steps=2, nested=(1, 2)), **changes)  # type: ignore[arg-type]
    trainer = StillTrainer(settings, Painted(), folder / "run")
    trainer.train()
    trainer.close()
    return ship_still(folder / "run" / "checkpoint.pt", Painted(), folder / mode, name=mode, licence="test")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return shipped(tmp_path_factory.mktemp("gc"), "gc")


@pytest.fixture(scope="module")
def selective(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return shipped(tmp_path_factory.mktemp("sc"), "sc-ri")


def picture(height: int, width: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 3 % 256, x * 2 % 256, (x + y) % 256], -1).astype(np.uint8)


@pytest.mark.parametrize("size", [(96, 128), (97, 131), (5, 300), (1, 1)])
def test_any_size_comes_back_at_its_size(whole: Model, size: tuple[int, int]) -> None:
    codec = StillCodec(whole, backend="openvino", threads=1)
    for count in (1, 2):
        made = codec.compress(picture(*size), channels=count)
        assert codec.decompress(made.data).shape == (*size, 3)
        assert made.coded == count * -(-size[0] // 16) * -(-size[1] // 16)
        assert made.bpp >= made.symbols_bpp
        assert made.bound_bpp == pytest.approx(made.coded * np.log2(5) / made.pixels)
    codec.close()


def test_the_file_gives_what_torch_gives(whole: Model) -> None:
    codec = StillCodec(whole, backend="onnxruntime", threads=1)
    shown = codec.decompress(codec.compress(picture(64, 80)).data)
    codec.close()
    networks, _, _ = load_trained(whole.folder.parent / "run" / "checkpoint.pt")
    with torch.no_grad():
        out = networks(to_signed(torch.from_numpy(picture(64, 80))[None]))
    expected = ((out.picture[0].permute(1, 2, 0) + 1) * 127.5).numpy()
    assert np.abs(shown - expected).mean() < 2


@pytest.mark.slow
def test_selective_codes_cost_what_is_kept(selective: Model) -> None:
    codec = StillCodec(selective, backend="openvino", threads=1)
    labels = np.zeros((70, 90), np.uint8)
    labels[20:50, 30:60] = 2
    kept = labels == 2
    full = codec.compress(picture(70, 90), labels=labels)
    part = codec.compress(picture(70, 90), labels=labels, kept=kept)
    assert part.coded < full.coded
    assert part.parts.heatmap > 0
    assert part.parts.labels > 0
    assert codec.decompress(part.data).shape == (70, 90, 3)
    with pytest.raises(InputError, match="label map"):
        codec.compress(picture(70, 90))
    with pytest.raises(InputError, match="ids"):
        codec.compress(picture(70, 90), labels=labels + 9)
    codec.close()


def test_wrong_input_is_an_error(whole: Model) -> None:
    codec = StillCodec(whole, backend="openvino", threads=1)
    with pytest.raises(InputError, match="channels"):
        codec.compress(picture(32, 32), channels=3)
    with pytest.raises(InputError, match="whole pictures"):
        codec.compress(picture(32, 32), kept=np.ones((32, 32), bool))
    data = codec.compress(picture(32, 32)).data
    with pytest.raises(BitstreamError):
        codec.decompress(data[:-1])
    # The same file, said to be another model's: hash changed, checksum mended.
    foreign = data[:7] + bytes(8) + data[15:-4]
    with pytest.raises(ModelMismatch):
        codec.decompress(foreign + crc32(foreign).to_bytes(4, "little"))
    codec.close()
    segmenter = ModelStore().open("segmenter", check_files=False) if "segmenter" in ModelStore().names() else None
    if segmenter is not None:
        with pytest.raises(ModelError, match="no still"):
            StillCodec(segmenter)


def test_commands(whole: Model, tmp_path: Path) -> None:
    app = Typer()
    app.command()(compress)
    app.command()(decompress)
    Image.fromarray(picture(50, 60)).save(tmp_path / "a.png")
    run = CliRunner()
    model = ["--model", str(whole.folder), "--backend", "openvino"]
    done = run.invoke(app, ["compress", str(tmp_path / "a.png"), "--static", *model])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "a.sgc").read_bytes()[:4] == b"SGCI"
    done = run.invoke(app, ["decompress", str(tmp_path / "a.sgc"), "-o", str(tmp_path / "b.png"), *model])
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "b.png") as image:
        assert image.size == (60, 50)
    done = run.invoke(app, ["decompress", str(tmp_path / "none.sgc"), *model])
    assert isinstance(done.exception, InputError)
    done = run.invoke(app, ["decompress", str(tmp_path / "a.sgc")])
    assert isinstance(done.exception, ModelMismatch | InputError)


def test_label_planes_are_the_same_in_torch_and_numpy() -> None:
    labels = np.random.default_rng(1).integers(0, 3, (12, 17)).astype(np.uint8)
    ours = to_label_planes(torch.from_numpy(labels)[None], 3)[0].numpy()
    assert np.array_equal(ours, label_planes(labels, None, 3))
