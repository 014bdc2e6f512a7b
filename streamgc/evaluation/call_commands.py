"""`streamgc evaluate call`, `decoded`, `newcomer`, `expressions` and `precision`: what the command line runs."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated, Literal, get_args

import torch
import typer

from streamgc.errors import InputError, one_of
from streamgc.evaluation import call, known_moves, newcomers
from streamgc.evaluation.clips import load_clip
from streamgc.evaluation.faces import FaceFinder
from streamgc.evaluation.metrics import Trunk
from streamgc.evaluation.person import PersonMask
from streamgc.evaluation.precision import PrecisionStudy, mean_cost
from streamgc.evaluation.scores import Scorer

app = typer.Typer(help="Evaluate calls.", no_args_is_help=True)
Coarse = Literal["int8", "bf16", "fp16"]
COARSE: tuple[Coarse, ...] = get_args(Coarse)


def rates_of(text: str) -> tuple[float, ...]:
    """Rates in kbit/s, above 0, from a comma-separated list; raises InputError."""
    try:
        rates = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--rates {text}: numbers with commas between them, for instance 3,5.5") from None
    if any(not 0 < rate < 1e6 for rate in rates):
        raise InputError(f"--rates {text}: kbit/s above 0")
    return rates


@app.command("call")
def evaluate_call(
    clips: Annotated[list[Path], typer.Argument(help="Video files.")],
    selfie: Annotated[Path, typer.Option(help="selfie_segmentation.tflite: says where the person is.")],
    codecs: Annotated[str, typer.Option(help="Comma-separated: sgc, svtav1, vp9, x265, x264, vp8.")] = "sgc",
    rates: Annotated[str, typer.Option(help="Payload rates in kbit/s, comma-separated.")] = "3,5,7,10",
    json: Annotated[Path | None, typer.Option(help="Write the result to this file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for CSV, plots, videos and a contact sheet.")] = None,
    anchors: Annotated[Path | None, typer.Option(help="Cache of AV1's measurements.")] = None,
    size: Annotated[int, typer.Option(min=16, help="Side of the square picture.")] = 256,
    fine: Annotated[bool, typer.Option(help="sgc codes pictures of half that size, with keys as large.")] = False,
    fps: Annotated[int, typer.Option(min=1, help="Pictures a second.")] = 15,
    model: Annotated[str, typer.Option(help="Call model of sgc: a name or a folder.")] = "lite",
    ack_delay: Annotated[float, typer.Option(help="Milliseconds until a frame is acknowledged.")] = 130.0,
    trunks: Annotated[str, typer.Option(help="ST-LPIPS trunks: alex (the verdict), vgg.")] = "alex,vgg",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads for the scores.")] = 1,
) -> None:
    """Rate and quality against conventional codecs, and R: AV1's payload at our score over ours."""
    if "alex" not in trunks.split(","):
        raise InputError(f"--trunks {trunks}: R is made of alex")
    torch.set_num_threads(threads)
    result = call.evaluate_call(
        clips,
        selfie,
        tuple(codecs.split(",")),
        rates_of(rates),
        size,
        fps,
        ack_delay,
        anchors=anchors,
        trunks=[one_of(name, get_args(Trunk), "--trunks") for name in trunks.split(",")],
        json_path=json,
        out=out,
        codec=call.our_codec(fine, model),
        fine=fine,
        say=typer.echo,
    )
    if not result.rows:
        raise InputError("nothing could be measured")
    typer.echo(f"R {result.r['geomean']}  by rate {result.r['by_rate']}")


@app.command("decoded")
def evaluate_decoded(
    clip: Annotated[Path, typer.Argument(help="The original video.")],
    decoded: Annotated[Path, typer.Argument(help="What a codec made of it: a video, or a folder of PNG files.")],
    selfie: Annotated[Path, typer.Option(help="selfie_segmentation.tflite: says where the person is.")],
    sizes: Annotated[Path | None, typer.Option(help="Text file: bytes of each picture's message, one a line.")] = None,
    anchors: Annotated[Path | None, typer.Option(help="AV1's measurements, from 'evaluate call': gives R.")] = None,
    size: Annotated[int, typer.Option(min=16, help="Side of the square picture.")] = 256,
    fps: Annotated[int, typer.Option(min=1, help="Pictures a second.")] = 15,
    trunks: Annotated[str, typer.Option(help="ST-LPIPS trunks: alex (the verdict), vgg.")] = "alex,vgg",
) -> None:
    """The scores of 'evaluate call', but for faces, of pictures that any codec has decoded, as JSON."""
    if anchors is not None and sizes is None:
        raise InputError("--anchors needs --sizes: R is a ratio of rates")
    if anchors is not None and not anchors.is_file():
        raise InputError(f"--anchors {anchors}: no such file")
    wanted = [one_of(name, get_args(Trunk), "--trunks") for name in trunks.split(",")]
    row = call.evaluate_frames(clip, decoded, selfie, sizes, size, fps, anchors=anchors, trunks=wanted)
    typer.echo(dumps(row, indent=2))


