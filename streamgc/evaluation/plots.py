"""What a reader looks at: curves, R, videos side by side and a contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from streamgc.evaluation.clips import Frame, write_video

_LABEL_HEIGHT = 20


class Sheet(NamedTuple):
    """A clip and its codings to be shown beside it: `columns` are (label, pictures)."""

    name: str
    originals: list[Frame]
    fps: int
    columns: list[tuple[str, list[Frame]]]

    def still(self) -> Sheet:
        """The middle picture alone, so that a long evaluation does not keep every video."""
        middle = len(self.originals) // 2
        columns = [(label, [pictures[middle]]) for label, pictures in self.columns]
        return Sheet(self.name, [self.originals[middle]], self.fps, columns)

    def strip(self, index: int) -> Frame:
        """Picture `index` of the original and of every column in a row, each under its label; RGB uint8."""
        panels = [(self.name, self.originals), *self.columns]
        return np.concatenate([_labelled(pictures[index], label) for label, pictures in panels], axis=1)


def _labelled(picture: Frame, label: str) -> Frame:
    height, width = picture.shape[:2]
    canvas = Image.new("RGB", (width, height + _LABEL_HEIGHT), "black")
    canvas.paste(Image.fromarray(picture), (0, _LABEL_HEIGHT))
    room = width // 7
    text = label if len(label) <= room else f"…{label[-(room - 1) :]}"
    ImageDraw.Draw(canvas).text((4, 4), text, fill="white")
    return np.asarray(canvas)


def write_side_by_side(path: Path, sheet: Sheet) -> None:
    """A video of the original and all codings in a row, as nearly transparent H.264."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, [sheet.strip(index) for index in range(len(sheet.originals))], sheet.fps)


def write_contact_sheet(path: Path, sheets: Sequence[Sheet]) -> None:
    """One PNG: a row for each sheet, showing its first picture; rows with fewer codings end in black."""
    if not sheets:
        return
    strips = [sheet.strip(0) for sheet in sheets]
    width = max(strip.shape[1] for strip in strips)
    padded = [np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0))) for strip in strips]
    temporary = path.with_name(f".{path.stem}.partial.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(padded)).save(temporary)
    temporary.replace(path)


def _figure(columns: int, rows: int) -> tuple[Any, Any]:
    """A figure drawn by Agg without touching pyplot's global state, and its axes in a flat list."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * columns, 3.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).flat)


def _save(figure: Any, path: Path) -> None:
    temporary = path.with_name(f".{path.stem}.partial.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(temporary, dpi=110)
    temporary.replace(path)


def _curve(rows: Sequence[Mapping[str, Any]], codec: str, clip: str, score: str) -> tuple[list[float], list[float]]:
    points = sorted((row["kbps"], row[score]) for row in rows if row["codec"] == codec and row["clip"] == clip)
    return [rate for rate, _ in points], [value for _, value in points]


def _names(rows: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))


def plot_clips(path: Path, rows: Sequence[Mapping[str, Any]], anchors: Sequence[Mapping[str, Any]]) -> None:
    """AlexNet ST-LPIPS on the person against payload, a panel a clip; AV1's anchors are dashed."""
    clips = _names(rows, "clip")
    columns = min(4, len(clips))
    figure, axes = _figure(columns, -(-len(clips) // columns))
    for axis, clip in zip(axes, clips, strict=False):
        for source, style in ((rows, "o-"), (anchors, "x--")):
            for codec in _names(source, "codec"):
                rates, scores = _curve(source, codec, clip, "alex")
                axis.plot(rates, scores, style, label=codec, markersize=3, linewidth=1)
        axis.set(title=clip[-40:], xlabel="payload, kbit/s", ylabel="ST-LPIPS (AlexNet), person", xscale="log")
        axis.title.set_fontsize(8)
        axis.grid(alpha=0.3, which="both")
    axes[0].legend(fontsize=6)
    for axis in axes[len(clips) :]:
        axis.set_visible(False)
    _save(figure, path)


_SCORES = (
    ("alex", "ST-LPIPS (AlexNet), person"),
    ("vgg", "ST-LPIPS (VGG), person"),
    ("psnr", "PSNR, person, dB"),
    ("ms_ssim", "MS-SSIM, person"),
)


def plot_means(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Four scores against payload, averaged over the clips at each asked rate."""
    figure, axes = _figure(2, 2)
    for axis, (score, title) in zip(axes, _SCORES, strict=True):
        if any(score not in row for row in rows):
            axis.set_visible(False)
            continue
        for codec in _names(rows, "codec"):
            own = [row for row in rows if row["codec"] == codec]
            groups = [[row for row in own if row["rate"] == rate] for rate in sorted({row["rate"] for row in own})]
            rates = [float(np.exp(np.mean([np.log(row["kbps"]) for row in group]))) for group in groups]
            axis.plot(rates, [float(np.mean([row[score] for row in group])) for group in groups], "o-", label=codec)
        axis.set(xlabel="payload, kbit/s (geometric mean)", ylabel=title)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    _save(figure, path)


def plot_ratio(path: Path, r: Mapping[str, Any]) -> None:
    """R of every clip at every rate, and the geometric mean."""
    figure, axes = _figure(2, 1)
    for name, values in r["clips"].items():
        rates = [float(rate) for rate in values["by_rate"]]
        axes[0].plot(rates, list(values["by_rate"].values()), "o-", linewidth=0.7, markersize=3, label=name[-24:])
    means = r["by_rate"]
    axes[0].plot([float(rate) for rate in means], list(means.values()), "k-", linewidth=2.5, label="geometric mean")
    axes[0].axhline(1, color="grey", linewidth=0.8)
    axes[0].set(xlabel="rate asked for, kbit/s", ylabel="R")
    axes[0].grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    axes[1].legend(handles, labels, fontsize=5, ncols=2, loc="center")
    axes[1].axis("off")
    _save(figure, path)


def plot_call(
    folder: Path, rows: Sequence[Mapping[str, Any]], anchors: Sequence[Mapping[str, Any]], r: Mapping[str, Any]
) -> None:
    """Writes clips.png, means.png and, where R was measured, ratio.png into `folder`."""
    plot_clips(folder / "clips.png", rows, anchors)
    plot_means(folder / "means.png", rows)
    if r["by_rate"]:
        plot_ratio(folder / "ratio.png", r)
