"""The face's networks: what they learn from, steps that a killed run goes on from, and their way into a call model."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")

import torch
from safetensors.torch import save_file

from streamgc.call.sources import packaged_clip
from streamgc.codec.face import FaceCode
from streamgc.codec.tables import load_tables
from streamgc.errors import TrainingError
from streamgc.evaluation.clips import load_clip
from streamgc.networks.face import CENTRES, IDLE, STEPS, SURE, FaceEncoder, FaceLocator, FacePainter, Measured, bend
from streamgc.networks.face_export import ShippedPainter, ShippedReader
from streamgc.networks.lite import warp
from streamgc.pipeline.call_codec import CallCodec, LoadedModels
from streamgc.pipeline.face import EYES_APART, FACE_SIDE, NO_CHANGE, Place, pose_of
from streamgc.pipeline.faces import APPEARS, LOCATOR, PAINTER, READER, STRAYED, FaceReader
from streamgc.pipeline.networks import NetworkOptions
from streamgc.pipeline.settings import BLANK, PictureFormat, SenderSettings
from streamgc.profiling.spans import Spans
from streamgc.runtime.store import ModelStore, write_model_json
from streamgc.training.call_cache import find_small
from streamgc.training.call_samples import Cache
from streamgc.training.face_export import FaceNetworks, faces_of
from streamgc.training.face_locator import LocatorBatches, LocatorTraining, locator_loss, train_locator
from streamgc.training.face_model import GAINS, LAST_LAYER, FaceBatches, FaceTrainer, FaceTraining, calibrated, measured
from streamgc.training.face_samples import CONTOURS, NAMES, FaceSampler, write_samples
from streamgc.training.face_ship import enter_faces, has_faces, load_face, ship_face, with_tables_of
from streamgc.training.key_pictures import coded_still
from streamgc.training.torch_reference import torch_network

pytestmark = pytest.mark.usefixtures("one_thread")
FORMAT = PictureFormat(256, 256)


@pytest.fixture(scope="module")
def models() -> LoadedModels:
    return LoadedModels("lite", FORMAT, NetworkOptions(precision="fp32", threads=1))


@pytest.fixture(scope="module")
def cache() -> Cache:
    """Of the packaged clip; its face is where the shipped locator finds it."""
    frames = np.stack(load_clip(packaged_clip()).frames[:16])
    mask = np.zeros((256, 256), np.uint8)
    mask[20:, 40:220] = 255
    place = Place(128, 110, 40, 0.0)
    face = np.array([place.x - 20, place.y, place.x + 20, place.y, place.x, place.y + 44, place.distance], np.float32)
    keys = np.stack([np.stack([coded_still(frames[k], 40)] * 4) for k in (0, 8)])
    made = SimpleNamespace(
        frames=frames,
        masks=np.stack([mask] * 16),
        starts=np.array([0, 16]),
        key_index=np.array([0, 8]),
        keys=keys,
        faces=np.stack([face] * 16),
        s_frames=frames[::8],
        s_masks=np.stack([mask] * 2),
        s_keys=keys[:, 0],
        s_faces=np.stack([face] * 2),
        s_sets=np.array(["a", "a"]),
    )
    return cast("Cache", made)


def _sampler(cache: Cache, models: LoadedModels, seed: int) -> FaceSampler:
    return FaceSampler(cache, models.encoder(), models.generator(), models.tables, seed)


@pytest.fixture(scope="module")
def samples(cache: Cache, models: LoadedModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    write_samples(_sampler(cache, models, 1), lambda face: _contours().astype(np.float64), folder, 6)
    return folder


def test_samples_are_faces_as_sent_and_as_shown(cache: Cache, models: LoadedModels, samples: Path) -> None:
    sent, shown = (np.load(samples / f"{name}0.npy").astype(int) for name in NAMES)
    assert sent.shape == shown.shape == (6, FACE_SIDE, FACE_SIDE, 3)
    assert np.load(samples / f"{CONTOURS}0.npy").shape == (6, 2, 68, 2)
    apart = [np.abs(sent - shown.take(np.arange(6) - shift, 0)).mean() for shift in range(6)]
    assert min(apart) == apart[0]  # what is shown is what was sent, more or less
    assert apart[0] > 0.5  # but not the same
    again = next(_sampler(cache, models, 1).samples())
    assert np.array_equal(again.sent, sent[0])
    assert np.array_equal(again.shown, shown[0])


def _contours(lids: float = 6.0, lips: float = 16.0, mouth: float = 40.0) -> NDArray[np.float32]:
    """dlib's 68 points of a face that was cut out, with eyes and mouth of these sizes in pixels."""
    points = np.zeros((68, 2), np.float32)
    for first, x in ((36, 36), (42, 84)):
        for index, (u, v) in enumerate(((-10, 0), (-4, -0.5), (4, -0.5), (10, 0), (4, 0.5), (-4, 0.5))):
            points[first + index] = x + u - 0.5, 36 + v * lids - 0.5
    angles = np.linspace(np.pi, 3 * np.pi, 12, endpoint=False)
    points[48:60] = np.stack([60 + mouth / 2 * np.cos(angles), 88 + lips / 2 * np.sin(angles)], -1) - 0.5
    return points