@app.command("newcomer")
def evaluate_newcomer(
    clips: Annotated[list[Path], typer.Argument(help="Video files, each of one person.")],
    rates: Annotated[str, typer.Option(help="Payload rates in kbit/s, comma-separated.")] = "3,5,10",
    at: Annotated[float, typer.Option(help="Seconds from the beginning until something comes in.")] = 6.0,
    second: Annotated[Path | None, typer.Option(help="A clip whose person comes in, besides a drawn cup.")] = None,
    selfie: Annotated[Path | None, typer.Option(help="selfie_segmentation.tflite, with --second.")] = None,
    picture: Annotated[Path | None, typer.Option(help="PNG file: what was sent above what was shown.")] = None,
) -> None:
    """How soon a call shows a cup, or a second person, that comes into the picture."""
    asked = rates_of(rates)
    if second is not None and selfie is None:
        raise InputError("--second needs --selfie, which says where its person is")
    if picture is not None and not picture.absolute().parent.is_dir():
        raise InputError(f"--picture {picture}: there is no such folder")
    mask, codec, strips = PersonMask(selfie) if selfie else None, call.our_codec(), []
    for path in clips:
        clip = load_clip(path)
        cases = [newcomers.with_cup(clip, at)]
        if second is not None and mask is not None:
            cases.append(newcomers.with_person(clip, load_clip(second), mask, at))
        for case in cases:
            for rate in asked:
                arrival, shown = newcomers.judge(case, codec, clip.fps, rate)
                typer.echo(arrival)
                strips.append(newcomers.strip(case, shown, clip.fps))
    if picture is not None:
        newcomers.write_picture(picture, strips)


@app.command("expressions")
def evaluate_expressions(
    clips: Annotated[list[Path], typer.Argument(help="Video files, each of a face that is seen from the front.")],
    rates: Annotated[str, typer.Option(help="Payload rates in kbit/s, comma-separated.")] = "3,5",
    model: Annotated[str, typer.Option(help="Call model: a name or a folder.")] = "lite",
    picture: Annotated[Path | None, typer.Option(help="PNG file: what was sent above what was shown.")] = None,
) -> None:
    """Whether eyes and mouth go where the sender's go: a clip's face, moved by known amounts."""
    asked = rates_of(rates)
    if picture is not None and not picture.absolute().parent.is_dir():
        raise InputError(f"--picture {picture}: there is no such folder")
    finder, codec, strips = FaceFinder(), call.our_codec(model=model), []
    for path in clips:
        clip = load_clip(path)
        try:
            made = known_moves.with_moves(clip, finder)
        except InputError as error:
            typer.echo(f"left out: {error}", err=True)
            continue
        for rate in asked:
            found, shown = known_moves.judge_moves(made, finder, codec, clip.fps, rate)
            typer.echo(found)
            strips.append(known_moves.strip_of(made, shown, clip.fps))
    if not strips:
        raise InputError("nothing could be measured")
    if picture is not None:
        newcomers.write_picture(picture, strips)


@app.command("precision")
def evaluate_precision(
    clips: Annotated[list[Path], typer.Argument(help="Video files.")],
    selfie: Annotated[Path, typer.Option(help="selfie_segmentation.tflite: says where the person is.")],
    rates: Annotated[str, typer.Option(help="Payload rates in kbit/s, comma-separated.")] = "5",
    precision: Annotated[str, typer.Option(help="int8, bf16 or fp16: what is compared with fp32.")] = "int8",
    backend: Annotated[str, typer.Option(help="Engine that runs the networks.")] = "auto",
) -> None:
    """What networks of fewer bits cost a call, picture by picture, from the same keys and references."""
    asked = rates_of(rates)
    study = PrecisionStudy(Scorer(selfie, ("alex",)), "fp32", one_of(precision, COARSE, "--precision"), backend)
    loaded = [load_clip(path) for path in clips]
    for rate in asked:
        costs = []
        for clip in loaded:
            costs.append(study.cost(clip, rate))
            typer.echo(f"{rate:g} kbit/s, {costs[-1]}")
        typer.echo(f"{rate:g} kbit/s, {mean_cost(costs)}")
