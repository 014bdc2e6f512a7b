"""An ONNX graph in fp16, for devices that take their types from it: strongly typed TensorRT above all.

Needs the onnx package alone (see `onnx_passes`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from streamgc.errors import EngineError
from streamgc.runtime.onnx_passes import FLOAT, FLOAT_INPUTS, HALF, copy_of, import_onnx

# Kept in fp32 in an fp16 graph: sums over a whole picture overflow, roots of small variances vanish.
_NORMS = frozenset(
    {
        "InstanceNormalization",
        "GroupNormalization",
        "LayerNormalization",
        "BatchNormalization",
        "ReduceMean",
        "ReduceSum",
        "ReduceSumSquare",
        "ReduceL2",
        "Sqrt",
        "Reciprocal",
        "Pow",
        "Softmax",
        "Exp",
        "GridSample",
    }
)
# What a warp's coordinates go through on their way from the flow head: kept in fp32 too, since fp16 resolves 1/16 pixel
# only at the far edge of a wide picture.
_COORDINATE_STEPS = frozenset(
    {"Add", "Sub", "Mul", "Div", "Concat", "Unsqueeze", "Squeeze", "Transpose", "Reshape", "Expand", "Slice", "Tanh"}
    | {"Cast", "Gather", "Range", "Resize", "Split", "Neg", "Identity"}
)


def to_half(model: Any) -> Any:
    """The graph in fp16, for devices that take their types from it; norms and warp coordinates stay fp32, as do the
    graph's own inputs and outputs.

    Raises EngineError on control flow, which none of our networks has.
    """
    onnx = import_onnx()
    model = copy_of(model)
    if any(attribute.g.node for node in model.graph.node for attribute in node.attribute):
        raise EngineError("a network with control flow cannot be converted to fp16")
    del model.graph.value_info[:]
    model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    floats = _float_values(graph)
    full = _kept_in_full(graph)
    _convert_nodes(graph, floats, full)
    del graph.value_info[:]
    return model


def simulate_half(model: Any) -> Any:
    """The fp32 graph with every value rounded to fp16 that `to_half` would store so: what fp16 costs in accuracy,
    computed where no device computes in fp16. Sums stay in fp32, as tensor cores keep them.
    """
    onnx = import_onnx()
    model = copy_of(model)
    del model.graph.value_info[:]
    model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    floats = _float_values(graph)
    full = _kept_in_full(graph)
    for tensor in [t for t in graph.initializer if t.data_type == FLOAT and not _read_in_full(graph, t.name, full)]:
        half = onnx.numpy_helper.to_array(_half_tensor(onnx.numpy_helper.to_array(tensor), ""))
        tensor.CopyFrom(onnx.numpy_helper.from_array(half.astype(np.float32), tensor.name))
    nodes: list[Any] = []
    renamed: dict[str, str] = {}
    results = {value.name for value in graph.output}
    for index, original in enumerate(graph.node):
        node = copy_of(original)
        node.input[:] = [renamed.get(name, name) for name in node.input]
        nodes.append(node)
        for position, name in enumerate(node.output):
            if index in full or name not in floats:
                continue
            exact, rounded = (f"{name}_exact", name) if name in results else (name, f"{name}_rounded")
            node.output[position] = exact
            renamed |= {} if name in results else {name: rounded}
            nodes.append(onnx.helper.make_node("Cast", [exact], [f"{name}_as_half"], to=HALF))
            nodes.append(onnx.helper.make_node("Cast", [f"{name}_as_half"], [rounded], to=FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    return model


def _read_in_full(graph: Any, name: str, full: set[int]) -> bool:
    """Is a constant read by a node that computes in fp32, or where the operator wants fp32."""
    return any(
        given == name and (index in full or (node.op_type, position) in FLOAT_INPUTS)
        for index, node in enumerate(graph.node)
        for position, given in enumerate(node.input)
    )


def _float_values(graph: Any) -> set[str]:
    """Names of all fp32 values. Raises EngineError where type inference could not tell."""
    known = {v.name: v.type.tensor_type.elem_type for v in [*graph.value_info, *graph.input, *graph.output]}
    known.update({tensor.name: tensor.data_type for tensor in graph.initializer})
    for node in graph.node:
        for name in node.output:
            if name and name not in known:
                raise EngineError(f"cannot tell the type of {name!r} ({node.op_type}), so the graph cannot become fp16")
    return {name for name, kind in known.items() if kind == FLOAT}


def _kept_in_full(graph: Any) -> set[int]:
    """Indices of nodes that compute in fp32: norms, warps, and what leads to a warp's coordinates."""
    producers = {name: index for index, node in enumerate(graph.node) for name in node.output}
    full = {index for index, node in enumerate(graph.node) if node.op_type in _NORMS}
    pending = [node.input[1] for node in graph.node if node.op_type == "GridSample"]
    while pending:
        index = producers.get(pending.pop())
        if index is not None and index not in full and graph.node[index].op_type in _COORDINATE_STEPS:
            full.add(index)
            pending.extend(graph.node[index].input)
    return full


