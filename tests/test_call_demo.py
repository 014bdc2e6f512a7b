"""The demo with everything real but the picture codec: processes, server, aiortc, files."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from urllib.request import urlopen

import av
import numpy as np
import pytest
from rich.console import Console

from streamgc.call.codec import CodecOptions
from streamgc.call.demo import run_demo
from streamgc.call.demo_options import DemoOptions
from streamgc.call.metrics import MetricsEndpoint
from streamgc.call.run import CallOptions, ice_servers, run_call
from streamgc.call.sources import load_sound
from streamgc.errors import InputError, SignallingError
from streamgc.rtc.impairment import Impairment
from streamgc.rtc.opus import SAMPLE_RATE
from streamgc.rtc.statistics import Received, Sent, Statistics
from tests.test_call_sources import write_talking, write_video

FAKE = CodecOptions(width=64, height=64, fps=15, factory="tests.rtc_fakes:load_fake")
ROOT = Path(__file__).parents[1]


@pytest.fixture
def clip(tmp_path: Path) -> str:
    path = tmp_path / "clip.mp4"
    write_video(path, 20, 15, (80, 64))
    return str(path)


@pytest.fixture(autouse=True)
def _tests_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


def quiet() -> Console:
    return Console(file=StringIO(), width=100)


def test_the_demo_carries_the_clips_sound_into_the_video(tmp_path: Path) -> None:
    clip = tmp_path / "talking.mp4"
    write_talking(clip, 4)
    whole = run_demo(DemoOptions(input=str(clip), seconds=4, codec=FAKE, out=tmp_path / "out"), quiet())
    assert whole["sound"]["sent"]["sent_packets"] > 20
    assert whole["sound"]["received"]["heard_packets"] > 20
    heard = load_sound(tmp_path / "out" / "side_by_side.mp4", 10)
    assert heard is not None
    assert 3 < len(heard) / SAMPLE_RATE < 5
    assert np.abs(heard.astype(int)).mean() > 300


def test_the_demo_makes_a_call_and_says_what_happened(tmp_path: Path, clip: str) -> None:
    out = tmp_path / "out"
    console = quiet()
    whole = run_demo(DemoOptions(input=clip, seconds=3, codec=FAKE, out=out), console)
    assert json.loads((out / "report.json").read_text()) == whole
    video, latency = whole["video"], whole["latency_ms"]
    assert whole["codec"] == "SGC"
    assert video["frames_sent"] >= 40
    assert video["frames_shown"] >= 0.9 * video["frames_sent"]
    assert video["frames_dropped"] == video["frames_captured"] - video["frames_shown"]
    assert video["shown_within_150ms"] > 0.9
    assert video["kbps_onwire"] > video["kbps_payload"] > video["kbps_messages"] > 0
    assert 0 < latency["glass_to_glass"]["p50"] < 60
    assert {"packetise", "network", "reassemble", "display"} <= set(latency["stages"])
    assert whole["cpu_percent"] > 0
    assert whole["rss_mb"] > 10
    with av.open(str(out / "side_by_side.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (192, 84)
        assert len(list(container.decode(stream))) == video["frames_shown"]
    assert (out / "contact_sheet.png").stat().st_size > 500
    printed = console.file.getvalue() if isinstance(console.file, StringIO) else ""
    assert "frames shown" in printed
    assert sorted(path.name for path in out.iterdir()) == ["contact_sheet.png", "report.json", "side_by_side.mp4"]


@pytest.mark.slow
def test_duplex_over_a_bad_network(tmp_path: Path, clip: str) -> None:
    options = DemoOptions(
        input=clip, seconds=3, codec=FAKE, duplex=True, impairment=Impairment(delay_ms=30, loss=0.05), out=tmp_path
    )
    whole = run_demo(options, quiet())
    assert whole["reverse"]["video"]["frames_shown"] > 25
    assert 28 < whole["latency_ms"]["stages"]["network"]["p50"] < 60
    assert whole["video"]["rtt_ms"] > 55


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": "/nowhere/clip.mp4"}, "no such file"),
        ({"codec": replace(FAKE, factory="tests.rtc_fakes:nothing")}, "there is no codec"),
        ({"input": "webcam"}, "no camera"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(
    tmp_path: Path, clip: str, change: dict[str, object], message: str
) -> None:
    if change.get("input") == "webcam" and list(Path("/dev").glob("video*")):
        pytest.skip("this machine has a camera")
    options = replace(DemoOptions(input=clip, seconds=1, codec=FAKE, out=tmp_path / "out"), **change)  # type: ignore[arg-type]
    with pytest.raises(Exception, match=message) as raised:
        run_demo(options, quiet())
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_options_out_of_range() -> None:
    for wrong in ({"seconds": 0}, {"codec": replace(FAKE, fps=0)}, {"codec": replace(FAKE, kbps=0)}):
        with pytest.raises(InputError):
            DemoOptions(**wrong)


def test_a_call_in_the_terminal_needs_a_server_and_a_room(clip: str) -> None:
    with pytest.raises(SignallingError, match="no signalling server"):
        run_call(CallOptions(server="127.0.0.1:9", input=clip, codec=FAKE), quiet())
    with pytest.raises(InputError, match="no such file"):
        run_call(CallOptions(server="127.0.0.1:9", input="/nowhere.mp4", codec=FAKE), quiet())
    with pytest.raises(InputError, match="not a STUN"):
        ice_servers(CallOptions(stun=("http://x",)))
    (server,) = ice_servers(CallOptions(turn=("turn:host:3478",), turn_user="u", turn_password="p"))
    assert (server.username, server.credential) == ("u", "p")


def test_two_terminals_call_each_other_and_one_records(tmp_path: Path, clip: str) -> None:
    server = subprocess.Popen(
        [sys.executable, "-m", "signaling", "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        script = (
            "import sys; from streamgc.call.run import *; from tests.test_call_demo import FAKE\n"
            f"run_call(CallOptions(room=sys.argv[1], server={url!r}, input={clip!r}, seconds=2.5, codec=FAKE,"
            " record=sys.argv[2], statistics=sys.argv[3]))"
        )
        names = [(str(tmp_path / f"{side}.mkv"), str(tmp_path / f"{side}.jsonl")) for side in "ab"]
        first = subprocess.Popen(
            [sys.executable, "-c", script, "new", *names[0]], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert first.stdout is not None
        room = first.stdout.readline().split()[1]
        second = subprocess.run(
            [sys.executable, "-c", script, room, *names[1]], cwd=ROOT, capture_output=True, text=True, timeout=30
        )
        first.communicate(timeout=30)
        assert (first.returncode, second.returncode) == (0, 0), second.stderr
    finally:
        server.terminate()
        server.wait(5)
    for video, lines in names:
        with av.open(video) as container:
            assert len(list(container.decode(video=0))) > 15
        assert [json.loads(line)["codec"] for line in Path(lines).read_text().splitlines()][-1] == "SGC"


def test_metrics_are_served_on_loopback() -> None:
    endpoint = MetricsEndpoint(0)
    try:
        sent, received = Sent(frames_dropped={"replaced": 3}), Received(fps=15.0)
        stages = {"encode": {"p50": 1.5}}
        endpoint.update(Statistics(1.0, "connected", "SGC", "aa", "none", "", sent, received, 40.0, stages))
        with urlopen(f"http://127.0.0.1:{endpoint.port}/metrics") as reply:
            text = reply.read().decode()
        with pytest.raises(InputError, match="cannot listen"):
            MetricsEndpoint(endpoint.port)
    finally:
        endpoint.close()
    assert "streamgc_received_fps 15.0" in text
    assert 'streamgc_sent_frames_dropped{cause="replaced"} 3.0' in text
    assert 'streamgc_stage_ms{percentile="p50",stage="encode"} 1.5' in text
