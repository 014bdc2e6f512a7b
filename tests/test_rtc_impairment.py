"""The bad network is as bad as it was asked to be, and the same every time."""

import asyncio
import time
from itertools import pairwise
from pathlib import Path

import pytest

from streamgc.errors import InputError
from streamgc.rtc.impairment import Impairment, Link, load_trace


async def through(impairment: Impairment, count: int, size: int = 100, every_s: float = 0.0) -> tuple[Link, list[int]]:
    """Numbers of the datagrams in the order in which they arrive."""
    link, arrived = Link(impairment), []
    for number in range(count):
        link.push(size, lambda number=number: arrived.append(number))  # type: ignore[misc]
        if every_s:
            await asyncio.sleep(every_s)
    await asyncio.sleep(0.15)
    link.close()
    return link, arrived


async def test_loss_has_the_share_asked_for_and_the_seed_decides_which() -> None:
    first, arrived = await through(Impairment(loss=0.2, seed=5), 5000)
    assert 0.17 < first.lost / 5000 < 0.23
    _, again = await through(Impairment(loss=0.2, seed=5), 5000)
    _, other = await through(Impairment(loss=0.2, seed=6), 5000)
    assert arrived == again != other


async def test_bursts_have_the_same_share_in_longer_runs() -> None:
    link, arrived = await through(Impairment(loss=0.1, burst=3), 20_000)
    assert 0.08 < link.lost / 20_000 < 0.12
    gaps = [after - before - 1 for before, after in pairwise(arrived) if after > before + 1]
    assert 2.5 < sum(gaps) / len(gaps) < 3.6


async def test_delay_keeps_the_order_and_reordering_does_not() -> None:
    start = time.monotonic()
    _, arrived = await through(Impairment(delay_ms=50, jitter_ms=10), 50)
    assert arrived == sorted(arrived)
    assert time.monotonic() - start >= 0.05
    _, shuffled = await through(Impairment(delay_ms=5, reorder=0.3), 50, every_s=0.001)
    assert shuffled != sorted(shuffled)
    assert sorted(shuffled) == list(range(50))


async def test_a_bottleneck_delays_and_then_drops() -> None:
    link, arrived = await through(Impairment(rate_kbps=100, queue_ms=50), 100, size=97)
    assert link.overflowed > 90  # 125 bytes take 10 ms each: some six fit
    assert 5 <= len(arrived) <= 7


async def test_traces_replay(tmp_path: Path) -> None:
    mahimahi, rows = tmp_path / "m.up", tmp_path / "r.csv"
    mahimahi.write_text("10\n20\n30\n")
    trace = load_trace(mahimahi)
    assert [trace.leave(1500, 0) for _ in range(5)] == [10, 20, 30, 40, 50]
    rows.write_text("seconds,kbps\n0,100\n1,200\n2,100\n")
    trace = load_trace(rows)
    assert 950 <= trace.leave(12_400, 0) <= 1010  # a second at 100 kbit/s is 12,500 bytes
    assert 1950 <= trace.leave(24_900, 0) <= 2010


@pytest.mark.parametrize("text", ["", "a\nb\n", "5\n3\n", "0\n", "1,x\n2,y\n", "0,0\n1,0\n"])
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trace"
    path.write_text(text)
    with pytest.raises(InputError):
        load_trace(path)
    with pytest.raises(InputError, match="no readable trace"):
        load_trace(tmp_path / "absent")


def test_impossible_networks_are_refused() -> None:
    for wrong in ({"loss": 1.0}, {"loss": -0.1}, {"burst": 0.5}, {"delay_ms": -1}, {"reorder": 2}):
        with pytest.raises(InputError):
            Impairment(**wrong)
