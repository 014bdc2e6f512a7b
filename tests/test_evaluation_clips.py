"""Loading clips by the published rule."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from streamgc.errors import InputError
from streamgc.evaluation.clips import Frame, load_clip, read_decoded, read_frames, write_video
from streamgc.pipeline.clips import fit


def ramp(count: int, width: int = 64, height: int = 48) -> list[Frame]:
    return [np.full((height, width, 3), 8 * index, np.uint8) for index in range(count)]


def levels(frames: list[Frame]) -> list[int]:
    return [round(float(frame.mean()) / 8) for frame in frames]


def test_frames_are_taken_at_the_calls_rate(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", ramp(30), 30)
    assert levels(read_frames(tmp_path / "a.mp4", 32, 15)) == list(range(0, 30, 2))
    assert levels(read_frames(tmp_path / "a.mp4", 32, 10)) == list(range(0, 30, 3))


def test_a_source_of_25_gives_frames_when_they_are_due(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", ramp(25), 25)
    assert levels(read_frames(tmp_path / "a.mp4", 32, 15)) == [0, 2, 4, 5, 7, 9, 10, 12, 14, 15, 17, 19, 20, 22, 24]


def test_a_slow_source_gives_all_it_has(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", ramp(8), 10)
    assert levels(read_frames(tmp_path / "a.mp4", 32, 15)) == list(range(8))


def test_the_limit_ends_it(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", ramp(20), 15)
    assert len(read_frames(tmp_path / "a.mp4", 32, 15, limit=7)) == 7


def test_the_centre_square_is_kept() -> None:
    wide = np.zeros((40, 100, 3), np.uint8)
    wide[:, 30:70] = 200
    square = fit(wide, 16, 16)
    assert square.shape == (16, 16, 3)
    assert square.min() == 200


def test_a_clip_knows_its_name_and_its_bytes(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", ramp(4), 15)
    (tmp_path / "b.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    first, second = load_clip(tmp_path / "a.mp4", 32), load_clip(tmp_path / "b.mp4", 32)
    assert (first.name, second.name) == ("a.mp4", "b.mp4")
    assert first.digest == second.digest
    assert len(first.digest) == 16


def test_decoded_pictures_come_from_a_folder_or_a_video(tmp_path: Path) -> None:
    frames = ramp(3, 32, 32)
    write_video(tmp_path / "a.mp4", frames, 15)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{index:03d}.png")
    assert np.array_equal(read_decoded(tmp_path), frames)
    assert levels(read_decoded(tmp_path / "a.mp4", 32)) == [0, 1, 2]


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    for path in (tmp_path / "text.mp4", tmp_path / "absent.mp4"):
        with pytest.raises(InputError, match=path.name):
            read_frames(path)
    with pytest.raises(InputError, match="no PNG"):
        read_decoded(tmp_path)


def test_sound_alone_is_no_clip(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match="no video"):
        read_frames(tmp_path / "sound.wav")
