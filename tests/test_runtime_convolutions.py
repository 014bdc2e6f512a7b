"""Rewritten convolutions: the same sums in another order."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="graph passes need onnx: pip install 'streamgc[train]'")

import onnx

from streamgc.runtime.engine import Array, load_engine
from streamgc.runtime.onnx_convolutions import plan_convolutions
from streamgc.runtime.onnx_passes import load_model, restore_full_weights, save_model
from streamgc.runtime.samples import chained_feeds, synthetic_pictures
from streamgc.runtime.store import ModelStore

SIZE = (64, 96)


def _constant(name: str, values: Any) -> Any:
    return onnx.numpy_helper.from_array(np.asarray(values), name)


def _saved(path: Path, nodes: list[Any], given: list[Any], constants: list[Any]) -> Path:
    made = [onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [1, "c", "h", "w"])]
    graph = onnx.helper.make_graph(nodes, "small", given, made, constants)
    save_model(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def _both(source: Path, planned: Any, feeds: dict[str, Array], backend: str) -> tuple[Array, Array]:
    target = source.with_name("planned.onnx")
    save_model(planned, target)
    with (
        load_engine(source, backend=backend, precision="fp32", threads=1, size=SIZE) as old,
        load_engine(target, backend=backend, precision="fp32", threads=1, size=SIZE) as new,
    ):
        (name,) = old.outputs
        return old.run(feeds)[name], new.run(feeds)[name]


def _joining(path: Path, widths: tuple[int, int], kernel: int) -> Path:
    """A convolution with bias of two inputs that are joined."""
    random = np.random.default_rng(1)
    nodes = [
        onnx.helper.make_node("Concat", ["first", "second"], ["both"], name="both", axis=1),
        onnx.helper.make_node(
            "Conv", ["both", "weight", "bias"], ["out"], name="join", kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4
        ),
    ]
    weight = random.normal(size=(5, sum(widths), kernel, kernel)).astype(np.float32)
    constants = [_constant("weight", weight), _constant("bias", np.arange(5, dtype=np.float32))]
    given = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, width, 4, 6])
        for name, width in zip(("first", "second"), widths, strict=True)
    ]
    return _saved(path, nodes, given, constants)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("widths", [(32, 40), (3, 48)])
def test_a_convolution_of_two_parts_is_the_sum_of_theirs(tmp_path: Path, widths: tuple[int, int], kernel: int) -> None:
    source = _joining(tmp_path / "join.onnx", widths, kernel)
    planned = plan_convolutions(load_model(source))
    assert Counter(node.op_type for node in planned.graph.node) == {"Conv": 2, "Add": 1}
    random = np.random.default_rng(2)
    feeds: dict[str, Array] = {
        name: random.normal(size=(1, width, 4, 6)).astype(np.float32)
        for name, width in zip(("first", "second"), widths, strict=True)
    }
    old, new = _both(source, planned, feeds, "onnxruntime")
    np.testing.assert_allclose(old, new, atol=1e-4)


def test_parts_too_small_for_a_kernel_stay_together(tmp_path: Path) -> None:
    source = _joining(tmp_path / "join.onnx", (8, 3), 3)
    assert [node.op_type for node in plan_convolutions(load_model(source)).graph.node] == ["Concat", "Conv"]


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("role", ["encoder", "reference", "generator"])
def test_the_shipped_networks_give_the_same(tmp_path: Path, role: str, backend: str) -> None:
    model = ModelStore().open("lite")
    before = restore_full_weights(load_model(model.network(role)))
    planned = plan_convolutions(before)
    kinds = [Counter(node.op_type for node in graph.node) for graph in (before.graph, planned.graph)]
    assert (kinds[0]["Conv"] < kinds[1]["Conv"]) == (role == "generator")
    shuffles = [sum(_is_unshuffle(node) for node in graph.node) for graph in (before.graph, planned.graph)]
    assert shuffles == ([0, 0] if role == "generator" else [1, 0])
    feeds = chained_feeds(model, synthetic_pictures(SIZE, 1))[role][0]
    target = tmp_path / "planned.onnx"
    save_model(planned, target)
    with (
        load_engine(model.network(role), backend=backend, precision="fp32", threads=1, size=SIZE) as old,
        load_engine(target, backend=backend, precision="fp32", threads=1, size=SIZE) as new,
    ):
        wanted, got = old.run(feeds), new.run(feeds)
    for name in wanted:
        np.testing.assert_allclose(
            wanted[name].astype(float), got[name].astype(float), atol=1 if role == "generator" else 1e-3
        )


def _is_unshuffle(node: Any) -> bool:
    return any(one.name == "perm" and list(one.ints) == [0, 1, 3, 5, 2, 4] for one in node.attribute)


def test_pictures_that_are_treated_differently_are_left_alone(tmp_path: Path) -> None:
    """Joined before the arithmetic, both would be scaled alike."""
    model = restore_full_weights(load_model(ModelStore().open("lite").network("encoder")))
    scales = [node for node in model.graph.node if node.op_type == "Mul" and node.input[1] == "val_10"]
    model.graph.initializer.append(_constant("other", np.float32(2)))
    scales[0].input[1] = "other"
    planned = plan_convolutions(model)
    assert sum(_is_unshuffle(node) for node in planned.graph.node) == 1


def test_an_unshuffle_of_something_computed_is_left_alone() -> None:
    """A node of one input, such as the rounding of another network, lies before it."""
    model = restore_full_weights(load_model(ModelStore().open("lite").network("encoder")))
    scale = next(node for node in model.graph.node if node.op_type == "Mul" and node.input[1] == "val_10")
    rectified = onnx.helper.make_node("Relu", [scale.output[0]], ["rectified"], name="rectified")
    for user in model.graph.node:
        user.input[:] = ["rectified" if name == scale.output[0] else name for name in user.input]
    place = list(model.graph.node).index(scale)
    model.graph.node.insert(place + 1, rectified)
    planned = plan_convolutions(model)
    assert sum(_is_unshuffle(node) for node in planned.graph.node) == 1


def test_planning_twice_changes_nothing_more() -> None:
    for role in ("encoder", "generator"):
        once = plan_convolutions(restore_full_weights(load_model(ModelStore().open("lite").network(role))))
        twice = plan_convolutions(once)
        assert [node.name for node in twice.graph.node] == [node.name for node in once.graph.node]
