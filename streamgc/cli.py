"""The command line. Each command gathers its options, imports what it needs, and calls the code below.

Nothing heavy is imported before a command runs, and a call never imports torch.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamgc import __version__
from streamgc.errors import InputError, StreamGCError

if TYPE_CHECKING:
    from streamgc.call.codec import CodecOptions

app = typer.Typer(
    name="streamgc",
    help="Video calls at a few kilobits a second, by selective generative compression over WebRTC.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Size = Annotated[str, typer.Option(help="Size of the coded picture, multiples of 16.", metavar="WxH")]
Fps = Annotated[float, typer.Option(help="Pictures a second.")]
Kbps = Annotated[float, typer.Option(help="Most that frame messages may cost, kbit/s (without packet headers).")]
Background = Annotated[str, typer.Option(help="What stands behind the person: memory, synth, private or replace.")]
Preserve = Annotated[str, typer.Option(help="Who is kept: all, main, id:N or class names.")]
Segmenter = Annotated[
    str, typer.Option(help="What finds people: a model's name, or YOLO-seg weights (.pt, .onnx, ...).")
]
Framing = Annotated[bool, typer.Option(help="Follow the kept people with a smooth crop.")]
Fine = Annotated[bool, typer.Option(help="Keys, and what the peer sees, twice as wide and high as --size.")]
Model = Annotated[str, typer.Option(help="Model folder by name, or a path to one.")]
Backend = Annotated[str, typer.Option(help="auto, openvino, onnxruntime, tensorrt or tensorrt-rtx.")]
Threads = Annotated[int, typer.Option(help="Threads a network may use; 0: half the cores, at most 4.")]
Sound = Annotated[bool, typer.Option(help="Sound too; of a file, if it has any.")]
WireKbps = Annotated[
    float, typer.Option(help="Most that all may cost on the wire, kbit/s with headers: sound, pictures; 0 = no limit.")
]
Server = Annotated[str, typer.Option(help="Rendezvous server: host:port or ws:// URL.")]


def _codec(
    size: str,
    fps: float,
    kbps: float,
    background: str,
    preserve: str,
    framing: bool,
    model: str,
    backend: str,
    threads: int,
    segmenter: str,
    fine: bool,
) -> CodecOptions:
    from streamgc.call.codec import CodecOptions
    from streamgc.pipeline.settings import parse_background, parse_format

    if not 1 <= fps <= 60:
        raise InputError(f"--fps {fps:g}: 1 to 60 are possible")
    picture = parse_format(size)
    parse_background(background)
    return CodecOptions(
        *(picture.width, picture.height, fps, kbps, background, preserve, framing, fine, model, backend, threads),
        segmenter=segmenter,
    )


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"streamgc {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    input: Annotated[str, typer.Option(help="A video file, or 'webcam'; the packaged clip by default.")] = "",
    seconds: Annotated[float, typer.Option(help="Length of the call.")] = 10.0,
    size: Size = "256x256",
    fps: Fps = 15.0,
    kbps: Kbps = 8.0,
    background: Background = "memory",
    preserve: Preserve = "all",
    segmenter: Segmenter = "segmenter",
    framing: Framing = False,
    fine: Fine = False,
    duplex: Annotated[bool, typer.Option(help="Both peers send.")] = False,
    loss: Annotated[float, typer.Option(help="Share of packets lost each way, in per cent.")] = 0.0,
    burst: Annotated[float, typer.Option(help="Mean length of a run of losses, in packets.")] = 1.0,
    delay: Annotated[float, typer.Option(help="One-way delay in ms.")] = 0.0,
    jitter: Annotated[float, typer.Option(help="Standard deviation of the delay in ms.")] = 0.0,
    rate: Annotated[float, typer.Option(help="Capacity of the link in kbit/s on the wire; 0 = unlimited.")] = 0.0,
    reorder: Annotated[float, typer.Option(help="Share of packets overtaken by others, in per cent.")] = 0.0,
    trace: Annotated[str, typer.Option(help="mahimahi or CSV trace to replay in place of --rate.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the network's accidents.")] = 1,
    sound: Sound = True,
    wire_kbps: WireKbps = 0.0,
    out: Annotated[Path, typer.Option(help="Folder for report.json, side_by_side.mp4 and contact_sheet.png.")] = Path(
        "out"
    ),
    model: Model = "lite",
    backend: Backend = "auto",
    threads: Threads = 0,
) -> None:
    """A real call between two peers on this machine, with a live table, a video to look at and a report."""
    from streamgc.call.demo import run_demo
    from streamgc.call.demo_options import DemoOptions
    from streamgc.rtc.impairment import Impairment

    impairment = Impairment(loss / 100, burst, delay, jitter, rate, reorder=reorder / 100, trace=trace, seed=seed)
    codec = _codec(size, fps, kbps, background, preserve, framing, model, backend, threads, segmenter, fine)
    report = run_demo(DemoOptions(input, seconds, codec, duplex, impairment, out, sound=sound, wire_kbps=wire_kbps))
    video, latency = report["video"], report["latency_ms"]["glass_to_glass"]
    typer.echo(
        f"\n{video['frames_shown']} of {video['frames_captured']} frames shown, {video['kbps_onwire']:.1f} kbit/s "
        f"on the wire, {video['kbps_payload']:.1f} of it payload; glass to glass {latency['p50']:.0f} ms (median)\n"
        f"look at {out / 'side_by_side.mp4'} and {out / 'contact_sheet.png'}; all figures: {out / 'report.json'}"
    )


@app.command()
def call(
    room: Annotated[str, typer.Argument(help="A room's token or link; 'new' makes a room.")] = "new",
    server: Server = "127.0.0.1:8765",
    ticket: Annotated[str, typer.Option(help="Admission ticket, where the server asks for one.")] = "",
    camera: Annotated[str, typer.Option(help="Camera device; the first one by default.")] = "",
    input: Annotated[
        str, typer.Option(help="A video file in place of the camera, or 'screen' (or screen:NAME) for what it shows.")
    ] = "",
    list_devices: Annotated[bool, typer.Option("--list-devices", help="List cameras and screens, and exit.")] = False,
    receive_only: Annotated[bool, typer.Option("--receive-only", help="Send nothing.")] = False,
    headless: Annotated[
        bool, typer.Option("--headless", help="No page: a table here, the video into --record.")
    ] = False,
    port: Annotated[int, typer.Option(help="Port of the page on loopback; 0 = any free one.")] = 0,
    record: Annotated[str, typer.Option(help="Record what is received into this video file.")] = "",
    virtual_camera: Annotated[
        bool, typer.Option("--virtual-camera", help="Show what is received as a camera of this machine.")
    ] = False,
    statistics: Annotated[str, typer.Option(help="Append a JSON line of statistics every second to this file.")] = "",
    metrics_port: Annotated[int, typer.Option(help="Prometheus endpoint on loopback; 0 = none.")] = 0,
    seconds: Annotated[float, typer.Option(help="Hang up after so long; 0 = stay.")] = 0.0,
    stun: Annotated[
        list[str] | None,
        typer.Option(help="stun:host:port, beside what the server tells; repeatable.", envvar="STREAMGC_STUN"),
    ] = None,
    turn: Annotated[
        list[str] | None,
        typer.Option(help="turn:host:port, beside what the server tells; repeatable.", envvar="STREAMGC_TURN"),
    ] = None,
    turn_user: Annotated[str, typer.Option(help="User name at the TURN server.", envvar="STREAMGC_TURN_USER")] = "",
    turn_password: Annotated[str, typer.Option(help="Password there.", envvar="STREAMGC_TURN_PASSWORD")] = "",
    size: Size = "256x256",
    fps: Fps = 15.0,
    kbps: Kbps = 8.0,
    background: Background = "memory",
    preserve: Preserve = "all",
    segmenter: Segmenter = "segmenter",
    framing: Framing = True,
    fine: Fine = False,
    model: Model = "lite",
    backend: Backend = "auto",
    threads: Threads = 0,
    sound: Sound = True,
    wire_kbps: WireKbps = 0.0,
) -> None:
    """Call someone: join a room and exchange pictures until one side leaves."""
    if list_devices:
        _show_devices()
        return
    codec = _codec(size, fps, kbps, background, preserve, framing, model, backend, threads, segmenter, fine)
    from streamgc.call.codec import start_loading
    from streamgc.call.garbage import postpone_search

    postpone_search()
    loading = start_loading(codec) if headless else None
    from streamgc.call.run import CallOptions, run_call

    options = CallOptions(
        room,
        server,
        ticket,
        camera,
        input,
        receive_only,
        record,
        virtual_camera,
        statistics,
        metrics_port,
        seconds,
        codec,
        None,
        tuple(stun or ()),
        tuple(turn or ()),
        turn_user,
        turn_password,
        sound=sound,
        wire_kbps=wire_kbps,
    )
    if headless:
        run_call(options, loading=loading)
        return
    from streamgc.call.agent import run_page

    run_page(options, port, typer.echo)


def _show_devices() -> None:
    from streamgc.call.devices import list_devices

    devices = list_devices()
    width = max((len(device.name) for device in devices), default=0)
    for device in devices:
        typer.echo(f"{device.name:{width}}  {device.description}".rstrip())
    if not devices:
        typer.echo("no camera and no screen: the page uses the browser's camera, --input takes a file", err=True)


@app.command()
def signaling(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 = any free one.")] = 8765,
    secret: Annotated[
        str, typer.Option(help="Secret that admission tickets are made with.", envvar="STREAMGC_SIGNALING_SECRET")
    ] = "",
    origin: Annotated[
        list[str] | None, typer.Option(help="Allowed Origin of browsers; may be given several times.")
    ] = None,
    behind_proxy: Annotated[bool, typer.Option("--behind-proxy", help="Trust X-Forwarded-For.")] = False,
    certificate: Annotated[str, typer.Option(help="TLS certificate chain, PEM.")] = "",
    private_key: Annotated[str, typer.Option(help="TLS private key, PEM.")] = "",
    redis: Annotated[
        str, typer.Option(help="redis://host:port, where several instances share their rooms.", envvar="STREAMGC_REDIS")
    ] = "",
    stun: Annotated[
        list[str] | None,
        typer.Option(help="stun:host:port that peers are told; may be given several times.", envvar="STREAMGC_STUN"),
    ] = None,
    turn: Annotated[
        list[str] | None,
        typer.Option(help="turn:host:port that peers are told; may be given several times.", envvar="STREAMGC_TURN"),
    ] = None,
    turn_secret: Annotated[
        str, typer.Option(help="The TURN server's static-auth-secret.", envvar="STREAMGC_TURN_SECRET")
    ] = "",
    connections_per_minute: Annotated[float, typer.Option(help="Connections allowed to one address.")] = 120.0,
) -> None:
    """Run the rendezvous server at which two peers find each other."""
    from streamgc.call.serve import SignalingOptions, run_signaling

    run_signaling(
        SignalingOptions(
            host,
            port,
            secret,
            tuple(origin or ()),
            behind_proxy,
            certificate,
            private_key,
            redis,
            connections_per_minute,
            tuple(stun or ()),
            tuple(turn or ()),
            turn_secret,
        ),
        typer.echo,
    )


@app.command()
def encode(
    clip: Annotated[Path, typer.Argument(help="A video file.")],
    stream: Annotated[Path, typer.Argument(help="The .sgcv file to write.")],
    size: Size = "256x256",
    fps: Fps = 15.0,
    kbps: Kbps = 5.0,
    preserve: Preserve = "all",
    segmenter: Segmenter = "segmenter",
    background: Background = "memory",
    ack_delay: Annotated[float, typer.Option(help="Milliseconds until a frame is acknowledged, as in a call.")] = 130.0,
    framing: Framing = True,
    fine: Fine = False,
    sizes: Annotated[
        Path | None, typer.Option(help="Write the bytes of each frame message to this file, a line each.")
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many frames; 0 = all.")] = 0,
    model: Model = "lite",
    backend: Backend = "auto",
    threads: Threads = 0,
) -> None:
    """Code a clip into the messages that a call would send."""
    from streamgc.pipeline.files import encode_clip

    options = _codec(size, fps, kbps, background, preserve, framing, model, backend, threads, segmenter, fine)
    written = encode_clip(clip, stream, options, ack_delay, limit)
    if sizes is not None:
        from streamgc.pipeline.files import write_text

        write_text(sizes, "".join(f"{value}\n" for value in written))
    total = sum(written)
    rate = total * 8 * fps / len(written) / 1000
    typer.echo(f"{len(written)} frames, {total} payload bytes, {rate:.2f} kbit/s at {fps:g} fps: {stream}")


@app.command()
def decode(
    stream: Annotated[Path, typer.Argument(help="A .sgcv file.")],
    target: Annotated[Path, typer.Argument(help="A folder for 000000.png …, or a video file (.mp4, .mkv).")],
    original_background: Annotated[Path | None, typer.Option(help="Put the person over this clip.")] = None,
    model: Model = "lite",
    backend: Backend = "auto",
    threads: Annotated[int, typer.Option(help="Threads a network may use; 0: all cores.")] = 0,
) -> None:
    """Decode a .sgcv file into pictures."""
    from streamgc.pipeline.files import decode_stream
    from streamgc.pipeline.networks import NetworkOptions

    count = decode_stream(stream, target, model, NetworkOptions(backend, "auto", threads or None), original_background)
    typer.echo(f"{count} pictures: {target}")


@app.command()
def doctor(port: Annotated[int, typer.Option(help="Signalling port to look at.")] = 8765) -> None:
    """Say what this machine has, which engine would be used, and why."""
    from streamgc.runtime.doctor import doctor as examine

    examine(port)


def _say_choices() -> None:
    """Which engine was chosen automatically goes to the terminal, once a process."""
    chooser = logging.getLogger("streamgc.runtime.engine")
    chooser.setLevel(logging.INFO)
    if not chooser.handlers:
        chooser.addHandler(logging.StreamHandler())


def main() -> None:
    """Entry point: deliberate errors end in one line and exit code 2."""
    from streamgc.cli_groups import mount

    # SVT-AV1 writes forty lines about each encoder it opens to the terminal, and complains when one that codes single
    # pictures is closed; what fails is raised by PyAV. It knows no other switch, and peers inherit this one.
    os.environ.setdefault("SVT_LOG", "0")
    _say_choices()
    try:
        mount(app, sys.argv[1:])
        app()
    except StreamGCError as error:
        sys.stderr.write(f"streamgc: {' '.join(str(error).split())}\n")
        raise SystemExit(2) from None
    except OSError as error:  # a folder that is not there, a port that is taken
        said = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        sys.stderr.write(f"streamgc: {' '.join(said.split())}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
