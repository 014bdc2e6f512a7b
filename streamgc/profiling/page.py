"""`report.html`: one file that needs nothing else, in the reader's light or dark."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from streamgc.profiling.charts import HALF, Bar, Line, bars, histogram, lines
from streamgc.profiling.percentiles import percentile
from streamgc.profiling.recording import Recording, Second
from streamgc.profiling.spans import RECEIVER_STAGES, SENDER_STAGES
from streamgc.profiling.summary import WHOLE, Row, Summary
from streamgc.profiling.timeline import Frame, Timeline

STAGES_DRAWN = 6
"""Histograms of so many stages: those with the largest share."""

SHORTEST_MS = 0.05
"""Pieces of a waterfall that are drawn."""

THREADS_DRAWN = 6
"""Lines of so many threads a peer; the rest are in the table."""

_STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfb; --ink: #1c1d1f; --soft: #66696e; --rule: #e3e4e2; --card: #ffffff;
  --sender: #2f6fd0; --receiver: #0f8a70; --network: #c2711b; --waiting: #a3a7ad; --alarm: #c23b3b;
  --s0: #2f6fd0; --s1: #0f8a70; --s2: #c2711b; --s3: #8256c4; --s4: #b8478c; --s5: #75787d; }
@media (prefers-color-scheme: dark) { :root { --paper: #151618; --ink: #e9eaec; --soft: #9a9ea5; --rule: #2c2e32;
  --card: #1c1d20; --sender: #6ea2f0; --receiver: #45bfa2; --network: #e09a4c; --waiting: #6a6e75; --alarm: #ef7a72;
  --s0: #6ea2f0; --s1: #45bfa2; --s2: #e09a4c; --s3: #b093ec; --s4: #e58cbf; --s5: #989ca3; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 32px 24px 64px; max-width: 1080px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 40px 0 4px; }
h3 { font-size: 14px; margin: 12px 0 2px; }
p { margin: 4px 0 12px; color: var(--soft); max-width: 72ch; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 20px 0; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 12px 14px; }
.tile b { display: block; font-size: 22px; font-weight: 600; } .tile span { color: var(--soft); font-size: 13px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 4px 28px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 10px; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { font-weight: 500; color: var(--soft); } th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr.whole td { font-weight: 600; border-bottom: 0; }
i.key { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin: 0 6px 0 14px; }
svg { display: block; width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; }
.label { fill: var(--soft); } .figure { fill: var(--ink); } .grid { stroke: var(--rule); }
.mark { stroke: var(--ink); stroke-dasharray: 3 3; } .event { stroke: var(--alarm); stroke-width: 2; }
.line { fill: none; stroke-width: 1.6; } footer { margin-top: 40px; color: var(--soft); font-size: 13px; }
""" + "".join(
    f".{name} {{ fill: var(--{name}); background: var(--{name}); }}\n"
    f".line.{name} {{ fill: none; background: none; stroke: var(--{name}); }}\n"
    for name in ("sender", "receiver", "network", "waiting", "s0", "s1", "s2", "s3", "s4", "s5")
)


def write_page(
    path: Path, title: str, timeline: Timeline, summary: Summary, recordings: Sequence[Recording], about: dict[str, Any]
) -> None:
    """Write the report. `recordings` are the sender's and the receiver's; `about` is shown at the end."""
    text = page(title, timeline, summary, recordings, about)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def page(
    title: str, timeline: Timeline, summary: Summary, recordings: Sequence[Recording], about: dict[str, Any]
) -> str:
    """The report's HTML."""
    parts = [f"<h1>{escape(title)}</h1>", _lead(about), _tiles(timeline, summary, about)]
    if timeline.shown:
        parts += [_waterfalls(timeline), _over_time(timeline)]
    parts += [_table(summary), _histograms(summary), _rates(recordings), _threads(recordings)]
    parts.append(f"<footer>{_footer(timeline)}</footer>")
    return _document(title, parts)


def plain_page(title: str, body: str) -> str:
    """A page of this look with a body of its own."""
    return _document(title, [f"<h1>{escape(title)}</h1>", body])


def standalone(drawing: str) -> str:
    """A chart as a file of its own, in the reader's light or dark."""
    style = f"<style>{_STYLE}</style>"
    return drawing.replace(">", f">{style}", 1)