def _convert_nodes(graph: Any, floats: set[str], full: set[int]) -> None:
    """Rewrite node by node: each fp32 value V exists as V (fp16) and, where someone needs it, as V_full (fp32)."""
    onnx = import_onnx()
    borders = {value.name for value in [*graph.input, *graph.output]} & floats
    given = {value.name for value in graph.input} & floats
    constants = {tensor.name: tensor for tensor in graph.initializer if tensor.name in floats}
    nodes: list[Any] = []
    made: set[str] = set()

    def cast(source: str, target: str, kind: int) -> str:
        if target not in made:
            made.add(target)
            nodes.append(onnx.helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=kind))
        return target

    def as_type(name: str, wants_full: bool) -> str:
        if name in constants or name in given:
            return name if wants_full else cast(name, f"{name}_half", HALF)
        if wants_full:
            return full_names.get(name) or cast(halves[name], f"{name}_full", FLOAT)
        return halves.get(name) or cast(full_names[name], f"{name}_half", HALF)

    halves: dict[str, str] = {}
    full_names: dict[str, str] = {}
    for index, original in enumerate(graph.node):
        node = copy_of(original)
        in_full = index in full
        for position, name in enumerate(node.input):
            if name in floats:
                node.input[position] = as_type(name, in_full or (node.op_type, position) in FLOAT_INPUTS)
        if not in_full:
            _half_attributes(node)
        nodes.append(node)
        for position, name in enumerate(node.output):
            if name not in floats:
                continue
            if name in borders:
                node.output[position] = f"{name}_inside"
                (full_names if in_full else halves)[name] = node.output[position]
            else:
                (full_names if in_full else halves)[name] = name
    for name in (value.name for value in graph.output if value.name in borders):
        source = full_names.get(name) or halves[name]
        kind = "Identity" if name in full_names else "Cast"
        attributes = {} if kind == "Identity" else {"to": FLOAT}
        nodes.append(onnx.helper.make_node(kind, [source], [name], name=f"output_{name}", **attributes))
    del graph.node[:]
    graph.node.extend(nodes)
    _fold_half_constants(graph, constants)


def _half_attributes(node: Any) -> None:
    """Casts to float, and float constants, become fp16."""
    onnx = import_onnx()
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == FLOAT:
            attribute.i = HALF
        elif attribute.name == "value" and attribute.t.data_type == FLOAT:
            attribute.t.CopyFrom(_half_tensor(onnx.numpy_helper.to_array(attribute.t), attribute.t.name))
        elif node.op_type == "Constant" and attribute.name == "value_float":
            attribute.CopyFrom(onnx.helper.make_attribute("value", _half_tensor(np.float32(attribute.f), "")))


def _half_tensor(values: Any, name: str) -> Any:
    onnx = import_onnx()
    limit = np.finfo(np.float16).max
    return onnx.numpy_helper.from_array(np.clip(values, -limit, limit).astype(np.float16), name)


def _fold_half_constants(graph: Any, constants: dict[str, Any]) -> None:
    """Casts of constants become constants; those that only the cast read are dropped."""
    onnx = import_onnx()
    for node in [n for n in graph.node if n.op_type == "Cast" and n.input[0] in constants]:
        if node.attribute[0].i == HALF:
            graph.initializer.append(_half_tensor(onnx.numpy_helper.to_array(constants[node.input[0]]), node.output[0]))
            graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for name, tensor in constants.items():
        if name not in used:
            graph.initializer.remove(tensor)
