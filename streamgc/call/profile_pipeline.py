"""`streamgc profile --pipeline`: sender and receiver back to back in one process, without a network or pauses. What
comes out is service time: what the work itself takes when nothing waits for anything."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from typing import Any

import psutil

from streamgc.call.codec import load_codec
from streamgc.call.profile import Profile, measured
from streamgc.call.profile_options import ProfileOptions
from streamgc.call.sources import Size, load_clip, packaged_clip, ping_pong
from streamgc.call.study import studied
from streamgc.errors import InputError
from streamgc.profiling.percentiles import StageTimes, as_report, percentiles
from streamgc.profiling.process import cpu_by_thread, thread_names
from streamgc.profiling.recording import Recording, Second, SentMark, ShownMark, Stage, host_name
from streamgc.profiling.spans import RECEIVER_STAGES, Spans


def profile_pipeline(options: ProfileOptions) -> Profile:
    """Code and decode `seconds * fps` pictures. Raises a `StreamGCError` for what cannot be used."""
    if options.duplex or not options.impairment.perfect:
        raise InputError("--pipeline has no network: --duplex, --loss, --delay and --rate do not go with it")
    codec = studied(load_codec(options.codec), options.study)
    size, fps = Size(*options.codec.shown), options.codec.fps
    pictures = load_clip(options.input or packaged_clip(), size, fps)
    spans = Spans(capacity=1 << 20)
    sender, receiver = codec.sender(spans), codec.receiver(spans)
    own = Recording(peer="a", host=host_name())
    far = Recording(peer="b", host=own.host)
    process = psutil.Process()
    busy = sum(process.cpu_times()[:2])
    begun = time.monotonic()
    dropped: Counter[str] = Counter()
    sender.set_rate(options.codec.kbps, fps)
    number = 0
    for position in itertools.islice(ping_pong(len(pictures)), int(options.seconds * fps)):
        captured_ns = time.monotonic_ns()
        message = sender.encode(pictures[position], number, captured_ns).message
        if not message:
            dropped["skipped by the codec"] += 1
            continue
        own.sent.append(SentMark(number, captured_ns, len(message)))
        received = receiver.receive(message, time.monotonic_ns())
        shown = receiver.render()
        if shown is not None:
            far.shown.append(ShownMark(shown.number, time.monotonic_ns()))
        sender.feedback(received.feedback)
        if received.needs_intra:
            sender.request_intra()
        number += 1
        if number % max(1, round(fps)) == 1:
            far.seconds.append(Second(at_ns=time.monotonic_ns(), cpu_s=cpu_by_thread()))
    elapsed = time.monotonic() - begun
    for span in spans.drain():
        record = far if span.stage in RECEIVER_STAGES else own
        record.stages.append(Stage(span.stage, span.frame, span.start_ns, span.end_ns, span.thread))
    own.dropped, own.threads, far.threads = dict(dropped), thread_names(), thread_names()
    whole = _report(options, own, far, elapsed)
    whole |= {
        "model": codec.model_name,
        "model_hash": codec.model_hash,
        "engine": codec.engine,
        "codec": "SGC",
        "cpu_percent": round(100 * (sum(process.cpu_times()[:2]) - busy) / elapsed, 1),
        "rss_mb": round(process.memory_info().rss / 1e6, 1),
    }
    return measured(whole, (own, far), options)


def _report(options: ProfileOptions, own: Recording, far: Recording, elapsed: float) -> dict[str, Any]:
    """The names that the demo writes; rates are those of a call at the clip's pace."""
    shown = {mark.number: mark.at_ns for mark in far.shown}
    latencies = [(shown[mark.number] - mark.captured_ns) / 1e6 for mark in own.sent if mark.number in shown]
    times = StageTimes(1 << 20)
    for stage in (*own.stages, *far.stages):
        times.add(stage.stage, stage.milliseconds)
    payload = sum(mark.message for mark in own.sent)
    whole = percentiles(latencies)
    video = {
        "kbps_messages": round(payload * 8 * options.codec.fps / max(1, len(own.sent)) / 1000, 2),
        "frames_captured": len(own.sent) + sum(own.dropped.values()),
        "frames_sent": len(own.sent),
        "frames_shown": len(far.shown),
        "frames_dropped": len(own.sent) + sum(own.dropped.values()) - len(far.shown),
        "dropped_by_cause": own.dropped,
        "frames_a_second": round(len(own.sent) / elapsed, 1),
        "seconds": round(elapsed, 2),
    }
    latency = {"glass_to_glass": whole.as_dict() if whole else None, "stages": as_report(times.percentiles())}
    return {"video": video, "latency_ms": latency}
