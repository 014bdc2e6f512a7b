"""evaluation.scene and scene_truth: figures that move when what they measure is made worse."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from streamgc.evaluation.clips import write_video
from streamgc.evaluation.scene import _without_nan, evaluate_frames, evaluate_scene, format_table, iou, lag_of, mean_row
from streamgc.evaluation.scene_truth import evaluate_composites, evaluate_framed
from streamgc.scene.framing import FramingSettings
from streamgc.scene.instances import Instances
from streamgc.scene.observer import SceneSettings
from streamgc.training.segmenter_data import UNKNOWN, Item
from tests.scene_pictures import boxes_as_instances

SETTINGS = SceneSettings(framing=FramingSettings(enabled=False))
Picture = npt.NDArray[np.uint8]


def person_at(x: int) -> Picture:
    picture = np.full((256, 256, 3), 60, np.uint8)
    picture[60:, x : x + 90] = 200
    return picture


def truth(picture: Picture) -> npt.NDArray[np.bool_]:
    return np.asarray(picture.mean(axis=2) > 130)


def perfect(picture: Picture) -> Instances:
    mask = truth(picture)
    box = (int(np.flatnonzero(mask.any(0))[0]), 60, int(np.flatnonzero(mask.any(0))[-1]) + 1, 256)
    return boxes_as_instances([box])._replace(masks=mask[None].astype(np.uint8) * 255)


class Drawn:
    """A white figure to paste, and a dark room."""

    def __init__(self) -> None:
        self.index = [{"source": "ccp", "kind": "truth"}, {"source": "houses", "kind": "empty"}]
        figure = np.zeros((400, 400), np.uint8)
        figure[60:380, 150:250] = figure[150:170, 90:310] = 255
        picture = np.repeat(figure[..., None] // 255 * 200 + np.uint8(30), 3, axis=2)
        unknown, nobody = np.full(figure.shape, UNKNOWN, np.uint8), np.zeros_like(figure)
        room = np.full((400, 400, 3), 30, np.uint8)
        self._items = [
            Item("ccp", "truth", True, picture, figure, figure // 255, unknown),
            Item("houses", "empty", True, room, nobody, nobody, unknown),
        ]

    def __len__(self) -> int:
        return 2

    def __getitem__(self, number: int) -> Item:
        return self._items[number]


def coarse(picture: Picture) -> Instances:
    """A segmenter that sees blocks of 8 pixels."""
    height, width = picture.shape[:2]
    blocks = picture[..., 0].reshape(height // 8, 8, width // 8, 8).mean(axis=(1, 3)) > 80
    mask = blocks.repeat(8, axis=0).repeat(8, axis=1)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return boxes_as_instances([], height, width)
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return boxes_as_instances([box], height, width)._replace(masks=mask[None].astype(np.uint8) * 255)


def test_a_coarse_segmenter_sees_more_of_a_composite_that_a_call_frames() -> None:
    framed = evaluate_framed(coarse, Drawn(), 1, 12)
    plain = evaluate_composites(coarse, Drawn(), 1, 12)
    assert framed.crop < 0.95
    assert framed.iou > framed.whole_iou + 0.005
    assert framed.all_found == plain.all_found == 1
    assert 0.5 < plain.iou < 1
    nothing = evaluate_framed(lambda picture: boxes_as_instances([], *picture.shape[:2]), Drawn(), 1, 2)
    assert (nothing.iou, nothing.all_found, nothing.crop) == (0, 0, 1)


class Late:
    """A segmenter two frames behind."""

    def __init__(self) -> None:
        self.past: list[Instances] = []

    def __call__(self, picture: Picture) -> Instances:
        self.past.append(perfect(picture))
        return self.past[max(0, len(self.past) - 3)]


class Nervous:
    """A segmenter whose person is anywhere within 20 px."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def __call__(self, picture: Picture) -> Instances:
        found = perfect(picture)
        return found._replace(masks=np.roll(found.masks, int(self.rng.integers(-20, 21)), axis=2))


def test_a_perfect_segmenter_loses_nothing_and_leaks_the_margin() -> None:
    row = evaluate_frames("still", [person_at(80)] * 12, perfect, SETTINGS, truth)
    assert row.iou == 1
    assert (row.loss, row.beyond, row.changed, row.lag) == (0, 0, 0, 0)
    assert 0 < row.leak < 5
    assert row.people == 1
    assert row.bytes_a_frame == 0


def test_what_is_worse_measures_worse() -> None:
    still = [person_at(80)] * 20
    moving = [person_at(10 + 6 * k) for k in range(20)]
    good, bad = (evaluate_frames("x", still, s, SETTINGS, truth) for s in (perfect, Nervous()))
    assert bad.still_changed > good.still_changed + 0.5
    assert bad.loss > 2 > good.loss
    assert bad.bytes_a_frame > good.bytes_a_frame
    late = evaluate_frames("x", moving, Late(), SETTINGS, truth)
    assert late.loss > evaluate_frames("x", moving, perfect, SETTINGS, truth).loss + 2


def test_lag_is_the_delay_in_frames() -> None:
    masks = [truth(person_at(6 * k)) for k in range(20)]
    assert lag_of(masks, masks) == 0
    assert lag_of([masks[max(0, k - 3)] for k in range(20)], masks) == 3


def test_two_empty_masks_agree() -> None:
    empty = np.zeros((4, 4), bool)
    assert iou(empty, empty) == 1
    assert iou(empty, ~empty) == 0


def test_table_json_and_overlay_are_written(tmp_path: Path) -> None:
    clips = []
    for name in ("one", "two"):
        clips.append(tmp_path / f"{name}.mp4")
        write_video(clips[-1], [person_at(60 + 4 * k) for k in range(8)], 15)
    out, overlay = tmp_path / "scene.json", tmp_path / "overlay.mp4"
    rows = evaluate_scene(clips, perfect, SETTINGS, truth, out, overlay, fps=15, frames=8)
    assert [row.clip for row in rows][-1] == "mean"
    written = json.loads(out.read_text())["clips"]
    assert [r["frames"] for r in written] == [8, 8, 16]
    assert overlay.stat().st_size > 1000
    table = format_table(rows).splitlines()
    assert len(table) == 5
    assert all(line.count("|") == table[0].count("|") for line in table)


def test_the_mean_leaves_out_what_was_not_measured() -> None:
    with_truth = evaluate_frames("a", [person_at(80)] * 3, perfect, SETTINGS, truth)
    without = evaluate_frames("b", [person_at(80)] * 3, perfect, SETTINGS)
    assert _without_nan(without)["iou"] is None
    assert np.isnan(without.iou)
    assert mean_row([with_truth, without]).iou == pytest.approx(with_truth.iou)
