"""A timeline in figures: by stage p50, p95, p99, max, share of the whole and drops; and the whole."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.table import Table

from streamgc.profiling.percentiles import Percentiles, percentiles
from streamgc.profiling.recording import Recording
from streamgc.profiling.spans import REPORTS
from streamgc.profiling.timeline import CAUSES, WAITING, Timeline, stage_order

WHOLE = "glass to glass"


class Row(NamedTuple):
    """One line of the table; times in ms, `share` of the sum of all glass-to-glass times, 0..1."""

    stage: str
    times: Percentiles
    longest: float
    share: float | None  # None: not a part of glass to glass
    frames: int
    dropped: int


class Summary(NamedTuple):
    """The table and what it was made from."""

    rows: tuple[Row, ...]
    whole: Row | None  # None when nothing was displayed
    samples: dict[str, list[float]]  # ms of each frame, in order of frames, by stage; WHOLE is the whole


def summarise(timeline: Timeline) -> Summary:
    """The figures of one direction. `share` counts each moment of a frame once, so that the shares add up to 1."""
    samples: dict[str, list[float]] = defaultdict(list)
    shares: dict[str, float] = defaultdict(float)
    for frame in timeline.frames:
        for stage in frame.stages:
            samples[stage.stage].append(stage.milliseconds)
        waiting = 0.0
        for piece in frame.pieces:
            shares[piece.stage] += piece.milliseconds
            waiting += piece.milliseconds * (piece.stage == WAITING)
        if frame.latency_ms is not None:
            samples[WAITING].append(waiting)
            samples[WHOLE].append(frame.latency_ms)
    total = sum(samples[WHOLE])
    dropped = by_stage(timeline.dropped)
    names = sorted((samples.keys() | dropped.keys()) - {WHOLE}, key=stage_order)
    rows = [_row(name, samples[name], shares.get(name), total, dropped.get(name, 0)) for name in names]
    whole = _row(WHOLE, samples[WHOLE], total, total, sum(timeline.dropped.values())) if total else None
    return Summary(tuple(rows), whole, dict(samples))


def service_ms(timeline: Timeline) -> float:
    """Median of what the work itself takes of a displayed frame: its stages without any waiting."""
    idle = (WAITING, "wait")
    times = [sum(piece.milliseconds for piece in frame.pieces if piece.stage not in idle) for frame in timeline.shown]
    return statistics.median(times) if times else 0.0


def summarise_peer(recording: Recording) -> Summary:
    """The figures of one side of a call, where the other is not known: nothing is said of shares or the whole."""
    samples: dict[str, list[float]] = defaultdict(list)
    for stage in recording.stages:
        if stage.stage not in REPORTS:
            samples[stage.stage].append(stage.milliseconds)
    dropped = by_stage({cause: number for cause, number in recording.dropped.items() if number})
    names = sorted(samples.keys() | dropped.keys(), key=stage_order)
    rows = [_row(name, samples[name], None, 0.0, dropped.get(name, 0)) for name in names]
    return Summary(tuple(rows), None, dict(samples))


def by_stage(dropped: dict[str, int]) -> dict[str, int]:
    """Drops by cause as drops by stage."""
    found: dict[str, int] = defaultdict(int)
    for cause, number in dropped.items():
        found[CAUSES.get(cause, cause)] += number
    return dict(found)


def _row(stage: str, times: Sequence[float], part: float | None, total: float, dropped: int) -> Row:
    share = None if part is None or not total else part / total
    return Row(stage, percentiles(times) or Percentiles(0, 0, 0), max(times, default=0.0), share, len(times), dropped)


def table(summary: Summary, title: str) -> Table:
    """For the terminal."""
    shown = Table(title=title)
    shown.add_column("stage")
    for name in ("p50 ms", "p95", "p99", "max", "share", "drops"):
        shown.add_column(name, justify="right")
    for row in summary.rows:
        shown.add_row(row.stage, *_cells(row))
    if summary.whole is not None:
        shown.add_section()
        shown.add_row(WHOLE, *_cells(summary.whole), style="bold")
    return shown


def _cells(row: Row) -> Iterable[str]:
    times = (*row.times, row.longest)
    yield from (f"{value:.1f}" for value in times) if row.frames else ("",) * len(times)
    yield "" if row.share is None else f"{row.share:.1%}"
    yield str(row.dropped) if row.dropped else ""


def as_json(summary: Summary) -> dict[str, object]:
    """The part of a report: plain numbers and the samples that `compare` needs."""
    rows = {
        row.stage: {
            **row.times.as_dict(3),
            "max": round(row.longest, 3),
            "share": None if row.share is None else round(row.share, 4),
            "frames": row.frames,
            "drops": row.dropped,
        }
        for row in (*summary.rows, *((summary.whole,) if summary.whole else ()))
    }
    return {
        "stages": rows,
        "samples_ms": {stage: [round(value, 3) for value in times] for stage, times in summary.samples.items()},
    }