def test_contours_are_measured() -> None:
    centres, sizes = measured(_contours())
    assert centres == pytest.approx(np.array([[36, 36], [84, 36], [60, 88]]), abs=0.01)
    assert np.isnan(sizes[:2]).all()  # nobody knows where the irises are
    for changed, which, factor in (
        (_contours(lids=9), [2, 3], 1.5),
        (_contours(lips=20), [4], 1.25),
        (_contours(mouth=44), [5], 1.1),
    ):
        by = measured(changed)[1] - sizes
        for number in range(2, 6):
            wanted = np.log(factor) / STEPS[number] if number in which else 0
            assert by[number] == pytest.approx(wanted, abs=0.1 * max(1, wanted))


def _trainer(samples: Path, run: Path) -> FaceTrainer:
    return FaceTrainer(samples, run, FaceTraining(batch=2))


def test_a_killed_training_goes_on(samples: Path, tmp_path: Path) -> None:
    trainer = _trainer(samples, tmp_path)
    for _ in range(2):
        trainer.step()
    trainer.save()
    again = _trainer(samples, tmp_path)
    assert again.steps == 2
    for name, value in again.encoder.state_dict().items():
        assert torch.equal(value, trainer.encoder.state_dict()[name])
    torch.save({"encoder": {}, "average": {}, "optimiser": {}, "steps": 1}, tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingError, match="another network"):
        _trainer(samples, tmp_path)


def test_training_begins_from_shipped_weights(samples: Path, tmp_path: Path) -> None:
    encoder = FaceEncoder()
    save_file({f"encoder.{name}": value for name, value in encoder.state_dict().items()}, tmp_path / "face.safetensors")
    trainer = FaceTrainer(samples, tmp_path / "run", FaceTraining(batch=2), start=tmp_path / "face.safetensors")
    for name, value in trainer.encoder.state_dict().items():
        assert torch.equal(value, encoder.state_dict()[name])
    with pytest.raises(TrainingError, match="no weights of this network"):
        FaceTrainer(samples, tmp_path / "run", FaceTraining(batch=2), start=tmp_path / "none.safetensors")


def test_training_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="face-samples"):
        FaceBatches(tmp_path, 0)


def test_mirrored_faces_exchange_their_eyes(samples: Path) -> None:
    contours = _contours()
    contours[[37, 38], 1] -= 3  # the eye in the left of the picture is open wider
    np.save(samples / f"{CONTOURS}0.npy", np.broadcast_to(contours, (6, 2, 68, 2)))
    faces = FaceBatches(samples, 0).draw(12)
    left, right = measured(contours)[1][2:4]
    found = {tuple(np.round(pair, 3)) for pair in faces.sizes[:, 2:4].numpy()}
    assert found == {tuple(np.round((left, right), 3)), tuple(np.round((right, left), 3))}
    assert (faces.centres[:, 0, 0] < faces.centres[:, 1, 0]).all()


