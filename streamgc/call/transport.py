"""`streamgc evaluate transport`: real calls over emulated networks, ours and those of aiortc's own codecs.

Each run is a call between two processes, as in `streamgc demo`, one way, 15 pictures a second. What counts is when
pictures are displayed. The first `WARM_UP_S` seconds are left out: a conventional codec's pictures can be told apart
only after the first sender report.
"""

import asyncio
import bisect
import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from streamgc.call.codec import DEFAULT_FACTORY, CodecOptions
from streamgc.call.demo import make_call
from streamgc.call.demo_options import RIVALS, DemoOptions
from streamgc.call.report import TIMELY_MS, Log, read_log
from streamgc.call.sinks import write_bytes
from streamgc.call.sources import packaged_clip
from streamgc.errors import CallError, InputError
from streamgc.profiling.percentiles import percentiles
from streamgc.rtc.impairment import Impairment

OURS = "sgc"
WARM_UP_S, TAIL_S = 3.0, 1.0
"""Seconds at both ends that are not measured: before the first reports, and what is still under way at the end."""

SLOW_MS = 250.0
"""The other bound on a picture's latency, for narrow paths."""

_WELL = 0.95
"""Of the pictures within `SLOW_MS`."""

_MATCH_NS = 8_000_000
_DELAY_MS, _JITTER_MS = 40.0, 5.0
_UNDER_WAY_MS = _DELAY_MS + 4 * _JITTER_MS
RECOVERED = {"down_s": "down", "slow_until_s": "last slow picture", "up_s": "up", "allowed_s": "allowed"}
"""How long after a change of the rate a run is well again: fields of `Run`, and what they are called."""

_STEP_KBPS, _STEP_RATES = 24.0, (100, 20, 100)


class Network(NamedTuple):
    """A network to measure."""

    name: str
    impairment: Impairment
    kbps: float = 8.0  # the call's ceiling for frame messages
    step: bool = False  # its rate falls at a third of the call, and comes back at two thirds


def _network(name: str, kbps: float = 8.0, step: bool = False, **accidents: float) -> Network:
    return Network(name, Impairment(delay_ms=_DELAY_MS, jitter_ms=_JITTER_MS, **accidents), kbps, step)  # type: ignore[arg-type]


NETWORKS = (
    *(_network(f"loss-{percent}", loss=percent / 100) for percent in (0, 5, 10, 20, 30, 50)),
    _network("burst-3", loss=0.1, burst=3.0),
    *(_network(f"cap-{kbps}", rate_kbps=kbps) for kbps in (400, 150, 60, 30, 20)),
    _network("step", kbps=_STEP_KBPS, step=True),
)
QUICK = ("loss-0", "loss-20", "burst-3", "cap-30")


@dataclass(frozen=True)
class TransportOptions:
    """What to measure."""

    input: str = ""
    seconds: float = 60.0
    seeds: int = 3
    calls: int = 1  # at the same time
    codecs: tuple[str, ...] = ()  # empty = all
    networks: tuple[str, ...] = ()  # empty = all
    traces: tuple[str, ...] = ()
    resume: bool = False  # measures only what the file lacks
    factory: str = DEFAULT_FACTORY

    def __post_init__(self) -> None:
        if self.seconds < WARM_UP_S + TAIL_S + 3 or self.seeds < 1 or self.calls < 1:
            raise InputError("a run lasts at least 7 seconds; seeds and calls are at least 1")
        known = {network.name for network in NETWORKS}
        for kind, asked, names in (("codec", self.codecs, {OURS, *RIVALS}), ("network", self.networks, known)):
            if wrong := set(asked) - names:
                raise InputError(f"no such {kind}: {', '.join(sorted(wrong))}; known: {', '.join(sorted(names))}")

    def quick(self) -> "TransportOptions":
        """A part that takes minutes."""
        return replace(self, seconds=10.0, seeds=1, networks=self.networks or QUICK)

    def chosen(self) -> list[tuple[str, Network]]:
        """Every codec with every network."""
        networks = [one for one in NETWORKS if not self.networks or one.name in self.networks]
        networks += [
            Network(f"trace {Path(path).name}", Impairment(delay_ms=_DELAY_MS, jitter_ms=_JITTER_MS, trace=path))
            for path in self.traces
        ]
        return [(codec, network) for network in networks for codec in (self.codecs or (OURS, *RIVALS))]


