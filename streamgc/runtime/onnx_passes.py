"""Rewrites of an ONNX graph: what each device wants, and half the bytes on disk.

They need the onnx package (in ``[train]``; ``pip install onnx`` alone is enough) and no torch, so that a GPU machine
can make an fp16 graph from the shipped network. Every pass takes a ModelProto and returns a new one; none changes what
is computed by more than the number format it is named after.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from streamgc.errors import BackendMissing, EngineError
from streamgc.runtime.engine import first_line

FLOAT, UINT8, INT8, HALF = 1, 2, 3, 10

# Operators that only move values: a cast can pass through them.
_MOVERS = frozenset({"Transpose", "Unsqueeze", "Squeeze", "Reshape", "Identity"})

# Inputs that must stay fp32 by the operator's definition: (operator, input index).
FLOAT_INPUTS = frozenset({("Resize", 1), ("Resize", 2), ("QuantizeLinear", 1), ("DequantizeLinear", 1)})


def import_onnx() -> Any:
    """The onnx package. Raises BackendMissing where it is not installed."""
    try:
        import onnx
    except ImportError:
        raise BackendMissing("rewriting a network needs the onnx package: pip install onnx") from None
    return onnx


def load_model(path: Path) -> Any:
    """Load and check a ModelProto. Raises EngineError where it is no valid ONNX model."""
    onnx = import_onnx()
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and the checker raise a dozen unrelated types
        raise EngineError(f"{path} is no valid ONNX model: {first_line(error)}") from None
    return model


def save_model(model: Any, path: Path) -> None:
    """Check, and write through a temporary name. Raises EngineError where a pass left an invalid graph."""
    onnx = import_onnx()
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise EngineError(f"the rewritten {path.name} is not valid: {first_line(error)}") from None
    temporary = path.with_name(path.name + ".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(temporary))
    os.replace(temporary, path)


def annotate(model: Any, **values: object) -> None:
    """Set ``streamgc.KEY`` metadata properties, replacing those there are."""
    kept = [prop for prop in model.metadata_props if prop.key.removeprefix("streamgc.") not in values]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    for key, value in values.items():
        model.metadata_props.add(key=f"streamgc.{key}", value=str(value))


def strip_debug(model: Any) -> None:
    """Drop the exporter's stack traces: they name files of the exporting machine and grow the file."""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        value.doc_string = ""
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""


def move_uint8_casts(model: Any) -> Any:
    """Cast uint8 inputs before they are transposed, and outputs after: TensorRT moves no uint8 tensors about."""
    model = copy_of(model)
    graph = model.graph
    pixels = {value.name for value in graph.input if value.type.tensor_type.elem_type == UINT8}
    results = {value.name for value in graph.output if value.type.tensor_type.elem_type == UINT8}
    while _swap_input_cast(graph, pixels) or _swap_output_cast(graph, results):
        pass
    return model


def _swap_input_cast(graph: Any, pixels: set[str]) -> bool:
    """Turn one mover of a uint8 input into: cast, move; later casts of the moved value become identities."""
    onnx = import_onnx()
    for position, node in enumerate(graph.node):
        if node.op_type in _MOVERS and node.input and node.input[0] in pixels:
            name = f"{node.input[0]}_as_float"
            if not any(name in other.output for other in graph.node):
                cast = onnx.helper.make_node("Cast", [node.input[0]], [name], name=name, to=FLOAT)
                graph.node.insert(position, cast)
            node.input[0] = name
            _forget_types(graph, node.output)
            _back_to_uint8(graph, node)
            return True
    return False


def _back_to_uint8(graph: Any, mover: Any) -> None:
    """Consumers that are casts to float read the moved value as it is; any other gets its uint8 back."""
    onnx = import_onnx()
    moved = mover.output[0]
    others = []
    for node in list(graph.node):
        if moved not in node.input:
            continue
        if node.op_type == "Cast" and node.attribute[0].i == FLOAT:
            node.op_type = "Identity"
            del node.attribute[:]
        elif node.op_type not in _MOVERS:
            others.append(node)
        else:
            _back_to_uint8(graph, node)
    if others:
        name = f"{moved}_as_uint8"
        position = next(i for i, node in enumerate(graph.node) if moved in node.output) + 1
        graph.node.insert(position, onnx.helper.make_node("Cast", [moved], [name], name=name, to=UINT8))
        for node in others:
            for index, value in enumerate(node.input):
                if value == moved:
                    node.input[index] = name


def _swap_output_cast(graph: Any, results: set[str]) -> bool:
    """Turn cast-to-uint8, mover, output into: mover, cast, output."""
    producers = {name: node for node in graph.node for name in node.output}
    for result in results:
        mover = producers.get(result)
        if mover is None or mover.op_type not in _MOVERS:
            continue
        cast = producers.get(mover.input[0])
        if cast is None or cast.op_type != "Cast" or cast.attribute[0].i != UINT8:
            continue
        middle = f"{result}_before_cast"
        users = [node for node in graph.node if cast.output[0] in node.input]
        if len(users) > 1:
            continue
        mover.input[0] = cast.input[0]
        mover.output[0] = middle
        cast.input[0], old = middle, cast.output[0]
        cast.output[0] = result
        _forget_types(graph, [old])
        position = list(graph.node).index(mover)
        moved = _pop_node(graph, cast)
        graph.node.insert(position, moved)
        return True
    return False


def _pop_node(graph: Any, node: Any) -> Any:
    copy = type(node)()
    copy.CopyFrom(node)
    graph.node.remove(node)
    return copy


def store_half_weights(model: Any, at_least: int = 64) -> Any:
    """Keep fp32 weights of ``at_least`` values as fp16 and cast them where they are read: half the file, computed as
    before.

    Runtimes fold the cast when they load the network. Values beyond fp16's range are left in fp32.
    """
    onnx = import_onnx()
    model = copy_of(model)
    graph = model.graph
    exempt = {
        name for node in graph.node for index, name in enumerate(node.input) if (node.op_type, index) in FLOAT_INPUTS
    }
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != FLOAT or tensor.name in exempt or int(np.prod(tensor.dims)) < at_least:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}_half"], [name], name=f"{name}_cast", to=FLOAT))
    nodes = [copy_of(node) for node in graph.node]
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
    return model


def store_int8_weights(model: Any) -> Any:
    """Replace QuantizeLinear of a constant by the int8 constant itself: a quarter of the file."""
    onnx = import_onnx()
    model = copy_of(model)
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    used: dict[str, int] = defaultdict(int)
    for node in graph.node:
        for name in node.input:
            used[name] += 1
    for node in [n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] in constants]:
        weight, scale = (onnx.numpy_helper.to_array(constants[name]) for name in node.input[:2])
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        shape = [1] * weight.ndim
        if scale.ndim:
            shape[axis] = -1
        quantised = np.clip(np.rint(weight / scale.reshape(shape)), -128, 127).astype(np.int8)
        graph.initializer.append(onnx.numpy_helper.from_array(quantised, node.output[0]))
        used[node.input[0]] -= 1
        if not used[node.input[0]]:
            graph.initializer.remove(constants[node.input[0]])
        graph.node.remove(node)
    return model


def _forget_types(graph: Any, names: Iterable[str]) -> None:
    wanted = set(names)
    for value in [v for v in graph.value_info if v.name in wanted]:
        graph.value_info.remove(value)


def copy_of(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
