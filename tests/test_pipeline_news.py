"""Something that comes into the picture: what counts as new, when a key is borrowed for it, and that it is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from streamgc.call.sources import packaged_clip
from streamgc.cli import main
from streamgc.evaluation.call import our_codec
from streamgc.evaluation.clips import Clip, load_clip, write_video
from streamgc.evaluation.newcomers import PERSON_SECONDS, judge, strip, with_cup, with_person, write_picture
from streamgc.pipeline.budget import LENDING_SECONDS, Budget
from streamgc.pipeline.news import ARRIVING_SECONDS, NEW_CELLS, NEW_LEVEL, NEW_SECONDS, Change, News, unseen
from tests.evaluation_clips import ToyCodec, clip, person

KBPS, FPS = 5.0, 15.0
ALL = np.ones((16, 16), np.bool_)
Picture = NDArray[np.uint8]


def textured(seed: int = 1) -> Picture:
    """Soft noise, (256, 256, 3)."""
    small = np.random.default_rng(seed).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("shift", [(0, 0), (8, 0), (-12, 16), (16, -16)])
def test_what_only_moved_is_not_new(shift: tuple[int, int]) -> None:
    key = textured()
    moved = np.roll(key, shift, (0, 1))
    assert unseen(moved, key, ALL)[2:-2, 2:-2].max() == 0


def test_what_no_key_shows_is_new_and_only_where_it_is_kept() -> None:
    key = textured()
    picture = key.copy()
    picture[64:112, 80:144] = (250, 20, 20)
    new = unseen(picture, key, ALL) > 0
    expected = np.zeros_like(ALL)
    expected[4:7, 5:9] = True
    np.testing.assert_array_equal(new, expected)
    keep = ALL.copy()
    keep[:, 7:] = False
    np.testing.assert_array_equal(unseen(picture, key, keep) > 0, expected & keep)


def test_a_lamp_that_flickers_is_not_new() -> None:
    key = textured()
    brighter = np.clip(key.astype(np.int16) + round(NEW_LEVEL) - 4, 0, 255).astype(np.uint8)
    assert unseen(brighter, key, ALL).max() == 0


def some(count: int, first: int = 0) -> NDArray[np.bool_]:
    """So many new cells from a place on."""
    cells = np.zeros(256, np.bool_)
    cells[first : first + count] = True
    return cells.reshape(16, 16)


def test_what_rests_stays_and_what_goes_on_moving_is_not_waited_for() -> None:
    resting, moving, little = News(), News(), News()
    until = int(np.ceil(NEW_SECONDS * FPS))
    assert [resting.see(some(NEW_CELLS), FPS) for _ in range(until)] == [Change.ARRIVES] * (until - 1) + [Change.STAYS]
    waited = int(ARRIVING_SECONDS * FPS)
    seen = [moving.see(some(NEW_CELLS, first=20 * (n % 2)), FPS) for n in range(3 * waited)]
    assert seen == [Change.ARRIVES] * waited + [Change.NOTHING] * (2 * waited)
    assert {little.see(some(2), FPS) for _ in range(30)} == {Change.NOTHING}
    resting.forget()
    assert resting.see(some(NEW_CELLS), FPS) is Change.ARRIVES


def test_a_key_is_lent_once_and_not_at_the_start_nor_on_a_narrow_path() -> None:
    budget = Budget(KBPS, FPS)
    budget.spent(5000, 4980, start=True)
    lent = [budget.lends_key]
    for _ in range(round(LENDING_SECONDS * FPS)):
        budget.spent(round(budget.code_bytes) + 3, 0, start=False)
        lent.append(budget.lends_key)
    assert lent == [False] * (len(lent) - 1) + [True]
    narrow = Budget(KBPS, FPS)
    narrow.set_rate(KBPS, narrow=True)
    for _ in range(round(LENDING_SECONDS * FPS)):
        narrow.spent(round(narrow.code_bytes) + 3, 0, start=False)
    assert not narrow.lends_key
    budget.key_made(2400)
    assert budget.object_bytes(30, key=2400) >= 2400, "it leaves whole"
    budget.spent(2430, 2400, start=False)
    lent.append(budget.lends_key)
    assert not lent[-1], "the last is paid for first"
    waited = 0
    while not budget.affords_key:
        budget.spent(round(budget.code_bytes) + 3, 0, start=False)
        waited += 1
    saved = waited * KBPS * 125 / FPS * budget.shares.key_share
    assert saved > 2000, "what was lent is paid back before another key is saved up for"


def calm_clip() -> Clip:
    """The packaged clip's first seconds there and back: five seconds without a large turn."""
    frames = load_clip(packaged_clip(), limit=40).frames
    return Clip("calm.mp4", "0" * 16, frames + frames[-2::-1], 15)