@dataclass(frozen=True)
class Run:
    """One call. Shares are of the pictures that the source handed over and the rate control did not hold back."""

    codec: str
    network: str
    seed: int
    loss: float
    burst: float
    cap_kbps: float  # 0 = none
    seconds: float
    frames: int
    shown_within_150ms: float
    shown_within_250ms: float
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    freeze_longest_s: float
    fps_shown: float
    kbps_onwire: float
    down_s: float | None = None  # after the step down, until 95 % of all that follow are within 250 ms
    slow_until_s: float | None = None  # after the step down, until the last that is not
    up_s: float | None = None  # after the step up, until nine tenths of the rate before are sent in a second
    allowed_s: float | None = None  # after the step up, until our messages may have nine tenths of the call's ceiling
    missed_unsent: float = 0.0  # of what was not displayed within 150 ms: never sent,
    missed_lost: float = 0.0  # sent and never displayed,
    missed_network: float = 0.0  # under way for more than the network's delay and jitter explain,
    missed_machine: float = 0.0  # or late for what both peers did with it; shares of all pictures
    note: str = ""


def load_runs(path: Path) -> list[Run]:
    """The runs of a results file; none when there is no such file. Raises `InputError` for anything else."""
    if not path.is_file():
        return []
    try:
        runs = msgspec.json.decode(path.read_bytes())["runs"]
        return msgspec.convert(runs, list[Run])
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise InputError(f"not a file of 'evaluate transport': {path}") from error


def evaluate(options: TransportOptions, path: Path, say: Callable[[str], None] = lambda text: None) -> list[Run]:
    """Measure what is asked for; returns these runs and the others that `path` already has, which is kept up to date
    after every run."""
    return asyncio.run(_evaluate(options, path, say))


async def _evaluate(options: TransportOptions, path: Path, say: Callable[[str], None]) -> list[Run]:
    runs = {(run.codec, run.network, run.seed): run for run in load_runs(path)}
    gate = asyncio.Semaphore(options.calls)
    clip = options.input or str(packaged_clip())

    async def measure(codec: str, network: Network, seed: int) -> None:
        async with gate:
            run = await _call(options, clip, codec, network, seed)
        runs[run.codec, run.network, run.seed] = run
        write_bytes(path, msgspec.json.encode({"runs": [asdict(one) for one in runs.values()]}))
        step = f" {recovered(run)}" if network.step else ""
        say(
            f"{network.name} {codec} seed {seed}: {run.shown_within_150ms:.1%} within 150 ms, "
            f"{run.fps_shown:.1f} fps, {run.kbps_onwire:.1f} kbit/s; missed: {run.missed_unsent:.1%} unsent, "
            f"{run.missed_lost:.1%} lost, {run.missed_network:.1%} network, {run.missed_machine:.1%} machine"
            f"{step} {run.note}"
        )

    async with asyncio.TaskGroup() as group:
        for seed in range(1, options.seeds + 1):
            for codec, network in options.chosen():
                if options.resume and (codec, network.name, seed) in runs:
                    continue
                group.create_task(measure(codec, network, seed))
    return list(runs.values())


