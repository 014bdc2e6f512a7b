"""Torch networks to ONNX, to fewer bits, and the proof that each is still the same network.

Every network is exported with its pre- and post-processing inside (uint8 pictures in and out) and with free height
and width in multiples of 16. `export_onnx` writes the fp32 graph; `write_variants` derives what ships (fp16-stored
weights), the fp16 graph for devices that take their types from the file, and int8 Q/DQ; `parity` measures each
against torch, and `runtime.parity.require` makes a breach of the limits an error.
"""

from __future__ import annotations

import inspect
import logging
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from streamgc.errors import TrainingError
from streamgc.runtime.engine import Array, Engine
from streamgc.runtime.onnx_convolutions import plan_convolutions
from streamgc.runtime.onnx_half import to_half
from streamgc.runtime.onnx_header import CELL
from streamgc.runtime.onnx_layouts import plan_layouts
from streamgc.runtime.onnx_passes import (
    annotate,
    load_model,
    make_signed,
    move_uint8_casts,
    restore_full_weights,
    save_model,
    store_half_weights,
    store_int8_weights,
    strip_debug,
)
from streamgc.runtime.parity import Parity, compare

OPSET = 18
SIZE_MIN, SIZE_MAX = 64, 2048
"""Picture sides, in pixels, that an exported network is vouched for."""

QUANTISED = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
"""Operators that become int8. Sums and products stay float: in eight bits a warp's coordinates are off by pixels."""

Axes = Mapping[int, str]
"""Free axes of one tensor: axis → ``rows``, ``columns`` (cells of 16 pixels) or a multiple such as ``16*rows``."""


def export_onnx(
    module: nn.Module,
    example_inputs: Sequence[torch.Tensor],
    path: Path,
    input_names: Sequence[str],
    output_names: Sequence[str],
    free_axes: Mapping[str, Axes] | None = None,
) -> Path:
    """Export ``module`` in fp32 with free picture sizes. Raises TrainingError when torch cannot, EngineError on a
    bad graph.

    ``free_axes`` maps an input's name to its `Axes`; inputs not named keep their shape. Example sides must differ
    between height and width, or the exporter may take them for one dimension.
    """
    module = module.eval()
    shapes = tuple(_dimensions(dict((free_axes or {}).get(name, {}))) for name in input_names)
    temporary = path.with_name(path.name + ".raw")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                tuple(example_inputs),
                str(temporary),
                input_names=list(input_names),
                output_names=list(output_names),
                dynamic_shapes=_nested(module, shapes),
                dynamo=True,
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
        model = load_model(temporary)
    except (RuntimeError, ValueError, TypeError) as error:
        raise TrainingError(f"torch cannot export {path.stem}: {str(error).strip().splitlines()[-1]}") from error
    finally:
        temporary.unlink(missing_ok=True)
    strip_debug(model)
    model = move_uint8_casts(model)
    annotate(model, size_min=SIZE_MIN, size_max=SIZE_MAX, precision="fp32")
    save_model(model, path)
    return path


