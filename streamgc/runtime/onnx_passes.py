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

_COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})

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
    """Cast uint8 inputs before they are moved or compared, and outputs after: TensorRT does neither in uint8."""
    model = copy_of(model)
    graph = model.graph
    _cast_inputs_first(graph)
    results = {value.name for value in graph.output if value.type.tensor_type.elem_type == UINT8}
    while _swap_output_cast(graph, results):
        pass
    return model


def _cast_inputs_first(graph: Any) -> None:
    """Follow each uint8 input through movers and comparisons, which then work on its float copy."""
    onnx = import_onnx()
    pixels = {value.name for value in graph.input if value.type.tensor_type.elem_type == UINT8}
    floats: set[str] = set()
    nodes: list[Any] = []
    made: set[str] = set()

    def cast(name: str, target: str, kind: int) -> str:
        if target not in made:
            made.add(target)
            nodes.append(onnx.helper.make_node("Cast", [name], [target], name=target, to=kind))
        return target

    for original in graph.node:
        node = copy_of(original)
        if not any(name in pixels or name in floats for name in node.input):
            nodes.append(node)
            continue
        movable = node.op_type in _MOVERS
        for index, name in enumerate(node.input):
            if name in pixels and (movable or node.op_type in _COMPARISONS):
                node.input[index] = cast(name, f"{name}_as_float", FLOAT)
            elif name in floats and not (movable or node.op_type in _COMPARISONS or node.op_type == "Cast"):
                node.input[index] = cast(name, f"{name}_as_uint8", UINT8)
        if movable:
            floats.update(node.output)
            _forget_types(graph, node.output)
        elif node.op_type in _COMPARISONS:
            for index, name in enumerate(node.input):
                node.input[index] = _float_constant(graph, nodes, name)
        elif node.op_type == "Cast" and node.input[0] in floats and node.attribute[0].i == FLOAT:
            node.op_type = "Identity"
            del node.attribute[:]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _float_constant(graph: Any, nodes: list[Any], name: str) -> str:
    """The float copy of a uint8 constant; any other value as it is."""
    onnx = import_onnx()
    tensors = [tensor for tensor in graph.initializer if tensor.name == name]
    tensors += [n.attribute[0].t for n in nodes if n.op_type == "Constant" and n.output[0] == name and n.attribute[0].t]
    if not tensors or tensors[0].data_type != UINT8:
        return name
    target = f"{name}_as_float"
    if not any(tensor.name == target for tensor in graph.initializer):
        values = onnx.numpy_helper.to_array(tensors[0]).astype(np.float32)
        graph.initializer.append(onnx.numpy_helper.from_array(values, target))
    return target


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


def restore_full_weights(model: Any) -> Any:
    """Undo `store_half_weights`: constants that are cast to fp32 become fp32 constants, as calibration wants them."""
    onnx = import_onnx()
    model = copy_of(model)
    graph = model.graph
    halves = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == HALF}
    for node in [n for n in graph.node if n.op_type == "Cast" and n.input[0] in halves and n.attribute[0].i == FLOAT]:
        values = onnx.numpy_helper.to_array(halves[node.input[0]]).astype(np.float32)
        graph.initializer.append(onnx.numpy_helper.from_array(values, node.output[0]))
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)
    return model


def make_signed(model: Any) -> Any:
    """Turn unsigned activations' Q/DQ (uint8, zero point 0: what follows a ReLU) into signed int8, all that TensorRT
    takes.

    Raises EngineError on a zero point other than 0, which has no symmetric form.
    """
    onnx = import_onnx()
    model = copy_of(model)
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3:
            continue
        zero = constants.get(node.input[2])
        if zero is None or np.any(onnx.numpy_helper.to_array(zero)):
            raise EngineError(f"{node.name} is not symmetric: its zero point is not 0")
        if zero.data_type == INT8:
            continue
        for index, suffix in ((1, "scale"), (2, "zero")):
            old, name = constants[node.input[index]], f"{node.input[index]}_signed_{suffix}"
            if name not in constants:
                values = onnx.numpy_helper.to_array(old)
                signed = values * np.float32(255 / 127) if index == 1 else values.astype(np.int8)
                constants[name] = onnx.numpy_helper.from_array(np.asarray(signed), name)
                graph.initializer.append(constants[name])
            node.input[index] = name
        _forget_types(graph, node.output)
    used = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)
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
