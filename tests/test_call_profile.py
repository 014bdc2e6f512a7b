"""`streamgc profile` on real calls between real processes; only the picture codec is a stand-in."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streamgc.call.codec import CodecOptions
from streamgc.call.demo_options import Study
from streamgc.call.live import LiveFeed, live_table, scrape, socket_path, watch
from streamgc.call.metrics import MetricsEndpoint
from streamgc.call.profile import Profile, joined, profile_call, write_profile
from streamgc.call.profile_options import ProfileOptions
from streamgc.call.profile_pipeline import profile_pipeline
from streamgc.call.profile_sweep import parse_grid, sweep, write_sweep
from streamgc.cli import app
from streamgc.cli_groups import mount
from streamgc.errors import InputError
from streamgc.profiling.compare import read_report
from streamgc.profiling.recording import read_recording
from streamgc.profiling.spans import Span
from streamgc.profiling.summary import WHOLE, service_ms, summarise_peer
from streamgc.rtc.statistics import Received, Sent, Statistics
from tests.profiling_calls import call
from tests.test_call_sources import write_video

FAKE = CodecOptions(width=64, height=64, fps=15, factory="tests.rtc_fakes:load_fake")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, 20, 15, (80, 64))
    return str(path)


@pytest.fixture(scope="module")
def profile(clip: str) -> Profile:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        return profile_call(ProfileOptions(clip, seconds=4.0, warm_up_s=1.0, codec=FAKE, study=Study(slow=1.5)))


def test_a_call_is_measured_from_capture_to_display(profile: Profile) -> None:
    summary = profile.summary
    assert summary.whole is not None
    assert 0 < summary.whole.times.p50 < 100
    stages = {row.stage for row in summary.rows}
    assert {"capture", "wait", "packetise", "pace", "network", "reassemble", "display", "waiting"} <= stages
    assert sum(row.share or 0 for row in summary.rows) == pytest.approx(1)
    whole = profile.report["latency_ms"]["glass_to_glass"]
    assert summary.whole.times.p50 == pytest.approx(whole["p50"], rel=0.5)  # the demo's figure has the start in it
    assert len(profile.timeline.frames) <= profile.report["video"]["frames_sent"] - 10


def test_the_peers_clocks_are_the_same_and_the_packets_say_so(profile: Profile) -> None:
    clock = profile.report["profile"]["clock"]
    assert clock["same_machine"]
    assert abs(clock["estimated_offset_ms"]) <= clock["error_ms"] + 0.01
    assert clock["error_ms"] < 20


def test_threads_and_rates_are_told(profile: Profile) -> None:
    sender, receiver = profile.recordings
    assert len(sender.seconds) >= 3
    assert sender.seconds[-1].sent_kbps > 1
    assert sender.seconds[-1].cpu_s["event loop"] > 0
    assert {"event loop", "sgc-encoder"} <= set(sender.threads.values())
    assert {stage.thread for stage in receiver.stages} <= set(receiver.threads)


def test_everything_is_written(profile: Profile, tmp_path: Path) -> None:
    write_profile(tmp_path / "out", profile)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["peer-a.json", "peer-b.json", "report.html", "report.json", "spans.otlp.json", "trace.json"]
    report = read_report(tmp_path / "out" / "report.json")
    assert len(report["profile"]["samples_ms"][WHOLE]) == len(profile.timeline.shown)
    assert {"video", "latency_ms", "cpu_percent", "rss_mb", "peers"} <= set(report)
    assert read_recording(tmp_path / "out" / "peer-a.json") == profile.recordings[0]
    assert len(json.loads((tmp_path / "out" / "trace.json").read_text())["traceEvents"]) > 100


def test_a_report_is_compared_with_itself(profile: Profile, tmp_path: Path) -> None:
    write_profile(tmp_path / "one", profile)
    path = str(tmp_path / "one" / "report.json")
    mount(app, ["profile"])
    result = CliRunner().invoke(app, ["profile", "--compare", path, path])
    if len(profile.timeline.shown) < 75:
        assert isinstance(result.exception, InputError)
        return
    assert "significant: nothing" in result.stdout


@pytest.mark.parametrize(
    "options",
    [{"seconds": 1.0}, {"study": Study(slow=0.5)}, {"study": Study(slow=1000)}],
)
def test_options_that_cannot_be_measured(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        replace(ProfileOptions(), **options)  # type: ignore[arg-type]


def test_the_pipeline_is_measured_without_a_network(clip: str) -> None:
    measured = profile_pipeline(ProfileOptions(clip, seconds=6.0, warm_up_s=0.0, codec=FAKE))
    assert measured.report["video"]["frames_shown"] == 90
    assert measured.report["video"]["frames_a_second"] > 90
    assert measured.summary.whole is not None
    assert measured.summary.whole.times.p50 < 20
    with pytest.raises(InputError, match="no network"):
        profile_pipeline(ProfileOptions(clip, codec=FAKE, duplex=True))


def test_a_sweep_measures_every_combination(clip: str, tmp_path: Path) -> None:
    options = ProfileOptions(clip, seconds=3.0, warm_up_s=0.0, codec=FAKE)
    grid = parse_grid(["size=64,128", "slow=1,2"])
    assert len(grid) == 4
    points = list(sweep(options, grid, profile_pipeline))
    assert [point.label for point in points][1] == "size 64 slow 2"
    assert points[3].profile.report["options"]["codec"]["width"] == 128
    write_sweep(tmp_path, points)
    assert [one["setting"]["size"] for one in json.loads((tmp_path / "sweep.json").read_text())] == [
        "64",
        "64",
        "128",
        "128",
    ]
    page = (tmp_path / "sweep.html").read_text()
    assert page.count("<tr>") == 5
    assert "<svg" in page


@pytest.mark.parametrize("word", ["size", "size=", "size=64,", "colour=red", "threads=a", "precision=int3", "size=65"])
def test_a_sweep_of_nothing_or_nonsense_is_refused(word: str) -> None:
    with pytest.raises(InputError):
        list(sweep(ProfileOptions(codec=FAKE), parse_grid([word]), lambda one: pytest.fail("measured")))
    with pytest.raises(InputError):
        parse_grid(["size=64", "size=128"])
    with pytest.raises(InputError, match="combinations"):
        parse_grid([f"threads={','.join(map(str, range(9)))}", f"fps={','.join(map(str, range(9)))}"])


def statistics() -> Statistics:
    return Statistics(1.0, "connected", "SGC", "aa", "none", "", Sent(kbps_onwire=9.0), Received(), 40.0, {})


async def test_a_running_call_is_watched_by_its_process_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    feed = LiveFeed()
    await feed.open()
    path = socket_path(os.getpid())
    assert path.stat().st_mode & 0o777 == 0o600
    feed.sent(1, 5, 60)  # nobody watches: nothing is kept
    watching = asyncio.create_task(watch(os.getpid(), 3.0))
    for number in range(6):
        await asyncio.sleep(0.3)
        feed.sent(number, number * 10, 60)
        feed.shown(number, number * 10 + 5)
        feed.second(statistics(), [Span("encode", number, 0, 2_000_000, 1)])
    await feed.close()
    recording = await watching
    assert len(recording.stages) == len(recording.sent) >= 4
    assert recording.sent[0].number > 0 or recording.sent[0].captured_ns == 0
    assert recording.seconds[0].sent_kbps == 9.0
    assert not path.exists()
    (row,) = summarise_peer(recording).rows
    assert (row.stage, row.times.p50) == ("encode", 2.0)
    with pytest.raises(InputError, match="no call of yours"):
        await watch(os.getpid(), 1.0)


def test_a_metrics_endpoint_is_read() -> None:
    endpoint = MetricsEndpoint(0)
    try:
        endpoint.update(replace(statistics(), stages={"encode": {"p50": 1.5, "p95": 2.5, "p99": 3.0}}))
        found = scrape(f"http://127.0.0.1:{endpoint.port}")
    finally:
        endpoint.close()
    assert found["encode"] == {"p50": 1.5, "p95": 2.5, "p99": 3.0}
    assert live_table(found).row_count == 1
    for url in ("http://127.0.0.1:9", "http://example.org", "nonsense"):
        with pytest.raises(InputError):
            scrape(url)


def test_recordings_of_two_machines_are_joined(tmp_path: Path) -> None:
    sender, receiver = call(200, offset_ns=9_000_000_000_000)
    whole = joined(sender, receiver, ProfileOptions())
    assert whole.summary.whole is not None
    assert whole.summary.whole.times.p50 == pytest.approx(51, abs=4)
    assert not whole.report["profile"]["clock"]["same_machine"]
    write_profile(tmp_path, whole)
    with pytest.raises(InputError, match="no frame in common"):
        joined(receiver, sender, ProfileOptions())


@pytest.mark.parametrize(
    "words",
    [
        ["--pipeline", "--layers"],
        ["size=64"],
        ["--size", "65x64"],
        ["--fps", "0"],
        ["--precision", "int3"],
        ["--live", "1"],
        ["--join", "/nowhere/a.json", "/nowhere/b.json"],
        ["--compare", "/nowhere/a.json", "/nowhere/b.json"],
        ["--sweep"],
    ],
)
def test_what_cannot_be_profiled_is_said(words: list[str]) -> None:
    mount(app, ["profile"])
    result = CliRunner().invoke(app, ["profile", *words])
    assert isinstance(result.exception, InputError)
    assert "\n" not in str(result.exception)


def test_overload_keeps_latency_bounded_and_counts_what_it_drops(clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that takes 150 ms a picture gets fifteen a second: the newest is shown, the others are counted."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    slow = replace(FAKE, factory="tests.rtc_fakes:load_slow_fake")
    found = profile_call(ProfileOptions(clip, seconds=4.0, warm_up_s=1.0, codec=slow, study=Study(slow=5.0)))
    whole = found.summary.whole
    assert whole is not None
    service = service_ms(found.timeline) + 30  # the stand-in's own work has no span
    assert service > 140
    assert whole.times.p95 < service + 2 * 1000 / slow.fps + 15
    video = found.report["video"]
    assert found.timeline.dropped["overtaken"] > 0.4 * video["frames_sent"]
    assert video["frames_shown"] + found.timeline.dropped["overtaken"] >= video["frames_sent"] - 3
