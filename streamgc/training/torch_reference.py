"""The torch network behind an exported one: the reference of `streamgc engines verify`.

The weights are read back from the ONNX file, where the exporter keeps their names, so that what is compared is what
ships. Batch norms that the exporter folded into a convolution are left out here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from streamgc.errors import TrainingError
from streamgc.networks.still_build import build_still
from streamgc.networks.still_spec import StillSpec
from streamgc.pipeline.faces import LOCATOR, PAINTER, READER
from streamgc.runtime.engine import Array
from streamgc.runtime.onnx_header import read_header
from streamgc.runtime.onnx_passes import FLOAT, HALF, import_onnx, load_model
from streamgc.runtime.store import Model
from streamgc.training.export import torch_outputs
from streamgc.training.still_export import still_networks


class TorchNetwork(NamedTuple):
    """A module with the weights of an ONNX file, and the names of what it takes and gives, in order."""

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name, computed by torch in fp32."""
        return dict(zip(self.outputs, torch_outputs(self.module, feeds, self.inputs), strict=True))


def torch_network(model: Model, role: str) -> TorchNetwork:
    """The torch network of a model's role. Raises TrainingError where the file is not of this streamgc's networks."""
    path = model.network(role)
    module = _architecture(model, role)
    load_weights(module, path)
    header = read_header(path)
    inputs, outputs = (tuple(tensor.name for tensor in side) for side in (header.inputs, header.outputs))
    return TorchNetwork(module.eval(), inputs, outputs)


def torch_results(model: Model, role: str, feeds: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    """What torch gives for each feed; the reference for `runtime.commands.engines_verify`. Raises TrainingError."""
    network = torch_network(model, role)
    return [network.run(feed) for feed in feeds]


def _architecture(model: Model, role: str) -> nn.Module:
    """Fresh networks of the model's family, as they are shipped."""
    if model.family == "lite":
        from streamgc.networks.face import FaceEncoder, FaceLocator, FacePainter
        from streamgc.networks.face_export import ShippedLocator, ShippedPainter, ShippedReader
        from streamgc.networks.lite import Encoder, Generator, Reference
        from streamgc.networks.lite_export import ShippedEncoder, ShippedGenerator, ShippedReference

        made: dict[str, Any] = {
            "encoder": lambda: ShippedEncoder(Encoder()),
            "reference": lambda: ShippedReference(Reference()),
            "generator": lambda: ShippedGenerator(Generator()),
            LOCATOR: lambda: ShippedLocator(FaceLocator()),
            READER: lambda: ShippedReader(FaceEncoder()),
            PAINTER: lambda: ShippedPainter(FacePainter(FaceEncoder())),
        }
        if role in made:
            module: nn.Module = made[role]()
            return module
    elif model.family == "segmenter":
        from streamgc.networks.segmenter import Segmenter, SegmenterGraph

        return SegmenterGraph(Segmenter())
    elif model.family == "detail":
        from streamgc.networks.detail import Detail

        return Detail()
    elif model.family == "room":
        from streamgc.networks.room import RoomGenerator, ShippedRoom

        return ShippedRoom(RoomGenerator())
    elif model.family == "still":
        networks = build_still(spec_of(model))
        if {"features", "receiver"} & set(model.roles):
            return still_networks(networks, split=True)[role].module
        return still_networks(networks)[role].module
    raise TrainingError(f"no torch network is known for {role!r} of family {model.family!r}")


def spec_of(model: Model) -> StillSpec:
    """The sizes of a still model's networks. Raises TrainingError where ``model.json`` does not say them."""
    found = model.extra("still")
    if not isinstance(found, dict):
        raise TrainingError(f"model {model.name!r} does not say what its networks are")
    sizes = {key: found[key] for key in ("task", "channels", "classes", "width", "noise", "blocks") if key in found}
    try:
        return StillSpec(found["networks"], **sizes)
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"model {model.name!r} does not say what its networks are: {error}") from None


