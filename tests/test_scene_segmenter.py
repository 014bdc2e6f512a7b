"""scene.segmenter: any frame in, people told apart; unusable networks named."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgc.errors import SceneError
from streamgc.scene.affinity import EMBEDDING
from streamgc.scene.instances import check_instances
from streamgc.scene.segmenter import Network, Segmenter, group, network_size
from tests.scene_pictures import PerfectNetwork

BLACK = np.zeros((256, 256, 3), np.uint8)


def test_two_people_who_touch_are_two() -> None:
    network = PerfectNetwork([(40, 60, 120, 256), (120, 80, 200, 256)], noise=6)
    found = check_instances(Segmenter(network)(BLACK))
    assert found.number == 2
    truth = network.owners(256, 256)
    order = np.argsort(found.boxes[:, 0])
    for number, index in enumerate(order, 1):
        mine = found.masks[index] > 127
        union = (mine | (truth == number)).sum()
        assert (mine & (truth == number)).sum() / union > 0.97


def test_one_person_with_two_peaks_is_one() -> None:
    found = Segmenter(PerfectNetwork([(60, 40, 190, 256)], noise=10, twin=True))(BLACK)
    assert found.number == 1
    assert found.boxes[0].tolist() == [60, 40, 188, 256]


def test_ten_people_are_ten() -> None:
    people = [(x, 30 + (x % 3), x + 22, 230) for x in range(4, 250, 25)]
    assert Segmenter(PerfectNetwork(people, noise=1.5))(BLACK).number == len(people) == 10


def test_nobody_is_no_instance() -> None:
    found = Segmenter(PerfectNetwork([]))(BLACK)
    assert found.number == 0
    check_instances(found)


def test_a_person_without_a_peak_is_still_kept() -> None:
    matte = np.zeros((64, 64), np.uint8)
    matte[10:60, 10:50] = 255
    owners, scores = group(blind(matte))
    assert scores.tolist() == [0.5]
    assert set(owners[(matte > 0)[2::4, 2::4]].tolist()) == {0}


def blind(matte: npt.NDArray[np.uint8]) -> Network:
    """What a network says that sees people but neither centres nor who belongs together."""
    height, width = matte.shape
    query = np.zeros((height // 8, width // 8, EMBEDDING + 1), np.float32)
    query[..., EMBEDDING] = 2
    return Network(
        matte,
        np.zeros((height // 4, width // 4), np.float32),
        np.zeros((height // 4, width // 4, 2), np.float32),
        np.zeros((height // 16, width // 16), np.uint8),
        np.zeros((height // 4, width // 4, EMBEDDING), np.float32),
        query,
    )


def test_votes_alone_tell_people_apart() -> None:
    matte = np.zeros((64, 128), np.uint8)
    matte[8:60, 10:50] = matte[8:60, 80:120] = 255
    network = blind(matte)
    network.centre[8, 7] = network.centre[8, 25] = 0.9
    for column in range(32):
        network.offset[:, column, 1] = (28 if column < 16 else 100) - column * 4
    owners, scores = group(network)
    assert len(scores) == 2
    assert len({int(owners[8, 7]), int(owners[8, 25])}) == 2
    assert (owners[3:14, 4:11] == owners[8, 7]).all()
    assert (owners[3:14, 21:29] == owners[8, 25]).all()


def test_who_has_no_centre_of_their_own_goes_to_the_nearest_answer() -> None:
    """A cell whose query nobody answers is owned all the same: what is person is somebody."""
    network = blind(np.full((64, 64), 255, np.uint8))
    network.centre[4, 4] = 0.9
    network.offset[8:, :] = 300.0
    owners, scores = group(network)
    assert len(scores) == 1
    assert (owners == 0).all()


def test_a_network_whose_cells_claim_nobody_is_soon_given_up() -> None:
    network = blind(np.full((256, 256), 255, np.uint8))
    network.query[..., EMBEDDING] = -50
    network.centre[:] = 0.9
    started = time.perf_counter()
    owners, scores = group(network)
    assert time.perf_counter() - started < 0.5
    assert len(scores) == 1
    assert (owners == 0).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(8, 700), st.integers(8, 700), st.booleans())
def test_any_size_and_grey(height: int, width: int, grey: bool) -> None:
    if max(height, width) > 12 * min(height, width):
        return
    network = PerfectNetwork([(0, 0, 64, 64)])
    frame = np.zeros((height, width) if grey else (height, width, 3), np.uint8)
    found = check_instances(Segmenter(network)(frame))
    assert found.size == (height, width)
    _, rows, columns, channels = network.asked[0]
    assert (rows % 16, columns % 16, channels) == (0, 0, 3)


def test_a_portrait_stays_a_portrait() -> None:
    assert network_size(1280, 720) == (336, 192)
    assert network_size(256, 256) == (256, 256)
    assert network_size(480, 640) == (224, 288)


class Foreign:
    """A perfect answer with one tensor spoilt."""

    def __init__(self, name: str, spoil: Any) -> None:
        self.name, self.spoil = name, spoil

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        answer = PerfectNetwork([(40, 40, 200, 256)]).run(feeds)
        spoilt = self.spoil(answer.pop(self.name))
        return answer if spoilt is None else {**answer, self.name: spoilt}


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("centre", lambda a: a * np.nan, "'centre' holds NaN"),
        ("offset", lambda a: a[:, ::2], "'offset' has shape 1×32×64×2, expected 1×64×64×2"),
        ("matte", lambda a: a.astype(np.float32), "'matte' must be uint8"),
        ("labels", lambda a: a + 13, "'labels' holds id 13"),
        ("labels", lambda a: None, "no output 'labels'"),
        ("query", lambda a: a[..., :8], "'query' has shape 1×32×32×8, expected 1×32×32×9"),
    ],
)
def test_a_foreign_network_is_refused_by_the_tensor_that_is_wrong(name: str, spoil: Any, message: str) -> None:
    with pytest.raises(SceneError, match=message):
        Segmenter(Foreign(name, spoil))(BLACK)


def test_a_frame_that_is_none_is_refused() -> None:
    with pytest.raises(SceneError, match="uint8"):
        Segmenter(PerfectNetwork([]))(np.zeros((64, 64, 3), np.float32))
    with pytest.raises(SceneError, match="H, W, 3"):
        Segmenter(PerfectNetwork([]))(np.zeros((64, 64, 4), np.uint8))
