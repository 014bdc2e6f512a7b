"""The command `streamgc profile`: gathers options, calls the code beside it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamgc.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from streamgc.call.codec import CodecOptions
    from streamgc.call.profile import Profile
    from streamgc.call.profile_options import ProfileOptions

PIPE_COLUMNS = 130
BUSY_PERCENT = 15.0
"""CPU of other programs, in per cent of a core, from which a user is told."""


def profile(
    grid: Annotated[
        list[str] | None, typer.Argument(help="With --sweep: what to vary, name=value,value …", metavar="[NAME=VALUES]")
    ] = None,
    input: Annotated[str, typer.Option(help="A video file; the packaged clip by default.")] = "",
    seconds: Annotated[float, typer.Option(help="Length of the call.")] = 20.0,
    size: Annotated[str, typer.Option(help="Size of the coded picture, multiples of 16.", metavar="WxH")] = "256x256",
    fps: Annotated[float, typer.Option(help="Pictures a second.")] = 15.0,
    kbps: Annotated[float, typer.Option(help="Most that frame messages may cost, kbit/s.")] = 8.0,
    background: Annotated[str, typer.Option(help="memory, synth, private or replace.")] = "memory",
    framing: Annotated[bool, typer.Option(help="Follow the kept people with a smooth crop.")] = False,
    duplex: Annotated[bool, typer.Option("--duplex", help="Both peers send.")] = False,
    loss: Annotated[float, typer.Option(help="Share of packets lost each way, in per cent.")] = 0.0,
    delay: Annotated[float, typer.Option(help="One-way delay in ms.")] = 0.0,
    rate: Annotated[float, typer.Option(help="Capacity of the link in kbit/s on the wire; 0 = unlimited.")] = 0.0,
    slow: Annotated[float, typer.Option(help="Make the receiver so many times slower, to see overload.")] = 1.0,
    flash: Annotated[
        bool, typer.Option("--flash", help="Check glass to glass by light: a block of the picture blinks.")
    ] = False,
    model: Annotated[str, typer.Option(help="Model folder by name, or a path to one.")] = "lite",
    backend: Annotated[str, typer.Option(help="auto, openvino, onnxruntime, tensorrt or tensorrt-rtx.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16, fp16 or int8.")] = "auto",
    threads: Annotated[int, typer.Option(help="Threads a network may use; 0: half the cores, at most 4.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for trace.json, report.html and report.json.")] = None,
    pipeline: Annotated[
        bool, typer.Option("--pipeline", help="No network: sender and receiver back to back in one process.")
    ] = False,
    layers: Annotated[
        bool, typer.Option("--layers", help="The slowest layers of each network, by the runtime's own profiler.")
    ] = False,
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="Measure every combination of size=192,256 threads=1,2 … given as arguments."),
    ] = False,
    live: Annotated[
        str, typer.Option(help="Watch a running call: its process id, or the URL of its --metrics-port.")
    ] = "",
    join: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="peer-*.json of the sender and of the receiver, from two machines: one timeline."),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Two report.json: say what changed and what is significant.")
    ] = None,
) -> None:
    """Measure a call stage by stage, from capture at one peer to display at the other."""
    if sum(map(bool, (pipeline and not sweep, layers, live, join, compare))) > 1 or (sweep and (layers or live)):
        raise InputError("one of --pipeline, --layers, --sweep, --live, --join and --compare at a time")
    if grid and not sweep:
        raise InputError(f"{grid[0]}: only --sweep takes arguments")
    if compare is not None:
        _compare(*compare)
        return
    codec = _codec(size, fps, kbps, background, framing, model, backend, precision, threads)
    if layers:
        _layers(codec)
        return
    options = _options(input, seconds, codec, duplex, (loss, delay, rate), (slow, flash), out)
    if live:
        _live(live, options)
    elif join is not None:
        _join(*join, options)
    elif sweep:
        _sweep(grid or [], options, pipeline)
    else:
        _measure(options, pipeline)


def _console() -> Console:
    """The terminal; a file or a pipe gets lines of a width that tables fit into."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=PIPE_COLUMNS)


def _codec(
    size: str,
    fps: float,
    kbps: float,
    background: str,
    framing: bool,
    model: str,
    backend: str,
    precision: str,
    threads: int,
) -> CodecOptions:
    from streamgc.call.codec import CodecOptions
    from streamgc.pipeline.settings import parse_background, parse_format
    from streamgc.runtime.engine import PRECISIONS

    picture = parse_format(size)
    parse_background(background)
    if not 1 <= fps <= 60:
        raise InputError(f"--fps {fps:g}: 1 to 60 are possible")
    chosen = next((name for name in PRECISIONS if name == precision), None)
    if chosen is None:
        raise InputError(f"--precision {precision}: one of {', '.join(PRECISIONS)}")
    return CodecOptions(
        picture.width,
        picture.height,
        fps,
        kbps,
        background,
        framing=framing,
        model=model,
        backend=backend,
        threads=threads,
        precision=chosen,
    )


