"""Reading ONNX headers by hand, and the graph passes: the same numbers, other types and fewer bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from streamgc.errors import EngineError
from streamgc.runtime.engine import load_engine
from streamgc.runtime.onnx_half import simulate_half, to_half
from streamgc.runtime.onnx_header import Dimension, read_header
from streamgc.runtime.onnx_passes import (
    annotate,
    load_model,
    make_signed,
    move_uint8_casts,
    save_model,
    store_half_weights,
    store_int8_weights,
    strip_debug,
)
from tests.runtime_networks import encoder, warper


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("networks")
    return {"encoder": encoder(folder / "encoder.onnx"), "warper": warper(folder / "warper.onnx")}


def feeds(role: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, 64, 96, 3)).astype(np.uint8)
    if role == "encoder":
        return {"picture": image}
    plane = rng.integers(0, 3, (1, 4, 6)).astype(np.uint8)
    return {"key": image, "plane": plane, "symbols": rng.integers(-2, 3, (1, 8, 4, 6)).astype(np.float32)}


def outputs(path: Path, role: str, precision: Any = "fp32") -> np.ndarray:
    with load_engine(path, backend="openvino", precision=precision, threads=1, size=(64, 96)) as engine:
        (result,) = engine.run(feeds(role)).values()
        return result


def test_header_of_a_network(networks: dict[str, Path]) -> None:
    header = read_header(networks["warper"])
    assert header.opset == 18
    assert {tensor.name: tensor.dtype for tensor in header.inputs} == {
        "symbols": "float32",
        "plane": "uint8",
        "key": "uint8",
    }
    assert header.shapes_at(64, 96) == {"symbols": (1, 8, 4, 6), "plane": (1, 4, 6), "key": (1, 64, 96, 3)}
    assert header.size_range == (64, 2048)
    assert "GridSample" in header.operators
    assert not header.quantised


def test_dimensions_by_label() -> None:
    assert Dimension(7).at(64, 96) == 7
    assert Dimension(None, "rows").at(64, 96) == 4
    assert Dimension(None, "4*columns").at(64, 96) == 24
    assert Dimension(None, "batch").at(64, 96) is None


def test_header_agrees_with_onnx(networks: dict[str, Path]) -> None:
    for path in networks.values():
        model, header = onnx.load(str(path)), read_header(path)
        assert [tensor.name for tensor in header.inputs] == [value.name for value in model.graph.input]
        assert [tensor.name for tensor in header.outputs] == [value.name for value in model.graph.output]
        assert header.operators == {node.op_type for node in model.graph.node}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400), st.integers(0, 3000))
def test_header_of_anything_is_read_or_refused(
    networks: dict[str, Path], tmp_path: Path, noise: bytes, position: int
) -> None:
    data = bytearray(networks["encoder"].read_bytes())
    position = min(position, len(data))
    data[position : position + len(noise)] = noise
    path = tmp_path / "noisy.onnx"
    for content in (noise, bytes(data), bytes(data[:position])):
        path.write_bytes(content)
        try:
            header = read_header(path)
        except EngineError:
            continue
        assert header.inputs


@pytest.mark.parametrize("role", ["encoder", "warper"])
def test_uint8_is_neither_moved_nor_compared(networks: dict[str, Path], tmp_path: Path, role: str) -> None:
    model = move_uint8_casts(load_model(networks[role]))
    types = {value.name: TensorProto.UINT8 for value in model.graph.input if value.type.tensor_type.elem_type == 2}
    for node in model.graph.node:
        if node.op_type in ("Transpose", "Unsqueeze", "Equal"):
            assert not any(name in types for name in node.input), node.op_type
    assert model.graph.node[-1].op_type != "Transpose"
    save_model(model, tmp_path / "moved.onnx")
    np.testing.assert_array_equal(outputs(tmp_path / "moved.onnx", role), outputs(networks[role], role))


@pytest.mark.parametrize("role", ["encoder", "warper"])
def test_half_stored_weights_are_half_the_file(networks: dict[str, Path], tmp_path: Path, role: str) -> None:
    model = load_model(networks[role])
    save_model(store_half_weights(model), tmp_path / "small.onnx")
    weights = sum(tensor.ByteSize() for tensor in model.graph.initializer)
    assert (tmp_path / "small.onnx").stat().st_size < networks[role].stat().st_size - 0.4 * weights + 600
    got, wanted = outputs(tmp_path / "small.onnx", role), outputs(networks[role], role)
    assert np.abs(got.astype(float) - wanted).max() <= (0.01 if role == "encoder" else 2)


@pytest.mark.parametrize("role", ["encoder", "warper"])
def test_half_graph_keeps_norms_and_coordinates(networks: dict[str, Path], tmp_path: Path, role: str) -> None:
    half = to_half(move_uint8_casts(load_model(networks[role])))
    save_model(half, tmp_path / "half.onnx")
    onnx.checker.check_model(half, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(half)
    kinds = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    by_type = {node.op_type: node for node in half.graph.node}
    assert kinds[by_type["Conv"].output[0]] == TensorProto.FLOAT16
    for kind in ("InstanceNormalization", "GridSample", "Range"):
        if kind in by_type:
            assert kinds[by_type[kind].output[0]] == TensorProto.FLOAT, kind
    for before, after in zip(load_model(networks[role]).graph.output, half.graph.output, strict=True):
        assert before.type.tensor_type.elem_type == after.type.tensor_type.elem_type
    got, wanted = outputs(tmp_path / "half.onnx", role), outputs(networks[role], role)
    assert np.abs(got.astype(float) - wanted).max() <= (0.02 if role == "encoder" else 3)


def _quantised(zero: int) -> Any:
    """ReLU → uint8 Q/DQ → convolution with int8 Q/DQ weights: what a calibrator leaves."""
    weight = np.random.default_rng(0).normal(size=(4, 3, 1, 1)).astype(np.float32)
    scales = (np.abs(weight).max((1, 2, 3)) / 127).astype(np.float32)
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "s", "z"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="dq"),
        helper.make_node("QuantizeLinear", ["w", "ws", "wz"], ["wq"], axis=0, name="wq"),
        helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["wd"], axis=0, name="wdq"),
        helper.make_node("Conv", ["d", "wd"], ["y"], kernel_shape=[1, 1]),
    ]
    constants = {
        "s": np.float32(1 / 255),
        "z": np.uint8(zero),
        "w": weight,
        "ws": scales,
        "wz": np.zeros(4, np.int8),
    }
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "rows", "columns"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, "rows", "columns"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_signed_int8_with_stored_weights(tmp_path: Path) -> None:
    model = _quantised(0)
    save_model(model, tmp_path / "unsigned.onnx")
    signed = store_int8_weights(make_signed(model))
    save_model(signed, tmp_path / "signed.onnx")
    assert {tensor.data_type for tensor in signed.graph.initializer} == {TensorProto.FLOAT, TensorProto.INT8}
    assert sum(node.op_type == "QuantizeLinear" for node in signed.graph.node) == 1
    x = np.random.default_rng(1).uniform(-1, 1, (1, 3, 4, 4)).astype(np.float32)
    results = []
    for name in ("unsigned", "signed"):
        with load_engine(tmp_path / f"{name}.onnx", backend="onnxruntime", threads=1) as engine:
            assert engine.precision == "int8"
            results.append(engine.run({"x": x})["y"])
    assert np.abs(results[0] - results[1]).max() < 0.05


def test_a_zero_point_has_no_symmetric_form() -> None:
    with pytest.raises(EngineError, match="zero point is not 0"):
        make_signed(_quantised(3))


def test_metadata_and_debug(networks: dict[str, Path], tmp_path: Path) -> None:
    model = load_model(networks["encoder"])
    model.graph.node[0].doc_string = "File /home/someone/secret.py"
    strip_debug(model)
    annotate(model, precision="fp16")
    save_model(model, tmp_path / "clean.onnx")
    assert b"secret" not in (tmp_path / "clean.onnx").read_bytes()
    assert read_header(tmp_path / "clean.onnx").metadata["streamgc.precision"] == "fp16"


def test_loading_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x09nonsense")
    with pytest.raises(EngineError, match="no valid ONNX model"):
        load_model(tmp_path / "bad.onnx")


def test_simulated_half_rounds_as_the_half_graph_stores(tmp_path: Path) -> None:
    """Convolutions' values lie on fp16's grid, norms' do not; the result is near fp32's and not the same."""
    source = load_model(encoder(tmp_path / "full.onnx"))
    simulated = simulate_half(source)
    for name in ("c1", "n1", "r1"):
        source.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16, 16, 16]))
        shown = f"{name}_rounded" if name in ("c1", "r1") else name
        simulated.graph.output.append(helper.make_tensor_value_info(shown, TensorProto.FLOAT, [1, 16, 16, 16]))
    feed = {"picture": np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)}
    results = []
    for path, model in ((tmp_path / "a.onnx", source), (tmp_path / "b.onnx", simulated)):
        save_model(model, path)
        with load_engine(path, backend="onnxruntime", precision="fp32", threads=1) as engine:
            results.append(list(engine.run(feed).values()))
    full, half = results
    on_grid = [bool(np.array_equal(value, value.astype(np.float16).astype(np.float32))) for value in half]
    assert on_grid == [True, True, False, True]
    error = np.abs(full[0] - half[0]).max()
    assert 1e-5 < error < 0.01
