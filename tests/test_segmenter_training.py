"""The segmenter: network, samples, losses, training, export; all small and seeded."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the [train] extra is not installed")
from safetensors.torch import save_file  # noqa: E402
from scipy.ndimage import binary_erosion  # noqa: E402

from streamgc.errors import TrainingError  # noqa: E402
from streamgc.networks.segmenter import (  # noqa: E402
    Segmenter,
    SegmenterOutput,
    affinity,
)
from streamgc.scene.affinity import EMBEDDING, OFFSET_UNIT, logits, votes_of  # noqa: E402
from streamgc.scene.labels import Label  # noqa: E402
from streamgc.training import segmenter  # noqa: E402
from streamgc.training.segmenter import (  # noqa: E402
    SegmenterSettings,
    SegmenterTrainer,
    segmenter_loss,
    take_over,
    together_loss,
    train_segmenter,
)
from streamgc.training.segmenter_data import UNKNOWN, Items, hole_fraction, outdoor_labels  # noqa: E402
from streamgc.training.segmenter_light import DIM_GAMMA, DIM_LEVELS, dark_border, dimmed  # noqa: E402
from streamgc.training.segmenter_scenes import (  # noqa: E402
    SMALL_HEIGHT,
    SceneMaker,
    cell_labels,
    queries_of,
    targets_of,
)
from streamgc.training.segmenter_stream import SampleStream, collate  # noqa: E402


def write_cache(folder: Path) -> Path:
    """Three "people" (bright ellipses) and two empty rooms in the form of the cache."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    index, blob = [], bytearray()
    ys, xs = np.mgrid[:160, :120]
    for number in range(5):
        height, width = (160, 120) if number < 3 else (120, 160)
        picture = rng.integers(30, 90, (height, width, 3), dtype=np.uint8)
        person = np.zeros((height, width), np.uint8)
        if number < 3:
            person[((ys - 90) / 60) ** 2 + ((xs - 60) / 25) ** 2 < 1] = 255
            picture[person > 0] += 120
        owner = (person > 0).astype(np.uint8)
        labels = np.where(person > 0, Label.PERSON, Label.ROOM).astype(np.uint8)
        entry = {"source": "ccp" if number < 3 else "houses", "kind": "truth" if number < 3 else "empty"}
        index.append({**entry, "single": True, "height": height, "width": width, "offset": len(blob)})
        for array in (picture, person, owner, labels):
            blob += array.tobytes()
    (folder / "items.bin").write_bytes(bytes(blob))
    (folder / "items.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cache(tmp_path_factory.mktemp("segmenter") / "run" / "cache")


def test_targets_point_to_the_middle_of_the_upper_half_of_their_person() -> None:
    owner = np.zeros((64, 64), np.uint8)
    owner[8:40, 8:24] = 1
    owner[20:60, 40:60] = 2
    targets = targets_of(owner, known=True)
    assert targets.centres == 2
    row, column = 24 // 4, 48 // 4
    y, x = (
        row * 4 + 1.5 + targets.offset[0, row, column] * OFFSET_UNIT,
        column * 4 + 1.5 + targets.offset[1, row, column] * OFFSET_UNIT,
    )
    assert (y, x) == pytest.approx((29.5, 49.5), abs=2.1)
    peak_row, peak_column = divmod(int(np.argmax(targets.heat[:, 8:])), 8)
    assert abs(peak_row - 7) <= 0.5
    assert peak_column == 4
    assert not targets_of(owner, known=False).where.any()


def answering(offset: Any, embedding: Any, query: Any) -> SegmenterOutput:
    nothing = torch.zeros(1)
    return SegmenterOutput(nothing, nothing, offset, nothing, embedding, query)


def test_training_and_calls_add_up_the_same_affinity() -> None:
    torch.manual_seed(0)
    output = answering(torch.randn(2, 2, 8, 12), torch.randn(2, EMBEDDING, 8, 12), torch.randn(2, EMBEDDING + 1, 4, 6))
    sample, row, column = torch.tensor([[1, 0], [5, 2], [7, 11]])
    trained = affinity(output, sample, row, column).numpy()
    for number, (n, y, x) in enumerate([(1, 5, 7), (0, 2, 11)]):
        votes = votes_of(output.offset[n].permute(1, 2, 0).numpy().astype(np.float32) * np.float32(OFFSET_UNIT))
        embedding = output.embedding[n].permute(1, 2, 0).reshape(-1, EMBEDDING).numpy()
        own = output.query[n, :, y // 2, x // 2].numpy()
        called = logits(votes.reshape(-1, 2), embedding, votes[y, x], own).reshape(8, 12)
        np.testing.assert_allclose(trained[number], called, atol=1e-4)


def test_who_is_asked_is_of_the_person_and_one_is_near_their_centre() -> None:
    owner = np.zeros((64, 64), np.uint8)
    owner[8:40, 8:24] = 1
    owner[20:60, 40:60] = 2
    owner[0:4, 0:4] = 3  # too small to be asked for
    asked = queries_of(owner, np.random.default_rng(4))
    assert asked[:, 2].tolist() == [1, 1, 1, 2, 2, 2]
    for row, column, number in asked:
        assert owner[row * 4 + 2, column * 4 + 2] == number
    row, column, _ = asked[0]
    assert abs(row - 3.5) <= 2
    assert abs(column - 3.5) <= 2
    assert queries_of(np.zeros((64, 64), np.uint8), np.random.default_rng(4)).shape == (0, 3)


def test_telling_two_people_apart_costs_less_than_joining_them(cache: Path) -> None:
    maker = SceneMaker(Items(cache))
    rng = np.random.default_rng(5)
    batch = collate([maker.composite(rng, 96, 96, 2) for _ in range(3)], rng)
    assert set(batch.queries[:, 3].tolist()) == {1, 2}
    shape = batch.owner.shape
    query = torch.zeros(shape[0], EMBEDDING + 1, shape[1] // 2, shape[2] // 2)
    nowhere = torch.zeros(shape[0], 2, *shape[1:])
    embedding = torch.zeros(shape[0], EMBEDDING, *shape[1:])
    joined = together_loss(answering(nowhere, embedding, query), batch)
    apart = together_loss(answering(batch.offset, embedding, query + 2), batch)
    assert float(apart) < float(joined)
    nobody = batch._replace(queries=batch.queries[:0])
    assert float(together_loss(answering(nowhere, embedding, query), nobody)) == 0


def test_two_processes_take_the_same_steps(cache: Path, tmp_path: Path) -> None:
    write_validation(tmp_path)
    (tmp_path / "cache").symlink_to(cache)
    settings = SegmenterSettings(
        tmp_path, tmp_path, tmp_path, minutes=0.02, batch=2, side=64, pretrained=False, processes=2, workers=0
    )
    first = torch.load(train_segmenter(settings), weights_only=True)
    assert first["step"] >= 1
    assert all(torch.isfinite(value).all() for value in first["network"].values())


def test_cell_labels_are_majorities() -> None:
    labels = np.zeros((8, 8), np.uint8)
    labels[:4, :4] = Label.SOFA
    labels[0, :4] = UNKNOWN
    labels[4:, 4:] = UNKNOWN
    assert cell_labels(labels).tolist() == [[Label.SOFA, 0], [0, UNKNOWN]]


def test_holes_and_skies() -> None:
    ring = np.zeros((40, 40), bool)
    ring[5:35, 5:35] = True
    assert hole_fraction(ring) == 0
    ring[10:30, 10:30] = False
    assert hole_fraction(ring) == pytest.approx(400 / 900)
    picture = np.zeros((20, 20, 3), np.uint8)
    picture[:8] = (120, 160, 220)
    picture[8:14] = (60, 130, 50)
    picture[14:] = (120, 160, 220)
    labels = np.zeros((20, 20), np.uint8)
    outdoor_labels(picture, labels, sky=True)
    assert labels[[0, 10, 18], 5].tolist() == [Label.SKY, Label.VEGETATION, Label.ROOM]


def test_composites_know_who_is_where(cache: Path) -> None:
    maker = SceneMaker(Items(cache))
    for seed in range(6):
        sample = maker.composite(np.random.default_rng(seed), 96, 128, people=2)
        assert set(np.unique(sample.owner)) <= {0, 1, 2}
        assert ((sample.person > 127) >= (sample.owner > 0)).all()
        bright = sample.frame.mean(axis=2) > 110
        agree = (bright & (sample.person > 127)).sum() / max(1, (sample.person > 127).sum())
        assert agree > 0.8
        assert sample.shown[-1] == 1
        assert 0 <= sample.shown[0] <= 1
        again = maker.composite(np.random.default_rng(seed), 96, 128, people=2)
        np.testing.assert_array_equal(sample.frame, again.frame)


def test_of_a_nested_composite_the_last_is_small_before_the_one_before(cache: Path) -> None:
    maker = SceneMaker(Items(cache))

    def of(nested: bool) -> tuple[float, float]:
        """Share of composites in which the second is the smaller, and the mean distance of the two in their widths."""
        smaller, away = [], []
        for seed in range(40):
            owner = maker.composite(np.random.default_rng(seed), 256, 256, 2, nested).owner
            first, second = owner == 1, owner == 2
            if min(first.sum(), second.sum()) < 200:
                continue
            smaller.append(second.sum() < first.sum())
            columns = [np.flatnonzero(mask.any(axis=0)) for mask in (first, second)]
            width = max(c[-1] - c[0] + 1 for c in columns)
            away.append(abs(columns[0].mean() - columns[1].mean()) / width)
        return float(np.mean(smaller)), float(np.mean(away))

    (smaller, away), (usual, apart) = of(nested=True), of(nested=False)
    assert smaller > max(0.8, usual + 0.1)
    assert away < 0.8 * apart


def test_who_is_small_and_alone_is_no_higher_than_asked(cache: Path) -> None:
    maker = SceneMaker(Items(cache))
    for seed in range(20):
        owner = maker.composite(np.random.default_rng(seed), 256, 256, 1, small=True).owner
        rows = np.flatnonzero((owner == 1).any(axis=1))
        assert len(rows) <= SMALL_HEIGHT[1] * 256 * 1.2  # turned by up to 20 degrees it may be a little higher


def test_a_dimmed_room_is_dark_and_who_is_in_it_is_not(cache: Path) -> None:
    maker = SceneMaker(Items(cache))
    for seed in range(8):
        rng = np.random.default_rng(seed)
        sample = maker.composite(rng, 128, 128, people=1)
        dim = dimmed(rng, sample)
        room, inside = sample.person == 0, binary_erosion(sample.person == 255, iterations=5)
        assert dim.frame[room].mean() <= DIM_LEVELS[1] + 1
        darkest = 255 * (sample.frame[inside] / 255) ** DIM_GAMMA[1]
        assert (dim.frame[inside] >= darkest - 2).all()
        assert (dim.frame[inside] <= sample.frame[inside]).all()
        np.testing.assert_array_equal(dim.person, sample.person)
        assert dim.shown == sample.shown


def test_dark_hair_is_known_by_a_lighter_room(cache: Path) -> None:
    item = Items(cache)[0]
    shape = item.person.shape

    def of(hair: int, room: int, part: int = 1) -> float:
        """The left of the room, one `part`th, has its level, the rest that of the hair."""
        picture = np.where(item.person[..., None] > 127, hair, room).astype(np.uint8).repeat(3, axis=2)
        picture[:, shape[1] // part :][item.person[:, shape[1] // part :] <= 127] = hair
        return dark_border(item._replace(picture=picture))

    assert of(hair=10, room=120) > 0.6
    assert of(hair=120, room=200) == 0
    assert of(hair=10, room=20) == 0
    assert of(hair=10, room=120, part=2) == 0, "on one side the room may be taken for hair"
    assert dark_border(item._replace(person=np.zeros(shape, np.uint8))) == 0


def test_who_has_dark_hair_is_shown_in_the_dark(tmp_path: Path) -> None:
    folder = write_cache(tmp_path / "cache")
    items = Items(folder)
    blob = bytearray((folder / "items.bin").read_bytes())
    picture = items[0].picture.copy()
    picture[items[0].person > 0] = 10
    picture[items[0].person == 0] = 120
    blob[: picture.size] = picture.tobytes()
    del items
    (folder / "items.bin").write_bytes(bytes(blob))
    maker = SceneMaker(Items(folder))
    assert maker._dark_haired == [0]
    for seed in range(6):
        sample = maker._dark_haired_sample(np.random.default_rng(seed), 96, 96)
        hair = sample.frame[sample.person == 255]
        assert len(hair) > 0
        assert hair.mean() < 30


def test_samples_have_the_size_asked_for(cache: Path) -> None:
    maker = SceneMaker(Items(cache))
    rng = np.random.default_rng(1)
    for height, width in ((64, 64), (96, 64), (64, 112)):
        for _ in range(8):
            sample = maker.draw(rng, height, width)
            assert sample.frame.shape == (height, width, 3)
            assert sample.labels.shape == (height // 16, width // 16)
            assert sample.person.shape == sample.owner.shape == sample.weight.shape == (height, width)


def test_the_right_answer_costs_less_than_the_wrong_one(cache: Path) -> None:
    maker = SceneMaker(Items(cache))
    rng = np.random.default_rng(2)
    batch = collate([maker.composite(rng, 64, 64, 1) for _ in range(2)], rng)
    network = Segmenter().eval()
    with torch.no_grad():
        out = network(batch.frame)
        right = out._replace(matte=(batch.person - 0.5) * 12, offset=batch.offset)
        wrong = out._replace(matte=(0.5 - batch.person) * 12, offset=batch.offset + 1)
    assert float(segmenter_loss(right, batch)[0]) < float(segmenter_loss(wrong, batch)[0]) - 1


def write_validation(data: Path) -> None:
    from PIL import Image

    for kind in ("stills", "masks"):
        (data / "val" / kind / "ccp").mkdir(parents=True)
    mask = np.zeros((96, 64), np.uint8)
    mask[20:90, 20:50] = 255
    Image.fromarray(mask).save(data / "val" / "masks" / "ccp" / "a.png")
    Image.fromarray(np.dstack([mask] * 3)).save(data / "val" / "stills" / "ccp" / "a.jpg")


def test_a_doubting_network_is_asked_once_and_its_doubts_are_trained_on(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_on: list[Path] = []

    def noting(folder: Path) -> Items:
        trained_on.append(folder)
        return Items(folder)

    monkeypatch.setattr(segmenter, "Items", noting)
    write_validation(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(cache, run / "cache")
    weights = tmp_path / "doubt.safetensors"
    save_file({name: value.contiguous() for name, value in Segmenter().state_dict().items()}, weights)
    settings = SegmenterSettings(
        tmp_path,
        tmp_path,
        run,
        None,
        weights,
        minutes=0.005,
        batch=2,
        side=64,
        pretrained=False,
        processes=1,
        workers=0,
    )
    train_segmenter(settings)
    assert trained_on == [run / "doubted"]
    asked = (run / "doubted" / "asked.txt").read_text()
    written = (run / "doubted" / "items.json").stat().st_mtime_ns
    train_segmenter(replace(settings, minutes=0.01))
    assert (run / "doubted" / "items.json").stat().st_mtime_ns == written
    assert len(Items(run / "doubted")) == len(Items(cache))
    save_file({name: value.contiguous() for name, value in Segmenter().state_dict().items()}, weights)
    train_segmenter(replace(settings, minutes=0.015))
    assert (run / "doubted" / "asked.txt").read_text() != asked, "another network has other doubts"


def test_training_goes_on_where_it_was_interrupted(cache: Path, tmp_path: Path) -> None:
    write_validation(tmp_path)
    settings = SegmenterSettings(
        tmp_path, tmp_path, cache.parent, minutes=0.01, batch=2, side=64, pretrained=False, processes=1, workers=0
    )
    checkpoint = train_segmenter(settings)
    first = torch.load(checkpoint, weights_only=True)
    assert first["step"] >= 1
    train_segmenter(replace(settings, minutes=first["spent"] / 60 + 0.01))
    second = torch.load(checkpoint, weights_only=True)
    assert second["step"] > first["step"]
    assert second["spent"] > first["spent"]
    log = [json.loads(line) for line in (cache.parent / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [first["step"], second["step"]]
    assert 0 <= log[-1]["ccp_iou"] <= 1


def test_a_training_begins_from_shipped_weights_where_they_fit(cache: Path, tmp_path: Path) -> None:
    source = Segmenter().state_dict()
    old = {
        name: value.contiguous()
        for name, value in source.items()
        if not name.startswith(("wide32", "deep16", "deep32", "wide16"))
    }
    save_file(old, str(tmp_path / "old.safetensors"))
    settings = SegmenterSettings(tmp_path, tmp_path, tmp_path, start=tmp_path / "old.safetensors", pretrained=False)
    network = SegmenterTrainer(settings).network
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in old.items())
    frame = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        other = Segmenter()
        other.load_state_dict(source)
        # What was added since begins as nothing: the picture of the old weights is the new network's.
        assert torch.allclose(network.eval()(frame).matte, other.eval()(frame).matte, atol=1e-5)
    save_file({"a": torch.zeros(3)}, str(tmp_path / "other.safetensors"))
    with pytest.raises(TrainingError, match="another network"):
        take_over(network, tmp_path / "other.safetensors")
    with pytest.raises(TrainingError, match="no usable weights"):
        take_over(network, tmp_path / "none.safetensors")


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_drawn_beside_the_training(cache: Path, workers: int) -> None:
    stream = SampleStream(Items(cache), batch=2, seed=3, side=64, workers=workers)
    sides = set()
    for number, batch in enumerate(stream):
        sides.add(batch.frame.shape[2] * batch.frame.shape[3])
        if number == 1:
            stream.resize(128)
        if number == 12:
            break
    assert batch.frame.shape[:2] == (2, 3)
    assert min(sides) < 5000
    assert max(sides) > 14000


def test_a_missing_cache_or_checkpoint_is_a_training_error(tmp_path: Path) -> None:
    from streamgc.training.segmenter_ship import load_checkpoint

    with pytest.raises(TrainingError, match="no usable cache"):
        Items(tmp_path)
    with pytest.raises(TrainingError, match="no usable checkpoint"):
        load_checkpoint(tmp_path / "none.pt")


def test_what_ships_may_be_the_mean_with_the_weights_before(tmp_path: Path) -> None:
    from streamgc.training.segmenter_ship import load_blend

    torch.manual_seed(4)
    one, two = Segmenter(), Segmenter()
    torch.save({"average": one.state_dict(), "spent": 90.0, "step": 7}, tmp_path / "checkpoint.pt")
    before = tmp_path / "before.safetensors"
    save_file({name: value.contiguous() for name, value in two.state_dict().items()}, str(before))
    alone, _ = load_blend(tmp_path / "checkpoint.pt", None)
    assert all(torch.equal(value, one.state_dict()[name]) for name, value in alone.state_dict().items())
    mean, spent = load_blend(tmp_path / "checkpoint.pt", before)
    assert spent == {"minutes": 1.5, "steps": 7.0}
    assert not mean.training
    name = next(name for name, value in one.state_dict().items() if value.is_floating_point())
    assert torch.allclose(mean.state_dict()[name], (one.state_dict()[name] + two.state_dict()[name]) / 2)
    assert not torch.equal(one.state_dict()[name], two.state_dict()[name])
    with pytest.raises(TrainingError, match="no usable checkpoint"):
        load_blend(tmp_path / "checkpoint.pt", tmp_path / "none.safetensors")