async def _call(options: TransportOptions, clip: str, codec: str, network: Network, seed: int) -> Run:
    with tempfile.TemporaryDirectory(prefix="streamgc-transport-") as name:
        folder = Path(name)
        impairment = replace(network.impairment, seed=seed)
        if network.step:
            third = options.seconds / 3
            steps = [f"{place * third},{rate}\n" for place, rate in enumerate(_STEP_RATES)]
            (folder / "step.csv").write_text("".join([*steps, f"{options.seconds + 60},{_STEP_RATES[-1]}\n"]))
            impairment = replace(impairment, trace=str(folder / "step.csv"))
        demo = DemoOptions(
            seconds=options.seconds,
            codec=CodecOptions(kbps=network.kbps, framing=False, factory=options.factory),
            impairment=impairment,
            keep_seconds=0,
            rival="" if codec == OURS else codec,
        )
        try:
            await make_call(demo, clip, folder, lambda name, statistics: None)
            return measured(codec, network, seed, read_log(folder / "a.events"), read_log(folder / "b.events"))
        except CallError as error:
            return _nothing(codec, network, seed, str(error))


def _nothing(codec: str, network: Network, seed: int, note: str) -> Run:
    """The run of a call that did not come about."""
    path = network.impairment
    return Run(
        codec, network.name, seed, path.loss, path.burst, path.rate_kbps, 0.0, 0, 0, 0, None, None, 0, 0, 0, note=note
    )


def measured(codec: str, network: Network, seed: int, sender: Log, receiver: Log) -> Run:
    """The figures of one call from what both peers wrote down."""
    assert sender.ended is not None
    path, nothing = network.impairment, _nothing(codec, network, seed, "nothing was sent")
    start, end = sender.ended.connected_ns + round(WARM_UP_S * 1e9), sender.ended.ended_ns - round(TAIL_S * 1e9)
    captured = [frame.captured_ns for frame in sender.sent.values() if start <= frame.captured_ns < end]
    if not captured or end <= start:
        return nothing
    seconds = (end - start) / 1e9
    whole = (sender.ended.ended_ns - sender.ended.connected_ns) / 1e9
    unsent = sum(count for cause, count in sender.ended.sent_dropped.items() if not cause.startswith("held back"))
    frames = len(captured) + round(unsent * seconds / whole)
    shown = {first: at for first, at in displayed(sender, receiver) if start <= first < end}
    latencies = [(at - first) / 1e6 for first, at in shown.items()]
    times = sorted([start, *(at for at in shown.values() if at <= end), end])
    spread = percentiles(latencies)
    missed = causes(sender, receiver, shown, start, end)
    ceiling = network.kbps if codec == OURS else float("inf")
    well = recovery(sender, shown, whole, ceiling) if network.step else Recovery(None, None, None, None)
    return Run(
        codec,
        network.name,
        seed,
        path.loss,
        path.burst,
        path.rate_kbps,
        seconds=round(seconds, 1),
        frames=frames,
        shown_within_150ms=round(sum(ms <= TIMELY_MS for ms in latencies) / frames, 4),
        shown_within_250ms=round(sum(ms <= SLOW_MS for ms in latencies) / frames, 4),
        latency_p50_ms=spread.p50 if spread else None,
        latency_p95_ms=spread.p95 if spread else None,
        freeze_longest_s=round(max(after - before for before, after in itertools.pairwise(times)) / 1e9, 3),
        fps_shown=round(len(shown) / seconds, 2),
        kbps_onwire=round(_mean(tick.sent_kbps for tick in sender.ticks if start <= tick.at_ns < end), 2),
        down_s=well.down_s,
        slow_until_s=well.slow_until_s,
        up_s=well.up_s,
        allowed_s=well.allowed_s,
        missed_unsent=round((frames - len(captured)) / frames, 4),
        missed_lost=round(missed["lost"] / frames, 4),
        missed_network=round(missed["network"] / frames, 4),
        missed_machine=round(missed["machine"] / frames, 4),
    )