def _options(
    input: str,
    seconds: float,
    codec: CodecOptions,
    duplex: bool,
    link: tuple[float, float, float],
    study: tuple[float, bool],
    out: Path | None,
) -> ProfileOptions:
    from streamgc.call.demo_options import Study
    from streamgc.call.profile_options import ProfileOptions
    from streamgc.rtc.impairment import Impairment

    loss, delay, rate = link
    impairment = Impairment(loss / 100, delay_ms=delay, rate_kbps=rate)
    return ProfileOptions(input, seconds, 2.0, codec, duplex, impairment, Study(*study), out)


def _measured(options: ProfileOptions, pipeline: bool) -> Profile:
    if pipeline:
        from streamgc.call.profile_pipeline import profile_pipeline

        return profile_pipeline(options)
    from streamgc.call.profile import profile_call

    return profile_call(options)


def _measure(options: ProfileOptions, pipeline: bool) -> None:
    console = _console()
    with console.status(f"{'the pipeline' if pipeline else 'a call'}: {options.seconds:g} s"):
        profile = _measured(options, pipeline)
    _show(console, profile, options.out)


def _show(console: Console, profile: Profile, out: Path | None) -> None:
    from streamgc.call.profile import about, write_profile
    from streamgc.profiling.summary import table

    found = {name: value for name, value in about(profile).items() if name != "cpu_percent"}
    console.print(table(profile.summary, ", ".join(f"{name} {value}" for name, value in found.items())))
    video = profile.report["video"]
    said = [f"{video['frames_shown']} of {video['frames_captured']} frames shown"]
    if "kbps_onwire" in video:
        said.append(f"{video['kbps_onwire']:.1f} kbit/s on the wire")
    if "frames_a_second" in video:
        said.append(f"{video['frames_a_second']:.1f} pictures a second")
    if "cpu_percent" in profile.report:
        said.append(f"{profile.report['cpu_percent']:.0f} % of a core")
    console.print(", ".join(said))
    other = profile.report.get("other_cpu_percent", 0.0)
    if other > BUSY_PERCENT:
        console.print(f"[yellow]other programs took {other:.0f} % of a core meanwhile: the figures are of that, too[/]")
    if "light" in profile.report:
        console.print(_light_text(profile.report["light"]))
    if out is not None:
        write_profile(out, profile)
        console.print(f"look at {out / 'report.html'}; https://ui.perfetto.dev opens {out / 'trace.json'}")


def _light_text(light: dict[str, float]) -> str:
    return (
        f"by light: {light['found']:.0f} of {light['steps']:.0f} steps found, median {light['light_ms']:.1f} ms; by "
        f"identity {light['identity_ms']:.1f} ms; {light['within_interval']:.0%} agree within a frame interval"
    )


def _sweep(words: list[str], options: ProfileOptions, pipeline: bool) -> None:
    from streamgc.call.profile_sweep import parse_grid, sweep, sweep_table, write_sweep

    grid = parse_grid(words)
    console = _console()
    points = []
    with console.status("") as status:
        status.update(f"1 of {len(grid)}")
        for point in sweep(options, grid, lambda one: _measured(one, pipeline)):
            points.append(point)
            status.update(f"{len(points) + 1} of {len(grid)}")
    console.print(sweep_table(points))
    if options.out is not None:
        write_sweep(options.out, points)
        console.print(f"look at {options.out / 'sweep.html'}")


def _layers(codec: CodecOptions) -> None:
    from streamgc.runtime.layers import layer_table, profile_layers

    console = _console()
    for network in profile_layers(
        (codec.model, "segmenter"),
        (codec.height, codec.width),
        codec.backend,
        codec.precision,
        codec.threads or None,
    ):
        console.print(layer_table(network))


def _live(target: str, options: ProfileOptions) -> None:
    import asyncio

    from streamgc.call.live import live_table, scrape, watch
    from streamgc.call.profile import write_live
    from streamgc.profiling.summary import summarise_peer, table

    console = _console()
    if not target.isdigit():
        console.print(live_table(scrape(target)))
        return
    with console.status(f"watching {target} for {options.seconds:g} s"):
        recording = asyncio.run(watch(int(target), options.seconds))
    console.print(table(summarise_peer(recording), f"process {target}, {options.seconds:g} s, this side"))
    if options.out is not None:
        path = write_live(options.out, recording)
        console.print(f"written: {path}; with the other side's: streamgc profile --join SENDER RECEIVER")


def _join(sender: Path, receiver: Path, options: ProfileOptions) -> None:
    from streamgc.call.profile import joined
    from streamgc.profiling.recording import read_recording

    _show(_console(), joined(read_recording(sender), read_recording(receiver), options), options.out)


def _compare(before: Path, after: Path) -> None:
    from streamgc.profiling.compare import compare, comparison_table, read_report, settings

    reports = [read_report(path) for path in (before, after)]
    console = _console()
    for setting in settings(*reports):
        console.print(f"{setting.name}: {setting.before} → {setting.after}")
    changes = compare(*(report["profile"]["samples_ms"] for report in reports))
    if not changes:
        raise InputError("the reports have no stage in common with enough frames")
    console.print(comparison_table(changes, (before.parent.name or str(before), after.parent.name or str(after))))
    changed = [change.stage for change in changes if change.significant]
    console.print(f"significant: {', '.join(changed) or 'nothing'}")
