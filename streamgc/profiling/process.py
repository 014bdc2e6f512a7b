"""This process: CPU time by thread, and its age. Threads that Python did not start – the runtimes' own – are one."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from pathlib import Path

import psutil

NATIVE = "network threads"
"""Threads of OpenVINO, ONNX Runtime and FFmpeg beside those that called them."""

_MAIN = "event loop"
_TASKS = Path("/proc/self/task")


def cpu_by_thread() -> dict[str, float]:
    """CPU seconds of each thread since it began, by its name; numbered threads of one pool are one."""
    names = {thread.native_id: _name(thread) for thread in threading.enumerate()}
    used: dict[str, float] = defaultdict(float)
    for identity, seconds in _times().items():
        used[names.get(identity, NATIVE)] += seconds
    return dict(used)


class OtherLoad:
    """What the rest of the machine does during a `with` block: a measurement on a busy machine is one of its load."""

    percent = 0.0
    """CPU of processes that are neither this one nor came from it, in per cent of one core."""

    def __enter__(self) -> OtherLoad:
        self._before = _machine_and_own()
        self._since = time.monotonic()
        return self

    def __exit__(self, *exception: object) -> None:
        machine, own = (after - before for after, before in zip(_machine_and_own(), self._before, strict=True))
        self.percent = 100 * (machine - own) / max(time.monotonic() - self._since, 1e-3)


def _machine_and_own() -> tuple[float, float]:
    """CPU seconds of the whole machine, and of this process and its children that have ended."""
    every = psutil.cpu_times()
    idle = every.idle + getattr(every, "iowait", 0.0)
    own = psutil.Process().cpu_times()
    return sum(every) - idle - getattr(every, "guest", 0.0), sum(own[:4])


def age_s() -> float:
    """Seconds since this process was started, interpreter and imports included."""
    try:
        after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(after_name[19]) / os.sysconf("SC_CLK_TCK")  # proc(5): field 22, ticks since boot
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, AttributeError, IndexError, ValueError):
        return float(time.time() - psutil.Process().create_time())


def thread_names() -> dict[int, str]:
    """Names by `threading.get_ident`, of the threads that there are now."""
    return {thread.ident: _name(thread) for thread in threading.enumerate() if thread.ident is not None}


def _name(thread: threading.Thread) -> str:
    return _MAIN if thread is threading.main_thread() else thread.name.rstrip("0123456789").rstrip("_-") or thread.name


def _times() -> dict[int, float]:
    """Seconds by native thread id: exact where the kernel says (Linux schedstat), else in its ticks of 10 ms."""
    if not _TASKS.is_dir():
        return {thread.id: thread.user_time + thread.system_time for thread in psutil.Process().threads()}
    found = {}
    for task in _TASKS.iterdir():
        try:
            found[int(task.name)] = int((task / "schedstat").read_text().split()[0]) / 1e9
        except (OSError, ValueError, IndexError):  # it has ended, or this kernel keeps no such figures
            continue
    if not found:
        return {thread.id: thread.user_time + thread.system_time for thread in psutil.Process().threads()}
    return found
