"""`streamgc profile` on real calls between real processes; only the picture codec is a stand-in."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streamgc.call.codec import CodecOptions
from streamgc.call.demo_options import Study
from streamgc.call.profile import Profile, profile_call, write_profile
from streamgc.call.profile_options import ProfileOptions
from streamgc.cli import app
from streamgc.cli_groups import mount
from streamgc.errors import InputError
from streamgc.profiling.compare import read_report
from streamgc.profiling.recording import read_recording
from streamgc.profiling.summary import WHOLE
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
