"""The live table of a call in a terminal."""

from collections.abc import Callable

from rich.table import Table

from streamgc.rtc.statistics import Statistics


def table(latest: dict[str, Statistics]) -> Table:
    """The live table: one column a peer."""
    shown = Table(title="StreamGC call", min_width=64)
    shown.add_column("")
    for name in sorted(latest):
        shown.add_column(f"peer {name} ({latest[name].state})", justify="right")
    for label, cell in _ROWS:
        shown.add_row(label, *(cell(latest[name]) for name in sorted(latest)))
    stage_names = {stage: None for one in latest.values() for stage in one.stages}
    for stage in stage_names:
        cells = (latest[name].stages.get(stage) for name in sorted(latest))
        shown.add_row(
            f"  {stage} ms", *(f"{times['p50']:.1f} / {times['p95']:.1f}" if times else "" for times in cells)
        )
    return shown


_ROWS: tuple[tuple[str, Callable[[Statistics], str]], ...] = (
    ("sent kbps, on the wire", lambda one: f"{one.sent.kbps_onwire:.1f}"),
    ("sent kbps, payload", lambda one: f"{one.sent.kbps_payload:.1f}"),
    ("received kbps, on the wire", lambda one: f"{one.received.kbps_onwire:.1f}"),
    ("frames sent", lambda one: str(one.sent.frames_sent)),
    ("frames shown", lambda one: str(one.received.frames_shown)),
    (
        "frames dropped",
        lambda one: str(sum(one.sent.frames_dropped.values()) + sum(one.received.frames_dropped.values())),
    ),
    ("sound kbps: sent, received", lambda one: f"{one.sent.sound_kbps:.1f}, {one.received.sound_kbps:.1f}"),
    ("loss", lambda one: f"{max(one.received.loss, one.sent.loss_reported):.1%}"),
    ("round trip ms", lambda one: "" if one.rtt_ms is None else f"{one.rtt_ms:.0f}"),
    ("latency ms, p50 / p95", lambda one: ""),
)
