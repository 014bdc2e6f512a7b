"""The command `streamgc profile`: gathers options, calls the code beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamgc.errors import InputError

if TYPE_CHECKING:
    from streamgc.call.profile_options import ProfileOptions


def profile(
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
    model: Annotated[str, typer.Option(help="Model folder by name, or a path to one.")] = "lite",
    backend: Annotated[str, typer.Option(help="auto, openvino, onnxruntime, tensorrt or tensorrt-rtx.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16, fp16 or int8.")] = "auto",
    threads: Annotated[int, typer.Option(help="Threads a network may use; 0 leaves it to the engine.")] = 2,
    out: Annotated[Path | None, typer.Option(help="Folder for trace.json, report.html and report.json.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Two report.json: say what changed and what is significant.")
    ] = None,
) -> None:
    """Measure a call stage by stage, from capture at one peer to display at the other."""
    if compare is not None:
        _compare(*compare)
        return
    options = _options(
        input, seconds, size, fps, kbps, background, framing, duplex, (loss, delay, rate, slow), model, backend,
        precision, threads, out,
    )  # fmt: skip
    _call(options)


def _options(
    input: str,
    seconds: float,
    size: str,
    fps: float,
    kbps: float,
    background: str,
    framing: bool,
    duplex: bool,
    link: tuple[float, float, float, float],
    model: str,
    backend: str,
    precision: str,
    threads: int,
    out: Path | None,
) -> ProfileOptions:
    from streamgc.call.codec import CodecOptions
    from streamgc.call.demo_options import Study
    from streamgc.call.profile_options import ProfileOptions
    from streamgc.pipeline.settings import parse_background, parse_format
    from streamgc.rtc.impairment import Impairment
    from streamgc.runtime.engine import PRECISIONS

    picture = parse_format(size)
    parse_background(background)
    if not 1 <= fps <= 60:
        raise InputError(f"--fps {fps:g}: 1 to 60 are possible")
    chosen = next((name for name in PRECISIONS if name == precision), None)
    if chosen is None:
        raise InputError(f"--precision {precision}: one of {', '.join(PRECISIONS)}")
    loss, delay, rate, slow = link
    codec = CodecOptions(
        picture.width, picture.height, fps, kbps, background, "all", framing, model, backend, threads,
        precision=chosen,
    )  # fmt: skip
    impairment = Impairment(loss / 100, delay_ms=delay, rate_kbps=rate)
    return ProfileOptions(input, seconds, 2.0, codec, duplex, impairment, Study(slow), out)


def _call(options: ProfileOptions) -> None:
    from rich.console import Console

    from streamgc.call.profile import about, profile_call, write_profile
    from streamgc.profiling.summary import table

    console = Console()
    with console.status(f"a call of {options.seconds:g} s"):
        profile = profile_call(options)
    found = {name: value for name, value in about(profile).items() if name != "cpu_percent"}
    console.print(table(profile.summary, ", ".join(f"{name} {value}" for name, value in found.items())))
    video = profile.report["video"]
    console.print(
        f"{video['frames_shown']} of {video['frames_captured']} frames shown, {video['kbps_onwire']:.1f} kbit/s on the "
        f"wire, {profile.report['cpu_percent']:.0f} % of a core for both peers"
    )
    if options.out is not None:
        write_profile(options.out, profile)
        console.print(
            f"look at {options.out / 'report.html'}; https://ui.perfetto.dev opens {options.out / 'trace.json'}"
        )


def _compare(before: Path, after: Path) -> None:
    from rich.console import Console

    from streamgc.profiling.compare import compare, comparison_table, read_report, settings

    reports = [read_report(path) for path in (before, after)]
    console = Console()
    for setting in settings(*reports):
        console.print(f"{setting.name}: {setting.before} → {setting.after}")
    changes = compare(*(report["profile"]["samples_ms"] for report in reports))
    if not changes:
        raise InputError("the reports have no stage in common with enough frames")
    console.print(comparison_table(changes, (before.parent.name or str(before), after.parent.name or str(after))))
    changed = [change.stage for change in changes if change.significant]
    console.print(f"significant: {', '.join(changed) or 'nothing'}")