def _drawn(gaze: float = 0.0, lids: float = 6.0, lips: float = 8.0) -> torch.Tensor:
    """A face of discs, (1, 3, S, S)."""
    line = torch.arange(FACE_SIDE) + 0.5
    x, y = line[None], line[:, None]
    face = torch.full((FACE_SIDE, FACE_SIDE), 0.7)
    for eye in (36, 84):
        white = torch.sigmoid(20 * (1 - ((x - eye) / 11) ** 2 - ((y - 36) / lids) ** 2))
        iris = torch.sigmoid(8 * (1 - ((x - eye - gaze) ** 2 + (y - 36) ** 2) / 16))
        face = face * (1 - white) + white * (0.95 - 0.9 * iris)
    mouth = torch.sigmoid(8 * (1 - ((x - 60) / 20) ** 2 - ((y - 88) / lips) ** 2))
    return (face * (1 - mouth) + 0.2 * mouth).expand(1, 3, -1, -1)


CENTRES_HERE = torch.tensor([CENTRES])


@pytest.mark.parametrize(
    ("number", "by", "wanted"),
    [
        (0, 0.05, {"gaze": 0.05 * EYES_APART}),
        (0, -0.08, {"gaze": -0.08 * EYES_APART}),
        (4, np.log(1.5), {"lips": 12.0}),
        (4, -np.log(1.5), {"lips": 8 / 1.5}),
    ],
)
def test_a_face_is_bent_by_what_is_asked(number: int, by: float, wanted: dict[str, float]) -> None:
    amounts = torch.zeros(1, 6)
    amounts[0, number] = by
    face = _drawn()
    made = warp(face, bend(amounts, CENTRES_HERE), 1, "bicubic")
    assert (made - _drawn(**wanted)).abs().mean() < 0.65 * (face - _drawn(**wanted)).abs().mean()
    still = warp(face, bend(torch.zeros(1, 6), CENTRES_HERE), 1, "bicubic")
    assert (still - face).abs().max() < 1e-4


def test_lids_are_bent_each_by_itself() -> None:
    amounts = torch.zeros(1, 6)
    amounts[0, 2] = -0.9
    face = _drawn()
    made = warp(face, bend(amounts, CENTRES_HERE), 1, "bicubic")
    half = FACE_SIDE // 2
    assert (made - face)[..., half:].abs().max() < 0.02
    white, were = ((picture[0, 0, 20:52, :half] > 0.85).sum() for picture in (made, face))
    assert white < 0.7 * were


class _Eye(FaceEncoder):
    """Always the same, whatever it sees."""

    def forward(self, face: torch.Tensor) -> Measured:
        return Measured(torch.ones(len(face), 6), CENTRES_HERE.expand(len(face), -1, -1))


def test_the_painter_bends_by_the_difference_and_leaves_what_rounding_explains() -> None:
    painter, face = FacePainter(_Eye()), _drawn()
    same = painter(face, torch.full((1, 6), 1 + 0.9 * IDLE))
    assert (same - face).abs().max() < 1e-4
    numbers = torch.ones(1, 6)
    numbers[0, 0] = 1 + SURE
    wanted = _drawn(gaze=SURE * STEPS[0] * EYES_APART)
    assert (painter(face, numbers) - wanted).abs().mean() < 0.45 * (face - wanted).abs().mean()
    wild = ShippedPainter(painter)((face.permute(0, 2, 3, 1) * 255).to(torch.uint8), torch.full((1, 6), 1e6))
    assert wild.shape == (1, FACE_SIDE, FACE_SIDE, 3)
    far = (wild.to(torch.int16) - NO_CHANGE).abs()
    assert far[0, :4].max() <= 1  # the face's edge stays


def test_the_shipped_reader_says_what_a_face_does_and_where_its_eyes_and_mouth_are() -> None:
    torch.manual_seed(3)
    encoder, face = FaceEncoder().eval(), (_drawn().permute(0, 2, 3, 1) * 255).to(torch.uint8)
    with torch.no_grad():
        numbers, centres = ShippedReader(encoder)(face)
        measured_here = encoder(face.permute(0, 3, 1, 2) / 255)
    assert numbers.shape == (1, 6)
    assert torch.equal(centres, measured_here.centres)
    assert centres.shape == (1, 3, 2)


