"""The network that enlarges a picture with a key's fine structure, in torch and as it is shipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from streamgc.networks.detail import Detail, Twice  # noqa: E402
from streamgc.pipeline.detail import fine_part, halved  # noqa: E402
from streamgc.runtime.engine import load_engine  # noqa: E402
from streamgc.runtime.store import ModelStore  # noqa: E402
from streamgc.training.detail_ship import INPUTS, sample_feeds, ship_detail  # noqa: E402

HEIGHT, WIDTH = 64, 96


def textured(seed: int = 0) -> np.ndarray:
    """A grey picture (2H, 2W, 3) whose single pixels differ."""
    random = np.random.default_rng(seed)
    return np.repeat(random.integers(100, 150, (2 * HEIGHT, 2 * WIDTH, 1)), 3, -1).astype(np.uint8)


def run(person: np.ndarray, flow: tuple[float, float], large: np.ndarray) -> np.ndarray:
    """The large picture for a flow that is the same everywhere, (x, y) in pixels of the small one."""
    steps = np.zeros((1, 2, HEIGHT // 8, WIDTH // 8), np.float32)
    steps[0, 0], steps[0, 1] = flow
    opaque = np.full((*person.shape[:2], 1), 255, np.uint8)
    feeds = (np.concatenate([person, opaque], -1)[None], steps, halved(large)[None], fine_part(large))
    with torch.no_grad():
        return np.asarray(Detail()(*[torch.from_numpy(feed) for feed in feeds])[0].numpy(), np.float32)


def test_twice_enlarges_as_torch_and_pillow_do() -> None:
    x = torch.rand(1, 2, 9, 12)
    linear = torch.nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
    torch.testing.assert_close(Twice(2, cubic=False)(x), linear, atol=1e-6, rtol=0)
    cubic = np.asarray(Image.fromarray(x[0, 0].numpy()).resize((24, 18), Image.Resampling.BICUBIC))
    inside = np.s_[4:-4, 4:-4]  # at the edge Pillow leaves out what is not there
    np.testing.assert_allclose(Twice(2, cubic=True)(x)[0, 0].numpy()[inside], cubic[inside], atol=1e-5)


def test_a_picture_that_is_the_key_is_shown_as_large_and_fine_as_it_came() -> None:
    large = textured()
    shown = run(halved(large), (0, 0), large)[..., :3]
    assert np.abs(shown - large)[8:-8, 8:-8].max() <= 3
    blurred = np.asarray(Image.fromarray(halved(large)).resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.BICUBIC))
    assert np.abs(blurred.astype(float) - large)[8:-8, 8:-8].mean() > 8


def test_fine_structure_moves_with_the_flow() -> None:
    large = textured()
    moved = np.roll(large, (4, -6), (0, 1))  # two rows down and three columns to the left, in small pixels
    shown = run(halved(moved), (3.15, -2.15), large)[..., :3]  # 0.15 px count as rest
    assert np.abs(shown - moved)[16:-16, 16:-16].mean() < 1.5


def test_nothing_is_added_where_the_picture_is_another_one() -> None:
    large = textured()
    other = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
    np.testing.assert_array_equal(run(other, (0, 0), large)[..., :3], 30)


def test_skin_takes_no_structure_from_cloth_of_the_same_brightness() -> None:
    large = textured()
    grey = np.full((HEIGHT, WIDTH, 3), 125, np.uint8)
    skin = np.full((HEIGHT, WIDTH, 3), (160, 112, 100), np.uint8)
    assert run(grey, (0, 0), large)[..., 0].std() > 3
    assert run(skin, (0, 0), large)[..., 0].std() < 0.5


@pytest.mark.parametrize("size", [(128, 160), (256, 256), (144, 256)])
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_what_ships_is_the_same_network_at_any_size(size: tuple[int, int], backend: str) -> None:
    feeds = sample_feeds(*size)
    with torch.no_grad():
        wanted = Detail()(*[torch.from_numpy(feeds[name]) for name in INPUTS]).numpy()
    model = ModelStore().open("detail")
    with load_engine(model.network("detail"), backend=backend, precision="fp32", threads=1, size=size) as engine:
        got = engine.run(feeds)["shown"]
    assert np.abs(got.astype(int) - wanted).max() <= 1


def test_the_folder_is_written_anew(tmp_path: Path) -> None:
    model, results = ship_detail(tmp_path / "detail")
    assert model.roles == ("detail",)
    assert all(result.max_error < 0.01 for result in results)
    assert sorted(path.name for path in model.folder.iterdir()) == ["LICENSE", "README.md", "detail.onnx", "model.json"]
