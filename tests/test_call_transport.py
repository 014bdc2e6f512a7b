"""`streamgc evaluate transport`: its figures from made-up logs, and one real call of each kind."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from streamgc.call.demo_peer import Ended, PlainShown, SentFrame, ShownFrame, SpanRecord, Tick
from streamgc.call.report import Log
from streamgc.call.transport import NETWORKS, RECOVERED, Run, TransportOptions, displayed, evaluate, load_runs, measured
from streamgc.call.transport_report import rows, table, write_results
from streamgc.errors import InputError

MS = 1_000_000
FAST = "tests.rtc_fakes:load_fake"


def ended(seconds: float, **changes: object) -> Ended:
    values: dict[str, object] = {
        "connected_ns": 0, "ended_ns": round(seconds * 1e9), "bytes_sent": 0, "payload_sent": 0, "bytes_setup": 0,
        "captured": 0, "cpu_percent": 0.0, "rss_mb": 0.0, "model": "", "model_hash": "", "engine": "", "codec": "SGC",
        "repeats": 0, "rtt_ms": None, "freeze_longest_s": 0.0, "sent_dropped": {}, "received_dropped": {},
        "sound": {}, "threads": {},
    }  # fmt: skip
    return Ended(**(values | changes))  # type: ignore[arg-type]


def call(seconds: int = 24, latency_ms: int = 100, lost_every: int = 0, **changes: object) -> tuple[Log, Log]:
    sender, receiver = Log(ended=ended(seconds, **changes)), Log(ended=ended(seconds))
    for number in range(seconds * 10):
        captured = number * 100 * MS
        sender.sent[number] = SentFrame(number, number, captured, 50, None)
        if not lost_every or number % lost_every:
            receiver.shown.append(ShownFrame(number, captured + latency_ms * MS, None))
    for second in range(seconds):
        sender.ticks.append(Tick(second * 1000 * MS, 14.0, 8.0, 1.0, {}))
    return sender, receiver


def test_shares_freezes_and_rates() -> None:
    run = measured("sgc", NETWORKS[1], 7, *call(lost_every=10))
    assert (run.codec, run.network, run.seed, run.loss) == ("sgc", "loss-5", 7, 0.05)
    assert run.frames == 200  # 24 s without three at the beginning and one at the end
    assert run.shown_within_150ms == pytest.approx(0.9)
    assert run.fps_shown == pytest.approx(9)
    assert run.freeze_longest_s == pytest.approx(0.2)
    assert run.kbps_onwire == pytest.approx(14)
    slow = measured("sgc", NETWORKS[1], 7, *call(latency_ms=200))
    assert (slow.shown_within_150ms, slow.shown_within_250ms) == (0, 1)


def test_what_the_sender_dropped_counts_as_not_shown_but_not_what_the_rate_control_held_back() -> None:
    dropped = measured("sgc", NETWORKS[0], 1, *call(sent_dropped={"replaced before encoding": 60}))
    held = measured("sgc", NETWORKS[0], 1, *call(sent_dropped={"held back by the rate control": 60}))
    assert dropped.shown_within_150ms == pytest.approx(200 / 250)
    assert held.shown_within_150ms == 1


def test_pictures_of_conventional_codecs_are_matched_by_their_capture() -> None:
    sender, receiver = call()
    receiver.shown.clear()
    receiver.plain = [PlainShown(None, 50 * MS), PlainShown(1003 * MS, 1150 * MS), PlainShown(1050 * MS, 1200 * MS)]
    assert displayed(sender, receiver) == [(1000 * MS, 1150 * MS)]


def test_a_call_is_well_when_nearly_all_that_follow_are_in_time_and_when_the_old_rate_is_back(tmp_path: Path) -> None:
    sender, receiver = call(seconds=30)
    slow = {*range(100, 115), 190}
    receiver.shown = [
        ShownFrame(shown.number, shown.at_ns + 900 * MS, None) if shown.number in slow else shown
        for shown in receiver.shown
    ]
    sender.ticks = [
        Tick(second * 1000 * MS, 14.0 if well or second >= 24 else 5.0, 0, 0, {}, 24.0 if well or second > 22 else 9.0)
        for second, well in ((second, second < 10) for second in range(30))
    ]
    step = next(network for network in NETWORKS if network.step)
    run = measured("sgc", step, 1, sender, receiver)
    assert run.down_s == pytest.approx(1.2)  # of the 88 pictures from there on 4 are slow
    assert run.slow_until_s == pytest.approx(9)
    assert run.up_s == pytest.approx(4)
    assert run.allowed_s == pytest.approx(3)
    (row,) = rows([run])
    assert [row[name] for name in RECOVERED] == [1.2, 9.0, 4.0, 3.0]
    assert "down 1.2 s, last slow picture 9.0 s, up 4.0 s, allowed 3.0 s" in table([row])
    receiver.shown = [shown for shown in receiver.shown if not 100 <= (shown.number or 0) < 200]
    never = measured("sgc", step, 1, sender, receiver)
    assert never.down_s is None
    assert "down –" in table(rows([run, never]))
    write_results([run, never], tmp_path / "step.json")
    assert load_runs(tmp_path / "step.json") == [run, never]
    assert "up 4.0 s, allowed 3.0 s" in (tmp_path / "step.md").read_text()


def test_a_late_picture_is_put_down_to_what_made_it_late() -> None:
    sender, receiver = call(seconds=24)
    first = {shown.number: shown for shown in receiver.shown}
    for number in sender.sent:
        left = sender.sent[number].captured_ns + 20 * MS
        came = left + (90 if number in (100, 101) else 45) * MS
        sender.spans += [SpanRecord("packetise", number, at, at, 1) for at in (left, left + 12 * MS)]  # and an echo
        receiver.spans.append(SpanRecord("reassemble", number, came, came, 1))
    late = {number: ShownFrame(number, (first[number].at_ns + 100 * MS), None) for number in (100, 101, 110)}
    receiver.shown = [late.get(shown.number or 0, shown) for shown in receiver.shown if shown.number not in (120, 121)]
    sender.ended = ended(24, sent_dropped={"replaced before encoding": 12})
    run = measured("sgc", NETWORKS[0], 1, sender, receiver)
    assert run.frames == 210
    assert run.missed_unsent == pytest.approx(10 / 210, abs=1e-3)
    assert run.missed_lost == pytest.approx(2 / 210, abs=1e-3)
    assert run.missed_network == pytest.approx(2 / 210, abs=1e-3)
    assert run.missed_machine == pytest.approx(1 / 210, abs=1e-3)
    missed = run.missed_unsent + run.missed_lost + run.missed_network + run.missed_machine
    assert missed == pytest.approx(1 - run.shown_within_150ms, abs=1e-3)


def test_rows_are_means_with_an_interval_and_runs_survive_the_file(tmp_path: Path) -> None:
    runs = [measured("sgc", NETWORKS[1], seed, *call(lost_every=seed + 8)) for seed in (1, 2, 3)]
    (row,) = rows(runs)
    names = {"codec", "loss", "burst", "cap_kbps", "shown_within_150ms", "freeze_longest_s", "fps_shown", "kbps_onwire"}
    assert names <= row.keys()
    assert row["seeds"] == 3
    assert 0.88 < row["shown_within_150ms"] < 0.92
    assert 0 < row["shown_within_150ms_pm"] < 0.05
    path = tmp_path / "transport.json"
    text = write_results(runs, path)
    assert "loss-5" in text
    assert path.with_suffix(".md").read_text().strip() in text
    assert path.with_suffix(".png").stat().st_size > 1000
    assert load_runs(path) == runs
    assert json.loads(path.read_text())["rows"][0]["codec"] == "sgc"
    assert "| 90.0% |" in table(rows(runs[1:2]))


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such codec: theora"):
        TransportOptions(codecs=("theora",))
    with pytest.raises(InputError, match="no such network"):
        TransportOptions(networks=("loss-7",))
    with pytest.raises(InputError, match="at least 7 seconds"):
        TransportOptions(seconds=3)
    other = tmp_path / "other.json"
    other.write_text('{"rows": []}')
    with pytest.raises(InputError, match="evaluate transport"):
        load_runs(other)
    assert load_runs(tmp_path / "none.json") == []


def test_real_calls_are_measured_and_added_to_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "transport.json"
    old = Run("h264", "loss-0", 1, 0, 1, 0, 9, 100, 0.5, 0.5, 100, 200, 0.1, 10, 500)
    write_results([old], path)
    options = TransportOptions(
        seconds=8, seeds=1, calls=2, codecs=("sgc", "vp8-low"), networks=("loss-0",), factory=FAST
    )
    runs = {run.codec: run for run in evaluate(options, path)}
    assert runs["h264"] == old
    assert evaluate(replace(options, codecs=("h264",), resume=True), path, pytest.fail) == list(runs.values())
    for codec in ("sgc", "vp8-low"):
        assert runs[codec].note == ""
        assert runs[codec].fps_shown > 5
        latency = runs[codec].latency_p50_ms
        assert latency is not None
        assert 40 < latency < 400
        assert runs[codec].kbps_onwire > 5