def stored_weights(path: Path) -> dict[str, Array]:
    """The float constants of an ONNX file by the names they had in torch, as fp32.

    A bias that the exporter left out as zero, folded from a norm, or shares with another layer, is found through the
    convolution that reads it.
    """
    to_array = import_onnx().numpy_helper.to_array
    graph = load_model(path).graph
    constants = {
        tensor.name.removesuffix("_half"): np.array(to_array(tensor), np.float32)
        for tensor in graph.initializer
        if tensor.data_type in (FLOAT, HALF)
    }
    for node in (n for n in graph.node if n.op_type in ("Conv", "ConvTranspose") and n.input[1] in constants):
        weight = constants[node.input[1]]
        outputs = weight.shape[0 if node.op_type == "Conv" else 1]
        bias = constants.get(node.input[2]) if len(node.input) > 2 else np.zeros(outputs, np.float32)
        if bias is not None:
            constants.setdefault(f"{node.input[1].removesuffix('weight')}bias", bias)
    _name_shared_norms(graph, constants)
    return constants


def _name_shared_norms(graph: Any, constants: dict[str, Array]) -> None:
    """Instance norms of equal weights – fresh ones – share a constant; each follows its convolution in a Sequential."""
    makers = {name: node for node in graph.node for name in node.output}
    for norm in (node for node in graph.node if node.op_type == "InstanceNormalization"):
        before = makers.get(norm.input[0])
        parent, _, index = (
            before.input[1].removesuffix(".weight").rpartition(".") if before is not None else ("", "", "")
        )
        if index.isdigit():
            for name, given in (("weight", norm.input[1]), ("bias", norm.input[2])):
                if given in constants:
                    constants.setdefault(f"{parent}.{int(index) + 1}.{name}", constants[given])


def load_weights(module: nn.Module, path: Path) -> None:
    """Set a module's parameters and buffers from an ONNX file. Raises TrainingError where one is not there or has
    another shape.
    """
    stored = stored_weights(path)
    _drop_folded_norms(module, stored)
    kept = module.state_dict().keys()  # without the buffers that are constants of the code
    wanted = dict(module.named_parameters()) | {
        name: buffer for name, buffer in module.named_buffers() if buffer.is_floating_point() and name in kept
    }
    unused: list[str] = []
    with torch.no_grad():
        for name, tensor in wanted.items():
            values = stored.get(name)
            if values is None or values.size != tensor.numel():
                unused.append(name)
            else:
                tensor.copy_(torch.from_numpy(values).reshape(tensor.shape))
    lacking = [name for name in unused if not _is_unread(name, module)]
    if lacking:
        raise TrainingError(f"{path} is of other networks than this streamgc's: it has no {lacking[0]}")


def _drop_folded_norms(module: nn.Module, stored: Mapping[str, Array]) -> None:
    """A batch norm whose weights are not in the file has become part of the convolution before it, bias and all."""
    for parent_name, parent in list(module.named_modules()):
        for name, child in list(parent.named_children()):
            full = f"{parent_name}.{name}".lstrip(".")
            if isinstance(child, nn.BatchNorm2d) and f"{full}.weight" not in stored:
                setattr(parent, name, nn.Identity())
            elif isinstance(child, nn.Conv2d) and child.bias is None and np.any(stored.get(f"{full}.bias", 0)):
                child.bias = nn.Parameter(torch.zeros(child.out_channels))


def _is_unread(name: str, module: nn.Module) -> bool:
    """Networks of the roles that this one is not: a still encoder's module holds its generator as well."""
    role = type(module).__name__
    inside = name.removeprefix("networks.")
    if role == "ShippedStillEncoder":
        return not inside.startswith("encoder.")
    if role == "ShippedStillGenerator":
        return inside.startswith("encoder.")
    if role in ("ShippedSynthesis", "ShippedLiteSynthesis"):
        return inside.startswith(("encoder.", "features.", "generator.features.", "generator.receive."))
    if role == "ShippedReceiver":
        return not inside.startswith("generator.receive.")
    if role == "ShippedFeatures":
        return not inside.startswith(("features.", "generator.features."))
    return False