def _dimensions(axes: dict[int, str]) -> dict[int, Any] | None:
    """torch.export's form of `Axes`: multiples are derived from two shared dimensions."""
    dims: dict[int, Any] = {}
    for axis, label in axes.items():
        factor, _, base = label.rpartition("*")
        dim = torch.export.Dim(base, min=SIZE_MIN // CELL, max=SIZE_MAX // CELL)
        dims[axis] = int(factor) * dim if factor else dim
    return dims or None


def _nested(module: nn.Module, shapes: tuple[Any, ...]) -> tuple[Any, ...]:
    """A ``forward(*tensors)`` takes its shapes one level deeper."""
    parameters = inspect.signature(module.forward).parameters.values()
    variadic = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    return (shapes,) if variadic else shapes


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's missing-torchvision notices out of the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def write_variants(
    source: Path,
    folder: Path,
    role: str,
    calibration: Iterable[Mapping[str, Array]] | None = None,
    keep_float: Sequence[str] = (),
) -> dict[str, Path]:
    """Derive from an fp32 export what ships: {"fp32": ROLE.onnx (weights stored in fp16), "fp16": …, "int8": …}.

    int8 is made where ``calibration`` feeds are given; ``keep_float`` are regular expressions for node names left in
    float.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = load_model(source)
    paths = {"fp32": folder / f"{role}.onnx", "fp16": folder / f"{role}.fp16.onnx"}
    save_model(store_half_weights(model), paths["fp32"])
    half = to_half(model)
    annotate(half, precision="fp16")
    save_model(half, paths["fp16"])
    if calibration is not None:
        paths["int8"] = folder / f"{role}.int8.onnx"
        quantise_int8(source, paths["int8"], calibration, keep_float)
    return paths


def quantise_int8(
    source: Path, target: Path, calibration: Iterable[Mapping[str, Array]], keep_float: Sequence[str] = ()
) -> Path:
    """Symmetric signed int8 Q/DQ, which TensorRT accepts too, calibrated on ``calibration`` feeds of real frames.

    Weights use half of their range: CPUs without VNNI add pairs of products in 16 bits, and saturate beyond it (the
    segmenter lost 7 points of IoU on AVX2).

    Raises TrainingError when nncf cannot quantise the network or there are no feeds.
    """
    feeds = [dict(feed) for feed in calibration]
    if not feeds:
        raise TrainingError("int8 needs calibration frames, and there are none")
    nncf = _import_nncf()
    model = plan_convolutions(restore_full_weights(load_model(source)))
    present = {node.op_type for node in model.graph.node}
    try:
        quantised = nncf.quantize(
            model,
            nncf.Dataset(feeds),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(feeds),
            ignored_scope=nncf.IgnoredScope(
                names=_fed_by_concat(model),
                patterns=list(keep_float),
                types=sorted(present - QUANTISED),
                validate=False,
            ),
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
        )
    except (nncf.ValidationError, nncf.InternalError, nncf.UnsupportedModelError, RuntimeError, ValueError) as error:
        raise TrainingError(f"nncf cannot quantise {source.name}: {str(error).splitlines()[0]}") from error
    quantised = plan_layouts(store_half_weights(store_int8_weights(make_signed(quantised))))
    annotate(quantised, size_min=SIZE_MIN, size_max=SIZE_MAX, precision="int8")
    save_model(quantised, target)
    return target


def _fed_by_concat(model: Any) -> list[str]:
    """Convolutions that read a concatenation stay float.

    OpenVINO 2026.4 computes them wrongly in int8 (16 dB where ONNX Runtime, from the same file, gives 50), and what is
    concatenated here, codes beside features, has ranges too different for one scale.
    """
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    return [node.name for node in model.graph.node if node.op_type == "Conv" and makers.get(node.input[0]) == "Concat"]


def _import_nncf() -> Any:
    """nncf without the usage statistics it would send: it can do without the telemetry package."""
    if "nncf" in sys.modules:
        return sys.modules["nncf"]
    telemetry = sys.modules.get("openvino_telemetry")
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import nncf
    except ImportError as error:
        if "nncf" in sys.modules:
            raise
        raise TrainingError(f"int8 needs nncf: pip install nncf ({error})") from None
    finally:
        del sys.modules["openvino_telemetry"]
        if telemetry is not None:
            sys.modules["openvino_telemetry"] = telemetry
    nncf.set_log_level(logging.ERROR)
    return nncf


def torch_outputs(module: nn.Module, feeds: Mapping[str, Array], input_names: Sequence[str]) -> list[Array]:
    """Run the module on numpy feeds, in the order of its inputs."""
    with torch.no_grad():
        results = module.eval()(*[torch.from_numpy(np.ascontiguousarray(feeds[name])) for name in input_names])
    return [value.numpy() for value in ([results] if isinstance(results, torch.Tensor) else list(results))]


def parity(
    module: nn.Module,
    engine: Engine,
    inputs: Iterable[Mapping[str, Array]],
    input_names: Sequence[str],
    output_names: Sequence[str],
    latents: Sequence[str] = ("latent",),
) -> list[Parity]:
    """Compare an engine with torch on each of ``inputs``; one result per output, over all of them."""
    pairs: dict[str, list[tuple[Array, Array]]] = {name: [] for name in output_names}
    for feeds in inputs:
        expected = torch_outputs(module, feeds, input_names)
        got = engine.run(feeds)
        for name, want in zip(output_names, expected, strict=True):
            pairs[name].append((want, got[name]))
    return [compare(name, engine, found, name in latents) for name, found in pairs.items()]
