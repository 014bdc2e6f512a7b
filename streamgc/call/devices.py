"""Cameras and screens of this machine, as PyAV opens them.

| | Linux | macOS | Windows |
|---|---|---|---|
| camera | v4l2 (not in PyPI's wheel of PyAV) | avfoundation | dshow |
| screen | x11grab (X11 and XWayland) | avfoundation | gdigrab |
"""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import av

from streamgc.errors import InputError

SCREEN = "screen"
"""As an input: the whole screen; `screen:NAME` is the one that the system calls NAME."""

_CLASS = Path("/sys/class/video4linux")


class Device(NamedTuple):
    """What `--list-devices` shows."""

    name: str  # to be given as --camera, or as --input for a screen
    description: str


def is_screen(source: str) -> bool:
    """Whether an input names a screen and no file."""
    return source == SCREEN or source.startswith(f"{SCREEN}:")


def open_device(device: str, fps: float) -> Any:
    """An open PyAV container of a camera (empty = the first) or a screen; raises `InputError` when there is none."""
    return _open_screen(device, fps) if is_screen(device) else _open_camera(device, fps)


def list_devices() -> list[Device]:
    """The cameras that the system names, and the screen where there is one to grab."""
    backend, _ = _camera_backend()
    found: list[Device] = []
    if backend == "v4l2":
        paths = sorted(Path("/dev").glob("video*"))
        found = [Device(str(path), _name(path)) for path in paths]
    elif backend in av.formats_available:
        with contextlib.suppress(av.FFmpegError, ValueError):
            found = [_listed(backend, one) for one in av.enumerate_input_devices(backend) if "video" in one.media_types]
    screen, name = _screen_backend()
    if name and screen in av.formats_available:
        found.append(Device(SCREEN, f"the screen {name} ({screen})"))
    return found


def _listed(backend: str, device: Any) -> Device:
    name = f"video={device.name}" if backend == "dshow" else f"{device.name}:none"
    return Device(name, device.description)


def _name(path: Path) -> str:
    """What the kernel calls a camera."""
    try:
        return (_CLASS / path.name / "name").read_text().strip()
    except OSError:
        return ""


def _open_camera(device: str, fps: float) -> Any:
    backend, default = _camera_backend()
    name = device or default
    if backend == "v4l2" and not Path(name).exists():
        raise InputError(f"no camera: {name} does not exist")
    if backend not in av.formats_available:
        raise InputError(f"no camera: this PyAV was built without {backend}; use the page, or --input FILE")
    try:
        return av.open(name, format=backend, options={"framerate": str(max(15, round(fps)))})
    except (av.FFmpegError, OSError):
        with contextlib.suppress(av.FFmpegError, OSError):
            return av.open(name, format=backend)
    raise InputError(f"no camera: {name} cannot be opened")


def _open_screen(device: str, fps: float) -> Any:
    backend, default = _screen_backend()
    name = device.partition(":")[2] or default
    if backend not in av.formats_available:
        raise InputError(f"no screen: this PyAV was built without {backend}")
    if not name:
        raise InputError("no screen: DISPLAY is not set")
    try:
        return av.open(name, format=backend, options={"framerate": str(round(fps)), "draw_mouse": "1"})
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"no screen: {name} cannot be grabbed") from error


def _camera_backend() -> tuple[str, str]:
    if sys.platform == "darwin":
        return "avfoundation", "default:none"
    if sys.platform == "win32":
        return "dshow", "video=Integrated Camera"
    return "v4l2", "/dev/video0"


def _screen_backend() -> tuple[str, str]:
    if sys.platform == "darwin":
        return "avfoundation", "Capture screen 0:none"
    if sys.platform == "win32":
        return "gdigrab", "desktop"
    return "x11grab", os.environ.get("DISPLAY", "")
