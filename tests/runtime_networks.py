"""Small ONNX networks with what breaks runtimes: uint8 moves and comparisons, norms, warps, ReLU ranges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from streamgc.runtime.onnx_passes import annotate
from streamgc.runtime.store import Model, write_model_json


def _constant(name: str, values: Any) -> Any:
    return numpy_helper.from_array(np.asarray(values), name)


def _weights(name: str, *shape: int) -> Any:
    rng = np.random.default_rng(len(name))
    return _constant(name, (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32))


def encoder(path: Path, opset: int = 18) -> Path:
    """``picture`` u8 (1, 16*rows, 16*columns, 3) → ``latent`` f32 (1, 8, rows, columns); transposes before it casts."""
    nodes = [
        helper.make_node("Transpose", ["picture"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "w1"], ["c1"], strides=[4, 4], kernel_shape=[4, 4], name="conv1"),
        helper.make_node("InstanceNormalization", ["c1", "gain", "shift"], ["n1"], name="norm"),
        helper.make_node("Relu", ["n1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["latent"], strides=[4, 4], kernel_shape=[4, 4], name="conv2"),
    ]
    constants = [
        _constant("scale", np.float32(1 / 255)),
        _weights("w1", 16, 3, 4, 4),
        _weights("w2", 8, 16, 4, 4),
        _constant("gain", np.ones(16, np.float32)),
        _constant("shift", np.zeros(16, np.float32)),
    ]
    given = [helper.make_tensor_value_info("picture", TensorProto.UINT8, [1, "16*rows", "16*columns", 3])]
    made = [helper.make_tensor_value_info("latent", TensorProto.FLOAT, [1, 8, "rows", "columns"])]
    return _save(path, nodes, given, made, constants, opset)


def warper(path: Path) -> Path:
    """``key`` u8, ``plane`` u8, ``symbols`` f32 → ``picture`` u8: the key moved by one grid, where the plane is 1."""
    nodes = [
        helper.make_node("Transpose", ["key"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["symbols", "w"], ["flow16"], pads=[1, 1, 1, 1], kernel_shape=[3, 3], name="flow"),
        helper.make_node("Resize", ["flow16", "", "scales"], ["flow"], mode="linear"),
        helper.make_node("Tanh", ["flow"], ["bounded"]),
        helper.make_node("Mul", ["bounded", "limit"], ["offsets"]),
        helper.make_node("Transpose", ["offsets"], ["moved"], perm=[0, 2, 3, 1]),
        helper.make_node("Shape", ["offsets"], ["sizes"]),
        helper.make_node("Slice", ["sizes", "two", "four"], ["sides"]),
        helper.make_node("Cast", ["sides"], ["sides_f"], to=TensorProto.FLOAT),
        *_axis("y", "zero", "one"),
        *_axis("x", "one", "two"),
        helper.make_node("Unsqueeze", ["y_line", "one"], ["y_column"]),
        helper.make_node("Mul", ["x_line", "nothing"], ["x_zero"]),
        helper.make_node("Mul", ["y_column", "nothing"], ["y_zero"]),
        helper.make_node("Add", ["x_line", "y_zero"], ["x_grid"]),
        helper.make_node("Add", ["y_column", "x_zero"], ["y_grid"]),
        helper.make_node("Unsqueeze", ["x_grid", "two"], ["x_last"]),
        helper.make_node("Unsqueeze", ["y_grid", "two"], ["y_last"]),
        helper.make_node("Concat", ["x_last", "y_last"], ["base"], axis=2),
        helper.make_node("Add", ["base", "moved"], ["grid"]),
        helper.make_node("GridSample", ["floats", "grid"], ["warped"], mode="bilinear", padding_mode="border"),
        helper.make_node("Equal", ["plane", "kept"], ["is_kept"]),
        helper.make_node("Cast", ["is_kept"], ["mask16"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask16", "one"], ["mask1"]),
        helper.make_node("Resize", ["mask1", "", "scales"], ["mask"], mode="nearest"),
        helper.make_node("Mul", ["warped", "mask"], ["shown"]),
        helper.make_node("Clip", ["shown", "low", "high"], ["clipped"]),
        helper.make_node("Round", ["clipped"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Transpose", ["bytes"], ["picture"], perm=[0, 2, 3, 1]),
    ]
    constants = [
        _weights("w", 2, 8, 3, 3),
        _constant("scales", np.array([1, 1, 16, 16], np.float32)),
        _constant("limit", np.float32(0.05)),
        _constant("nothing", np.float32(0)),
        _constant("half", np.float32(0.5)),
        _constant("unit", np.float32(1)),
        _constant("start", np.float32(0)),
        _constant("low", np.float32(0)),
        _constant("high", np.float32(255)),
        _constant("kept", np.uint8(1)),
        *[
            _constant(name, np.array([value], np.int64))
            for name, value in (("zero", 0), ("one", 1), ("two", 2), ("four", 4))
        ],
    ]
    given = [
        helper.make_tensor_value_info("symbols", TensorProto.FLOAT, [1, 8, "rows", "columns"]),
        helper.make_tensor_value_info("plane", TensorProto.UINT8, [1, "rows", "columns"]),
        helper.make_tensor_value_info("key", TensorProto.UINT8, [1, "16*rows", "16*columns", 3]),
    ]
    made = [helper.make_tensor_value_info("picture", TensorProto.UINT8, [1, "16*rows", "16*columns", 3])]
    return _save(path, nodes, given, made, constants)


def _axis(name: str, first: str, last: str) -> list[Any]:
    """Pixel centres in [-1, 1] along one side, from the shape: ``name``_line."""
    return [
        helper.make_node("Slice", ["sides_f", first, last], [f"{name}_side"]),
        helper.make_node("Squeeze", [f"{name}_side"], [f"{name}_count"]),
        helper.make_node("Range", ["start", f"{name}_count", "unit"], [f"{name}_index"]),
        helper.make_node("Add", [f"{name}_index", "half"], [f"{name}_centre"]),
        helper.make_node("Div", [f"{name}_centre", f"{name}_count"], [f"{name}_share"]),
        helper.make_node("Sub", [f"{name}_share", "half"], [f"{name}_around"]),
        helper.make_node("Add", [f"{name}_around", f"{name}_around"], [f"{name}_line"]),
    ]


def _save(
    path: Path, nodes: list[Any], given: list[Any], made: list[Any], constants: list[Any], opset: int = 18
) -> Path:
    graph = helper.make_graph(nodes, path.stem, given, made, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    annotate(model, size_min=64, size_max=2048, precision="fp32")
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def model_folder(root: Path, name: str = "small") -> Model:
    """A model of both networks with tables, licence and card."""
    folder = root / name
    encoder(folder / "encoder.onnx")
    warper(folder / "generator.onnx")
    (folder / "tables.bin").write_bytes(b"tables")
    (folder / "LICENCE").write_text("for research\n")
    (folder / "CARD.md").write_text("# small\n")
    return write_model_json(
        folder,
        name=name,
        family="lite",
        version="1",
        networks={"encoder": "encoder.onnx", "generator": "generator.onnx"},
        tables="tables.bin",
        channels=(2, 4, 8),
        licence="LICENCE",
        card="CARD.md",
        extra={"classes": ["person"]},
    )
