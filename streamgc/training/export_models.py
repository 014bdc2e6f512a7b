"""``streamgc engines export``: a model's networks in fewer bits, each compared with torch before it is entered.

`export_model` adds fp16 and int8 files to a model folder; `export_still_model` makes a whole folder of still networks
of either family, trained or with random weights, which show what builds, fits and how fast it is before anything is
trained.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from streamgc.errors import InputError, TrainingError
from streamgc.networks.still_build import build_still
from streamgc.networks.still_spec import StillNetworks, StillSpec
from streamgc.runtime.engine import Array, Precision, load_engine
from streamgc.runtime.onnx_half import simulate_half, to_half
from streamgc.runtime.onnx_passes import annotate, load_model, restore_full_weights, save_model
from streamgc.runtime.parity import Parity, compare, require
from streamgc.runtime.samples import Feeds, chained_feeds, clip_pictures
from streamgc.runtime.store import MANIFEST, NOT_HALF, Model, ModelStore, add_variants, write_model_json
from streamgc.training.export import quantise_int8, torch_outputs, write_variants
from streamgc.training.still_export import StillNetwork, description_of, export_full, still_networks
from streamgc.training.torch_reference import torch_network

log = logging.getLogger(__name__)

FRESH = {f"{family}-{task}": (family, task) for family in ("paper", "lite") for task in ("gc", "sc", "labels")}
"""Names of still networks with random weights."""
ENGINES: tuple[tuple[str, str, Precision], ...] = (
    ("fp32", "openvino", "fp32"),
    ("fp32", "onnxruntime", "fp32"),
    ("int8", "openvino", "int8"),
    ("int8", "onnxruntime", "int8"),
)
"""What is compared with torch: (file, backend, precision)."""
PARITY_FEEDS = 2

Reference = Callable[[Feeds], dict[str, Array]]


@dataclasses.dataclass(frozen=True)
class Exported:
    """A model folder and how far each of its networks is from torch, by role."""

    model: Model
    parity: tuple[tuple[str, Parity], ...]


def export_model(
    name: str,
    precisions: Sequence[str] = ("fp16", "int8"),
    *,
    clip: Path | None = None,
    size: tuple[int, int] = (256, 256),
    count: int = 48,
    keep_float: Sequence[str] = (),
    store: ModelStore | None = None,
    roles: Sequence[str] | None = None,
) -> Exported:
    """Derive fp16 and int8 files of a model's networks and enter them in ``model.json``.

    int8 is calibrated on ``count`` frames of ``clip``; each file is compared with torch on some of them, under a
    temporary name, and put in place only within the limits. Raises ModelError for an unknown model, TrainingError
    without frames, EngineError where a network is no longer the same.
    """
    _check_precisions(precisions)
    model = (store or ModelStore()).open(name)
    if clip is None:
        raise TrainingError("int8 is calibrated on real frames, and parity measured on them: name a clip")
    feeds = chained_feeds(model, clip_pictures(clip, size, count))
    variants: dict[str, dict[str, str]] = {}
    results: list[tuple[str, Parity]] = []
    with tempfile.TemporaryDirectory(dir=model.folder.parent) as scratch:
        for role in roles or [role for role in model.roles if role not in NOT_HALF]:
            made = _derive(model.network(role), Path(scratch), role, precisions, feeds[role], keep_float)
            rows = _compare(_truth(model, role, size), made, model.network(role), feeds[role][-PARITY_FEEDS:], size)
            results += [(role, row) for row in rows]
            variants[role] = {kind: path.name for kind, path in made.items()}
        require(row for _, row in results)
        for file in (file for files in variants.values() for file in files.values()):
            os.replace(Path(scratch) / file, model.folder / file)
    return Exported(add_variants(model, variants), tuple(results))


def _truth(model: Model, role: str, size: tuple[int, int]) -> Reference:
    """Torch; OpenVINO in fp32 where the file is of an earlier version of the networks."""
    try:
        return torch_network(model, role).run
    except TrainingError as error:
        log.warning("compared with OpenVINO in fp32, not with torch: %s", error)
    engine = model.load(role, backend="openvino", precision="fp32", size=size)
    return engine.run


def _check_precisions(precisions: Sequence[str]) -> None:
    for precision in precisions:
        if precision not in ("fp16", "int8"):
            raise TrainingError(f"a network is exported as fp16 or int8, not as {precision!r}")


def _derive(
    source: Path,
    folder: Path,
    role: str,
    precisions: Sequence[str],
    feeds: Sequence[Feeds],
    keep_float: Sequence[str],
) -> dict[str, Path]:
    """The fp16 and int8 files of one shipped network."""
    made = {precision: folder / f"{role}.{precision}.onnx" for precision in precisions}
    if "fp16" in made:
        half = to_half(restore_full_weights(load_model(source)))
        annotate(half, precision="fp16")
        save_model(half, made["fp16"])
    if "int8" in made:
        quantise_int8(source, made["int8"], feeds, keep_float)
    return made


def fresh_networks(name: str, *, width: float = 1.0, channels: int = 8, classes: int = 13) -> StillNetworks:
    """Networks of `FRESH` with random weights, the same ones each time. Raises InputError for another name or size."""
    if name not in FRESH:
        raise InputError(f"no networks named {name!r}; there are: {', '.join(FRESH)}")
    family, task = FRESH[name]
    torch.manual_seed(0)
    try:
        spec = StillSpec(family, task, channels, 0 if task == "gc" else classes, width)  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(str(error)) from None
    return build_still(spec).eval()


def export_still_model(
    networks: StillNetworks,
    folder: Path,
    pictures: Sequence[Array],
    *,
    name: str,
    precisions: Sequence[str] = ("fp16", "int8"),
    split: bool = False,
    version: str = "1",
) -> Exported:
    """Export a model's networks into ``folder``, compare each with torch on each engine here, and describe them.

    ``pictures`` are uint8 (H, W, 3) of one size: int8 is calibrated on them, and parity measured on the last ones.
    ``split``: the paper's receiver head, F and G apart. The folder holds no context tables: it is for engines, not for
    coding. Raises TrainingError, or EngineError where a network is no longer the same; nothing is left in ``folder``
    then.
    """
    _check_precisions(precisions)
    folder.parent.mkdir(parents=True, exist_ok=True)
    parts = still_networks(networks, split)
    size = (pictures[0].shape[0], pictures[0].shape[1])
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        raw, staged = Path(scratch) / "raw", Path(scratch) / name
        for role, part in parts.items():
            export_full(part, networks.spec, raw / f"{role}.onnx")
        files = {role: f"{role}.onnx" for role in parts}
        full = write_model_json(raw, name=name, family="still", version=version, networks=files)
        feeds = chained_feeds(full, pictures)
        variants: dict[str, dict[str, str]] = {}
        results: list[tuple[str, Parity]] = []
        for role, part in parts.items():
            source = full.network(role)
            made = write_variants(source, staged, role, feeds[role] if "int8" in precisions else None)
            if "fp16" not in precisions:
                made.pop("fp16").unlink()
            rows = _compare(_reference(part), made, source, feeds[role][-PARITY_FEEDS:], size)
            results += [(role, row) for row in rows]
            variants[role] = {kind: path.name for kind, path in made.items() if kind != "fp32"}
        require(row for _, row in results)
        described = {"still": description_of(networks.spec)}
        write_model_json(
            staged,
            name=name,
            family="still",
            version=version,
            networks=files,
            variants=variants,
            channels=() if networks.spec.task == "labels" else (networks.spec.channels,),
            extra=described,
        )
        folder.mkdir(exist_ok=True)
        for path in sorted(staged.iterdir(), key=lambda path: path.name == MANIFEST):  # the manifest last
            os.replace(path, folder / path.name)
    return Exported(ModelStore(folder.parent).open(folder), tuple(results))


def require_same(networks: StillNetworks, model: Model, pictures: Sequence[Array]) -> None:
    """Raises EngineError where a still model's fp32 networks are not those of torch on each engine here; ``pictures``
    u8 (H, W, 3) of one size."""
    size = (pictures[0].shape[0], pictures[0].shape[1])
    feeds = chained_feeds(model, pictures)
    for role, part in still_networks(networks).items():
        file = model.network(role)
        require(_compare(_reference(part), {"fp32": file}, file, feeds[role], size))


def _reference(part: StillNetwork) -> Reference:
    return lambda feed: {part.output: torch_outputs(part.module, feed, part.inputs)[0]}


def _compare(
    reference: Reference, made: Mapping[str, Path], source: Path, feeds: Sequence[Feeds], size: tuple[int, int]
) -> list[Parity]:
    """One network's files against torch on each engine here.

    fp16 has no device here: its rounding is simulated, and ONNX Runtime computes it.
    """
    wanted = [reference(feed) for feed in feeds]
    rows: list[Parity] = []
    for variant, backend, precision in ENGINES:
        if variant in made:
            rows += _rows(made[variant], backend, precision, feeds, wanted, size)
    if "fp16" in made:
        simulated = made["fp16"].with_suffix(".simulated")
        save_model(simulate_half(restore_full_weights(load_model(source))), simulated)
        found = _rows(simulated, "onnxruntime", "fp32", feeds, wanted, size)
        rows += [dataclasses.replace(row, backend="simulated", precision="fp16") for row in found]
        simulated.unlink()
    return rows


def _rows(
    path: Path,
    backend: str,
    precision: Precision,
    feeds: Sequence[Feeds],
    wanted: Sequence[Mapping[str, Array]],
    size: tuple[int, int],
) -> list[Parity]:
    with load_engine(path, backend=backend, precision=precision, size=size) as engine:
        got = [engine.run(feed) for feed in feeds]
        return [
            compare(name, engine, [(w[name], g[name]) for w, g in zip(wanted, got, strict=True)], name == "latent")
            for name in engine.outputs
        ]
