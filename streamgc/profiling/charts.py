"""Charts as SVG text: bars, histograms and lines that take their colours from the page (`html.py`).

Every function gives a whole `<svg>` whose width follows its column. Numbers a reader may want are `<title>`s, which a
browser shows under the pointer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

FULL, HALF = 1030, 500
"""Widths in user units, which are a page's pixels where there is room: a whole column, and half of one."""

LEFT, RIGHT, TOP, BOTTOM = 96, 14, 8, 32
"""Margins in user units: room for labels."""

ROW = 19
"""Height of a bar with its gap."""

MARK_ROOM = 70
"""Units to the left of a mark that its name needs."""


class Bar(NamedTuple):
    """A horizontal bar from `start` to `end` in the unit of the axis; `kind` is its CSS class."""

    label: str
    start: float
    end: float
    kind: str
    title: str = ""


class Line(NamedTuple):
    """A line through (x, y) points; `kind` is its CSS class."""

    label: str
    points: Sequence[tuple[float, float]]
    kind: str


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round values that cover low … high in about `count` steps."""
    span = high - low
    if span <= 0:
        return [low]
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * place, 10) for place in range(first, math.floor(high / step + 1e-9) + 1)]


def bars(rows: Sequence[Bar], unit: str, label: str, width: float = HALF, left: float = LEFT) -> str:
    """One bar a row, each with its label at the left (`left` units wide) and its length at its end."""
    high = max((row.end for row in rows), default=1.0) or 1.0
    height = TOP + ROW * len(rows) + BOTTOM
    inner = width - left - RIGHT - 44  # 44: the figure behind the longest bar
    parts = [_x_axis(0.0, high, inner, height, unit, left)]
    for place, row in enumerate(rows):
        y = TOP + ROW * place
        x, wide = left + inner * row.start / high, max(1.0, inner * (row.end - row.start) / high)
        length = row.end - row.start
        title = escape(row.title or f"{row.label}: {length:.2f} {unit}")
        parts.append(f'<text class="label" x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(row.label)}</text>')
        parts.append(
            f'<rect class="{row.kind}" x="{x:.1f}" y="{y + 2}" width="{wide:.1f}" height="{ROW - 5}" rx="2">'
            f"<title>{title}</title></rect>"
        )
        parts.append(f'<text class="figure" x="{x + wide + 5:.1f}" y="{y + 12}">{length:.1f}</text>')
    return _svg(parts, width, height, label)


def histogram(
    values: Sequence[float], marks: Sequence[tuple[str, float]], unit: str, label: str, kind: str, width: float = HALF
) -> str:
    """How often which value; `marks` are named vertical lines. Values above the 99.5th percentile share the last
    bar."""
    ordered = sorted(values)
    low = 0.0
    top = ordered[min(len(ordered) - 1, int(0.995 * len(ordered)))] if ordered else 1.0
    high = max(top, max((value for _, value in marks), default=0.0), 1e-3) * 1.05
    count = 40
    counts = [0] * count
    for value in ordered:
        counts[min(count - 1, int((value - low) / (high - low) * count))] += 1
    height, inner = 170, width - LEFT - RIGHT
    floor, most = height - BOTTOM, max(max(counts), 1)
    parts = [_x_axis(low, high, inner, height, unit)]
    for place, number in enumerate(counts):
        if number:
            tall = (floor - TOP - 14) * number / most
            left, wide = LEFT + inner * place / count, inner / count - 1
            lower, upper = (low + (high - low) * (place + i) / count for i in range(2))
            parts.append(
                f'<rect class="{kind}" x="{left:.1f}" y="{floor - tall:.1f}" width="{wide:.1f}" height="{tall:.1f}">'
                f"<title>{lower:.1f}–{upper:.1f} {unit}: {number}</title></rect>"
            )
    for place, (name, value) in enumerate(marks):
        x = LEFT + inner * (value - low) / (high - low)
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP + 4}" y2="{floor}"/>')
        anchor, shift = ("end", -4) if place == 0 and x > LEFT + MARK_ROOM else ("start", 4)
        text = f"{escape(name)} {value:.1f}"
        parts.append(f'<text class="figure" x="{x + shift:.1f}" y="{TOP + 10}" text-anchor="{anchor}">{text}</text>')
    parts.append(f'<text class="label" x="{LEFT - 8}" y="{TOP + 12}" text-anchor="end">{most}</text>')
    parts.append(f'<text class="label" x="{LEFT - 8}" y="{floor}" text-anchor="end">0 frames</text>')
    return _svg(parts, width, height, label)


def lines(
    series: Sequence[Line],
    unit: str,
    label: str,
    events: Iterable[float] = (),
    dots: bool = False,
    width: float = FULL,
) -> str:
    """Values over seconds, with a legend; `events` are marked along the bottom."""
    points = [point for line in series for point in line.points]
    if not points:
        return ""
    start, end = min(x for x, _ in points), max(x for x, _ in points)
    high = max(max(y for _, y in points) * 1.08, 1e-3)
    height, inner = 220, width - LEFT - RIGHT
    top, floor = TOP + 20, height - BOTTOM
    span = max(end - start, 1e-6)

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + inner * (x - start) / span, floor - (floor - top) * y / high

    parts = [_x_axis(start, end, inner, height, "s"), _y_axis(high, inner, top, floor, unit)]
    for line in series:
        placed = [place(*point) for point in line.points]
        if dots:
            parts += [f'<circle class="{line.kind}" cx="{x:.1f}" cy="{y:.1f}" r="1.6"/>' for x, y in placed]
        else:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
            parts.append(f'<polyline class="line {line.kind}" points="{path}"><title>{line.label}</title></polyline>')
    for event in events:
        x, _ = place(min(max(event, start), end), 0)
        parts.append(f'<line class="event" x1="{x:.1f}" x2="{x:.1f}" y1="{floor - 7}" y2="{floor}"/>')
    parts.append(_legend(series))
    return _svg(parts, width, height, label)


def _legend(series: Sequence[Line]) -> str:
    parts, x = [], float(LEFT)
    for line in series:
        parts.append(f'<rect class="{line.kind}" x="{x:.0f}" y="{TOP}" width="10" height="10" rx="2"/>')
        parts.append(f'<text class="label" x="{x + 15:.0f}" y="{TOP + 9}">{escape(line.label)}</text>')
        x += 34 + 6.4 * len(line.label)
    return "".join(parts)


def _x_axis(low: float, high: float, inner: float, height: float, unit: str, left: float = LEFT) -> str:
    floor = height - BOTTOM
    parts = []
    for value in ticks(low, high):
        x = left + inner * (value - low) / max(high - low, 1e-9)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{floor}"/>')
        parts.append(f'<text class="label" x="{x:.1f}" y="{floor + 15}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<text class="label" x="{left + inner:.1f}" y="{floor + 28}" text-anchor="end">{escape(unit)}</text>')
    return "".join(parts)


def _y_axis(high: float, inner: float, top: float, floor: float, unit: str) -> str:
    parts = [f'<text class="label" x="{LEFT - 8}" y="{TOP + 9}" text-anchor="end">{escape(unit)}</text>']
    for value in ticks(0.0, high, 4):
        y = floor - (floor - top) * value / high
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + inner}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="label" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    return "".join(parts)


def _svg(parts: Iterable[str], width: float, height: float, label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )
