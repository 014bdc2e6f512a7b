"""`streamgc profile`: where every millisecond of a call goes, from capture at one peer to display at the other."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from streamgc.call.demo import make_call
from streamgc.call.profile_options import ProfileOptions
from streamgc.call.report import Log, read_log, report, write_report
from streamgc.call.sources import packaged_clip
from streamgc.errors import InputError
from streamgc.profiling.clock import ClockOffset, estimate_between
from streamgc.profiling.luminance import Agreement, Level, Step, find_steps
from streamgc.profiling.opentelemetry import write_otlp
from streamgc.profiling.page import write_page
from streamgc.profiling.process import OtherLoad
from streamgc.profiling.recording import Recording, Second, SentMark, ShownMark, Stage, host_name, write_recording
from streamgc.profiling.summary import Summary, as_json, summarise
from streamgc.profiling.timeline import Timeline, join
from streamgc.profiling.trace_file import write_trace
from streamgc.rtc.statistics import Statistics

Update = Callable[[str, Statistics], None]


class Profile(NamedTuple):
    """One direction of a call, measured."""

    report: dict[str, Any]  # report.json
    timeline: Timeline
    summary: Summary
    recordings: tuple[Recording, Recording]  # sender's and receiver's


def profile_call(options: ProfileOptions, update: Update = lambda name, statistics: None) -> Profile:
    """Make a call between two processes on this machine and measure it. With `duplex` the first direction is told and
    both load the machine.

    Raises a `StreamGCError` for what cannot be used.
    """
    demo = options.demo()
    clip = str(options.input or packaged_clip())
    with tempfile.TemporaryDirectory(prefix="streamgc-profile-") as name:
        folder = Path(name)
        with OtherLoad() as other:
            asyncio.run(make_call(demo, clip, folder, update))
        logs = [read_log(folder / f"{peer}.events") for peer in "ab"]
    whole = report(demo, logs)
    whole["other_cpu_percent"] = round(max(0.0, other.percent), 1)
    if options.study.flash:
        whole["light"] = _light(logs, options.codec.fps).as_dict()
    recordings = [recording_of(peer, log) for peer, log in zip("ab", logs, strict=True)]
    return measured(whole, recordings, options)


def measured(whole: dict[str, Any], recordings: Sequence[Recording], options: ProfileOptions) -> Profile:
    """Join two recordings; `whole` is the report that the figures go into."""
    sender, receiver = recordings
    timeline = join(sender, receiver)
    steady = _without_start(timeline, options.warm_up_s)
    summary = summarise(steady)
    whole["options"] = msgspec.to_builtins(options, enc_hook=str)
    whole["profile"] = {
        **as_json(summary),
        "dropped": timeline.dropped,
        "waited_for_start_s": options.warm_up_s,
        "clock": _clock(timeline.offset, estimate_between(sender, receiver)),
    }
    return Profile(whole, steady, summary, (sender, receiver))


def joined(sender: Recording, receiver: Recording, options: ProfileOptions) -> Profile:
    """Two recordings of one call, from wherever they come; the first is the sender's of the direction that is told.

    Raises `InputError` when they have no frame in common.
    """
    numbers = {mark.number for mark in sender.sent} & {mark.number for mark in receiver.shown}
    if not numbers:
        raise InputError("the recordings have no frame in common: the first is the sender's, of the same call and time")
    sender.sent = [mark for mark in sender.sent if min(numbers) <= mark.number <= max(numbers)]
    video = {"frames_captured": len(sender.sent), "frames_sent": len(sender.sent), "frames_shown": len(numbers)}
    return measured({"video": video}, (sender, receiver), options)


def write_live(folder: Path, recording: Recording) -> Path:
    """The recording of one side; where it was written."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"peer-{recording.peer}.json"
    write_recording(path, recording)
    return path


def write_profile(folder: Path, profile: Profile, title: str = "StreamGC: where every millisecond goes") -> None:
    """trace.json, report.html, report.json, spans.otlp.json, and both peers' recordings."""
    folder.mkdir(parents=True, exist_ok=True)
    sender, receiver = profile.recordings
    write_trace(folder / "trace.json", profile.timeline, sender, receiver)
    write_otlp(folder / "spans.otlp.json", profile.timeline, sender, receiver)
    for recording in profile.recordings:
        write_recording(folder / f"peer-{recording.peer}.json", recording)
    write_page(folder / "report.html", title, profile.timeline, profile.summary, profile.recordings, about(profile))
    write_report(folder / "report.json", profile.report)


def about(profile: Profile) -> dict[str, Any]:
    """What was measured, for a reader: a value a line."""
    whole, options = profile.report, profile.report["options"]
    codec = options["codec"]
    found: dict[str, Any] = {
        "clip": Path(options["input"]).name or "carphone (packaged)",
        "size": f"{codec['width']}×{codec['height']}",
        "fps": f"{codec['fps']:g}",
        "seconds": f"{options['seconds']:g}",
        "model": whole.get("model", codec["model"]),
        "engine": whole.get("engine", ""),
        "threads": codec["threads"] or "half the cores",
    }
    impairment = options["impairment"]
    for name, unit in (("loss", ""), ("delay_ms", " ms"), ("rate_kbps", " kbit/s")):
        if impairment[name]:
            found[name.partition("_")[0]] = f"{impairment[name]:g}{unit}"
    if options["duplex"]:
        found["duplex"] = "yes"
    if options["study"]["slow"] != 1:
        found["receiver slowed"] = f"×{options['study']['slow']:g}"
    if "cpu_percent" in whole:
        found["cpu_percent"] = whole["cpu_percent"]
    return found


def recording_of(peer: str, log: Log) -> Recording:
    """A peer's log as a recording."""
    ended = log.ended
    assert ended is not None
    return Recording(
        peer=peer,
        host=host_name(),
        stages=[Stage(one.stage, one.frame, one.start_ns, one.end_ns, one.thread) for one in log.spans],
        sent=[SentMark(one.number, one.captured_ns, one.message) for one in log.sent.values()],
        shown=[ShownMark(one.number, one.at_ns) for one in log.shown if one.number is not None],
        seconds=[
            Second(
                at_ns=tick.at_ns,
                sent_kbps=tick.sent_kbps,
                payload_kbps=tick.payload_kbps,
                received_kbps=tick.received_kbps,
                cpu_s=tick.cpu_s,
            )
            for tick in log.ticks
            if tick.at_ns >= ended.connected_ns
        ],
        dropped=dict(ended.sent_dropped) | dict(ended.received_dropped),
        threads=ended.threads,
    )


def _light(logs: Sequence[Log], fps: float) -> Agreement:
    """Glass to glass by light, against that by identity."""
    sender, receiver = logs
    identity = {
        sender.sent[mark.number].captured_ns: (mark.at_ns - sender.sent[mark.number].captured_ns) / 1e6
        for mark in receiver.shown
        if mark.number is not None and mark.number in sender.sent
    }
    steps = [Step(one.captured_ns, one.level) for one in sender.flashed[1:]]  # the first is no change
    levels = [Level(one.at_ns, one.level) for one in receiver.seen]
    return find_steps(steps, levels, identity, 1e9 / fps)


def _without_start(timeline: Timeline, seconds: float) -> Timeline:
    if not timeline.frames:
        return timeline
    start = timeline.frames[0].captured_ns + int(seconds * 1e9)
    return timeline._replace(frames=tuple(frame for frame in timeline.frames if frame.captured_ns >= start))


def _clock(used: ClockOffset, estimate: ClockOffset | None) -> dict[str, Any]:
    """What was used, and what the packets say."""
    said: dict[str, Any] = {"same_machine": used.samples == 0}
    if estimate is not None:
        said |= {
            "estimated_offset_ms": round(estimate.offset_ns / 1e6, 4),
            "error_ms": round(estimate.error_ns / 1e6, 4),
            "drift_ppm": round(estimate.drift * 1e6, 3),
            "samples": estimate.samples,
        }
    return said
