"""The command groups ``train``, ``evaluate`` and ``engines``; each command imports what it needs when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from streamgc.errors import InputError, one_of

train = typer.Typer(help="Train networks on data of your own (needs the extra 'train').", no_args_is_help=True)
evaluate = typer.Typer(
    help="Measure rate, quality and scene against references (needs the extra 'train').", no_args_is_help=True
)
engines = typer.Typer(help="The shipped networks: list, verify, compile.", no_args_is_help=True)

Data = Annotated[Path, typer.Option(help="Folder with clips/, stills/SET/ and masks/SET/.")]
Run = Annotated[Path, typer.Option(help="Folder for caches and checkpoints; a training found there goes on.")]
Minutes = Annotated[float, typer.Option(help="How long to train.")]
Processes = Annotated[int, typer.Option(help="Processes that train together; one a core.")]
Teachers = Annotated[Path, typer.Option(help="Folder of the teacher networks.")]


MORE_COMMANDS = {
    "train": ("streamgc.training.still_commands", "streamgc.training.face_commands"),
    "evaluate": (
        "streamgc.evaluation.call_commands",
        "streamgc.evaluation.still_commands",
        "streamgc.evaluation.scene_commands",
    ),
}
"""Modules whose commands join a group. They import torch."""


SINGLE_COMMANDS = {
    "profile": "streamgc.call.profile_command",
    "compress": "streamgc.pipeline.still_commands",
    "decompress": "streamgc.pipeline.still_commands",
}
"""Commands outside of groups that are functions of these names in modules of their own."""


def mount(app: typer.Typer, words: Sequence[str]) -> None:
    """Add the groups and single commands to the command line; ``words`` are the user's: what is not asked for is not
    imported, since a call is to begin soon.

    Raises InputError when a group is asked for whose packages are not installed.
    """
    groups = {"train": train, "evaluate": evaluate, "engines": engines}
    asked = words[0] if words else ""
    here = {command.callback.__name__ for command in app.registered_commands if command.callback}
    elsewhere = asked in here or asked in groups
    for name, module in SINGLE_COMMANDS.items():
        if asked == name or not (elsewhere or asked in SINGLE_COMMANDS):
            app.command()(getattr(import_module(module), name))
    for name, group in groups.items():
        if asked == name:
            _join(group, name)
        app.add_typer(group, name=name)


def _join(group: typer.Typer, name: str) -> None:
    try:
        modules = [import_module(module) for module in MORE_COMMANDS.get(name, ())]
    except ImportError as error:
        raise InputError(f"'{name}' needs more packages ({error}): pip install 'streamgc[train]'") from None
    for module in modules:
        group.registered_commands += module.app.registered_commands


@train.command("cache")
def train_cache(
    data: Data,
    teachers: Teachers,
    run: Run = Path("runs/cache"),
) -> None:
    """Build the cache that 'train call' reads: frames, masks, coded keys, and faces where dlib is installed."""
    from streamgc.training.call_cache import add_faces, build_cache
    from streamgc.training.face_weights import face_finder
    from streamgc.training.teachers import Teachers as Networks

    find = face_finder(say=typer.echo)
    build_cache(data, run, Networks(teachers).whole_person)
    if find is not None:
        add_faces(run, find)


@train.command("call")
def train_call(
    cache: Annotated[Path, typer.Option(help="Folder that 'train cache' wrote.")] = Path("runs/cache"),
    run: Run = Path("runs/call"),
    minutes: Minutes = 60.0,
    rate: Annotated[float, typer.Option(help="Learning rate; falls as a cosine over the run.")] = 4e-4,
    perceptual: Annotated[float, typer.Option(help="Weight of the perceptual loss; 0 for a first stage.")] = 0.8,
    adversarial: Annotated[float, typer.Option(help="Weight of the adversarial loss; 0: none.")] = 0.0,
    expressions: Annotated[
        float, typer.Option(min=0, max=1, help="Share of faces whose own eyes and mouth are moved.")
    ] = 0.0,
    design: Annotated[
        str, typer.Option(help="aligned: what ships; conditional: the key as context, unmoved.")
    ] = "aligned",
    processes: Processes = 2,
    start: Annotated[Path | None, typer.Option(help="Weights to start from when the run is new.")] = None,
) -> None:
    """Train encoder, reference and generator of the call model."""
    from streamgc.training.call_model import CallRun, train_call
    from streamgc.training.call_samples import SampleSettings
    from streamgc.training.call_settings import TRAINED_BETA, CallTraining

    samples = SampleSettings(expression_share=expressions)
    training = CallTraining(minutes, design, rate, perceptual=perceptual, adversarial=adversarial, samples=samples)
    if start is not None:  # the code is used already
        training = replace(training, ramp_steps=0, beta=TRAINED_BETA)
    train_call(CallRun(cache, run, training, start), processes)


@train.command("ship-call")
def train_ship_call(
    cache: Annotated[Path, typer.Option(help="Folder that 'train cache' wrote.")] = Path("runs/cache"),
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint to ship.")] = Path("runs/call/checkpoint.pt"),
    folder: Annotated[Path, typer.Option(help="Model folder to write.")] = Path("engines/lite"),
    segments: Annotated[int, typer.Option(help="Pieces of clips that the tables are fitted on.")] = 40,
    blend: Annotated[
        Path | None, typer.Option(help="Ship the mean with these weights: those the training began from.")
    ] = None,
    blend_share: Annotated[float, typer.Option(min=0, max=1, help="Their share of that mean.")] = 0.5,
    keep_tables: Annotated[
        bool, typer.Option("--keep-tables", help="Leave the folder's tables and channel weights as they are.")
    ] = False,
) -> None:
    """Export a trained call model, fit its tables, and put it in place."""
    from streamgc.training.call_samples import Cache
    from streamgc.training.call_ship import ship_call_model
    from streamgc.training.call_tables import TableSettings

    shipped = ship_call_model(
        checkpoint, Cache(cache), folder, {}, TableSettings(segments=segments), blend, blend_share, keep_tables
    )
    typer.echo(shipped)


@train.command("ship-detail")
def train_ship_detail(
    folder: Annotated[Path, typer.Option(help="Model folder to write.")] = Path("engines/detail"),
) -> None:
    """Export the network that enlarges pictures; it has nothing to train."""
    from streamgc.runtime.parity import parity_table
    from streamgc.training.detail_ship import ship_detail

    model, results = ship_detail(folder)
    typer.echo(parity_table((model.name, row) for row in results))


@train.command("segmenter")
def train_segmenter(
    data: Data,
    teachers: Teachers,
    run: Run = Path("runs/segmenter"),
    minutes: Minutes = 35.0,
    start: Annotated[Path | None, typer.Option(help="Weights to start from when the run is new.")] = None,
    doubt: Annotated[
        Path | None, typer.Option(help="Weights that are asked, too: where they contradict a teacher, nobody knows.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Learning rate; falls as a cosine over the run.")] = 1.5e-3,
    processes: Processes = 2,
    precision: Annotated[str, typer.Option(help="fp32, bf16, or auto: what is faster here.")] = "auto",
    ship: Annotated[Path | None, typer.Option(help="Model folder to write when it is done.")] = None,
    blend: Annotated[
        Path | None, typer.Option(help="Ship the mean with these weights: those the training began from.")
    ] = None,
) -> None:
    """Train the segmenter on masks and pseudo-labels."""
    from streamgc.evaluation.scene_commands import train_command

    train_command(
        data,
        teachers,
        run,
        minutes=minutes,
        start=start,
        doubt=doubt,
        rate=rate,
        processes=processes,
        precision=precision,
        ship=ship,
        blend=blend,
    )


@train.command("room")
def train_room(
    data: Data,
    teachers: Teachers,
    run: Run = Path("runs/room"),
    ship: Annotated[Path, typer.Option(help="Model folder to write.")] = Path("engines/room"),
) -> None:
    """Fit the room model in closed form, and ship it."""
    from streamgc.training.room import RoomSettings
    from streamgc.training.room import train_room as fit
    from streamgc.training.room_ship import ship_room

    typer.echo(ship_room(fit(RoomSettings(data=data, weights=teachers, run=run)), ship, {}))


@evaluate.command("transport")
def evaluate_transport(
    json: Annotated[Path, typer.Option(help="File for the figures; runs that it has already are kept.")] = Path(
        "out/transport/transport.json"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Four networks, one seed, ten seconds.")] = False,
    codecs: Annotated[str, typer.Option(help="Comma-separated: sgc, vp8, vp8-low, h264, h264-low.")] = "",
    networks: Annotated[str, typer.Option(help="Comma-separated, for instance loss-20,cap-30; all if empty.")] = "",
    traces: Annotated[list[Path] | None, typer.Option("--trace", help="mahimahi or CSV trace to replay.")] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each combination.")] = 3,
    seconds: Annotated[float, typer.Option(help="Length of a call.")] = 60.0,
    calls: Annotated[int, typer.Option(help="Calls at the same time; each takes almost a core.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Measure only what the file lacks.")] = False,
    input: Annotated[str, typer.Option(help="Clip; the packaged one by default.")] = "",
) -> None:
    """Calls over bad networks: ours against VP8 and H.264 of aiortc, in real time, with a table and plots."""
    from streamgc.call.transport import TransportOptions, evaluate
    from streamgc.call.transport_report import write_results

    options = TransportOptions(
        input=input,
        seconds=seconds,
        seeds=seeds,
        calls=calls,
        codecs=tuple(filter(None, codecs.split(","))),
        networks=tuple(filter(None, networks.split(","))),
        traces=tuple(str(path) for path in traces or ()),
        resume=resume,
    )
    typer.echo(write_results(evaluate(options.quick() if quick else options, json, typer.echo), json))


@engines.command("list")
def engines_list() -> None:
    """What is shipped, and what would be used."""
    from streamgc.runtime.commands import engines_list as show

    show()


def _size(text: str, option: str) -> tuple[int, int]:
    """(height, width) of WxH. Raises InputError."""
    try:
        width, height = (int(side) for side in text.lower().split("x"))
    except ValueError:
        raise InputError(f"{option} {text}: write WxH, for instance 256x256") from None
    return height, width


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


@engines.command("verify")
def engines_verify(
    model: Annotated[str, typer.Argument(help="Model folder by name or path.")] = "lite",
    backend: Annotated[str, typer.Option(help="Comma-separated; all that are available by default.")] = "",
    precision: Annotated[str, typer.Option(help="Comma-separated: fp32, bf16, fp16, int8.")] = "fp32,bf16,fp16,int8",
    size: Annotated[str, typer.Option(help="Picture size, multiples of 16.", metavar="WxH")] = "256x256",
    threads: Annotated[int, typer.Option(help="Threads a network may use.")] = 1,
    input: Annotated[Path | None, typer.Option(help="Clip to take frames from; made-up pictures by default.")] = None,
    reference: Annotated[
        str, typer.Option(help="torch (needs the extra 'train'), openvino, or auto: torch where it is installed.")
    ] = "auto",
    out: Annotated[Path | None, typer.Option(help="Write the tables to this Markdown file.")] = None,
) -> None:
    """Run every network on every backend here, compare, and time it; exit code 2 where one is no longer the same."""
    from streamgc.runtime.commands import engines_verify as verify
    from streamgc.runtime.engine import PRECISIONS

    unknown = [word for word in _words(precision) if word not in PRECISIONS or word == "auto"]
    if unknown or reference not in ("auto", "torch", "openvino"):
        raise InputError(f"'{unknown[0] if unknown else reference}' is not one of what is possible; see --help")
    truth = None if reference == "openvino" else _torch_reference(model, reference == "torch")
    verify(
        model,
        backends=_words(backend) or None,
        precisions=_words(precision),  # type: ignore[arg-type]
        size=_size(size, "--size"),
        threads=threads,
        clip=input,
        reference=truth,
        against="torch fp32" if truth else "OpenVINO fp32",
        out=out,
    )


def _torch_reference(model: str, wanted: bool) -> Any:
    """`training.torch_reference.torch_results`; None, said, where it cannot be had and need not be."""
    from streamgc.errors import TrainingError
    from streamgc.runtime.store import ModelStore

    opened = ModelStore().open(model)
    try:
        from streamgc.training.torch_reference import torch_network, torch_results

        for role in opened.roles:
            torch_network(opened, role)
    except (ImportError, TrainingError) as error:
        reason = f"{error}: pip install 'streamgc[train]'" if isinstance(error, ImportError) else str(error)
        if wanted:
            raise InputError(f"torch cannot be the reference: {reason}") from None
        typer.echo(f"compared with OpenVINO in fp32, not with torch: {reason}", err=True)
        return None
    return torch_results


@engines.command("export")
def engines_export(
    model: Annotated[
        str,
        typer.Argument(
            help="Model folder by name or path; a checkpoint of 'train still'; or paper-gc, paper-sc, paper-labels, "
            "lite-gc, lite-sc, lite-labels: those networks with random weights."
        ),
    ],
    precision: Annotated[str, typer.Option(help="Comma-separated: fp16, int8.")] = "fp16,int8",
    input: Annotated[Path | None, typer.Option(help="Clip to calibrate int8 on; the packaged one by default.")] = None,
    size: Annotated[str, typer.Option(help="Size of the calibration frames.", metavar="WxH")] = "256x256",
    frames: Annotated[int, typer.Option(help="How many frames to calibrate on.")] = 48,
    out: Annotated[Path | None, typer.Option(help="Folder for a checkpoint's or random networks' model.")] = None,
    split: Annotated[bool, typer.Option("--split", help="E, receiver head, F and G apart.")] = False,
    width: Annotated[float, typer.Option(help="Width of random networks; 1 is the paper's.")] = 1.0,
) -> None:
    """Export networks in fp32, fp16 and int8, and compare each with torch (needs the extra 'train').

    Any picture size works that is a multiple of 16, from 64 to 2048 pixels a side.
    """
    try:
        from streamgc.training import export_models
    except ImportError as error:
        raise InputError(f"'export' needs more packages ({error}): pip install 'streamgc[train]'") from None
    from streamgc.call.sources import packaged_clip
    from streamgc.runtime.parity import parity_table
    from streamgc.runtime.samples import clip_pictures

    precisions, picture = _words(precision), _size(size, "--size")
    clip = input or packaged_clip()
    if model in export_models.FRESH or model.endswith(".pt"):
        if model.endswith(".pt"):
            from streamgc.training.still_ship import load_trained

            networks, name, version = load_trained(Path(model))[0], Path(model).stem, "checkpoint"
        else:
            networks, name, version = export_models.fresh_networks(model, width=width), model, "random"
        folder = out or Path("out") / name
        pictures = clip_pictures(clip, picture, frames)
        done = export_models.export_still_model(
            networks, folder, pictures, name=folder.name, precisions=precisions, split=split, version=version
        )
    else:
        if out is not None or split:
            raise InputError("--out and --split are for checkpoints and random networks; a model's files join it")
        done = export_models.export_model(model, precisions, clip=clip, size=picture, count=frames)
    typer.echo(f"{parity_table(done.parity)}\n{done.model!r} in {done.model.folder}")


@engines.command("build")
def engines_build(
    model: Annotated[str, typer.Argument(help="Model folder by name or path.")],
    backend: Annotated[str, typer.Option(help="tensorrt or tensorrt-rtx.")] = "tensorrt-rtx",
    capability: Annotated[str, typer.Option(help="Comma-separated, for instance sm86,sm89.")] = "",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp16",
    size: Annotated[
        str,
        typer.Option(
            help="That of the calls whose plans these are; or the smallest, the tuned and the largest, for plans of "
            "any size, which are slower and which no call looks for.",
            metavar="WxH[,WxH,WxH]",
        ),
    ] = "256x256",
    out: Annotated[Path | None, typer.Option(help="Folder for the plans; default: the cache.")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Print each layer's precision.")] = False,
) -> None:
    """Build TensorRT plans: .plan files of TensorRT-RTX, which needs no GPU, .engine files of TensorRT."""
    from streamgc.runtime.commands import engines_build as build
    from streamgc.runtime.plans import PlanPrecision, ShapeProfile

    chosen: PlanPrecision = one_of(precision, get_args(PlanPrecision), "--precision")
    sizes = [_size(word, "--size") for word in _words(size)]
    if len(sizes) not in (1, 3):
        raise InputError(f"--size {size}: one size, or three: smallest, tuned, largest")
    profile = ShapeProfile(*sizes) if len(sizes) == 3 else ShapeProfile.fixed(sizes[0])
    capabilities = _words(capability)
    build(model, backend=backend, capabilities=capabilities, precision=chosen, profile=profile, out=out, layers=layers)
