"""``streamgc compress`` and ``streamgc decompress``: image files to .sgc files and back."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Annotated, cast, get_args

import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from streamgc.codec.still_planes import Method
from streamgc.codec.torchac_planes import Coder
from streamgc.errors import InputError
from streamgc.pipeline.stills import DEFAULT_MODEL, Compressed, codec_for, open_still_codec, read_picture

Files = Annotated[list[Path], typer.Argument(help="Files to work on.")]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="File, or folder for several; default: beside the input.")
]
CoderName = Annotated[
    str, typer.Option("--coder", help="Who codes the symbols, to the same bytes: auto, own or torchac (compiles once).")
]
Backend = Annotated[str, typer.Option(help="auto, openvino, onnxruntime, …")]


def compress(
    files: Files,
    out: Out = None,
    channels: Annotated[int | None, typer.Option(help="Channels of the code; default: all the model has.")] = None,
    keep: Annotated[Path | None, typer.Option(help="SC: mask image, white = preserve, black = synthesise.")] = None,
    labels: Annotated[Path | None, typer.Option(help="SC: label map, a PNG of class ids.")] = None,
    tolerance: Annotated[
        float, typer.Option(help="SC: how far a contour may move, in 1/1024 of the long side.")
    ] = 0.75,
    static: Annotated[
        bool, typer.Option("--static", help="The paper's static frequencies, no context tables.")
    ] = False,
    model: Annotated[str, typer.Option(help="A model's name, or its folder.")] = DEFAULT_MODEL,
    backend: Backend = "auto",
    coder: CoderName = "auto",
) -> None:
    """Compress pictures to .sgc files; prints bits per pixel, the bound of eq. 3, and both savings."""
    chosen = _coder(coder)
    codec = open_still_codec(model, backend=backend)
    method: Method = "static" if static else "contexts"
    rows: list[tuple[Path, Compressed]] = []
    try:
        for path, target in zip(files, targets(files, out, ".sgc"), strict=True):
            picture = read_picture(path)
            kept = None if keep is None else read_picture(keep).max(-1) > 127
            map_ = None if labels is None else _read_ids(labels)
            made = codec.compress(
                picture,
                channels=channels,
                kept=kept,
                labels=map_,
                method=method,
                coder=chosen,
                tolerance=tolerance,
            )
            write_whole(target, made.data)
            rows.append((target, made))
    finally:
        codec.close()
    Console().print(cost_table(rows))


def decompress(
    files: Files,
    out: Out = None,
    model: Annotated[str, typer.Option(help="A model's folder; default: the shipped one that made the file.")] = "",
    backend: Backend = "auto",
    coder: CoderName = "auto",
) -> None:
    """Decompress .sgc files to PNG."""
    chosen = _coder(coder)
    for path, target in zip(files, targets(files, out, ".png"), strict=True):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from None
        codec = open_still_codec(model, backend=backend) if model else codec_for(data, backend=backend)
        try:
            picture = codec.decompress(data, chosen)
        finally:
            codec.close()
        png = BytesIO()
        Image.fromarray(picture).save(png, "PNG")
        write_whole(target, png.getvalue())
        Console().print(f"{target}: {picture.shape[1]}×{picture.shape[0]}")


def cost_table(rows: list[tuple[Path, Compressed]]) -> Table:
    """What files cost, and against what."""
    table = Table("file", "bytes", "bpp", "label map", "heatmap", "symbols", "bound (eq. 3)", "static", "contexts")
    for path, made in rows:
        per = 8 / made.pixels
        side = [f"{part * per:.4f}" if part else "–" for part in (made.parts.labels, made.parts.heatmap)]
        table.add_row(
            path.name,
            str(len(made.data)),
            f"{made.bpp:.4f}",
            *side,
            f"{made.symbols_bpp:.4f}",
            f"{made.bound_bpp:.4f}",
            f"−{100 * made.static_saving:.1f} %",
            f"−{100 * made.context_saving:.1f} %",
        )
    table.caption = "static: under the bound; contexts: saved of what static frequencies cost"
    return table


def targets(files: list[Path], out: Path | None, suffix: str) -> list[Path]:
    """Where each result goes. Raises InputError when one would replace its own input."""
    if out is None:
        made = [path.with_suffix(suffix) for path in files]
    elif len(files) == 1 and not out.is_dir() and out.suffix:
        made = [out]
    else:
        out.mkdir(parents=True, exist_ok=True)
        made = [out / path.with_suffix(suffix).name for path in files]
    for path, target in zip(files, made, strict=True):
        if path.resolve() == target.resolve():
            raise InputError(f"{path} would be overwritten: choose another --out")
    return made


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a reader never sees half of it. Raises InputError."""
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None


def _coder(name: str) -> Coder:
    for known in get_args(Coder):
        if name == known:
            return cast(Coder, known)
    raise InputError(f"--coder is {', '.join(get_args(Coder))}, not {name}")


def _read_ids(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.asarray(image if image.mode in ("L", "P") else image.convert("L"))
    except OSError as error:
        raise InputError(f"{path} cannot be read as a label map: {error}") from None
