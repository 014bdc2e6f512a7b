"""Percentiles of latencies: exact over what is kept, in bounded memory."""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from streamgc.profiling.spans import REPORTS, STAGES, Span


class Percentiles(NamedTuple):
    """Median, 95th and 99th percentile, in the unit of what was measured."""

    p50: float
    p95: float
    p99: float

    def as_dict(self, digits: int = 2) -> dict[str, float]:
        """For a report: `{"p50": …, "p95": …, "p99": …}`."""
        return {name: round(value, digits) for name, value in zip(self._fields, self, strict=True)}


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` (0..1) of `ordered` (ascending, not empty) lies; linear, as in numpy."""
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def percentiles(values: Iterable[float]) -> Percentiles | None:
    """p50, p95 and p99 of `values`, or None when there are none."""
    ordered = sorted(values)
    if not ordered:
        return None
    return Percentiles(percentile(ordered, 0.50), percentile(ordered, 0.95), percentile(ordered, 0.99))


class Window:
    """The last `size` values of one quantity."""

    def __init__(self, size: int = 4096) -> None:
        self._values: deque[float] = deque(maxlen=size)

    def add(self, value: float) -> None:
        self._values.append(value)

    def percentiles(self) -> Percentiles | None:
        """p50, p95 and p99 of what is kept, or None when nothing was added."""
        return percentiles(self._values)

    def __len__(self) -> int:
        return len(self._values)


class StageTimes:
    """A window of milliseconds for each stage."""

    def __init__(self, size: int = 4096) -> None:
        self._size = size
        self._stages: dict[str, Window] = {}

    def add(self, stage: str, milliseconds: float) -> None:
        self._stages.setdefault(stage, Window(self._size)).add(milliseconds)

    def add_spans(self, spans: Iterable[Span]) -> None:
        """Add what is a stage's time; `REPORTS` are none."""
        for span in spans:
            if span.stage not in REPORTS:
                self.add(span.stage, span.milliseconds)

    def percentiles(self) -> dict[str, Percentiles]:
        """Percentiles by stage, stages in the order a frame passes them, unknown ones last by name."""
        found = {name: window.percentiles() for name, window in self._stages.items()}
        return {name: value for name, value in sorted(found.items(), key=_stage_order) if value is not None}


def _stage_order(item: tuple[str, object]) -> tuple[int, str]:
    name = item[0]
    return (STAGES.index(name), "") if name in STAGES else (len(STAGES), name)


def as_report(stages: Mapping[str, Percentiles]) -> dict[str, dict[str, float]]:
    """The `stages` part of a report: plain numbers, ready for JSON."""
    return {name: value.as_dict() for name, value in stages.items()}
