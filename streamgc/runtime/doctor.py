"""``streamgc doctor``: what this machine has, which engine would be used, and why."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from streamgc.errors import ModelError
from streamgc.runtime.commands import backend_table, choose
from streamgc.runtime.cuda import device_name, device_problem
from streamgc.runtime.store import ModelStore, preferred_precision

_PACKAGES = (
    *("numpy", "av", "aiortc", "aiohttp", "openvino", "onnxruntime", "tensorrt", "tensorrt-rtx", "cuda-python"),
    *("torch", "onnx", "nncf", "torchac", "ultralytics", "pyvirtualcam"),
)
_CODECS = (
    *(("libsvtav1", "w", "key pictures"), ("libdav1d", "r", "key pictures"), ("libvpx", "w", "VP8 fallback")),
    *(("libx264", "w", "H.264 fallback, recordings"), ("h264", "r", "H.264 fallback"), ("libopus", "w", "audio")),
)


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, whether it is there, and what was found or how to get it."""

    subject: str
    good: bool
    text: str


def doctor(signalling_port: int = 8080, console: Console | None = None) -> list[Finding]:
    """Print tables of what was found and return the findings. Never raises for what is missing."""
    console = console or Console()
    sections = {
        "machine": [*machine(), *gpu()],
        "packages": packages(),
        "camera": cameras(),
        "codecs": codecs(),
        "network": network(signalling_port),
        "models": models(),
    }
    for title, findings in sections.items():
        table = Table("what", "", "found", title=title)
        for finding in findings:
            table.add_row(finding.subject, "yes" if finding.good else "no", escape(finding.text))
        console.print(table)
    console.print(backend_table())
    console.print(escape(verdict()))
    return [finding for findings in sections.values() for finding in findings]


def verdict() -> str:
    """Which engine would be used, and why, in one line."""
    choice = choose()
    if choice.backend is None:
        return "no runtime is installed: pip install openvino"
    precision = ""
    if choice.backend == "openvino":
        from streamgc.runtime.openvino import fastest_precision

        eighth = _quantised()
        precision = f" in {fastest_precision()}"
        if eighth:
            precision = f": {', '.join(eighth)} in int8, the rest in {fastest_precision()}"
    before = "; ".join(f"{backend}: {reason}" for backend, reason in choice.passed.items())
    return f"engine: {choice.backend}{precision}" + (f" (before it: {before})" if before else "")


def _quantised() -> list[str]:
    """Models that a call runs in int8 here."""
    try:
        store = ModelStore()
        opened = [store.open(name, check_files=False) for name in store.names()]
    except ModelError:
        return []
    return [m.name for m in opened if any(preferred_precision(m, role) == "int8" for role in m.roles)]


def machine() -> list[Finding]:
    """Interpreter, processor and cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    findings = [
        Finding("python", sys.version_info >= (3, 11), platform.python_version()),
        Finding("system", True, f"{platform.system()} {platform.machine()}"),
        Finding("cores", cores >= 2, str(cores)),
    ]
    if importlib.util.find_spec("openvino") is not None:
        from streamgc.runtime.openvino import capabilities

        found = capabilities()
        findings.append(Finding("cpu precisions", bool(found), ", ".join(found) or "openvino finds no CPU device"))
    return findings


def gpu() -> list[Finding]:
    """The NVIDIA GPU, or why there is none."""
    problem = device_problem()
    return [Finding("gpu", problem is None, device_name() if problem is None else problem)]


def packages() -> list[Finding]:
    """Installed runtimes and optional packages with their versions."""
    found = []
    for name in _PACKAGES:
        try:
            found.append(Finding(name, True, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            found.append(Finding(name, False, "not installed"))
    return found


def cameras() -> list[Finding]:
    """Camera devices: /dev/video* on Linux; elsewhere the system only tells when one is opened."""
    if not sys.platform.startswith("linux"):
        return [Finding("camera", True, f"{platform.system()} lists cameras only when one is opened: --camera 0")]
    names = []
    for device in sorted(Path("/sys/class/video4linux").glob("video*")):
        label = device / "name"
        text = label.read_text().strip() if label.is_file() else device.name
        names.append(Finding(f"/dev/{device.name}", os.access(f"/dev/{device.name}", os.R_OK), text))
    return names or [Finding("camera", False, "none found; a file works too: --input FILE")]


def codecs() -> list[Finding]:
    """The encoders and decoders of the PyAV wheels that a call uses."""
    import av
    from av.codec.codec import UnknownCodecError

    found = []
    for name, mode, use in _CODECS:
        try:
            av.codec.Codec(name, "w" if mode == "w" else "r")
            good = True
        except UnknownCodecError:
            good = False
        found.append(Finding(name, good, f"{'encoder' if mode == 'w' else 'decoder'} for {use}"))
    return found


def network(signalling_port: int) -> list[Finding]:
    """Can UDP be bound, has the host an address that others reach, is the signalling port free."""
    findings = []
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind(("127.0.0.1", 0))
        findings.append(Finding("udp", True, "can be bound"))
    except OSError as error:
        findings.append(Finding("udp", False, f"cannot be bound: {error.strerror}"))
    addresses = _addresses()
    text = ", ".join(addresses) or "only loopback: calls on this host alone"
    findings.append(Finding("addresses", bool(addresses), text))
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp:
        try:
            tcp.bind(("127.0.0.1", signalling_port))
            findings.append(Finding("signalling port", True, f"{signalling_port} is free"))
        except OSError as error:
            findings.append(Finding("signalling port", False, f"{signalling_port}: {error.strerror}"))
    return findings


def _addresses() -> list[str]:
    import psutil

    found = [a.address for many in psutil.net_if_addrs().values() for a in many if a.family == socket.AF_INET]
    return sorted(address for address in found if not address.startswith("127."))


def models() -> list[Finding]:
    """The shipped models, each hashed."""
    try:
        store = ModelStore()
    except ModelError as error:
        return [Finding("models", False, str(error))]
    found = []
    for name in store.names():
        try:
            found.append(Finding(name, True, repr(store.open(name))))
        except ModelError as error:
            found.append(Finding(name, False, str(error)))
    return found or [Finding("models", False, f"none in {store.root}")]
