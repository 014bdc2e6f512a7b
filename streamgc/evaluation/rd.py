"""Rate and distortion of still codecs over folders of images (``streamgc evaluate rd``).

Each image is coded by every codec at every quality; a row holds bits per pixel, PSNR, MS-SSIM, ST-LPIPS (AlexNet, and
VGG where asked). Curves are means over the images at a setting. The first model is compared with all else, other models
too, where both curves exist: who scores what at equal bits (`equal_rate`), and how many times our bits the other needs
for our score (`bits_needed`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streamgc.errors import InputError
from streamgc.evaluation.clips import Frame
from streamgc.evaluation.metrics import MS_SSIM_LEAST, PerceptualDistance, ms_ssim, psnr
from streamgc.evaluation.plots import Sheet, write_contact_sheet
from streamgc.evaluation.ratio import Point, frontier, rate_at
from streamgc.evaluation.still_report import Row, plot_curves, write_csv, write_json
from streamgc.evaluation.still_rivals import CodedStill, rival
from streamgc.pipeline.stills import StillCodec, open_still_codec, read_picture

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SHOWN = 4
SCORES = {"alex": "ST-LPIPS (AlexNet), less is better", "psnr": "PSNR, dB", "ms_ssim": "MS-SSIM"}


def images_in(folders: Sequence[Path], limit: int | None = None) -> list[Path]:
    """Image files of folders (or files), sorted; ``limit`` takes so many of them, evenly spread. Raises InputError."""
    found: list[Path] = []
    for folder in folders:
        if folder.is_file():
            found.append(folder)
            continue
        inside = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not inside:
            raise InputError(f"{folder} holds no images ({', '.join(SUFFIXES)})")
        found += inside
    if limit is not None and limit < len(found):
        found = [found[index] for index in np.linspace(0, len(found) - 1, limit).round().astype(int)]
    return found


class Scores:
    """The instruments, loaded once."""

    def __init__(self, *, vgg: bool = False) -> None:
        self._alex = PerceptualDistance("alex", memory=1)
        self._vgg = PerceptualDistance("vgg", memory=1) if vgg else None

    def row(self, original: Frame, coded: CodedStill) -> Row:
        """Scores and rate of one coding of a picture."""
        shown = coded.picture
        row: Row = {
            "bpp": 8 * coded.size / (original.shape[0] * original.shape[1]),
            "psnr": psnr(original, shown),
            "alex": float(self._alex.map(original, shown).mean()),
        }
        if min(original.shape[:2]) >= MS_SSIM_LEAST:
            row["ms_ssim"] = ms_ssim(original, shown)
        if self._vgg is not None:
            row["vgg"] = float(self._vgg.map(original, shown).mean())
        return row


def our_rows(codec: StillCodec, original: Frame, scores: Scores) -> list[Row]:
    """One row for each channel count; files whole, header and checksum too, with what the symbols alone say."""
    rows = []
    for channels in codec.model.channels:
        made = codec.compress(original, channels=channels)
        row = scores.row(original, CodedStill(len(made.data), codec.decompress(made.data)))
        row |= {
            "quality": channels,
            "bound_bpp": made.bound_bpp,
            "static_bpp": made.static_bits / made.pixels,
            "context_bpp": made.context_bits / made.pixels,
        }
        rows.append(row)
    return rows


def rival_rows(name: str, original: Frame, scores: Scores, qualities: int | None = None) -> list[Row]:
    """One row for each quality of a conventional codec, or for its ``qualities`` coarsest."""
    codec = rival(name)
    chosen = codec.qualities[:qualities]
    return [scores.row(original, codec.encode(original, value)) | {"quality": value} for value in chosen]


def means(rows: Sequence[Row]) -> list[Row]:
    """Per codec and quality the means over the images, in order of rate."""
    result: list[Row] = []
    for codec in dict.fromkeys(row["codec"] for row in rows):
        own = [row for row in rows if row["codec"] == codec]
        groups = [[row for row in own if row["quality"] == value] for value in dict.fromkeys(r["quality"] for r in own)]
        made: list[Row] = []
        for group in groups:
            names = [name for name in group[0] if isinstance(group[0][name], float) and name != "quality"]
            values = {name: float(np.mean([row[name] for row in group if name in row])) for name in names}
            made.append({"codec": codec, "quality": group[0]["quality"], "images": len(group), **values})
        result += sorted(made, key=lambda row: float(row["bpp"]))
    return result


def bits_needed(curves: Sequence[Row], ours: Sequence[str]) -> list[Row]:
    """For each mean of ours and each rival: times our bits that it needs for our ST-LPIPS, where its curve has that."""
    result = []
    rivals = [name for name in dict.fromkeys(row["codec"] for row in curves) if name not in ours]
    for row in curves:
        if row["codec"] not in ours:
            continue
        for name in rivals:
            curve = frontier(Point(other["bpp"], other["alex"]) for other in curves if other["codec"] == name)
            both = bool(curve) and curve[-1].alex <= row["alex"] <= curve[0].alex
            needed = rate_at(curve, row["alex"]) / row["bpp"] if both else None
            result.append({"codec": row["codec"], "quality": row["quality"], "rival": name, "times_our_bits": needed})
    return result


def equal_rate(curves: Sequence[Row], ours: str) -> list[Row]:
    """ST-LPIPS of ours and of every other codec at each rate that either was measured at and both curves cover.

    Between its points a curve is straight in the logarithm of the rate.
    """
    result: list[Row] = []
    points = {name: _curve(curves, name) for name in dict.fromkeys(row["codec"] for row in curves)}
    for name, (rates, scores) in points.items():
        if name == ours:
            continue
        low, high = max(points[ours][0][0], rates[0]), min(points[ours][0][-1], rates[-1])
        for rate in sorted({*points[ours][0], *rates}):
            if low <= rate <= high:
                at = [float(np.interp(np.log(rate), np.log(x), y)) for x, y in (points[ours], (rates, scores))]
                result.append({"rival": name, "bpp": rate, "ours": at[0], "rivals": at[1], "better": at[0] < at[1]})
    return result


def _curve(curves: Sequence[Row], codec: str) -> tuple[list[float], list[float]]:
    own = sorted((float(row["bpp"]), float(row["alex"])) for row in curves if row["codec"] == codec)
    return [rate for rate, _ in own], [score for _, score in own]


def savings(curves: Sequence[Row]) -> list[Row]:
    """For our own means: static frequencies under the bound of eq. 3, and context tables under static frequencies."""
    return [
        {
            "codec": row["codec"],
            "channels": row["quality"],
            "bound_bpp": row["bound_bpp"],
            "static_under_bound": 1 - row["static_bpp"] / row["bound_bpp"],
            "contexts_under_static": 1 - row["context_bpp"] / row["static_bpp"],
        }
        for row in curves
        if "bound_bpp" in row
    ]


def evaluate_rd(
    images: Sequence[Path],
    *,
    models: Sequence[str | Path] = ("still",),
    rivals: Sequence[str] = ("hevc", "webp", "jpeg2000", "avif"),
    out: Path | None = None,
    json_file: Path | None = None,
    vgg: bool = False,
    limit: int | None = None,
    qualities: int | None = None,
    backend: str = "auto",
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Code every image with every codec; rows, means, comparisons and savings.

    Writes ``rd.csv``, ``rd.png`` and ``pictures/`` (a sheet of `SHOWN` images by each model and each rival's coarsest
    quality, with their rates) under ``out``, JSON to ``json_file``. Raises InputError, ModelError, BackendMissing.
    """
    files = images_in(images, limit)
    codecs = {Path(model).name: open_still_codec(model, backend=backend) for model in models}
    shown = {files[index] for index in np.linspace(0, len(files) - 1, SHOWN).round().astype(int)}
    scores = Scores(vgg=vgg)
    rows: list[Row] = []
    try:
        for number, file in enumerate(files, 1):
            original = read_picture(file)
            found = {name: our_rows(codec, original, scores) for name, codec in codecs.items()}
            found |= {name: rival_rows(name, original, scores, qualities) for name in rivals}
            rows += [{"image": file.name, "codec": name, **row} for name, part in found.items() for row in part]
            note(f"{number}/{len(files)} {file.name}")
            if out is not None and file in shown:
                _write_sheet(out / "pictures" / f"{file.stem}.png", original, codecs, rivals)
    finally:
        for codec in codecs.values():
            codec.close()
    curves = means(rows)
    result = {
        "images": len(files),
        "means": curves,
        "equal_rate": equal_rate(curves, next(iter(codecs))),
        "bits_needed": bits_needed(curves, [next(iter(codecs))]),
        "savings": savings(curves),
        "rows": rows,
    }
    if out is not None:
        write_csv(out / "rd.csv", rows)
        plot_curves(out / "rd.png", curves, "bpp", SCORES, thick=next(iter(codecs)))
    if json_file is not None:
        write_json(json_file, result)
    return result


def _write_sheet(path: Path, original: Frame, codecs: dict[str, StillCodec], rivals: Sequence[str]) -> None:
    """Two rows or more: the original and the first model's codings, then the others'."""

    def said(name: str, coded: CodedStill) -> tuple[str, list[Frame]]:
        return f"{name}: {8 * coded.size / original[..., 0].size:.3f} bpp", [coded.picture]

    rows: list[list[tuple[str, list[Frame]]]] = []
    for name, codec in codecs.items():
        made = [(count, codec.compress(original, channels=count).data) for count in codec.model.channels]
        coded = [(count, CodedStill(len(data), codec.decompress(data))) for count, data in made]
        rows.append([said(f"{name} C={count}", found) for count, found in coded])
    if rivals:
        coarsest = [(name, rival(name).encode(original, rival(name).qualities[0])) for name in rivals]
        rows.append([said(name, found) for name, found in coarsest])
    write_contact_sheet(path, [Sheet("original", [original], 1, row) for row in rows])
