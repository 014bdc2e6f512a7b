"""On a machine with an NVIDIA GPU (``pytest -m gpu``): each shipped network is the same there, and runs as promised."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from streamgc.runtime import plans
from streamgc.runtime.commands import engines_verify
from streamgc.runtime.cuda import check, import_runtime
from streamgc.runtime.engine import missing_reason
from streamgc.runtime.samples import chained_feeds, synthetic_pictures
from streamgc.runtime.store import ModelStore
from streamgc.runtime.tensorrt import inspect_plan

pytestmark = pytest.mark.gpu
SIZE = (256, 256)


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def backend(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if importlib.util.find_spec(plans.MODULES[name]) is None:
        pytest.skip(f"{name} is not installed: pip install 'streamgc[{name}]'")
    assert missing_reason(name) is None, "the tests marked gpu need a GPU"
    return name


@pytest.mark.parametrize("name", ModelStore().names())
def test_shipped_networks_are_the_same_on_the_gpu(backend: str, name: str) -> None:
    """fp32, fp16 and int8, within the limits of `runtime.parity`."""
    rows = engines_verify(name, backends=[backend], precisions=("fp32", "fp16", "int8"), size=SIZE)
    assert {"fp32", "fp16"} <= {row.precision for row in rows}


def test_a_frame_takes_no_device_memory(backend: str, tmp_path: Path) -> None:
    cuda = import_runtime()
    model = ModelStore().open("lite")
    feed = chained_feeds(model, synthetic_pictures(SIZE, 1), roles=["generator"])["generator"][0]
    with model.load("generator", backend=backend, precision="fp16", size=SIZE, cache=tmp_path) as engine:
        first = engine.run(feed)["picture"]
        free = check(cuda.cudaMemGetInfo())[0]
        for _ in range(50):
            again = engine.run(feed)["picture"]
        assert check(cuda.cudaMemGetInfo())[0] == free
    np.testing.assert_array_equal(first, again)


def test_the_cache_is_used_and_sizes_can_change(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ModelStore().open("segmenter")
    with model.load("segmenter", backend=backend, precision="fp16", cache=tmp_path) as engine:
        for size in ((128, 192), (256, 256), (128, 192)):
            frame = synthetic_pictures(size, 1)[0][None]
            assert engine.run({"frame": frame})["matte"].shape == (1, *size, 1)
    assert list(tmp_path.glob("*.plan" if backend == "tensorrt-rtx" else "*.engine"))
    monkeypatch.setattr(plans, "build_plan", lambda *_, **__: pytest.fail("built again although cached"))
    with model.load("segmenter", backend=backend, precision="fp16", cache=tmp_path) as engine:
        assert engine.submit({"frame": frame}).result(30)["matte"].shape == (1, 128, 192, 1)


def test_the_inspector_names_layers(backend: str, tmp_path: Path) -> None:
    source = ModelStore().open("room").network("room")
    plan = plans.build_plan(source, backend, (), "fp16", plans.ShapeProfile.fixed(SIZE), detailed=True)
    path = plans.write_plan(plan, tmp_path / plan.header.key.file_name)
    assert "Layers" in inspect_plan(path)