def _document(title: str, parts: Iterable[str]) -> str:
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    body = "\n".join(part for part in parts if part)
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>{escape(title)}</title><style>{_STYLE}</style></head>\n'
        f"<body>{body}</body></html>\n"
    )


def kind(stage: str) -> str:
    """Where a stage is done: sender, network, receiver or waiting; its CSS class."""
    if stage in SENDER_STAGES:
        return "sender"
    if stage in RECEIVER_STAGES:
        return "receiver"
    return stage if stage == "network" else "waiting"


def _lead(about: dict[str, Any]) -> str:
    words = [
        f"{name} {value}" for name, value in about.items() if not isinstance(value, dict) and name != "cpu_percent"
    ]
    return f"<p>{escape(' · '.join(words))}</p>"


def _tiles(timeline: Timeline, summary: Summary, about: dict[str, Any]) -> str:
    shown, total = len(timeline.shown), len(timeline.frames)
    tiles = [(f"{shown} of {total}", "frames sent were displayed")]
    if summary.whole is not None:
        tiles = [
            (f"{summary.whole.times.p50:.1f} ms", "glass to glass, median"),
            (f"{summary.whole.times.p95:.1f} ms", "95th percentile"),
            (f"{summary.whole.longest:.1f} ms", "longest"),
            *tiles,
        ]
    if "cpu_percent" in about:
        tiles.append((f"{about['cpu_percent']:.0f} %", "of one core, both peers"))
    cells = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(what)}</span></div>' for value, what in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def _waterfalls(timeline: Timeline) -> str:
    ordered = sorted(timeline.shown, key=lambda frame: frame.latency_ms or 0.0)
    picks = {"The median frame": 0.5, "A frame at the 95th percentile": 0.95}
    parts = [
        "<h2>Where a frame's time goes</h2><p>From hand-over by the source to the display call-back. "
        '<i class="key sender"></i>sender<i class="key network"></i>network<i class="key receiver"></i>receiver'
        '<i class="key waiting"></i>waiting: threads handing over, or no core free</p><div class="pair">'
    ]
    for name, share in picks.items():
        frame = ordered[min(len(ordered) - 1, int(share * len(ordered)))]
        parts.append(f"<div><h3>{name}: number {frame.number}, {frame.latency_ms:.1f} ms</h3>{waterfall(frame)}</div>")
    return "".join(parts) + "</div>"


def waterfall(frame: Frame) -> str:
    """The pieces of a displayed frame, one below the other."""
    start = frame.captured_ns
    rows = [
        Bar(piece.stage, (piece.start_ns - start) / 1e6, (piece.end_ns - start) / 1e6, kind(piece.stage))
        for piece in frame.pieces
        if piece.milliseconds >= SHORTEST_MS
    ]
    return bars(rows, "ms", f"waterfall of frame {frame.number}")


def _over_time(timeline: Timeline) -> str:
    zero = timeline.frames[0].captured_ns
    points = [((frame.captured_ns - zero) / 1e9, frame.latency_ms or 0.0) for frame in timeline.shown]
    lost = [(frame.captured_ns - zero) / 1e9 for frame in timeline.frames if frame.shown_ns is None]
    note = f", {len(lost)} not displayed (red, at the bottom)" if lost else ""
    chart = lines([Line("glass to glass", points, "s0")], "ms", "glass to glass over time", lost, dots=True)
    return f"<h2>Glass to glass over time</h2><p>Each point is a frame{note}.</p>{chart}"


def _table(summary: Summary) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("stage", "p50 ms", "p95", "p99", "max", "share", "frames", "drops"))
    rows = [_row(row, f'<i class="key {kind(row.stage)}" style="margin-left:0"></i>') for row in summary.rows]
    if summary.whole is not None:
        rows.append(_row(summary.whole, "").replace("<tr>", '<tr class="whole">'))
    return (
        "<h2>By stage</h2><p>A stage's time is from its beginning to its end; its share counts each moment of a frame "
        f'once.</p><div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'
    )


