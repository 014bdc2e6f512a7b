"""Two profiles side by side, and which differences are more than noise.

Latencies of neighbouring frames are alike (a busy second slows fifteen of them), so a test that takes frames for
independent finds differences everywhere. Blocks of frames are drawn instead (moving-block bootstrap: Künsch, "The
jackknife and the bootstrap for general stationary observations", Annals of Statistics 17, 1989): they say how far a
median or a 95th percentile is off by chance. A difference counts when it is larger than chance makes it at the wanted
level, which is divided by the number of differences looked at (Bonferroni). A change below `LEAST_MS` is never called
one, however certain. One run against one run cannot tell a change of the code from a change of the machine's mood:
repeat both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from streamgc.errors import InputError
from streamgc.profiling.summary import WHOLE
from streamgc.profiling.timeline import WAITING, stage_order

BLOCK = 25
"""Frames that are drawn together: a second or two."""

ROUNDS = 500
LEVEL = 0.05
LEAST_MS = 0.05
FRAMES_MIN = 3 * BLOCK

Floats = NDArray[np.float64]


class Change(NamedTuple):
    """One stage before and after, ms; `low` and `high` bound the difference of the medians."""

    stage: str
    before: tuple[float, float]  # p50, p95
    after: tuple[float, float]
    low: float
    high: float
    median_differs: bool
    tail_differs: bool

    @property
    def significant(self) -> bool:
        """Whether median or 95th percentile changed by more than noise."""
        return self.median_differs or self.tail_differs


class Setting(NamedTuple):
    """An option or a figure that is not the same in both reports."""

    name: str
    before: object
    after: object


def read_report(path: Path) -> dict[str, Any]:
    """A `report.json` of `streamgc profile`. Raises `InputError` when it is none."""
    try:
        report = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise InputError(f"{path} is no report: {error}") from None
    if not isinstance(report, dict) or not isinstance(report.get("profile", {}).get("samples_ms"), dict):
        raise InputError(f"{path} has no samples: it is no report of 'streamgc profile'")
    return report


def compare(before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]], seed: int = 1) -> list[Change]:
    """The stages that both have, with enough frames to tell; glass to glass is the last."""
    both = [name for name in before.keys() & after.keys() if min(len(before[name]), len(after[name])) >= FRAMES_MIN]
    names = sorted(both, key=lambda name: (name == WHOLE, name == WAITING, stage_order(name)))
    random = np.random.default_rng(seed)
    level = LEVEL / (2 * max(1, len(names)))  # median and 95th percentile of each stage
    return [_change(name, np.array(before[name]), np.array(after[name]), level, random) for name in names]


def settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Setting]:
    """Options, model and engine that are not the same: what the comparison is of."""
    keys = ("model", "model_hash", "engine", "codec")
    found = [Setting(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]
    old, new = _flat(before.get("options", {})), _flat(after.get("options", {}))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key) and key != "out":
            found.append(Setting(f"options.{key}", old.get(key), new.get(key)))
    return found


def comparison_table(changes: Sequence[Change], names: tuple[str, str]) -> Table:
    """For the terminal; what changed is marked."""
    shown = Table(title=f"{names[0]} → {names[1]}, ms, significant at {LEVEL:.0%} over all stages")
    for column in ("stage", "p50", "", "difference", "p95", "", "verdict"):
        shown.add_column(column, justify="left" if column in ("stage", "verdict") else "right")
    for change in changes:
        if change.stage == WHOLE:
            shown.add_section()
        shown.add_row(
            change.stage,
            f"{change.before[0]:.2f}",
            f"{change.after[0]:.2f}",
            f"{change.low:+.2f} … {change.high:+.2f}",
            f"{change.before[1]:.2f}",
            f"{change.after[1]:.2f}",
            verdict(change),
            style="bold" if change.significant else "dim",
        )
    return shown


def verdict(change: Change) -> str:
    """In a word or two."""
    said = []
    for name, place, differs in (("median", 0, change.median_differs), ("p95", 1, change.tail_differs)):
        if differs:
            said.append(f"{name} {'faster' if change.after[place] < change.before[place] else 'slower'}")
    return ", ".join(said) or "no difference seen"


def _change(name: str, before: Floats, after: Floats, level: float, random: np.random.Generator) -> Change:
    blocks = min(len(before), len(after)) // BLOCK
    spread = student(1 - level / 2, blocks - 1) * (_resampled(after, random) - _resampled(before, random)).std(axis=0)
    was, is_now = (np.quantile(values, [0.5, 0.95]) for values in (before, after))
    moved = np.abs(is_now - was)
    median, tail = (bool(differs) for differs in (moved > spread) & (moved >= LEAST_MS))
    shift = float(is_now[0] - was[0])
    return Change(
        name,
        (float(was[0]), float(was[1])),
        (float(is_now[0]), float(is_now[1])),
        shift - float(spread[0]),
        shift + float(spread[0]),
        median,
        tail,
    )


def student(share: float, freedom: int) -> float:
    """The quantile of Student's t; Abramowitz and Stegun, 26.7.5. Few blocks say little about their own spread."""
    z = NormalDist().inv_cdf(share)
    one = (z**3 + z) / 4
    two = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    three = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + one / freedom + two / freedom**2 + three / freedom**3


def _resampled(values: Floats, random: np.random.Generator) -> Floats:
    """Median and 95th percentile of each of ROUNDS resamples, (ROUNDS, 2)."""
    size = len(values)
    starts = random.integers(0, size, (ROUNDS, -(-size // BLOCK)))
    places = (starts[..., None] + np.arange(BLOCK)).reshape(ROUNDS, -1)[:, :size] % size  # a circle has no ends
    return np.asarray(np.quantile(values[places], [0.5, 0.95], axis=1).T)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found.update(_flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found
