"""What an ONNX file says about itself, read without the onnx package.

A call has no onnx installed, yet must refuse a truncated file, a foreign opset or a network of another shape range
before a backend turns that into a page of its own text. ONNX is protobuf; only the few fields needed are walked
(onnx.proto3 field numbers), weights are skipped over.

Dynamic dimensions of our exports carry the names ``rows`` and ``columns`` (cells of 16 pixels) or a multiple of one,
as in ``16*rows``; `Dimension.at` turns such a name into a number for a picture size.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from streamgc.errors import EngineError

CELL = 16
SUPPORTED_OPSETS = range(17, 24)
_EXPRESSION = re.compile(r"^(?:(\d+)\*)?(rows|columns)$")
_DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}


@dataclass(frozen=True)
class Dimension:
    """One axis: a fixed ``size``, or None and the ``label`` the graph gives it."""

    size: int | None
    label: str = ""

    def at(self, height: int, width: int) -> int | None:
        """The axis for a picture of height × width pixels; None where the label says nothing about it."""
        if self.size is not None:
            return self.size
        match = _EXPRESSION.match(self.label)
        if match is None:
            return None
        cells = height // CELL if match[2] == "rows" else width // CELL
        return cells * int(match[1] or 1)


@dataclass(frozen=True)
class GraphTensor:
    """An input or output of the graph."""

    name: str
    dtype: str
    dimensions: tuple[Dimension, ...]


@dataclass(frozen=True)
class OnnxHeader:
    """The parts of a ModelProto that decide whether and how it can run."""

    opset: int
    producer: str
    metadata: dict[str, str]
    inputs: tuple[GraphTensor, ...]
    outputs: tuple[GraphTensor, ...]
    operators: frozenset[str]

    @property
    def quantised(self) -> bool:
        """True where the graph carries Q/DQ pairs, that is: int8 layers."""
        return "QuantizeLinear" in self.operators or "DequantizeLinear" in self.operators

    @property
    def size_range(self) -> tuple[int, int] | None:
        """Smallest and largest picture side in pixels the exporter vouches for, if it said so."""
        low, high = self.metadata.get("streamgc.size_min"), self.metadata.get("streamgc.size_max")
        return (int(low), int(high)) if low and high else None

    def shapes_at(self, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Input shapes for a picture of height × width pixels. Raises EngineError when a dimension stays open."""
        shapes: dict[str, tuple[int, ...]] = {}
        for tensor in self.inputs:
            dimensions = [dimension.at(height, width) for dimension in tensor.dimensions]
            if any(size is None for size in dimensions):
                labels = ", ".join(d.label or "?" for d in tensor.dimensions if d.size is None)
                raise EngineError(f"input {tensor.name!r} has dimensions a picture size does not settle: {labels}")
            shapes[tensor.name] = tuple(size for size in dimensions if size is not None)
        return shapes


def read_header(path: Path) -> OnnxHeader:
    """Read and check an ONNX file's header.

    Raises EngineError when the file is missing, no ONNX, truncated, or of an opset outside `SUPPORTED_OPSETS`.
    """
    if not path.is_file():
        raise EngineError(f"no such network file: {path}")
    if path.stat().st_size == 0:
        raise EngineError(f"{path} is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        view = memoryview(data)
        try:
            header = _parse_model(view)
        except (ValueError, IndexError, UnicodeDecodeError) as error:
            raise EngineError(f"{path} is not a readable ONNX file ({error})") from None
        finally:
            view.release()
    if header.opset not in SUPPORTED_OPSETS:
        low, high = SUPPORTED_OPSETS[0], SUPPORTED_OPSETS[-1]
        raise EngineError(f"{path} uses ONNX opset {header.opset}; {low} to {high} are supported: export it again")
    if not header.inputs or not header.outputs:
        raise EngineError(f"{path} is not a readable ONNX file (no inputs or outputs)")
    return header


def _varint(data: memoryview, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= end or shift > 63:
            raise ValueError("truncated or malformed")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
        shift += 7


def _fields(data: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Walk one message: (field number, value of a varint or 0, start and end of a length-delimited value)."""
    position = start
    while position < end:
        key, position = _varint(data, position, end)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise ValueError("malformed field")
        if wire == 0:
            value, position = _varint(data, position, end)
            yield number, value, position, position
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
            if position > end:
                raise ValueError("truncated")
            yield number, 0, position, position
        elif wire == 2:
            length, position = _varint(data, position, end)
            if position + length > end:
                raise ValueError("truncated")
            yield number, 0, position, position + length
            position += length
        else:
            raise ValueError(f"wire type {wire}")


def _text(data: memoryview, start: int, end: int) -> str:
    return bytes(data[start:end]).decode()


def _parse_model(data: memoryview) -> OnnxHeader:
    opset, producer, metadata = 0, "", {}
    inputs: list[GraphTensor] = []
    outputs: list[GraphTensor] = []
    operators: set[str] = set()
    for number, _, start, end in _fields(data, 0, len(data)):
        if number == 2:
            producer = _text(data, start, end)
        elif number == 7:
            _parse_graph(data, start, end, inputs, outputs, operators)
        elif number == 8:
            opset = max(opset, _default_opset(data, start, end))
        elif number == 14:
            pair = {key: _text(data, s, e) for key, _, s, e in _fields(data, start, end)}
            metadata[pair.get(1, "")] = pair.get(2, "")
    return OnnxHeader(opset, producer, metadata, tuple(inputs), tuple(outputs), frozenset(operators))


def _default_opset(data: memoryview, start: int, end: int) -> int:
    domain, version = "", 0
    for number, value, first, last in _fields(data, start, end):
        if number == 1:
            domain = _text(data, first, last)
        elif number == 2:
            version = value
    return version if domain in ("", "ai.onnx") else 0


def _parse_graph(
    data: memoryview,
    start: int,
    end: int,
    inputs: list[GraphTensor],
    outputs: list[GraphTensor],
    operators: set[str],
) -> None:
    stored: set[str] = set()
    for number, _, first, last in _fields(data, start, end):
        if number == 1:
            operators.update(_text(data, s, e) for key, _, s, e in _fields(data, first, last) if key == 4)
        elif number == 5:
            stored.update(_text(data, s, e) for key, _, s, e in _fields(data, first, last) if key == 8)
        elif number == 11:
            inputs.append(_parse_tensor(data, first, last))
        elif number == 12:
            outputs.append(_parse_tensor(data, first, last))
    inputs[:] = [tensor for tensor in inputs if tensor.name not in stored]


def _parse_tensor(data: memoryview, start: int, end: int) -> GraphTensor:
    name, dtype = "", "unknown"
    dimensions: list[Dimension] = []
    for number, _, first, last in _fields(data, start, end):
        if number == 1:
            name = _text(data, first, last)
        if number != 2:
            continue
        for kind, _, type_start, type_end in _fields(data, first, last):
            if kind != 1:
                continue
            for key, value, s, e in _fields(data, type_start, type_end):
                if key == 1:
                    dtype = _DTYPES.get(value, f"onnx type {value}")
                elif key == 2:
                    dimensions.extend(_parse_dimension(data, a, b) for k, _, a, b in _fields(data, s, e) if k == 1)
    return GraphTensor(name, dtype, tuple(dimensions))


def _parse_dimension(data: memoryview, start: int, end: int) -> Dimension:
    for number, value, first, last in _fields(data, start, end):
        if number == 1:
            return Dimension(value)
        if number == 2:
            return Dimension(None, _text(data, first, last))
    return Dimension(None)
