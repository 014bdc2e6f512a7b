"""Three rewritings that change no result and spare OpenVINO its slow general-purpose kernels.

Its CPU plugin keeps activations channel by channel for each pixel. What picks single channels out of them, or puts two
of them together along the last axis, falls to reference kernels that go value by value; `streamgc profile --layers`
shows them as ``ref_f32``. Written otherwise the same work is a transposition, or a cut between whole planes.
Needs the onnx package alone (see `onnx_passes`).
"""

from __future__ import annotations

from typing import Any

from streamgc.runtime.onnx_passes import copy_of, import_onnx


def plan_layouts(model: Any) -> Any:
    """The model with its coordinate grids transposed, its shuffled channels cut from planes, and its flows enlarged
    plane by plane."""
    model = copy_of(model)
    _transpose_stacks(model)
    _part_by_planes(model.graph)
    _resize_planes(model)
    return model


def _transpose_stacks(model: Any) -> None:
    """``stack((x, y), -1)`` of two (B, H, W) becomes a transposition of ``stack((x, y), 1)``."""
    onnx = import_onnx()
    graph, ranks = model.graph, {name: len(shape) for name, shape in _shapes(model).items()}
    makers = {name: node for node in graph.node for name in node.output}
    constants = _constants(graph)
    for node in list(graph.node):
        if node.op_type != "Concat" or attribute(node, "axis") not in (-1, 3):
            continue
        lifted = [makers.get(name) for name in node.input]
        if not all(one is not None and one.op_type == "Unsqueeze" for one in lifted):
            continue
        if any(constants.get(one.input[1]) not in ([-1], [3]) for one in lifted if one is not None):
            continue
        if any(ranks.get(one.input[0]) != 3 for one in lifted if one is not None):
            continue  # without a batch, or not known
        axis = integer_constant(graph, f"{node.output[0]}_axis", [1])
        planes = [f"{node.output[0]}_plane{index}" for index in range(len(lifted))]
        together = f"{node.output[0]}_planes"
        new = [
            onnx.helper.make_node("Unsqueeze", [one.input[0], axis], [plane], name=plane)
            for one, plane in zip(lifted, planes, strict=True)
            if one is not None
        ]
        new.append(onnx.helper.make_node("Concat", planes, [together], name=together, axis=1))
        new.append(onnx.helper.make_node("Transpose", [together], list(node.output), name=node.name, perm=[0, 2, 3, 1]))
        replace_node(graph, node, new)


def _part_by_planes(graph: Any) -> None:
    """Slices of the channels of a pixel shuffle are cut from its planes, put one below the other: no copy a pixel."""
    onnx = import_onnx()
    constants = _constants(graph)
    for shuffle in [node for node in graph.node if node.op_type == "DepthToSpace"]:
        name = shuffle.output[0]
        users = [node for node in graph.node if name in node.input]
        ranges = [_channel_range(user, constants) for user in users]
        if not users or not all(ranges) or any(value.name == name for value in graph.output):
            continue
        below, beside = (
            integer_constant(graph, f"{name}_below", [-1, 1, 0, 0]),
            integer_constant(graph, f"{name}_beside", [1, -1, 0, 0]),
        )
        axis = integer_constant(graph, f"{name}_axis", [0])
        planes = f"{name}_planes"
        first = min(list(graph.node).index(user) for user in users)
        reshaped = onnx.helper.make_node("Reshape", [name, below], [planes], name=planes)
        graph.node.insert(first, reshaped)
        for user in users:
            cut = copy_of(user)
            part = f"{user.output[0]}_planes"
            cut.input[0], cut.input[3], cut.output[0] = planes, axis, part
            back = onnx.helper.make_node("Reshape", [part, beside], list(user.output), name=part)
            replace_node(graph, user, [cut, back])


def _shapes(model: Any) -> dict[str, Any]:
    """Dimensions of what the nodes make, as far as they can be inferred."""
    inferred = import_onnx().shape_inference.infer_shapes(model)
    values = [*inferred.graph.value_info, *inferred.graph.output]
    return {value.name: value.type.tensor_type.shape.dim for value in values}


def _channel_range(node: Any, constants: dict[str, list[int]]) -> tuple[int, int] | None:
    """From and to of a slice of channels, or None for anything else."""
    if node.op_type != "Slice" or len(node.input) < 4 or constants.get(node.input[3]) != [1]:
        return None
    if len(node.input) > 4 and constants.get(node.input[4]) != [1]:
        return None
    start, end = (constants.get(node.input[index], []) for index in (1, 2))
    if len(start) != 1 or len(end) != 1 or not 0 <= start[0] < end[0] < 1 << 16:
        return None
    return start[0], end[0]


def _resize_planes(model: Any) -> None:
    """Enlarging two channels becomes enlarging two pictures of one channel."""
    onnx = import_onnx()
    graph = model.graph
    shapes = _shapes(model)
    for node in [one for one in graph.node if one.op_type == "Resize" and attribute(one, "mode") == b"linear"]:
        shape = shapes.get(node.input[0], ())
        if len(shape) != 4 or shape[0].dim_value != 1 or shape[1].dim_value != 2 or len(node.input) > 3:
            continue
        name = node.output[0]
        apart = integer_constant(graph, f"{name}_apart", [2, 1, 0, 0])
        joined = integer_constant(graph, f"{name}_joined", [1, 2, 0, 0])
        enlarged = copy_of(node)
        enlarged.input[0], enlarged.output[0] = f"{name}_small", f"{name}_large"
        new = [
            onnx.helper.make_node("Reshape", [node.input[0], apart], [f"{name}_small"], name=f"{name}_small"),
            enlarged,
            onnx.helper.make_node("Reshape", [f"{name}_large", joined], [name], name=f"{name}_joined"),
        ]
        replace_node(graph, node, new)


def _constants(graph: Any) -> dict[str, list[int]]:
    """Values of the small integer initialisers."""
    onnx = import_onnx()
    return {
        one.name: [int(value) for value in onnx.numpy_helper.to_array(one).reshape(-1)]
        for one in graph.initializer
        if one.data_type == onnx.TensorProto.INT64 and len(one.dims) <= 1
    }


def integer_constant(graph: Any, name: str, values: list[int]) -> str:
    """Add a one-dimensional integer constant; returns its name."""
    onnx = import_onnx()
    graph.initializer.append(onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [len(values)], values))
    return name


def attribute(node: Any, name: str) -> Any:
    """The value of a node's attribute, None where it has none."""
    onnx = import_onnx()
    found = [one for one in node.attribute if one.name == name]
    return onnx.helper.get_attribute_value(found[0]) if found else None


def replace_node(graph: Any, node: Any, new: list[Any]) -> None:
    """Put nodes where one was; what it made has no shape that is known any more."""
    place = list(graph.node).index(node)
    nodes = [*graph.node[:place], *new, *graph.node[place + 1 :]]
    kept = [copy_of(one) for one in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    values = [value for value in graph.value_info if value.name not in node.output]
    kept_values = [copy_of(value) for value in values]
    del graph.value_info[:]
    graph.value_info.extend(kept_values)
