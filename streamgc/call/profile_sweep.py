"""`streamgc profile --sweep size=192,256,384 threads=1,2`: the same measurement for every combination, one table and
one page."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from rich.table import Table

from streamgc.call.codec import CodecOptions
from streamgc.call.demo_options import Study
from streamgc.call.profile import Profile
from streamgc.call.profile_options import ProfileOptions
from streamgc.call.sinks import write_bytes
from streamgc.errors import InputError
from streamgc.pipeline.settings import parse_format
from streamgc.profiling.charts import FULL, Bar, bars
from streamgc.profiling.page import plain_page, standalone
from streamgc.profiling.summary import service_ms
from streamgc.profiling.timeline import WAITING
from streamgc.runtime.engine import PRECISIONS

POINTS_MAX = 64
"""Combinations of one sweep."""

Setting = dict[str, str]

SWEEP_LEFT = 260
"""Units for a combination's name."""


class Point(NamedTuple):
    """One combination, measured."""

    setting: Setting
    profile: Profile

    @property
    def label(self) -> str:
        """`size 256 threads 2`."""
        return " ".join(f"{name} {value}" for name, value in self.setting.items())


def parse_grid(words: Sequence[str]) -> list[Setting]:
    """Every combination of `name=value,value` words. Raises `InputError` for an unknown name or no value."""
    axes: dict[str, list[str]] = {}
    for word in words:
        name, equals, values = word.partition("=")
        if name not in _SETTERS or not equals or not all(values.split(",")) or name in axes:
            raise InputError(f"--sweep {word}: name=value,value with each of {', '.join(_SETTERS)} at most once")
        axes[name] = values.split(",")
    if not axes:
        raise InputError("--sweep needs what to vary, for instance: size=192,256 threads=1,2")
    grid = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    if len(grid) > POINTS_MAX:
        raise InputError(f"--sweep makes {len(grid)} combinations; {POINTS_MAX} are possible")
    return grid


def applied(options: ProfileOptions, setting: Mapping[str, str]) -> ProfileOptions:
    """The options with a combination's values. Raises `InputError` for a value that cannot be."""
    for name, value in setting.items():
        try:
            options = _SETTERS[name](options, value)
        except ValueError:
            raise InputError(f"--sweep {name}={value}: no such value") from None
    return options


def sweep(
    options: ProfileOptions, grid: Sequence[Setting], measure: Callable[[ProfileOptions], Profile]
) -> Iterator[Point]:
    """Measure one after the other; every combination is checked before the first is measured."""
    chosen = [applied(options, setting) for setting in grid]
    for setting, one in zip(grid, chosen, strict=True):
        yield Point(setting, measure(one))


def sweep_table(points: Sequence[Point]) -> Table:
    """For the terminal."""
    shown = Table(title="sweep")
    rows = [_row(point) for point in points]
    for name in rows[0]:
        shown.add_column(name, justify="left" if name in points[0].setting else "right")
    for row in rows:
        shown.add_row(*row.values())
    return shown


def write_sweep(folder: Path, points: Sequence[Point]) -> None:
    """sweep.json, sweep.svg with the plot, and sweep.html with the table and the plot."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [{"setting": point.setting, "report": _without_samples(point.profile.report)} for point in points]
    write_bytes(folder / "sweep.json", msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    write_bytes(folder / "sweep.svg", standalone(sweep_chart(points)).encode())
    temporary = folder / f".sweep.html.{os.getpid()}"
    temporary.write_text(plain_page("StreamGC: a sweep", sweep_body(points)), encoding="utf-8")
    os.replace(temporary, folder / "sweep.html")


def sweep_body(points: Sequence[Point]) -> str:
    """The table and a bar for each combination, as HTML."""
    rows = [_row(point) for point in points]
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    cells = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row.values())}</tr>" for row in rows)
    parts = (
        "<h2>Glass to glass, median and 95th percentile, and what the work takes</h2>",
        sweep_chart(points),
        f'<h2>All figures</h2><div class="scroll"><table><tr>{head}</tr>{cells}</table></div>',
    )
    return "".join(parts)


def sweep_chart(points: Sequence[Point]) -> str:
    """Three bars for each combination, as SVG."""
    drawn = []
    for point in points:
        whole = point.profile.summary.whole
        if whole is not None:
            drawn.append(Bar(f"{point.label}: service", 0.0, service_ms(point.profile.timeline), "waiting"))
            drawn.append(Bar("glass to glass, p50", 0.0, whole.times.p50, "s0"))
            drawn.append(Bar("p95", 0.0, whole.times.p95, "s2"))
    return bars(drawn, "ms", "glass to glass by combination", width=FULL, left=SWEEP_LEFT)


def _row(point: Point) -> dict[str, str]:
    summary, report = point.profile.summary, point.profile.report
    whole = summary.whole
    medians = {row.stage: row.times.p50 for row in summary.rows}
    video = report["video"]
    figures = {
        "p50 ms": f"{whole.times.p50:.1f}" if whole else "",
        "p95": f"{whole.times.p95:.1f}" if whole else "",
        "max": f"{whole.longest:.1f}" if whole else "",
        **{name: f"{medians[name]:.1f}" if name in medians else "" for name in _COLUMNS},
        "service": f"{service_ms(point.profile.timeline):.1f}",
        "shown": f"{video['frames_shown']}/{video['frames_captured']}",
        "CPU %": f"{report['cpu_percent']:.0f}",
    }
    return {**point.setting, **figures}


def _without_samples(report: Mapping[str, Any]) -> dict[str, Any]:
    return {**report, "profile": {key: value for key, value in report["profile"].items() if key != "samples_ms"}}


def _with_codec(change: Callable[[CodecOptions, str], CodecOptions]) -> Callable[[ProfileOptions, str], ProfileOptions]:
    return lambda options, value: replace(options, codec=change(options.codec, value))


def _size(codec: CodecOptions, value: str) -> CodecOptions:
    picture = parse_format(value if "x" in value else f"{value}x{value}")
    return replace(codec, width=picture.width, height=picture.height)


def _precision(codec: CodecOptions, value: str) -> CodecOptions:
    chosen = next((name for name in PRECISIONS if name == value), None)
    if chosen is None:
        raise InputError(f"--sweep precision={value}: one of {', '.join(PRECISIONS)}")
    return replace(codec, precision=chosen)


_COLUMNS = ("segment", "encode", "generate", WAITING)
_SETTERS: dict[str, Callable[[ProfileOptions, str], ProfileOptions]] = {
    "size": _with_codec(_size),
    "fps": _with_codec(lambda codec, value: replace(codec, fps=float(value))),
    "kbps": _with_codec(lambda codec, value: replace(codec, kbps=float(value))),
    "threads": _with_codec(lambda codec, value: replace(codec, threads=int(value))),
    "backend": _with_codec(lambda codec, value: replace(codec, backend=value)),
    "precision": _with_codec(_precision),
    "model": _with_codec(lambda codec, value: replace(codec, model=value)),
    "background": _with_codec(lambda codec, value: replace(codec, background=value)),
    "slow": lambda options, value: replace(options, study=Study(float(value), options.study.flash)),
    "delay": lambda options, value: replace(options, impairment=replace(options.impairment, delay_ms=float(value))),
    "loss": lambda options, value: replace(options, impairment=replace(options.impairment, loss=float(value) / 100)),
    "rate": lambda options, value: replace(options, impairment=replace(options.impairment, rate_kbps=float(value))),
}