@pytest.mark.parametrize("kbps", [3.0, 5.0, 10.0])
def test_a_cup_that_comes_into_a_call_is_shown_within_a_second(kbps: float) -> None:
    scene = calm_clip()
    arrival, shown = judge(with_cup(scene, at=3.4), our_codec(), scene.fps, kbps)
    assert arrival.after_entering <= 1.0
    assert arrival.shown_since >= 0.9
    assert len(shown) == len(scene.frames)


@pytest.mark.slow
@pytest.mark.parametrize("kbps", [3.0, 5.0, 10.0])
def test_a_minute_in_which_something_comes_in_keeps_to_the_rate(kbps: float) -> None:
    calm = calm_clip().frames
    scene = Clip("minute.mp4", "0" * 16, [calm[n % (len(calm) - 1)] for n in range(900)], 15)
    sizes = our_codec().encode(with_cup(scene, at=6.0).frames, 15, kbps, 130)[1]
    assert sum(sizes) * 8 / 60 / 1000 == pytest.approx(kbps, rel=0.1)


def test_a_call_that_never_shows_it_is_told_so() -> None:
    class Blind:
        """Shows the clip as it was, whatever comes in."""

        def encode(self, frames: list[Picture], fps: int, kbps: float, delay: float) -> tuple[list[Picture], list[int]]:
            return list(scene.frames), [20] * len(frames)

    scene = Clip("still.mp4", "0" * 16, [textured()] * 45, 15)
    newcomer = with_cup(scene, at=1.0)
    assert "never shown" in str(judge(newcomer, Blind(), 15, 5.0)[0])
    seen, frames = judge(newcomer, ToyCodec(), 15, 100.0)
    assert (seen.after_entering, seen.after_rest, seen.shown_since) == (0, 0, 1)
    assert strip(newcomer, frames, 15).shape[:2] == (512, 256 * 5)


def test_a_second_person_comes_in_from_the_right_and_rests() -> None:
    small = clip()
    base = Clip("base.mp4", "0" * 16, [small.frames[0]] * 40, 15)
    newcomer = with_person(base, small, person, at=1.0)
    assert newcomer.rests - newcomer.enters + 1 == round(PERSON_SECONDS * 15)
    columns = [place.any(0).argmax() for place in newcomer.places[newcomer.rests :] if place is not None]
    assert len(columns) > 10
    assert len(set(columns)) == 1
    np.testing.assert_array_equal(newcomer.frames[14], base.frames[14])
    still = with_person(base, small._replace(frames=small.frames[:1]), person, at=1.0)
    np.testing.assert_array_equal(still.frames[-1], still.frames[-2])


def test_strips_of_short_and_long_clips_are_one_picture(tmp_path: Path) -> None:
    short, long = np.full((4, 6, 3), 9, np.uint8), np.full((4, 10, 3), 7, np.uint8)
    write_picture(tmp_path / "both.png", [short, long])
    written = np.asarray(Image.open(tmp_path / "both.png"))
    assert written.shape == (8, 10, 3)
    assert [written[0, 5, 0], written[0, 6, 0], written[7, 9, 0]] == [9, 0, 7]
    assert [path.name for path in tmp_path.iterdir()] == ["both.png"]


def test_the_command_says_one_line_for_each_and_writes_the_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def exit_code(*words: str | Path) -> object:
        monkeypatch.setattr("sys.argv", ["streamgc", "evaluate", "newcomer", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code

    source, picture = tmp_path / "calm.mp4", tmp_path / "newcomer.png"
    write_video(source, calm_clip().frames, 15)
    arguments = (source, "--rates", "10", "--at", "3.4")
    assert exit_code(*arguments, "--picture", picture) == 0
    assert "calm.mp4  cup at 10 kbit/s: shown 0." in capsys.readouterr().out
    assert Image.open(picture).size[1] == 512
    assert exit_code(*arguments, "--second", source) == 2
    assert "--selfie" in capsys.readouterr().err
    for at, said in (("600", "ends before"), ("-1", "before the clip begins")):
        assert exit_code(source, "--at", at) == 2
        assert said in capsys.readouterr().err
    assert exit_code(source, "--picture", tmp_path / "none" / "newcomer.png") == 2
    assert "no such folder" in capsys.readouterr().err
