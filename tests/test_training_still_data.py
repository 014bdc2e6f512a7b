"""Training data for stills: every layout, what each refuses, and what a sample is made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from streamgc.errors import TrainingError
from streamgc.evaluation.clips import write_video
from streamgc.training.still_data import CITYSCAPES_SIZE, open_source
from streamgc.training.still_samples import (
    Labelled,
    cells_of,
    instance_edges,
    label_planes,
    random_box,
    random_crop,
    random_instances,
)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def cityscapes(root: Path) -> None:
    for stem in ("aachen_000000_000019", "aachen_000001_000019"):
        save(root / f"leftImg8bit/train/aachen/{stem}_leftImg8bit.png", np.zeros((64, 128, 3), np.uint8))
        labels = np.full((64, 128), 7, np.uint8)
        labels[:8] = 255
        save(root / f"gtFine/train/aachen/{stem}_gtFine_labelIds.png", labels)
        save(root / f"gtFine/train/aachen/{stem}_gtFine_instanceIds.png", np.full((64, 128), 26001, np.uint16))


def test_cityscapes(tmp_path: Path) -> None:
    cityscapes(tmp_path)
    source = open_source("cityscapes", [tmp_path])
    item = source[1]
    assert len(source) == 2
    assert item.picture.shape == (CITYSCAPES_SIZE[1], CITYSCAPES_SIZE[0], 3)
    assert item.labels is not None
    assert item.instances is not None
    assert set(np.unique(item.labels).tolist()) == {0, 7}
    assert int(item.instances.max()) == 26001
    (tmp_path / "gtFine/train/aachen/aachen_000001_000019_gtFine_instanceIds.png").unlink()
    with pytest.raises(TrainingError, match="1 of 2 files are missing, the first is aachen_000001_000019_gtFine_inst"):
        open_source("cityscapes", [tmp_path])
    with pytest.raises(TrainingError, match=r"no folder .*leftImg8bit"):
        open_source("cityscapes", [tmp_path / "elsewhere"])


def test_images_and_the_open_images_rules(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.full((600, 1000, 3), 120, np.uint8))
    save(tmp_path / "b.png", np.full((60, 100, 3), 120, np.uint8))
    save(tmp_path / "c.png", np.tile(np.array([255, 0, 255], np.uint8), (600, 1000, 1)))
    assert len(open_source("images", [tmp_path])) == 3
    strict = open_source("images", [tmp_path], open_images_rules=True)
    assert len(strict) == 1
    assert strict[0].picture.shape == (461, 768, 3)
    (tmp_path / "a.png").unlink()
    with pytest.raises(TrainingError, match="none of 2 images"):
        open_source("images", [tmp_path], open_images_rules=True)
    (tmp_path / "d.png").write_bytes(b"not a picture")
    with pytest.raises(TrainingError, match=r"d\.png cannot be read"):
        open_source("images", [tmp_path])[2]


def test_images_with_labels_or_masks(tmp_path: Path) -> None:
    save(tmp_path / "images" / "x.png", np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(TrainingError, match="neither labels/ nor masks/"):
        open_source("labelled", [tmp_path])
    save(tmp_path / "masks" / "x.png", np.full((32, 32), 200, np.uint8))
    masked = open_source("labelled", [tmp_path])[0]
    assert masked.labels is not None
    assert masked.labels.max() == 1
    save(tmp_path / "labels" / "x.png", np.full((32, 32), 5, np.uint8))
    labelled = open_source("labelled", [tmp_path])[0]
    assert labelled.labels is not None
    assert labelled.labels.max() == 5
    save(tmp_path / "labels" / "x.png", np.zeros((16, 32), np.uint8))
    with pytest.raises(TrainingError, match="its image"):
        open_source("labelled", [tmp_path])[0]


def test_clips(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", [np.full((48, 64, 3), 10 * n, np.uint8) for n in range(10)], 15)
    source = open_source("clips", [tmp_path])
    assert len(source) >= 5
    assert source[0].picture.shape == (48, 64, 3)
    (tmp_path / "bad.mp4").write_bytes(b"\0" * 100)
    with pytest.raises(TrainingError, match=r"bad\.mp4 cannot be decoded"):
        open_source("clips", [tmp_path])


def test_unknown_layouts_and_empty_folders(tmp_path: Path) -> None:
    for layout, roots, text in (
        ("images", [tmp_path], "holds no images"),
        ("coco", [tmp_path], "unknown"),
        ("images", [], "no data"),
    ):
        with pytest.raises(TrainingError, match=text):
            open_source(layout, roots)


def test_planes_edges_and_heatmaps() -> None:
    labels = np.zeros((4, 6), np.uint8)
    labels[:, 3:] = 2
    planes = label_planes(labels, None, 3)
    assert planes.shape == (4, 4, 6)
    assert np.array_equal(planes[:3].argmax(0), labels)
    assert planes[3, 0].tolist() == [0, 0, 1, 1, 0, 0]
    assert not instance_edges(np.ones((3, 3), np.int32)).any()
    with pytest.raises(TrainingError, match="class 2"):
        label_planes(labels, None, 2)
    random = np.random.default_rng(1)
    ids = np.arange(8, dtype=np.int32).repeat(4).reshape(4, 8)
    assert len(np.unique(ids[random_instances(ids, 0.25, random)])) == 2
    boxes = [random_box(32, 48, random) for _ in range(50)]
    for box in boxes:
        rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
        assert box.sum() == len(rows) * len(columns) > 0
    kept = np.zeros((32, 48), bool)
    kept[17, 40] = True
    assert cells_of(kept, 16).tolist() == [[False, False, False], [False, False, True]]


def test_crops_keep_picture_and_labels_together() -> None:
    labels = np.arange(40 * 50, dtype=np.int32).reshape(40, 50)
    picture = np.repeat((labels % 251).astype(np.uint8)[..., None], 3, 2)
    item = Labelled(picture, (labels % 251).astype(np.uint8), labels)
    for seed in range(10):
        crop = random_crop(item, (32, 64), np.random.default_rng(seed))
        assert crop.labels is not None
        assert crop.picture.shape == (32, 64, 3)
        assert np.array_equal(crop.picture[..., 0], crop.labels)
