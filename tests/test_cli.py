"""The command line as a user meets it: what works, and one clear line for what does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from streamgc.call.sources import packaged_clip
from streamgc.codec.stream_file import StreamReader


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamgc", *map(str, words)]
    told = {name: value for name, value in os.environ.items() if name != "SVT_LOG"}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=told)


def complaint(result: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error that was meant."""
    lines = [line for line in result.stderr.splitlines() if line and not line.startswith("engine: ")]
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return lines[0]


@pytest.fixture(scope="module")
def clip() -> Path:
    return packaged_clip()


@pytest.fixture(scope="module")
def stream(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stream") / "call.sgcv"
    sizes = path.with_suffix(".txt")
    result = run(
        "encode", clip, path, "--kbps", "5", "--limit", "24", "--no-framing", "--sizes", sizes, "--threads", "1"
    )
    assert result.returncode == 0, result.stderr
    assert "24 frames" in result.stdout
    assert "Svt" not in result.stdout + result.stderr  # forty lines for each encoder
    with StreamReader(path) as reader:
        assert [len(message) for message in reader] == [int(line) for line in sizes.read_text().split()]
    return path


def test_encode_and_decode(stream: Path, clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    result = run("decode", stream, folder, "--original-background", clip)
    assert result.returncode == 0, result.stderr
    files = sorted(path.name for path in folder.iterdir())
    assert files == [f"{n:06d}.png" for n in range(24)]
    first, last = (np.asarray(Image.open(folder / files[n])) for n in (0, -1))
    assert first.shape == last.shape == (256, 256, 3)
    assert np.abs(first.astype(int) - last).mean() > 1


def test_decode_to_a_video(stream: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    assert run("decode", stream, target).returncode == 0
    assert target.stat().st_size > 1000


@pytest.mark.parametrize("cut", [4, 60, -3])
def test_a_truncated_stream(stream: Path, tmp_path: Path, cut: int) -> None:
    bad = tmp_path / "bad.sgcv"
    bad.write_bytes(stream.read_bytes()[:cut])
    complaint(run("decode", bad, tmp_path / "frames"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.sgcv"]


def test_a_stream_of_another_model(stream: Path, tmp_path: Path) -> None:
    data = bytearray(stream.read_bytes())
    data[5:13] = bytes(8)
    other = tmp_path / "other.sgcv"
    other.write_bytes(data)
    complaint(run("decode", other, tmp_path / "frames"))


@pytest.mark.parametrize(
    "words",
    [
        ("encode", "no-such-file.mp4", "x.sgcv"),
        ("encode", __file__, "x.sgcv"),
        ("decode", "no-such-file.sgcv", "frames"),
        ("demo", "--input", "no-such-file.mp4"),
        ("demo", "--size", "250x250"),
        ("demo", "--background", "beach"),
        ("demo", "--model", "nobody"),
        ("call", "room", "--headless", "--server", "127.0.0.1:9"),
        ("call", "room", "--headless", "--server", "127.0.0.1:9", "--record", "call.foo"),
        ("call", "room", "--headless", "--server", "127.0.0.1:9", "--record", "call.webm"),
        ("call", "room", "--headless", "--server", "127.0.0.1:9", "--record", "nowhere/call.mp4"),
        ("call", "room", "--headless", "--server", "127.0.0.1:9", "--statistics", "nowhere/lines.jsonl"),
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_bad_input_is_one_line(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    complaint(run(*words))
    assert not list(tmp_path.iterdir())


def test_version_and_help() -> None:
    assert run("--version").stdout.startswith("streamgc ")
    names = ("demo", "call", "signaling", "encode", "decode", "compress", "decompress", "train", "evaluate", "engines")
    page = run("--help").stdout
    assert all(name in page for name in (*names, "doctor"))
