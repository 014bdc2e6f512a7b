"""``streamgc engines`` as a user meets it: one clear line, and exit code 2, for what cannot be done."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from streamgc.cli import main
from streamgc.runtime.engine import missing_reason
from streamgc.runtime.store import ModelStore


def complaint(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> str:
    """What the command prints to the terminal's error output when it gives up."""
    monkeypatch.setattr("sys.argv", ["streamgc", "engines", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("streamgc: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A copy of a shipped model's folder."""
    return Path(shutil.copytree(ModelStore().open("room").folder, tmp_path / "room"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("verify", "nothing"), "no model 'nothing'; there are: detail"),
        (("verify", "room", "--size", "100x100"), "multiples of 16"),
        (("verify", "room", "--size", "big"), "--size big: write WxH"),
        (("verify", "room", "--precision", "fp8"), "'fp8' is not one of"),
        (("verify", "room", "--backend", "gpu"), "unknown backend 'gpu'; there are: auto, tensorrt"),
        (("verify", "room", "--precision", "int8", "--reference", "openvino"), "cannot run model 'room' in int8 here"),
        (("export", "room", "--split"), "--out and --split are for checkpoints"),
        (("export", "room", "--precision", "fp8"), "not as 'fp8'"),
        (("export", "missing.pt"), "cannot read the checkpoint missing.pt"),
        (("build", "room", "--backend", "openvino"), "'openvino' builds no plans; there are: tensorrt, tensorrt-rtx"),
        (("build", "room", "--size", "64x64,128x128"), "one size, or three"),
        (("build", "room", "--precision", "fp64"), "--precision fp64: one of fp32, fp16, int8"),
    ],
)
def test_what_cannot_be_done(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert message in complaint(capsys, monkeypatch, *words)


def test_a_backend_that_is_asked_for_and_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = missing_reason("tensorrt-rtx")
    if reason is None:
        pytest.skip("this machine runs tensorrt-rtx")
    line = complaint(capsys, monkeypatch, "verify", "room", "--backend", "tensorrt-rtx")
    assert f"tensorrt-rtx is not available: {reason}" in line


def test_damaged_files_are_refused(
    room: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = room / "room.onnx"
    whole = network.read_bytes()
    network.write_bytes(whole[: len(whole) // 2])
    assert "is not the file it was published with" in complaint(capsys, monkeypatch, "verify", room)
    network.write_bytes(whole)
    manifest = room / "model.json"
    known = ModelStore().open("room").manifest.hash
    manifest.write_text(manifest.read_text().replace(known, known[::-1]))
    assert "do not make its hash" in complaint(capsys, monkeypatch, "verify", room)


def test_verify_writes_its_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "tables" / "room.md"
    words = ["verify", "room", "--backend", "openvino", "--size", "64x64", "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["streamgc", "engines", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code in (0, None)
    text = out.read_text()
    assert "| room | openvino | fp32 | 64×64 | 1 |" in text
    assert "| same |" in text
    assert list(out.parent.iterdir()) == [out]


def test_an_automatic_choice_is_said_once(tmp_path: Path) -> None:
    Image.fromarray(np.full((64, 80, 3), 90, np.uint8)).save(tmp_path / "in.png")
    command = [sys.executable, "-m", "streamgc", "compress", str(tmp_path / "in.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    # Encoder and generator were loaded, and one choice was made.
    assert [line for line in done.stderr.splitlines() if line.startswith("engine: ")] == done.stderr.splitlines()[:1]
