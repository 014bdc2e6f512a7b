"""Rows of an evaluation as JSON and CSV, and curves as a plot; every file appears whole or not at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def write_json(path: Path, value: Any) -> None:
    """Indented JSON."""
    _replace(path, json.dumps(value, indent=2) + "\n")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """All rows, with every column any of them has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text)
    temporary.replace(path)


def plot_curves(path: Path, rows: Sequence[Row], x: str, scores: Mapping[str, str], thick: str = "") -> None:
    """A panel for each score (column → title) against ``x`` in log scale, a line for each codec; ``thick``: ours."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(scores), 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(scores), squeeze=False)[0]
    for axis, (score, title) in zip(axes, scores.items(), strict=True):
        for name in dict.fromkeys(row["codec"] for row in rows):
            points = sorted((row[x], row[score]) for row in rows if row["codec"] == name and row.get(score) is not None)
            if points:
                axis.plot(
                    *zip(*points, strict=True), "o-", markersize=3, linewidth=2.5 if name == thick else 1, label=name
                )
        axis.set(xlabel="bits per pixel" if x == "bpp" else x, ylabel=title, xscale="log")
        axis.grid(alpha=0.3, which="both")
    axes[0].legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.partial.png")
    figure.savefig(temporary, dpi=110)
    temporary.replace(path)
