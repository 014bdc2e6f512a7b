"""Rewritten layouts: fewer slow kernels, the same pictures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="graph passes need onnx: pip install 'streamgc[train]'")

from streamgc.runtime.engine import load_engine
from streamgc.runtime.onnx_layouts import plan_layouts
from streamgc.runtime.onnx_passes import load_model, save_model
from streamgc.runtime.samples import chained_feeds, synthetic_pictures
from streamgc.runtime.store import ModelStore


@pytest.mark.parametrize("size", [(64, 96), (128, 128)])
def test_the_generators_pictures_stay_the_same(tmp_path: Path, size: tuple[int, int]) -> None:
    model = ModelStore().open("lite")
    source = model.network("generator", "fp32")
    before = load_model(source)
    after = plan_layouts(before)
    assert Counter(node.op_type for node in before.graph.node)["Slice"] >= 3
    save_model(after, tmp_path / "planned.onnx")
    kinds = Counter(node.op_type for node in after.graph.node)
    assert kinds["Reshape"] > Counter(node.op_type for node in before.graph.node)["Reshape"]
    feeds = chained_feeds(model, synthetic_pictures(size, 2))["generator"]
    for backend in ("openvino", "onnxruntime"):
        old = load_engine(source, backend=backend, precision="fp32", threads=1, size=size)
        new = load_engine(tmp_path / "planned.onnx", backend=backend, precision="fp32", threads=1, size=size)
        with old, new:
            for feed in feeds:
                far = old.run(feed)["picture"].astype(int) - new.run(feed)["picture"]
                assert np.abs(far).max() <= 1  # fused otherwise, rounded otherwise
                assert (far == 0).mean() > 0.999


def test_each_enlarged_flow_is_planned() -> None:
    """Also one that enlarges what the network gives out."""
    planned = plan_layouts(load_model(ModelStore().open("lite").network("generator", "fp32")))
    shaped = {name for node in planned.graph.node if node.op_type == "Reshape" for name in node.output}
    enlarged = [node for node in planned.graph.node if node.op_type == "Resize"]
    assert len(enlarged) == 4
    assert all(node.input[0] in shaped for node in enlarged)


def test_planning_twice_changes_nothing_more() -> None:
    once = plan_layouts(load_model(ModelStore().open("lite").network("generator", "fp32")))
    twice = plan_layouts(once)
    assert [node.op_type for node in twice.graph.node] == [node.op_type for node in once.graph.node]


def test_what_has_nothing_to_plan_is_left_alone() -> None:
    encoder = load_model(ModelStore().open("lite").network("encoder", "fp32"))
    assert [node.name for node in plan_layouts(encoder).graph.node] == [node.name for node in encoder.graph.node]
