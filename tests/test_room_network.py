"""The room network: what it paints, its fit, its export, and the class the pipeline uses."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from streamgc.errors import ModelError, TrainingError
from streamgc.networks.room import STYLE, ShippedRoom, label_planes, one_hot, parameter_count
from streamgc.pipeline.background import RoomNetwork
from streamgc.pipeline.networks import NetworkOptions
from streamgc.pipeline.room_network import FURTHEST, RoomModel, style_of
from streamgc.runtime.store import ModelStore
from streamgc.scene.labels import LABEL_COUNT, Label
from streamgc.training.room import RoomSettings, components, fit_room, label_effects, load_room, read_rooms, train_room
from streamgc.training.room_data import SceneCache, cell_labels
from streamgc.training.room_ship import ship_room

OPTIONS = NetworkOptions(backend="openvino", precision="fp32", threads=1)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def room() -> RoomModel:
    return RoomModel(options=OPTIONS)


def plain(rows: int, columns: int, label: Label = Label.ROOM) -> NDArray[np.uint8]:
    return np.full((rows, columns), label, np.uint8)


@pytest.mark.parametrize("grid", [(16, 16), (9, 16), (16, 9), (4, 5), (24, 32)])
def test_any_grid_gives_a_picture_of_its_size(room: RoomModel, grid: tuple[int, int]) -> None:
    picture = room(plain(*grid), 3)
    assert picture.shape == (16 * grid[0], 16 * grid[1], 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 1


def test_a_seed_names_a_room(room: RoomModel) -> None:
    first, again = (room(plain(9, 16), 5) for _ in range(2))
    assert np.array_equal(first, again)
    other = room(plain(9, 16), 6)
    assert np.abs(first.astype(int) - other).mean() > 1


def test_styles_are_the_same_everywhere_and_bounded() -> None:
    assert style_of(7).shape == (1, STYLE, 1, 1)
    assert style_of(7).dtype == np.float32
    assert np.array_equal(style_of(7), style_of(7))
    assert not np.array_equal(style_of(7), style_of(8))
    assert max(float(np.abs(style_of(seed)).max()) for seed in range(200)) <= FURTHEST + 1e-6
    assert np.isfinite(style_of(2**63)).all()
    assert style_of(0).ravel()[:3].tolist() == pytest.approx([0.100584, -0.105684, 0.512338], abs=1e-6)


def test_labels_change_the_picture_where_they_are(room: RoomModel) -> None:
    sofa = plain(24, 24)
    sofa[18:22, 2:6] = Label.SOFA
    change = np.abs(room(sofa, 1).astype(int) - room(plain(24, 24), 1)).mean(2)
    assert change[288:352, 32:96].mean() > 2 * change[:96, 288:].mean()
    assert change[288:352, 32:96].mean() > 1


def test_a_person_is_room_and_an_unknown_label_is_other(room: RoomModel) -> None:
    assert np.array_equal(room(plain(6, 8, Label.PERSON), 2), room(plain(6, 8), 2))
    unknown = np.full((6, 8), 15, np.uint8)
    assert np.array_equal(room(unknown, 2), room(plain(6, 8, Label.OTHER), 2))
    assert not np.array_equal(room(unknown, 2), room(plain(6, 8), 2))


def test_it_is_a_network_for_the_background_keeper(room: RoomModel) -> None:
    network: RoomNetwork = room
    assert network(plain(4, 4), 0).shape == (64, 64, 3)


def test_a_missing_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model 'room'"):
        RoomModel(store=ModelStore(tmp_path))


def test_rooms_are_calm_and_differ(room: RoomModel) -> None:
    rooms = [room(plain(16, 16), seed) for seed in range(6)]
    for picture in rooms:
        assert 40 < picture.mean() < 230
        assert np.abs(np.diff(picture.astype(int), axis=1)).mean() < 3
    assert min(np.abs(a.astype(int) - b).mean() for a, b in pairwise(rooms)) > 3


def test_sky_is_blue_and_leaves_are_green(room: RoomModel) -> None:
    labels = plain(16, 16)
    labels[:6], labels[8:] = Label.SKY, Label.VEGETATION
    change = room(labels, 1).astype(int) - room(plain(16, 16), 1)
    red, green, blue = change[:64].mean((0, 1))
    assert blue > green > red
    red, green, blue = change[160:].mean((0, 1))
    assert green > max(red, blue)


def test_one_hot_has_one_plane_a_label() -> None:
    planes = one_hot(torch.arange(16, dtype=torch.uint8).reshape(1, 4, 4))
    assert planes.shape == (1, LABEL_COUNT, 4, 4)
    assert torch.equal(planes.sum(1), torch.ones(1, 4, 4))


def test_label_planes_leave_the_room_out_and_know_the_height() -> None:
    labels = torch.zeros(1, 4, 3, dtype=torch.uint8)
    assert not label_planes(labels).any()
    labels[0, :, 1] = Label.PLANT
    planes = label_planes(labels)[0]
    assert planes[Label.PLANT, :, 1].tolist() == [1, 1, 1, 1]
    assert planes[LABEL_COUNT + Label.PLANT, :, 1].tolist() == pytest.approx([-0.75, -0.25, 0.25, 0.75])


def test_cells_take_their_most_frequent_label() -> None:
    labels = np.zeros((40, 33), np.uint8)
    labels[:16, :10] = Label.BED
    cells = cell_labels(labels)
    assert cells.shape == (2, 2)
    assert cells.tolist() == [[Label.BED, 0], [0, 0]]


def small_cache(folder: Path) -> Path:
    random = np.random.default_rng(4)
    pictures = np.kron(random.integers(60, 200, (6, 6, 6, 3), np.uint8), np.ones((1, 48, 48, 1), np.uint8))
    labels = np.zeros((6, 288, 288), np.uint8)
    labels[5, :140] = Label.SKY
    np.savez(folder / "scenes.npz", pictures=pictures, labels=labels)
    return folder / "scenes.npz"


def test_components_have_the_deviations_of_the_data() -> None:
    torch.manual_seed(0)
    shapes = torch.zeros(2, 3, 8, 8)
    shapes[0, :, :4], shapes[1, 1, 5:] = 1, 1
    weights = torch.randn(400, 2) * torch.tensor([0.2, 0.05])
    weights -= weights.mean(0)
    found = components(torch.einsum("nk,kchw->nchw", weights, shapes))
    assert found.shape == (STYLE, 3, 8, 8)
    assert found[0].abs().max().item() == pytest.approx(0.2, rel=0.1)
    assert found[1].abs().max().item() == pytest.approx(0.05, rel=0.1)
    assert found[2:].abs().max() < 1e-4


def test_label_effects_are_found_again() -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, LABEL_COUNT, (40, 8, 8), dtype=torch.uint8)
    wanted = torch.randn(3, 2 * LABEL_COUNT, 3, 3)
    change = F.conv2d(label_planes(labels), wanted, padding=1)
    restored = F.conv2d(label_planes(labels), label_effects(labels, change, 0.01), padding=1)
    assert (restored - change).abs().mean() < 0.02 * change.abs().mean()


def test_a_fit_is_small_repeatable_and_made_of_rooms_alone(tmp_path: Path) -> None:
    rooms = read_rooms(SceneCache(small_cache(tmp_path)))
    assert rooms.pictures.shape == (12, 3, 32, 32)
    assert rooms.inside.tolist() == ([True] * 5 + [False]) * 2
    network, again = fit_room(rooms, 10.0), fit_room(rooms, 10.0)
    assert torch.equal(network.basis, again.basis)
    assert torch.allclose(network.basis[0], rooms.pictures[rooms.inside].mean(0), atol=1e-5)
    assert parameter_count(network) <= 1_500_000


def test_a_fit_is_kept_and_loaded(tmp_path: Path) -> None:
    small_cache(tmp_path)
    network, scenes = load_room(train_room(RoomSettings(tmp_path, tmp_path, tmp_path)))
    assert scenes == 6
    with torch.no_grad():
        picture = ShippedRoom(network)(torch.zeros(1, 5, 7, dtype=torch.uint8), torch.zeros(1, STYLE, 1, 1))
    assert picture.shape == (1, 80, 112, 3)
    assert 60 < picture.float().mean() < 200


@pytest.mark.slow
def test_an_export_is_the_same_network(tmp_path: Path) -> None:
    small_cache(tmp_path)
    fitted = train_room(RoomSettings(tmp_path, tmp_path, tmp_path))
    model = ship_room(fitted, tmp_path / "room", {"time": "1 ms"})
    assert model.roles == ("room",)
    assert model.licence is not None
    assert model.card is not None
    assert "| time | 1 ms |" in model.card.read_text()
    painted = RoomModel(options=OPTIONS, store=ModelStore(tmp_path))(plain(6, 9), 3)
    with torch.no_grad():
        wanted = ShippedRoom(load_room(fitted)[0])(
            torch.zeros(1, 6, 9, dtype=torch.uint8), torch.from_numpy(style_of(3))
        )
    assert np.abs(painted.astype(int) - wanted[0].numpy()).max() <= 2


def test_no_scenes_and_no_network_are_errors(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no usable scenes"):
        SceneCache(tmp_path / "none.npz")
    torch.save({"network": {}}, tmp_path / "room.pt")
    with pytest.raises(TrainingError, match="no usable room network"):
        load_room(tmp_path / "room.pt")
