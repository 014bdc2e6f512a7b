"""Two recordings become one timeline: clocks, stages, shares, drops, and the files made of them."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgc.errors import InputError
from streamgc.profiling.charts import ticks
from streamgc.profiling.clock import SAME_CLOCK, estimate_between, estimate_offset, offset_between
from streamgc.profiling.opentelemetry import write_otlp
from streamgc.profiling.page import cpu_by_thread, write_page
from streamgc.profiling.recording import Recording, read_recording, write_recording
from streamgc.profiling.summary import WHOLE, summarise
from streamgc.profiling.timeline import WAITING, join
from streamgc.profiling.trace_file import RECEIVER, SENDER, write_trace
from tests.profiling_calls import HAND_OVER_MS, MS, RECEIVER_MS, SENDER_MS, call

WAY_MS = 20.0
WORK_MS = sum(length for _, length in (*SENDER_MS, *RECEIVER_MS)) + HAND_OVER_MS


@given(st.integers(-(10**13), 10**13), st.floats(-50e-6, 50e-6), st.floats(0.1, 100), st.integers(0, 30))
@settings(max_examples=25, deadline=None)
def test_the_other_clock_is_found(offset_ns: int, drift: float, way_ms: float, lost: int) -> None:
    sender, receiver = call(600, way_ms=way_ms, offset_ns=offset_ns, drift=drift, lost=tuple(range(lost)))
    found = offset_between(sender, receiver)
    for moment in (1_000_000_000, 20_000_000_000, 40_000_000_000):
        there = round(moment + offset_ns + drift * moment)
        assert abs(found.to_sender(there) - moment) < 0.3 * MS
    assert found.error_ns <= (way_ms + 1.5) * MS + 0.1 * MS


def test_an_asymmetric_way_is_half_an_error_within_the_bound() -> None:
    there = [(at, at + 30 * MS) for at in range(0, 10**9, 10**8)]
    back = [(at, at + 10 * MS) for at in range(0, 10**9, 10**8)]
    found = estimate_offset(there, back)
    assert found is not None
    assert found.offset_ns == 10 * MS
    assert abs(found.offset_ns) <= found.error_ns == 20 * MS


def test_one_machine_has_one_clock_and_the_packets_agree() -> None:
    sender, receiver = call(hosts=("one", "one"))
    assert offset_between(sender, receiver) is SAME_CLOCK
    estimate = estimate_between(sender, receiver)
    assert estimate is not None
    assert abs(estimate.offset_ns) < 0.01 * MS


def test_too_few_reports_leave_the_clock_unknown() -> None:
    sender, receiver = call(5)
    assert estimate_between(sender, receiver) is None
    assert offset_between(sender, receiver).error_ns == float("inf")


def test_every_moment_of_a_frame_is_counted_once() -> None:
    timeline = join(*call(offset_ns=7_000 * MS, lost=(3,)))
    assert [frame.number for frame in timeline.frames if frame.shown_ns is None] == [3]
    for frame in timeline.shown:
        assert frame.pieces[0].start_ns == frame.captured_ns
        assert frame.pieces[-1].end_ns == frame.shown_ns
        for before, after in zip(frame.pieces, frame.pieces[1:], strict=False):
            assert before.end_ns == after.start_ns
    summary = summarise(timeline)
    assert summary.whole is not None
    assert sum(row.share or 0.0 for row in summary.rows) == pytest.approx(1)
    rows = {row.stage: row for row in summary.rows}
    assert list(rows)[:3] == ["wait", "segment", "blank"]
    assert list(rows)[-1] == WAITING
    assert rows["generate"].times.p50 == pytest.approx(9, abs=0.2)
    assert rows[WAITING].times.p50 == pytest.approx(HAND_OVER_MS, abs=0.2)
    assert rows["network"].times.p50 == pytest.approx(WAY_MS + 1.6, abs=1.6)
    assert summary.whole.times.p50 == pytest.approx(WORK_MS + WAY_MS + 1.6, abs=1.6)
    assert (rows["wait"].dropped, rows["network"].dropped) == (2, 1)
    assert summary.whole.dropped == 3
    assert len(summary.samples[WHOLE]) == 59


def test_a_stage_that_overlaps_another_adds_nothing() -> None:
    sender, receiver = call(1, hosts=("one", "one"))
    first = sender.stages[1]
    sender.stages.append(first.__class__("crop", 0, first.start_ns + MS, first.end_ns - MS, 1))
    frame = join(sender, receiver).frames[0]
    assert frame.latency_ms is not None
    assert sum(piece.milliseconds for piece in frame.pieces) == pytest.approx(frame.latency_ms)


def test_a_decoded_frame_that_was_not_shown_was_overtaken() -> None:
    sender, receiver = call(10, hosts=("one", "one"))
    receiver.shown.pop(4)
    assert join(sender, receiver).dropped["overtaken"] == 1


def test_recordings_survive_a_file_and_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "peer-a.json"
    recording, _ = call(3)
    write_recording(path, recording)
    assert read_recording(path) == recording
    assert [file.name for file in tmp_path.iterdir()] == ["peer-a.json"]
    for text in ("", "[]", '{"peer": 3, "host": ""}', '{"format": 99, "peer": "a", "host": ""}'):
        path.write_text(text)
        with pytest.raises(InputError):
            read_recording(path)
    with pytest.raises(InputError, match="cannot read"):
        read_recording(tmp_path / "none.json")


def test_the_trace_is_in_the_trace_event_format(tmp_path: Path) -> None:
    """The rules of the Trace Event Format that Perfetto's importer relies on."""
    sender, receiver = call(30, lost=(4,), offset_ns=5_000 * MS)
    write_trace(tmp_path / "trace.json", join(sender, receiver), sender, receiver)
    whole = json.loads((tmp_path / "trace.json").read_text())
    assert set(whole) == {"displayTimeUnit", "traceEvents"}
    assert whole["displayTimeUnit"] == "ms"
    events: list[dict[str, Any]] = whole["traceEvents"]
    begun: dict[object, float] = {}
    flows: dict[object, float] = {}
    for event in events:
        phase = event["ph"]
        assert phase in "MXbeisfC"
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert 0 <= event["tid"] < 2**31
        if phase == "M":
            assert event["name"] in ("process_name", "process_sort_index", "thread_name")
            continue
        assert event["ts"] >= 0
        if phase == "X":
            assert event["dur"] >= 0
        elif phase in "be":
            assert event["cat"] == "frame"
            key = (event["cat"], event["id"])
            if phase == "b":
                begun[key] = event["ts"]
            else:
                assert event["ts"] > begun.pop(key)
        elif phase == "s":
            flows[event["id"]] = event["ts"]
        elif phase == "f":
            assert event["bp"] == "e"
            assert event["ts"] >= flows.pop(event["id"])
        elif phase == "C":
            assert event["args"]
            assert all(isinstance(value, int | float) for value in event["args"].values())
    assert not begun
    assert not flows
    named = {(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name"}
    assert {(event["pid"], event["tid"]) for event in events if event["ph"] == "X"} <= named
    frames = {event["args"]["frame"] for event in events if event["ph"] == "X" and event["pid"] == RECEIVER}
    assert frames == set(range(30)) - {4}
    assert {event["name"] for event in events if event["pid"] == SENDER and event["ph"] == "C"} == {
        "kbit/s on the wire",
        "CPU %",
    }


def test_otlp_spans_have_parents_and_identities(tmp_path: Path) -> None:
    sender, receiver = call(8, lost=(2,))
    timeline = join(sender, receiver)
    write_otlp(tmp_path / "spans.json", timeline, sender, receiver, epoch_ns=10**18)
    whole = json.loads((tmp_path / "spans.json").read_text())
    services, spans = [], []
    for resource in whole["resourceSpans"]:
        names = {one["key"]: one["value"]["stringValue"] for one in resource["resource"]["attributes"]}
        services.append(names["service.name"])
        spans += resource["scopeSpans"][0]["spans"]
    assert services == ["streamgc-sender", "streamgc-receiver"]
    roots = {span["spanId"]: span for span in spans if "parentSpanId" not in span}
    assert len(roots) == 7
    assert len({span["spanId"] for span in spans}) == len(spans)
    for span in spans:
        assert len(bytes.fromhex(span["traceId"])) == 16
        assert len(bytes.fromhex(span["spanId"])) == 8
        assert 10**18 <= int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"])
        if "parentSpanId" in span:
            assert roots[span["parentSpanId"]]["traceId"] == span["traceId"]


class _Page(HTMLParser):
    """Collects tags, and whatever a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attributes if name in ("src", "href", "data", "srcset")]


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    sender, receiver = call(200, lost=(4, 90))
    timeline = join(sender, receiver)
    about = {"clip": "<carphone>", "cpu_percent": 60.0}
    write_page(tmp_path / "report.html", "a call", timeline, summarise(timeline), (sender, receiver), about)
    text = (tmp_path / "report.html").read_text()
    parsed = _Page()
    parsed.feed(text)
    assert parsed.loads == []
    assert "script" not in parsed.tags
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    assert "&lt;carphone&gt;" in text
    charts = text.count("<svg")
    assert charts >= 10
    pieces = text.split("<svg")[1:]
    for piece in pieces:
        drawing = ElementTree.fromstring("<svg" + piece[: piece.index("</svg>") + 6])
        assert drawing.get("aria-label")
        assert "nan" not in piece[: piece.index("</svg>")]


def test_a_call_without_a_shown_frame_still_makes_a_page(tmp_path: Path) -> None:
    empty = Recording(peer="a", host="one"), Recording(peer="b", host="one")
    timeline = join(*empty)
    summary = summarise(timeline)
    assert summary.whole is None
    write_page(tmp_path / "report.html", "nothing", timeline, summary, empty, {})
    assert "0 of 0" in (tmp_path / "report.html").read_text()


def test_cpu_by_thread_is_a_share_of_the_time_between() -> None:
    sender, _ = call(2)
    assert cpu_by_thread(sender.seconds) == {"sgc": pytest.approx(30), "event loop": pytest.approx(10)}


@given(st.floats(0, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert len(found) <= 8
    assert all(low - 1e-3 * span <= value <= low + span * 1.001 for value in found)
