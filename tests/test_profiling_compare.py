"""What is called a difference is one, and what is none is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamgc.errors import InputError
from streamgc.profiling.compare import FRAMES_MIN, compare, read_report, settings, student, verdict
from streamgc.profiling.summary import WHOLE


def latencies(seed: int, frames: int = 300, mean: float = 30.0) -> list[float]:
    """A call's: each frame like the one before (correlation 0.8), with a tail."""
    random = np.random.default_rng(seed)
    noise = random.normal(0, 1, frames)
    for place in range(1, frames):
        noise[place] = 0.8 * noise[place - 1] + 0.6 * noise[place]
    return [float(value) for value in mean + 2 * noise + random.exponential(1.5, frames)]


def test_the_same_is_not_called_different() -> None:
    """At a level of 5 % over all stages; a test that took frames for independent would be wrong most times."""
    wrong = 0
    for seed in range(20):
        before = {f"stage {i}": latencies(1000 * seed + i) for i in range(5)}
        after = {f"stage {i}": latencies(1000 * seed + 100 + i) for i in range(5)}
        wrong += any(change.significant for change in compare(before, after, seed))
    assert wrong <= 4


def test_what_became_faster_is_found() -> None:
    before = {"generate": latencies(1), "encode": latencies(2), WHOLE: latencies(3, mean=60)}
    after = {"generate": latencies(4, mean=24), "encode": latencies(5), WHOLE: latencies(6, mean=54)}
    generate, whole = (change for change in compare(before, after) if change.stage != "encode")
    assert generate.median_differs
    assert -8 < generate.low < generate.after[0] - generate.before[0] < generate.high < -2
    assert verdict(generate).startswith("median faster")
    assert whole.stage == WHOLE
    assert whole.significant


def test_a_longer_tail_is_found_though_the_median_stays() -> None:
    calm = latencies(1, 600)
    tail = [value + 25 * (place % 12 == 0) for place, value in enumerate(latencies(2, 600))]
    (change,) = compare({"generate": calm}, {"generate": tail})
    assert change.tail_differs
    assert not change.median_differs
    assert verdict(change) == "p95 slower"


def test_a_hair_is_no_change() -> None:
    (change,) = compare({"pace": [0.10] * 300}, {"pace": [0.11] * 300})
    assert not change.significant


@pytest.mark.parametrize(("share", "freedom", "value"), [(0.975, 10, 2.228), (0.995, 5, 4.032), (0.975, 120, 1.980)])
def test_students_quantiles_are_those_of_the_tables(share: float, freedom: int, value: float) -> None:
    assert student(share, freedom) == pytest.approx(value, rel=0.01)


def test_too_few_frames_are_not_compared() -> None:
    few = latencies(1, FRAMES_MIN - 1)
    assert compare({"encode": few}, {"encode": latencies(2)}) == []
    assert compare({"encode": latencies(1)}, {"decode": latencies(2)}) == []


def test_what_was_set_otherwise_is_named() -> None:
    before = {"engine": "openvino fp32", "options": {"codec": {"threads": 1, "fps": 15}, "out": "a"}}
    after = {"engine": "openvino int8", "options": {"codec": {"threads": 2, "fps": 15}, "out": "b"}}
    assert [setting.name for setting in settings(before, after)] == ["engine", "options.codec.threads"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"profile": {}}', '{"latency_ms": {}}'])
def test_reports_without_samples_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(InputError):
        read_report(path)
    with pytest.raises(InputError, match="cannot read"):
        read_report(tmp_path / "none.json")
