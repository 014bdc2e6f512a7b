"""``streamgc evaluate rd|miou|contours|selective|sample|pictures|study``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer
from aiohttp import web
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from streamgc.errors import InputError, one_of
from streamgc.evaluation.contours import evaluate_contours
from streamgc.evaluation.miou import Classes, Truth, evaluate_miou
from streamgc.evaluation.rd import evaluate_rd, images_in
from streamgc.evaluation.sampling import SamplingSettings, evaluate_sampling
from streamgc.evaluation.selective import evaluate_selective
from streamgc.evaluation.still_pictures import write_pictures
from streamgc.evaluation.still_report import Row, write_json
from streamgc.evaluation.study import Study, VoteBook, as_dict, pairs_in, preference, study_of
from streamgc.pipeline.stills import open_still_codec, read_picture

app = typer.Typer(help="Evaluate still-image models.", no_args_is_help=True)

RD_PARTS = {
    "means": "Means over the images; rates are of whole files",
    "equal_rate": "ST-LPIPS (AlexNet, less is better) of the first model and of the others at equal rate",
    "bits_needed": "Times the first model's bits that the others need for its ST-LPIPS",
    "savings": "What the symbols cost",
}

Json = Annotated[Path | None, typer.Option("--json", help="Write the result as JSON.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for CSV, plot and pictures.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many images.")]
Models = Annotated[list[str] | None, typer.Option("--model", help="Model name or folder; several times.")]
Rivals = Annotated[
    str,
    typer.Option(help="Codecs, comma-separated: hevc, hevc/2 (half size), webp, jpeg2000, avif, jpeg."),
]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _shown(value: object) -> str:
    return "–" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _console() -> Console:
    """Where there is no terminal, a line as wide as the tables are."""
    found = Console()
    return found if found.is_terminal else Console(width=160)


def _table(rows: list[Row]) -> Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*names, box=SIMPLE, pad_edge=False)
    for row in rows:
        table.add_row(*[_shown(row.get(name)) for name in names])
    return table


@app.command("rd")
def rate_distortion(
    images: Annotated[list[Path], typer.Argument(help="Folders of images, or images.")],
    model: Models = None,
    rivals: Rivals = "hevc,webp,jpeg2000,avif",
    out: Out = None,
    json_file: Json = None,
    vgg: Annotated[bool, typer.Option(help="ST-LPIPS with the VGG trunk too.")] = False,
    limit: Limit = None,
    qualities: Annotated[int | None, typer.Option(help="So many of each rival's qualities, coarsest first.")] = None,
) -> None:
    """Bits per pixel against PSNR, MS-SSIM and ST-LPIPS: the first model against others and conventional codecs."""
    console = _console()
    found = evaluate_rd(
        images,
        models=model or ["still"],
        rivals=_names(rivals),
        out=out,
        json_file=json_file,
        vgg=vgg,
        limit=limit,
        qualities=qualities,
        note=console.print,
    )
    for part, title in RD_PARTS.items():
        if found[part]:
            console.print(f"\n{title}", _table(found[part]))


@app.command("miou")
def mean_iou(
    data: Annotated[Path, typer.Argument(help="Folder with images/ and labels/.")],
    network: Annotated[Path, typer.Option(help="Segmentation network, ONNX.")],
    model: Models = None,
    rivals: Rivals = "hevc",
    truth: Annotated[str, typer.Option(help="labels, or network: what it says of the originals.")] = "labels",
    classes: Annotated[
        str, typer.Option(help="same, or cityscapes: labels are its 34 ids, the network knows the 19 that are trained.")
    ] = "same",
    output: Annotated[str, typer.Option(help="The network's output, where it has several.")] = "",
    out: Out = None,
    json_file: Json = None,
    limit: Limit = None,
) -> None:
    """mIoU of a segmentation network on decoded pictures, against bits per pixel."""
    chosen = one_of(truth, get_args(Truth), "--truth")
    known = one_of(classes, get_args(Classes), "--classes")
    console = _console()
    found = evaluate_miou(
        data,
        network,
        models=model or ["still"],
        rivals=_names(rivals),
        truth=chosen,
        classes=known,
        output=output,
        out=out,
        json_file=json_file,
        limit=limit,
        note=console.print,
    )
    console.print(_table(found["rows"]))


@app.command("contours")
def contours(
    maps: Annotated[list[Path], typer.Argument(help="Folders of label maps, PNG class ids.")],
    tolerance: Annotated[float, typer.Option(help="How far a contour may be moved, in steps of the grid.")] = 0.75,
    steps: Annotated[int, typer.Option(help="Steps of the grid along the longer side.")] = 1024,
    out: Out = None,
    json_file: Json = None,
    limit: Limit = None,
) -> None:
    """Label maps as vector graphics: bits per pixel at 1024×512, mIoU, and the same scene at twice the size."""
    found = evaluate_contours(maps, steps=steps, tolerance=tolerance, out=out, json_file=json_file, limit=limit)
    _console().print(_table([{name: value for name, value in found.items() if name != "rows"}]))


@app.command("selective")
def selective(
    data: Annotated[Path, typer.Argument(help="Folder with images/ and labels/.")],
    model: Annotated[str, typer.Option(help="An SC model.")],
    classes: Annotated[str, typer.Option(help="Class ids to synthesise, comma-separated; default: each in turn.")] = "",
    channels: Annotated[int | None, typer.Option(help="Channels of the code.")] = None,
    out: Out = None,
    json_file: Json = None,
    limit: Limit = None,
) -> None:
    """What synthesising classes saves, and what it does to the rest."""
    try:
        ids = [int(name) for name in _names(classes)] or None
    except ValueError:
        raise InputError(f"--classes must be numbers: {classes}") from None
    console = _console()
    found = evaluate_selective(
        data, model, classes=ids, channels=channels, out=out, json_file=json_file, limit=limit, note=console.print
    )
    console.print(_table(found["classes"]))


@app.command("sample")
def sample(
    images: Annotated[list[Path], typer.Argument(help="Folders of images whose codes are learnt.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the grids.")],
    model: Annotated[str, typer.Option(help="A GC model.")] = "still",
    steps: Annotated[int, typer.Option(help="Steps of the WGAN-GP.")] = 4000,
    width: Annotated[int, typer.Option(help="Channels of its layers: half of them take a quarter of the time.")] = 128,
    batch: Annotated[int, typer.Option(help="Codes in each of its batches.")] = 32,
    channels: Annotated[int | None, typer.Option(help="Channels of the code; default: all the model has.")] = None,
    limit: Limit = None,
    json_file: Json = None,
) -> None:
    """Decode codes that nobody coded: uniform ones, and those of a WGAN-GP trained on real codes."""
    console = _console()
    codec = open_still_codec(model)

    def note(step: int, value: float) -> None:
        if step % 100 == 0:
            console.print(f"step {step}: {value:.3f}")

    try:
        shown = [read_picture(path) for path in images_in(images, limit)]
        chosen = SamplingSettings(steps=steps, width=width, batch=batch)
        shares = evaluate_sampling(codec, shown, out, channels=channels, settings=chosen, note=note)
    finally:
        codec.close()
    rows: list[Row] = [
        {"codes": name, **{str(value): float(share) for value, share in zip(range(-2, 3), part, strict=True)}}
        for name, part in zip(("uniform", "wgan", "real"), shares, strict=True)
    ]
    console.print(_table(rows))
    if json_file is not None:
        write_json(json_file, {"images": len(shown), "symbols": rows})


@app.command("pictures")
def pictures(
    images: Annotated[list[Path], typer.Argument(help="Folders of images, or images.")],
    by: Annotated[str, typer.Option(help="A model's name or folder, or a conventional codec's name.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the decoded pictures.")],
    quality: Annotated[float | None, typer.Option(help="The model's channels, or the codec's quality.")] = None,
    limit: Limit = None,
) -> None:
    """Pictures as a codec shows them, as PNG: for a study, or another judge."""
    rate = write_pictures(images, by, quality, out, limit=limit)
    Console().print(f"{out}: {by}, {rate:.4f} bits per pixel on average")


@app.command("study")
def study(
    originals: Annotated[Path, typer.Argument(help="Folder of originals.")],
    ours: Annotated[Path, typer.Option(help="Folder of our pictures, of the same names.")],
    theirs: Annotated[Path, typer.Option(help="Folder of the other codec's.")],
    book: Annotated[Path, typer.Option(help="SQLite file the votes are kept in.")] = Path("study.sqlite"),
    port: Annotated[int, typer.Option(help="Port of the page, on this machine only.")] = 8099,
    result: Annotated[bool, typer.Option("--result", help="Only print what the votes say.")] = False,
    json_file: Json = None,
) -> None:
    """The paper's pairwise study: serve its page, or print preference ± standard error."""
    pairs = pairs_in(originals, ours, theirs)
    votes = VoteBook(book, study_of(pairs))
    if result:
        found = preference(votes.votes())
        Console().print(
            f"{100 * found.mean:.1f} ± {100 * found.error:.1f} % prefer ours "
            f"({found.raters} raters, {found.dropped} dropped by a probe, {found.unproven} left before one)"
        )
        if json_file is not None:
            write_json(json_file, as_dict(found))
        return
    server = Study(pairs, votes)
    web.run_app(server.application(), host="127.0.0.1", port=port)
