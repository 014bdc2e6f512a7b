"""Payload rates, AV1's curve, and R: AV1's payload at our person score, divided by our payload."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from streamgc.errors import InputError

PACKET_OVERHEAD_BYTES = 60
"""RTP, SRTP tag, UDP and IP headers of a packet, the same for every codec."""
PACKET_PAYLOAD_BYTES = 1200
START_SECONDS = 2
SPREAD_SECONDS = 60
BELOW = 0.5
"""R where we score below AV1's lowest point."""


class Rate(NamedTuple):
    """Payload of a clip: `steady` kbit/s after the first 2 s, what the start costs beyond it, and both together."""

    steady: float
    start_excess_bytes: int
    kbps: float


def payload_rate(sizes: Sequence[int], fps: int) -> Rate:
    """The payload rate of message sizes in bytes, one a frame: steady, and with the start's excess spread over 60 s.

    The start is the first 2 s, or half of a clip shorter than 4 s. Raises InputError for fewer than two messages.
    """
    if len(sizes) < 2:
        raise InputError("a rate needs at least two coded frames")
    start = min(START_SECONDS * fps, len(sizes) // 2)
    mean = float(np.mean(sizes[start:]))
    excess = sum(sizes[:start]) - mean * start
    steady = mean * fps
    total = (steady + max(0.0, excess) / SPREAD_SECONDS) * 8 / 1000
    return Rate(round(steady * 8 / 1000, 2), int(excess), round(total, 2))


def wire_sizes(sizes: Iterable[int]) -> list[int]:
    """Bytes on the wire of each message: 60 for every packet of up to 1200 bytes; an unsent frame (0) costs none."""
    return [size + PACKET_OVERHEAD_BYTES * math.ceil(size / PACKET_PAYLOAD_BYTES) for size in sizes]


class Point(NamedTuple):
    """One measured coding: payload kbit/s and AlexNet ST-LPIPS on the person (less is better)."""

    kbps: float
    alex: float


class Ratio(NamedTuple):
    """R of one clip at one rate; `where` is "within", "below" (R = 0.5) or "above" AV1's measured range (a floor)."""

    r: float
    anchor_kbps: float
    where: str


def frontier(points: Iterable[Point]) -> list[Point]:
    """The points of one curve that no cheaper point equals or beats, from the lowest rate to the highest."""
    kept: list[Point] = []
    for point in sorted(points):
        if not kept or point.alex < kept[-1].alex:
            kept.append(point)
    return kept


def rate_at(curve: Sequence[Point], alex: float) -> float:
    """Payload at which a frontier reaches a score, by interpolation in log rate; infinite above its best score.

    A score below the frontier's lowest point costs what that point costs, which is at least as good.
    """
    if alex >= curve[0].alex:
        return curve[0].kbps
    if alex < curve[-1].alex:
        return math.inf
    scores = [point.alex for point in reversed(curve)]
    logs = [math.log(point.kbps) for point in reversed(curve)]
    return math.exp(float(np.interp(alex, scores, logs)))


def ratio(curves: Iterable[Iterable[Point]], ours: Point) -> Ratio:
    """R against AV1's curves: at our score the cheapest of them.

    Below the score of AV1's cheapest point R is 0.5. Above every measured score AV1's payload is not known; the
    highest measured rate on the frontiers stands for it, which understates R. Raises InputError without curves.
    """
    frontiers = [kept for kept in map(frontier, curves) if kept]
    if not frontiers or ours.kbps <= 0:
        raise InputError("R needs AV1's measured points and a payload above 0")
    cheapest = min((curve[0] for curve in frontiers), key=lambda point: (point.kbps, point.alex))
    if ours.alex > cheapest.alex:
        return Ratio(BELOW, cheapest.kbps, "below")
    needed = min(rate_at(curve, ours.alex) for curve in frontiers)
    if math.isinf(needed):
        highest = max(curve[-1].kbps for curve in frontiers)
        return Ratio(round(highest / ours.kbps, 4), highest, "above")
    return Ratio(round(needed / ours.kbps, 4), round(needed, 3), "within")


def geometric_mean(values: Iterable[float]) -> float:
    """Geometric mean; NaN of nothing."""
    logs = [math.log(value) for value in values]
    return round(math.exp(sum(logs) / len(logs)), 4) if logs else float("nan")


def bd_rate(anchor: Sequence[Point], test: Sequence[Point]) -> float | None:
    """Bjontegaard delta rate in per cent at equal AlexNet ST-LPIPS (PCHIP; negative: `test` needs fewer bits).

    None where the two frontiers share no range of scores, or one has fewer than two points, or the bjontegaard
    package is not installed.
    """
    try:
        import bjontegaard
    except ImportError:
        return None
    first, second = frontier(anchor), frontier(test)
    if min(len(first), len(second)) < 2 or max(first[-1].alex, second[-1].alex) >= min(first[0].alex, second[0].alex):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = bjontegaard.bd_rate(
            [point.kbps for point in first],
            [-point.alex for point in first],
            [point.kbps for point in second],
            [-point.alex for point in second],
            method="pchip",
            require_matching_points=False,
            min_overlap=0,
        )
    return round(float(value), 2) if np.isfinite(value) else None