def test_the_locator_learns_where_the_middle_of_the_eyes_is(cache: Cache) -> None:
    pictures, places = LocatorBatches(cache, 3).draw(24)
    assert pictures.shape == (24, 3, 256, 256)
    there = [place for place in places if place is not None]
    assert 12 <= len(there) < 24  # some are covered, or outside
    out = torch.zeros(24, 5, 32, 32)
    out[:, 0] = -9
    wrong = float(locator_loss(out, places)[0])
    for index, place in enumerate(places):
        if place is None:
            continue
        column, row = int(place.x / 8), int(place.y / 8)
        for j in range(max(0, row - 1), min(32, row + 2)):
            for i in range(max(0, column - 1), min(32, column + 2)):
                parts = [place.x / 8 - i - 0.5, place.y / 8 - j - 0.5, np.log(place.distance / 32), place.turn]
                out[index, 1:, j, i] = torch.tensor(parts)
        out[index, 0, row, column] = 9
    right, off = locator_loss(out, places)
    assert float(right) < 0.02 < wrong
    assert float(off) < 1e-4


def test_a_locator_is_trained_and_kept(cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = train_locator(cache, tmp_path / "a" / "locator.pt", LocatorTraining(batch=2, minutes=0.01, threads=1))
    kept = torch.load(tmp_path / "a" / "locator.pt", weights_only=True)
    assert torch.equal(kept["last.2.weight"], network.state_dict()["last.2.weight"])
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 208, 240)).shape == (1, 5, 26, 30)  # odd halves


