"""Spans and percentiles: what is timed is what is reported."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgc.profiling.percentiles import StageTimes, Window, percentiles
from streamgc.profiling.spans import Span, Spans


class Clock:
    """A clock that advances 1 ms a reading."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += 1_000_000
        return self.now


def test_a_stage_is_timed_and_carries_its_frame() -> None:
    spans = Spans(clock=Clock())
    with spans.frame(7), spans("encode"):
        pass
    with spans("code", frame=9):
        pass
    first, second = spans.drain()
    assert (first.stage, first.frame, first.milliseconds) == ("encode", 7, 1.0)
    assert (second.stage, second.frame) == ("code", 9)
    assert spans.drain() == []


def test_a_stage_that_raises_is_still_recorded() -> None:
    spans = Spans()
    with pytest.raises(ValueError), spans("encode"):
        raise ValueError
    assert [span.stage for span in spans.drain()] == ["encode"]


def test_frames_nest_and_belong_to_one_thread() -> None:
    spans = Spans()

    def other() -> None:
        with spans("elsewhere"):
            pass

    with spans.frame(1):
        with spans.frame(2), spans("inner"):
            pass
        with spans("outer"):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert [(span.stage, span.frame) for span in spans.drain()] == [("inner", 2), ("outer", 1), ("elsewhere", None)]


def test_off_keeps_nothing_and_makes_no_objects() -> None:
    spans = Spans(enabled=False)
    assert spans("encode") is spans.frame(3)
    with spans("encode"):
        pass
    spans.add("network", 0, 1)
    assert len(spans) == 0


def test_memory_is_bounded() -> None:
    spans = Spans(capacity=10)
    for number in range(100):
        spans.add("network", 0, number, number)
    assert [span.frame for span in spans.drain()] == list(range(90, 100))


def test_threads_lose_nothing() -> None:
    spans = Spans()

    def work() -> None:
        for number in range(500):
            with spans("work", frame=number):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(spans.drain()) == 2000


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200))
def test_percentiles_agree_with_numpy(values: list[float]) -> None:
    found = percentiles(values)
    assert found is not None
    np.testing.assert_allclose(found, np.percentile(values, [50, 95, 99]), rtol=1e-9, atol=1e-9)


def test_nothing_has_no_percentiles() -> None:
    assert percentiles([]) is None
    assert Window().percentiles() is None


def test_stages_come_in_the_order_of_a_frame() -> None:
    times = StageTimes()
    times.add_spans([Span(name, 0, 0, 2_000_000, 0) for name in ("zebra", "generate", "segment", "alpha")])
    assert list(times.percentiles()) == ["segment", "generate", "alpha", "zebra"]
    assert times.percentiles()["segment"].as_dict() == {"p50": 2.0, "p95": 2.0, "p99": 2.0}
