"""Table, plots and `rows` of `streamgc evaluate transport`."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from streamgc.call.sinks import appearing, write_bytes
from streamgc.call.transport import RECOVERED, Run, recovered
from streamgc.errors import InputError

_T_95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Student's t for a two-sided 95 % interval, by degrees of freedom from 1."""

_MISSED = ("missed_unsent", "missed_lost", "missed_network", "missed_machine")

_COLUMNS = (
    ("network", "network"),
    ("codec", "codec"),
    ("seeds", "runs"),
    ("shown_within_150ms", "within 150 ms"),
    ("shown_within_250ms", "within 250 ms"),
    ("latency_p50_ms", "p50 ms"),
    ("latency_p95_ms", "p95 ms"),
    ("freeze_longest_s", "longest freeze s"),
    ("fps_shown", "fps"),
    ("kbps_onwire", "kbit/s on the wire"),
)


def rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row for each codec and network: means over the seeds, the longest freeze and recovery of all (None if one run
    did not recover), and the half width of the 95 % interval of the mean share where there is more than one seed."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.network, run.codec), []).append(run)
    return [_row(group) for group in groups.values()]


def _row(group: Sequence[Run]) -> dict[str, Any]:
    first = group[0]
    row: dict[str, Any] = {
        "network": first.network,
        "codec": first.codec,
        "loss": first.loss,
        "burst": first.burst,
        "cap_kbps": first.cap_kbps,
        "seeds": len(group),
        "seconds": first.seconds,
    }
    for name in ("shown_within_150ms", "shown_within_250ms", "fps_shown", "kbps_onwire", *_MISSED):
        row[name] = round(statistics.mean(getattr(run, name) for run in group), 4)
    for name in ("shown_within_150ms", "shown_within_250ms"):
        shares = [getattr(run, name) for run in group]
        row[f"{name}_pm"] = round(_half_width(shares), 4) if len(group) > 1 else None
    for name in ("latency_p50_ms", "latency_p95_ms"):
        known = [value for run in group if (value := getattr(run, name)) is not None]
        row[name] = round(statistics.mean(known), 1) if known else None
    for name in RECOVERED:
        found = [getattr(run, name) for run in group]
        row[name] = None if None in found else max(found)
    row["freeze_longest_s"] = max(run.freeze_longest_s for run in group)
    row["note"] = "; ".join(sorted({run.note for run in group if run.note}))
    return row


def _half_width(values: Sequence[float]) -> float:
    factor = _T_95[min(len(values) - 2, len(_T_95) - 1)]
    return factor * statistics.stdev(values) / math.sqrt(len(values))


def table(found: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    titles = [*(title for _, title in _COLUMNS), "later than 150 ms: unsent, lost, network, machine"]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for row in found:
        cells = []
        for name, _ in _COLUMNS:
            value = row[name]
            if name.startswith("shown"):
                spread = row.get(f"{name}_pm")
                cells.append(f"{value:.1%}" + (f" ± {spread:.1%}" if spread else ""))
            else:
                cells.append("–" if value is None else f"{value:g}" if isinstance(value, float) else str(value))
        cells.append(" ".join(f"{row[name]:.1%}" for name in _MISSED))
        if row["network"] == "step":
            cells[0] += f" {recovered(row)}"
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_results(runs: Sequence[Run], path: Path) -> str:
    """Write `path` (JSON: rows and runs), a table and, where matplotlib is installed, plots beside it; returns the
    table."""
    found = rows(runs)
    whole = {"rows": found, "runs": [asdict(run) for run in runs]}
    write_bytes(path, msgspec.json.format(msgspec.json.encode(whole), indent=1) + b"\n")
    text = table(found)
    write_bytes(path.with_suffix(".md"), text.encode() + b"\n")
    try:
        _plot(found, path.with_suffix(".png"))
    except ImportError:
        text += "\n(no plots: pip install matplotlib)"
    except OSError as error:
        raise InputError(f"cannot write {path.with_suffix('.png')}: {error}") from error
    return text


def _plot(found: Sequence[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    codecs = sorted({row["codec"] for row in found}, key=lambda name: (name != "sgc", name))
    for codec in codecs:
        own = [row for row in found if row["codec"] == codec]
        lossy = sorted(
            (row["loss"] * 100, row["shown_within_150ms"] * 100) for row in own if row["network"].startswith("loss-")
        )
        capped = sorted((row["cap_kbps"], row["shown_within_250ms"] * 100) for row in own if row["cap_kbps"])
        width = 2.5 if codec == "sgc" else 1.2
        left.plot(*zip(*lossy, strict=True) if lossy else ([], []), marker="o", linewidth=width, label=codec)
        right.plot(*zip(*capped, strict=True) if capped else ([], []), marker="o", linewidth=width, label=codec)
    left.set(xlabel="packets lost, %", ylabel="pictures displayed within 150 ms, %", ylim=(-3, 103))
    right.set(xlabel="capacity, kbit/s on the wire", ylabel="pictures displayed within 250 ms, %", ylim=(-3, 103))
    right.set_xlim(15, 500)
    right.set_xscale("log")
    right.set_xticks([20, 30, 60, 150, 400], ["20", "30", "60", "150", "400"])
    right.minorticks_off()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    left.legend()
    with appearing(path) as temporary:
        figure.savefig(temporary, dpi=110)
