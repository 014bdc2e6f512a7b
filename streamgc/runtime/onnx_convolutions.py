"""Two rewritings of convolutions, before a network is quantised: the same sums, in an order that int8 kernels take.

* A convolution of a concatenation is the sum of the convolutions of its parts, each with a scale of its own in int8.
* A convolution of an unshuffled picture is one with longer strides of the picture. Rows of a picture (1, H, W, C)
  in memory are rows of (1, H, W / r, rC) as well: what the unshuffling does along a row costs nothing then, and what
  it does from row to row becomes the stride.

They need the onnx package alone (see `onnx_passes`), weights in fp32, and change results by rounding only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgc.runtime.onnx_layouts import attribute, integer_constant, replace_node
from streamgc.runtime.onnx_passes import UINT8, copy_of, import_onnx

PARTS_FROM = 32
"""Channels a part has at least for its convolution to stand alone: fewer do not fill a kernel."""
_UNSHUFFLE = [0, 1, 3, 5, 2, 4]
_TO_PLANES = [0, 3, 1, 2]
_POINTWISE = frozenset({"Add", "Sub", "Mul", "Div"})


def plan_convolutions(model: Any) -> Any:
    """The model with convolutions of concatenations split, and those of unshuffled pictures taken from the pictures."""
    model = copy_of(model)
    _split_joins(model)
    _stride_pictures(model.graph)
    return _without_dead(model)


def _split_joins(model: Any) -> None:
    """``conv(concat(x, y))`` becomes ``conv(x) + conv(y)``."""
    onnx = import_onnx()
    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {one.name: one.type.tensor_type.shape.dim for one in [*inferred.value_info, *inferred.input]}
    makers = _makers(graph)
    for node in [one for one in graph.node if one.op_type == "Conv"]:
        joined, weight = makers.get(node.input[0]), _weight(graph, node)
        if joined is None or weight is None or joined.op_type != "Concat" or attribute(joined, "axis") != 1:
            continue
        widths = _widths([shapes.get(name, ()) for name in joined.input], weight.shape[1])
        if widths is None or max(widths) < PARTS_FROM or attribute(node, "group") not in (None, 1):
            continue
        parts: list[Any] = []
        total = ""
        for place, cut in enumerate(np.split(weight, np.cumsum(widths)[:-1], 1)):
            part = copy_of(node)
            name = f"{node.output[0]}_of_{place}"
            part.input[0], part.name, part.output[0] = joined.input[place], f"{node.name}_of_{place}", name
            part.input[1] = _float_constant(graph, f"{node.input[1]}_of_{place}", cut)
            if place:  # the bias is added once
                del part.input[2:]
            parts.append(part)
            if place:
                last = place == len(widths) - 1
                result = node.output[0] if last else f"{name}_sum"
                parts.append(onnx.helper.make_node("Add", [total, name], [result], name=f"{name}_sum"))
                name = result
            total = name
        replace_node(graph, node, parts)


def _widths(shapes: list[Any], channels: int) -> list[int] | None:
    """Channels of each part of a concatenation; one that is not known is what the others leave."""
    widths = [shape[1].dim_value if len(shape) == 4 else 0 for shape in shapes]
    if widths.count(0) == 1:
        widths[widths.index(0)] = channels - sum(widths)
    return widths if min(widths) > 0 and sum(widths) == channels else None


def _stride_pictures(graph: Any) -> None:
    """A convolution of uint8 pictures' pixel unshuffle reads the pictures' rows."""
    makers = _makers(graph)
    for shuffle in [one for one in graph.node if attribute(one, "perm") == _UNSHUFFLE]:
        made = _follow(graph, shuffle.output[0])
        users = [one for one in graph.node if made in one.input]
        pictures = _pictures(graph, makers, _before_shaping(makers, shuffle))
        weight = _weight(graph, users[0]) if len(users) == 1 and _plain(users[0]) else None
        if weight is None or not pictures:
            continue
        widths = [picture.width for picture in pictures]
        stride = math.isqrt(weight.shape[1] // sum(widths))
        nodes, rows = _rows(graph, pictures, stride, made)
        strided = _strided(graph, users[0], _rows_of(weight, stride, widths), stride)
        strided.input[0] = rows
        replace_node(graph, users[0], [*nodes, strided])


class _Input(NamedTuple):
    """A uint8 picture that a network is given: its float copy (1, H, W, ``width``), and what is done to its values."""

    name: str
    width: int
    steps: tuple[Any, ...]

    def same_steps(self, other: _Input) -> bool:
        """Whether the same is done to both."""
        return [(one.op_type, one.input[1]) for one in self.steps] == [(o.op_type, o.input[1]) for o in other.steps]


def _pictures(graph: Any, makers: Mapping[str, Any], name: str) -> list[_Input]:
    """The uint8 pictures that are joined to ``name``, in order.

    Empty where anything but joining and the same arithmetic with single values lies between.
    """
    node = makers.get(name)
    if node is None:
        return []
    if node.op_type == "Transpose" and attribute(node, "perm") == _TO_PLANES:
        cast = makers.get(node.input[0])
        given = cast.input[0] if cast is not None and cast.op_type == "Cast" else ""
        types = [value.type.tensor_type for value in graph.input if value.name == given]
        return [_Input(node.input[0], one.shape.dim[3].dim_value, ()) for one in types if one.elem_type == UINT8]
    if node.op_type == "Concat" and attribute(node, "axis") == 1:
        found = [_pictures(graph, makers, part) for part in node.input]
        joined = [one for part in found for one in part]
        return joined if all(found) and all(one.same_steps(joined[0]) for one in joined) else []
    if node.op_type not in _POINTWISE:
        return []
    single = any(one.name == node.input[1] and math.prod(one.dims) == 1 for one in graph.initializer)
    before = _pictures(graph, makers, node.input[0]) if single else []
    return [one._replace(steps=(*one.steps, node)) for one in before]


def _rows(graph: Any, pictures: list[_Input], stride: int, name: str) -> tuple[list[Any], str]:
    """Nodes that join pictures, ``stride`` pixels of each at a time, to planes (1, rC, H, W / r); and their output."""
    make = import_onnx().helper.make_node
    nodes, parts = [], []
    for picture in pictures:
        part = f"{picture.name}_rows"
        shape = integer_constant(graph, f"{part}_shape", [1, 0, -1, stride * picture.width])
        nodes.append(make("Reshape", [picture.name, shape], [part], name=part))
        parts.append(part)
    if len(parts) > 1:
        nodes.append(make("Concat", parts, [f"{name}_joined"], name=f"{name}_joined", axis=3))
        parts = [f"{name}_joined"]
    nodes.append(make("Transpose", parts, [f"{name}_planes"], name=f"{name}_planes", perm=_TO_PLANES))
    at = f"{name}_planes"
    for place, step in enumerate(pictures[0].steps):
        to = f"{name}_step{place}"
        nodes.append(make(step.op_type, [at, step.input[1]], [to], name=to))
        at = to
    return nodes, at


def _strided(graph: Any, node: Any, weight: NDArray[np.float32], stride: int) -> Any:
    """The convolution of rows that takes the place of one of the unshuffled picture."""
    onnx = import_onnx()
    strided = copy_of(node)
    strided.input[1] = _float_constant(graph, f"{node.input[1]}_rows", weight)
    size = weight.shape[3]
    settings = {
        "kernel_shape": [stride * size, size],
        "strides": [stride, 1],
        "pads": [stride * (size // 2), size // 2] * 2,
    }
    del strided.attribute[:]
    strided.attribute.extend(onnx.helper.make_attribute(key, value) for key, value in settings.items())
    return strided


def _rows_of(weight: NDArray[np.float32], stride: int, widths: list[int]) -> NDArray[np.float32]:
    """Weights (O, C r², k, k) of an unshuffled picture → (O, rC, rk, k) of its rows, picture after picture."""
    out, _, size, _ = weight.shape
    # O, C, r (down), r (along), k (down), k (along) → O, r (along), C, k (down), r (down), k (along)
    ordered = weight.reshape(out, sum(widths), stride, stride, size, size).transpose(0, 3, 1, 4, 2, 5)
    ends = np.cumsum(widths)
    parts = [ordered[:, :, end - width : end] for end, width in zip(ends, widths, strict=True)]
    return np.concatenate([part.reshape(out, -1, stride * size, size) for part in parts], 1)


def _plain(node: Any) -> bool:
    """Whether a node is a convolution that keeps the size of what it reads."""
    size = attribute(node, "kernel_shape") or [0]
    expected = {"strides": [1, 1], "dilations": [1, 1], "group": 1, "pads": [size[0] // 2] * 4}
    same = all(attribute(node, key) in (None, value) for key, value in expected.items())
    return bool(node.op_type == "Conv" and size[0] % 2 == 1 and same)


def _before_shaping(makers: Mapping[str, Any], node: Any) -> str:
    """What a pixel unshuffle reads, before its own reshapes."""
    name = str(node.input[0])
    while name in makers and makers[name].op_type == "Reshape":
        name = str(makers[name].input[0])
    return name


def _follow(graph: Any, name: str) -> str:
    """What a pixel unshuffle makes, after its own reshapes."""
    while True:
        users = [one for one in graph.node if name in one.input and one.op_type != "Shape"]
        if len(users) != 1 or users[0].op_type != "Reshape":
            return name
        name = str(users[0].output[0])


def _makers(graph: Any) -> dict[str, Any]:
    return {name: node for node in graph.node for name in node.output}


def _weight(graph: Any, node: Any) -> NDArray[np.float32] | None:
    """A convolution's weights, where they are a constant."""
    onnx = import_onnx()
    found = [one for one in graph.initializer if len(node.input) > 1 and one.name == node.input[1]]
    return np.asarray(onnx.numpy_helper.to_array(found[0]), np.float32) if found else None


def _float_constant(graph: Any, name: str, values: NDArray[np.float32]) -> str:
    onnx = import_onnx()
    graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
    return name


def _without_dead(model: Any) -> Any:
    """The model without nodes and constants that nothing reads any more; shapes inferred anew."""
    graph = model.graph
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            kept.append(copy_of(node))
            wanted.update(node.input)
    constants = [copy_of(one) for one in graph.initializer if one.name in wanted]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)
    del graph.value_info[:]  # some shapes are others now
    return import_onnx().shape_inference.infer_shapes(model)