def causes(sender: Log, receiver: Log, shown: dict[int, int], start: int, end: int) -> Counter[str]:
    """Why pictures that were sent were not displayed within 150 ms: how many were `lost`, how many late because of the
    `network` – they came by an echo, in a later packet, or stood in a queue – and how many because of the
    `machine`."""
    left = {span.frame: span.end_ns for span in reversed(sender.spans) if span.stage == "packetise"}
    came = {span.frame: span.start_ns for span in reversed(receiver.spans) if span.stage == "reassemble"}
    found: Counter[str] = Counter()
    for number, frame in sender.sent.items():
        if not start <= frame.captured_ns < end:
            continue
        at = shown.get(frame.captured_ns)
        if at is None:
            found["lost"] += 1
        elif (at - frame.captured_ns) / 1e6 > TIMELY_MS:
            quick = number in left and number in came and (came[number] - left[number]) / 1e6 <= _UNDER_WAY_MS
            found["machine" if quick else "network"] += 1
    return found


def displayed(sender: Log, receiver: Log) -> list[tuple[int, int]]:
    """(capture, first display) of every picture that was displayed, ns."""
    pairs = [
        (sender.sent[shown.number].captured_ns, shown.at_ns)
        for shown in receiver.shown
        if shown.number is not None and shown.number in sender.sent
    ]
    captures = sorted(frame.captured_ns for frame in sender.sent.values())
    for plain in receiver.plain:
        if plain.captured_ns is None:
            continue
        place = bisect.bisect_left(captures, plain.captured_ns - _MATCH_NS)
        if place < len(captures) and captures[place] <= plain.captured_ns + _MATCH_NS:
            pairs.append((captures[place], plain.at_ns))
    return sorted(pairs, reverse=True)  # of two displays of one picture the first wins in a dictionary


class Recovery(NamedTuple):
    """How long after a change of the rate a call is well again, s; None = not within its third."""

    down_s: float | None
    slow_until_s: float | None
    up_s: float | None
    allowed_s: float | None


def recovered(values: "Run | Mapping[str, Any]") -> str:
    """In words how a run, or a row of them, recovered."""
    found = values if isinstance(values, Mapping) else asdict(values)
    said = [f"{words} {'–' if found[name] is None else f'{found[name]} s'}" for name, words in RECOVERED.items()]
    return f"({', '.join(said)})"


def recovery(sender: Log, shown: dict[int, int], seconds: float, kbps: float) -> Recovery:
    """Of a call of at most so many kbit/s of messages whose network narrows for its middle third.

    What was never displayed counts as slow. What is sent depends on the picture too, and on when a key
    is renewed; what messages may have does not.
    """
    assert sender.ended is not None
    narrow = sender.ended.connected_ns + round(seconds / 3 * 1e9)
    wide = sender.ended.connected_ns + round(seconds * 2 / 3 * 1e9)
    captured = sorted(frame.captured_ns for frame in sender.sent.values() if narrow <= frame.captured_ns < wide)
    down_ns, slow, slow_until = None, 0, narrow
    for count, first in enumerate(reversed(captured), start=1):
        if first not in shown or (shown[first] - first) / 1e6 > SLOW_MS:
            slow += 1
            slow_until = max(slow_until, first)
        if slow <= (1 - _WELL) * count:
            down_ns = first
    before = _mean(tick.sent_kbps for tick in sender.ticks if narrow - 5_000_000_000 <= tick.at_ns < narrow)
    later = [tick for tick in sender.ticks if tick.at_ns > wide]
    back = [tick.at_ns for tick in later if tick.sent_kbps >= 0.9 * before]
    allowed = [tick.at_ns for tick in later if tick.target_kbps >= 0.9 * kbps]
    return Recovery(
        None if down_ns is None else round((down_ns - narrow) / 1e9, 1),
        round((slow_until - narrow) / 1e9, 1),
        round((min(back) - wide) / 1e9, 1) if back else None,
        round((min(allowed) - wide) / 1e9, 1) if allowed else None,
    )


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0
