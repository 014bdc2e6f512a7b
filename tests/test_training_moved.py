"""Keys that are moved to the face in training samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from numpy.typing import NDArray

from streamgc.codec.face import FacePose
from streamgc.errors import TrainingError
from streamgc.pipeline.face import LEAST_SIZE, place_at
from streamgc.pipeline.faces import SMALLEST
from streamgc.runtime.store import ModelStore
from streamgc.training import call_moved
from streamgc.training.call_model import CallModel, completed
from streamgc.training.call_moved import UNMOVED_SHARE, Faces, displacements, faces_within, moved_key, pose_within
from streamgc.training.call_ship import kept_tables

SOURCE, SIZE = 256, 128
FACE = np.array([100, 100, 140, 108, 118, 142, 40.8], np.float32)
pytestmark = pytest.mark.usefixtures("one_thread")


def grid_of(centre: tuple[float, float], half: float, mirror: float = 1.0, bent: float = 0.0) -> NDArray[np.float32]:
    """What a crop of ``half`` pixels to every side shows of the source."""
    line = (np.arange(SIZE) + 0.5) / SIZE * 2 - 1
    x, y = np.meshgrid(line, line)
    places = np.stack([x * half * mirror + centre[0] + bent * np.sin(2 * y), y * half + centre[1]], -1)
    return (places / SOURCE * 2 - 1).astype(np.float32)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_moved, "MEASURED", (0.0, 0.0, 0.0))


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_a_face_is_where_the_crop_shows_it(mirror: float) -> None:
    pose = pose_within(FACE, grid_of((110, 120), 64, mirror), SOURCE, SMALLEST, np.random.default_rng(1))
    assert pose is not None
    place = place_at(pose)
    assert place.x == pytest.approx(64 + mirror * (120.5 - 110), abs=0.6)
    assert place.y == pytest.approx(104.5 - 56, abs=0.6)
    assert place.distance == pytest.approx(40.8, rel=0.02)
    assert place.turn == pytest.approx(mirror * np.arctan2(8, 40), abs=np.radians(1.1))


@pytest.mark.usefixtures("exact")
def test_a_face_is_found_where_the_crop_is_bent() -> None:
    pose = pose_within(FACE, grid_of((110, 120), 64, bent=6.0), SOURCE, SMALLEST, np.random.default_rng(1))
    assert pose is not None
    above = (104.5 - 120) / 64  # where in the crop the eyes are
    assert place_at(pose).x == pytest.approx(64 + 120.5 - 110 - 6 * np.sin(2 * above), abs=1.0)


def test_what_lies_outside_or_is_too_small_or_is_no_face_has_no_pose() -> None:
    random = np.random.default_rng(1)
    assert pose_within(FACE, grid_of((220, 120), 64), SOURCE, SMALLEST, random) is None
    assert pose_within(FACE, grid_of((110, 120), 64 * 40 / SMALLEST * 1.2), SOURCE, SMALLEST, random) is None
    assert pose_within(np.full(7, np.nan, np.float32), grid_of((110, 120), 64), SOURCE, SMALLEST, random) is None


def test_some_faces_are_not_found() -> None:
    random, grids = np.random.default_rng(1), [grid_of((110, 120), 64)] * 3
    found = [faces_within(np.stack([FACE, FACE]), FACE, grids, SOURCE, random) for _ in range(200)]
    lost = np.mean([faces.key is None for faces in found])
    assert UNMOVED_SHARE / 2 < lost < 2 * UNMOVED_SHARE
    assert all((faces.key is None) == (faces.pictures == (None, None)) for faces in found)


def blob(x: float, y: float) -> torch.Tensor:
    line = torch.arange(SIZE) + 0.5
    square = (line[None] - x) ** 2 + (line[:, None] - y) ** 2
    return torch.exp(-square / 200).expand(1, 3, -1, -1)


def test_the_key_is_moved_to_where_the_picture_s_face_is() -> None:
    key, picture = blob(50, 60), blob(70, 64)
    size = round(np.log(20 / LEAST_SIZE) / np.log(1.03))
    faces = Faces((FacePose(70, 64, size, 0), None), FacePose(50, 60, size, 0))
    shown, mattes = torch.stack([picture, picture], 1), torch.ones(1, 2, 1, SIZE, SIZE)
    chosen = []
    for seed in range(20):
        moved = displacements(shown, mattes, key, [faces], np.random.default_rng(seed))
        assert moved.shape == (1, 2, 2, SIZE // 8, SIZE // 8)
        assert moved[:, 1].abs().max() == 0  # no face there
        chosen.append(float((moved_key(key, moved[:, 0]) - picture).abs().mean()))
    apart = float((key - picture).abs().mean())
    assert sorted(chosen)[len(chosen) // 2] < 0.15 * apart
    nowhere = displacements(shown, mattes, key, [faces._replace(key=None)], np.random.default_rng(1))
    assert nowhere.abs().max() == 0
    assert torch.allclose(moved_key(key, nowhere[:, 0]), key, atol=1e-6)


def test_tables_and_channel_weights_of_before_can_be_kept(tmp_path: Path) -> None:
    model = ModelStore().open("lite")
    weights, _ = kept_tables(model, tmp_path, model.folder)
    assert len(weights) == 8
    assert weights == model.extra("channel_weights")
    assert model.tables is not None
    assert (tmp_path / "tables.bin").read_bytes() == model.tables.read_bytes()
    with pytest.raises(TrainingError, match="nowhere has no tables"):
        kept_tables(None, tmp_path, Path("nowhere"))


def test_weights_of_before_keys_were_moved_begin_with_nothing_of_it() -> None:
    model, name = CallModel(), "generator.embed.weight"
    own = model.state_dict()
    begun = completed(model, {**own, name: own[name][:, :-2]}, Path("before"))[name]
    assert begun.shape == own[name].shape
    assert begun[:, -2:].abs().max() == 0
    assert torch.equal(begun[:, :-2], own[name][:, :-2])
    with pytest.raises(TrainingError, match="another network"):
        completed(model, {**own, name: own[name][:, :-3]}, Path("other"))
