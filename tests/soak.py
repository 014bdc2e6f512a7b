"""A long call between two processes: `python -m tests.soak --seconds 3600 --loss 5`.

Prints the memory of both peers, then minute by minute the latency of the pictures, and how much memory grew after the
first five minutes. An hour is what a release needs; ten minutes show a leak of some size.
"""

import argparse
import asyncio
import itertools
import statistics
import tempfile
from pathlib import Path

import psutil

from streamgc.call.codec import DEFAULT_FACTORY, CodecOptions
from streamgc.call.demo import make_call
from streamgc.call.demo_options import DemoOptions
from streamgc.call.report import glass_to_glass, read_log
from streamgc.call.sources import packaged_clip
from streamgc.rtc.impairment import Impairment

SAMPLE_S = 10.0
SETTLED_S = 300.0
"""Growth counts from here on, or from half of a shorter call."""


async def watch_memory(found: list[tuple[float, dict[int, float]]]) -> None:
    """Note the resident memory of both peers, MB by process."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    while True:
        await asyncio.sleep(SAMPLE_S)
        sizes: dict[int, float] = {}
        for child in psutil.Process().children():
            try:
                sizes[child.pid] = child.memory_info().rss / 1e6
            except psutil.NoSuchProcess:
                continue
        found.append((loop.time() - start, sizes))
        print(f"{found[-1][0]:6.0f} s  " + "  ".join(f"{size:.1f} MB" for size in sizes.values()), flush=True)


async def soak(seconds: float, loss: float, codec: CodecOptions, folder: Path) -> list[tuple[float, dict[int, float]]]:
    """Make the call; returns the memory samples."""
    found: list[tuple[float, dict[int, float]]] = []
    watching = asyncio.create_task(watch_memory(found))
    options = DemoOptions(
        seconds=seconds,
        codec=codec,
        impairment=Impairment(loss=loss / 100, delay_ms=40, jitter_ms=5),
        keep_seconds=0,
    )
    try:
        await make_call(options, str(packaged_clip()), folder, lambda name, statistics: None)
    finally:
        watching.cancel()
    return found


def main() -> None:
    """Run, and say what grew."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=3600)
    arguments.add_argument("--loss", type=float, default=5, help="per cent")
    arguments.add_argument("--fps", type=float, default=15, help="pictures a second")
    arguments.add_argument(
        "--factory", default=DEFAULT_FACTORY, help="the codec's, for instance tests.rtc_fakes:load_fake"
    )
    chosen = arguments.parse_args()
    codec = CodecOptions(framing=False, threads=1, fps=chosen.fps, factory=chosen.factory)
    with tempfile.TemporaryDirectory(prefix="streamgc-soak-") as name:
        found = asyncio.run(soak(chosen.seconds, chosen.loss, codec, Path(name)))
        sender, receiver = (read_log(Path(name) / f"{peer}.events") for peer in "ab")
    latencies = glass_to_glass(sender, receiver)
    size = max(1, len(latencies) // max(1, round(chosen.seconds / 60)))
    for minute, place in enumerate(range(0, len(latencies), size)):
        print(f"minute {minute}: median {statistics.median(latencies[place : place + size]):.0f} ms")
    settled = min(SETTLED_S, chosen.seconds / 2)
    for pid in found[-1][1]:
        sizes = [sample[pid] for at, sample in found if at >= settled and pid in sample]
        print(f"peer {pid}: {sizes[-1] - sizes[0]:+.1f} MB after the first {settled:.0f} s")
    times = [shown.at_ns for shown in receiver.shown]
    freeze = max(after - before for before, after in itertools.pairwise(times)) / 1e9
    fps = len(times) / chosen.seconds
    print(f"shown {len(latencies)} of {len(sender.sent)}, {fps:.1f} a second, longest freeze {freeze:.2f} s")


if __name__ == "__main__":
    main()