def _row(row: Row, key: str) -> str:
    times = [f"{value:.2f}" for value in (*row.times, row.longest)] if row.frames else [""] * 4
    share = "" if row.share is None else f"{row.share:.1%}"
    cells = (*times, share, str(row.frames), str(row.dropped or ""))
    return f"<tr><td>{key}{escape(row.stage)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _histograms(summary: Summary) -> str:
    largest = sorted((row for row in summary.rows if row.share), key=lambda row: -(row.share or 0.0))[:STAGES_DRAWN]
    names = [*([WHOLE] if summary.whole else []), *(row.stage for row in largest)]
    charts = []
    for name in names:
        values = sorted(summary.samples.get(name, []))
        if values:
            marks = [("p50", percentile(values, 0.5)), ("p95", percentile(values, 0.95))]
            colour = "s0" if name == WHOLE else kind(name)
            drawn = histogram(values, marks, "ms", f"histogram of {name}", colour)
            charts.append(f"<div><h3>{escape(name)}</h3>{drawn}</div>")
    return f'<h2>How latencies are spread</h2><div class="pair">{"".join(charts)}</div>' if charts else ""


def _rates(recordings: Sequence[Recording]) -> str:
    zero = min((record.seconds[0].at_ns for record in recordings if record.seconds), default=0)
    sender = recordings[0].seconds[1:]  # the first is over no time
    if len(sender) < 2:
        return ""

    def points(values: Iterable[tuple[Second, float]]) -> list[tuple[float, float]]:
        return [((second.at_ns - zero) / 1e9, value) for second, value in values]

    series = [
        Line("on the wire", points((one, one.sent_kbps) for one in sender), "s0"),
        Line("payload", points((one, one.payload_kbps) for one in sender), "s1"),
        Line("back, on the wire", points((one, one.received_kbps) for one in sender), "s2"),
    ]
    return f"<h2>Rate over time</h2>{lines(series, 'kbit/s', 'rate over time')}"


def _threads(recordings: Sequence[Recording]) -> str:
    parts = []
    for record, role in zip(recordings, ("Sender", "Receiver"), strict=False):
        used = cpu_by_thread(record.seconds)
        if not used:
            continue
        rows = [Bar(name, 0.0, value, f"s{min(place, 5)}") for place, (name, value) in enumerate(used.items())]
        series = [
            Line(name, cpu_over_time(record.seconds, name), f"s{place}")
            for place, name in enumerate(list(used)[:THREADS_DRAWN])
        ]
        over_time = lines(series, "% of a core", f"CPU of the {role.lower()} over time", width=HALF)
        parts.append(f"<div><h3>{role}</h3>{bars(rows, '% of a core', f'CPU by thread, {role}')}{over_time}</div>")
    return f'<h2>CPU by thread</h2><div class="pair">{"".join(parts)}</div>' if parts else ""


def cpu_by_thread(seconds: Sequence[Second]) -> dict[str, float]:
    """Mean share of a core in per cent by thread, the busiest first; those below 0.05 % are left out."""
    if len(seconds) < 2 or seconds[-1].at_ns <= seconds[0].at_ns:
        return {}
    length = (seconds[-1].at_ns - seconds[0].at_ns) / 1e9
    used = {name: 100 * (value - seconds[0].cpu_s.get(name, 0.0)) / length for name, value in seconds[-1].cpu_s.items()}
    return {name: value for name, value in sorted(used.items(), key=lambda item: -item[1]) if value >= 0.05}


def cpu_over_time(seconds: Sequence[Second], name: str) -> list[tuple[float, float]]:
    """(s since the first record, per cent of a core) of one thread."""
    points = []
    for before, after in itertools.pairwise(seconds):
        length = (after.at_ns - before.at_ns) / 1e9
        if length > 0:
            share = 100 * (after.cpu_s.get(name, 0.0) - before.cpu_s.get(name, 0.0)) / length
            points.append(((after.at_ns - seconds[0].at_ns) / 1e9, share))
    return points


def _footer(timeline: Timeline) -> str:
    offset = timeline.offset
    if not offset.samples:
        clocks = "Both peers read one clock."
    else:
        clocks = (
            f"The receiver's clock is ahead by {offset.offset_ns / 1e6:.3f} ms (± {offset.error_ns / 1e6:.3f} ms), "
            f"estimated from {offset.samples} packets, and drifts by {offset.drift * 1e6:.2f} ppm."
        )
    causes = ", ".join(f"{cause} {number}" for cause, number in timeline.dropped.items())
    return escape(f"{clocks} {f'Dropped: {causes}.' if causes else 'Nothing was dropped.'}")