def test_a_small_face_is_looked_for_in_the_picture_enlarged() -> None:
    picture = np.zeros((60, 80, 3), np.uint8)

    def find(seen: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        if seen.shape[0] == 60:
            return None
        return np.array([31, 61, 91, 61, 61, 91, 60], np.float32)  # pixels of the picture three times as large

    assert find_small(picture, find) == pytest.approx([10, 20, 30, 20, 20, 30, 20])
    assert find_small(picture, lambda seen: None) is None


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A call model that codes no face by itself."""
    folder = tmp_path_factory.mktemp("models") / "lite"
    shutil.copytree(ModelStore().open("lite").folder, folder)
    model = ModelStore().open(folder)
    networks = {
        role: entry for role, entry in model.manifest.networks.items() if role not in (LOCATOR, READER, PAINTER)
    }
    write_model_json(
        folder,
        name="lite",
        family="lite",
        version="1",
        networks={role: entry.file for role, entry in networks.items()},
        tables="tables.bin",
        channels=(2, 4, 8),
        licence="LICENSE",
        card="README.md",
    )
    return folder


def test_a_model_without_a_face_s_networks_codes_none(plain: Path) -> None:
    models = LoadedModels(str(plain), FORMAT, NetworkOptions(precision="fp32", threads=1))
    assert models.face_reader() is None
    assert models.face_painter() is None
    codec = CallCodec(models, SenderSettings(FORMAT))
    sender, receiver = codec.sender(Spans(enabled=False), live=False), codec.receiver(Spans(enabled=False))
    for number, picture in enumerate(load_clip(packaged_clip()).frames[:3]):
        receiver.receive(sender.encode(picture, number).message)
        assert receiver.render() is not None


@pytest.mark.slow
def test_networks_are_shipped_into_a_call_model(plain: Path, cache: Cache, tmp_path: Path) -> None:
    before = ModelStore().open(plain)
    assert not has_faces(before)
    torch.manual_seed(1)
    networks = FaceNetworks(FaceLocator().eval(), FaceEncoder().eval())
    head = cast("torch.nn.Conv2d", networks.locator.last[-1])
    torch.nn.init.constant_(cast("torch.Tensor", head.bias), 0.0)  # a face somewhere: something to fit tables to
    model = ship_face(networks, cache, plain, segments=2)
    assert has_faces(model)
    assert model.hash != before.hash
    for role in (LOCATOR, READER, PAINTER):
        torch_network(model, role)
        assert model.has(role, "int8")
    again = load_face(plain / "face.safetensors", plain / "face.safetensors")
    for old, new in zip(networks, again, strict=True):
        for name, value in old.state_dict().items():
            assert torch.equal(value.to(torch.bfloat16).float(), new.state_dict()[name])
    assert enter_faces(model).hash == model.hash
    fitted, own = load_tables(cast("Path", model.tables)), load_tables(cast("Path", before.tables))
    assert np.array_equal(fitted.symbols, own.symbols)
    assert np.array_equal(with_tables_of(own, model).face_symbols, fitted.face_symbols)


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    torch.save({"average": {"body.1.weight": torch.zeros(1)}}, tmp_path / "checkpoint.pt")
    torch.save(FaceLocator().state_dict(), tmp_path / "locator.pt")
    with pytest.raises(TrainingError, match="no weights of the face's encoder"):
        load_face(tmp_path / "checkpoint.pt", tmp_path / "locator.pt")
    with pytest.raises(TrainingError, match="no usable weights"):
        load_face(tmp_path / "none.pt", tmp_path / "locator.pt")


def test_the_shipped_networks_find_the_packaged_face_and_say_what_it_does(models: LoadedModels) -> None:
    reader = models.face_reader()
    assert isinstance(reader, FaceReader)
    picture = load_clip(packaged_clip()).frames[20]
    ((sure, place), *_) = reader.places(picture)
    assert sure >= APPEARS
    assert 15 < place.distance < 90
    numbers, itself = reader.read(picture, place)
    assert numbers.shape == (6,)
    assert np.abs(numbers).max() <= 4.4
    assert np.hypot(itself.x - place.x, itself.y - place.y) < STRAYED[0] * place.distance
    assert abs(np.log(itself.distance / place.distance)) < STRAYED[1]
    aside = place._replace(x=place.x + 0.15 * place.distance, turn=place.turn + 0.1)
    found = reader.read(picture, aside).place  # of a face that is cut out a little beside its place
    assert np.hypot(itself.x - found.x, itself.y - found.y) < 0.06 * place.distance
    assert abs(itself.turn - found.turn) < 0.06
    painter = models.face_painter()
    assert painter is not None
    person = np.concatenate([picture, np.full((*picture.shape[:2], 1), 255, np.uint8)], -1)
    same = np.rint(numbers).astype(np.int8)
    change = []
    for code in (same, np.clip(same + np.array([3, 0, 0, 0, 2, 0]), -4, 4).astype(np.int8)):
        painted = painter.paint(person, FaceCode(pose_of(place, 256, 256), code))
        change.append(np.abs(painted[..., :3].astype(int) - picture).mean())
    assert change[0] < 0.2 * change[1]  # the face is what it is already
    assert 0 < change[1] < 5


def test_in_int8_a_face_is_where_it_was_and_does_what_it_did() -> None:
    frames = load_clip(packaged_clip()).frames[::25]
    full, small = (
        LoadedModels("lite", FORMAT, NetworkOptions("openvino", precision, threads=1)).face_reader()
        for precision in ("fp32", "int8")
    )
    assert isinstance(full, FaceReader)
    assert isinstance(small, FaceReader)
    apart = []
    for picture in frames:
        ((_, place), *_), ((_, other), *_) = full.places(picture), small.places(picture)
        assert np.hypot(place.x - other.x, place.y - other.y) < 0.06 * place.distance
        assert abs(np.log(place.distance / other.distance)) < 0.06
        read, less = full.read(picture, place), small.read(picture, place)
        assert np.hypot(read.place.x - less.place.x, read.place.y - less.place.y) < 0.06 * place.distance
        apart.append(read.numbers - less.numbers)
    assert np.sqrt(np.square(apart).mean()) < 0.25  # of a step: rounding to steps is 0.29


def test_faces_to_calibrate_on_are_cut_out_where_they_are_known(cache: Cache) -> None:
    seen = faces_of(cache, 6)
    assert {face.shape for face in seen.faces} == {(FACE_SIDE, FACE_SIDE, 3)}
    assert all((picture == BLANK).all(-1).any() for picture in seen.pictures)  # nothing but the person is kept
    unknown = {"faces": np.full((16, 7), np.nan), "s_faces": np.full((2, 7), np.nan)}
    nobody = cast("Cache", SimpleNamespace(**{**vars(cache), **unknown}))
    with pytest.raises(TrainingError, match="no face is known"):
        faces_of(nobody)


def test_numbers_are_calibrated_on_faces_that_are_bent(samples: Path) -> None:
    torch.manual_seed(2)
    weights = FaceEncoder().state_dict()
    made = calibrated(weights, samples, faces=64)
    changed = {name for name, value in made.items() if not torch.equal(value, weights[name])}
    assert changed == set(LAST_LAYER)
    gain = made["body.11.weight"] / weights["body.11.weight"]
    assert ((gain >= GAINS[0] - 1e-4) & (gain <= GAINS[1] + 1e-4)).all()
    assert gain[6:].unique().tolist() == [1.0]  # where eyes and mouth are is not enlarged
