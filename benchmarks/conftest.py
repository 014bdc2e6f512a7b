"""Every benchmark is told as a ratio to a reference that ran just before it, so that figures of different machines, and
of one machine at different hours, can be laid side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

REFERENCE_RUNS = 15
Measure = Callable[..., Any]
_FOUND = pytest.StashKey[list[dict[str, Any]]]()


def python_reference() -> int:
    """A loop of integers and list look-ups, as the coders have them: about a millisecond."""
    table, total = list(range(256)), 0
    for number in range(12_000):
        total += table[number & 255] ^ number
    return total


class _Arrays:
    """Passes over a million floats and a picture, as networks and heatmaps have them: about a millisecond. No matrix
    product: that would be as many threads as the library likes."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self._floats = random.normal(size=1_000_000).astype(np.float32)
        self._picture = random.integers(0, 256, (256, 256, 3), dtype=np.uint8)

    def __call__(self) -> float:
        mixed = self._floats * np.float32(0.5) + self._floats
        return float(mixed.sum() + (self._picture[..., 0] ^ 85).sum())


def best_ms(function: Callable[[], object], runs: int = REFERENCE_RUNS) -> float:
    """The least time of some runs: what the machine can do when it is left alone."""
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best * 1000


@pytest.fixture
def measure(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> Measure:
    """`measure(path, size, amount, function, python=…)` times a function: `amount` is what should make it grow."""

    def run(path: str, size: str, amount: float, function: Callable[[], object], python: bool) -> object:
        reference = best_ms(python_reference if python else _Arrays())
        benchmark.group = path
        result = benchmark(function)
        least = benchmark.stats.stats.min * 1000
        ratio = least / reference
        benchmark.extra_info.update(path=path, size=size, amount=amount, reference_ms=reference, ratio=ratio)
        request.config.stash.setdefault(_FOUND, []).append(dict(benchmark.extra_info, ms=least))
        return result

    return run


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """One line a path: least time and ratio at each size, and the exponent with which it grows."""
    found = config.stash.get(_FOUND, [])
    if not found:
        return
    terminalreporter.section("least ms (ratio to the reference of the same run)")
    for path in dict.fromkeys(one["path"] for one in found):
        ones = sorted((one for one in found if one["path"] == path), key=lambda one: one["amount"])
        cells = "  ".join(f"{one['size']:>8}: {one['ms']:8.3f} ({one['ratio']:6.2f})" for one in ones)
        first, last = ones[0], ones[-1]
        growth = ""
        if len(ones) > 1:
            exponent = np.log(last["ms"] / first["ms"]) / np.log(last["amount"] / first["amount"])
            growth = f"  grows as amount^{exponent:.2f}"
        terminalreporter.write_line(f"{path:<24}{cells}{growth}")
