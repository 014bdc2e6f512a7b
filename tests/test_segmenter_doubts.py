"""Where teacher and network contradict each other, nobody knows."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from streamgc.networks.segmenter import Segmenter
from streamgc.training.segmenter_data import UNKNOWN, Item, Items
from streamgc.training.segmenter_doubts import DOUBT, disputed, doubted, opinion_of, second_opinion

Mask = NDArray[np.uint8]


def box(top: int, left: int, bottom: int, right: int) -> Mask:
    mask = np.zeros((64, 96), np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


def item(kind: str, person: Mask) -> Item:
    picture = np.repeat(person[..., None] // 2, 3, -1)
    labels = np.where(person > 127, np.uint8(1), np.uint8(0))
    return Item("set", kind, True, picture, person, (person > 127).astype(np.uint8), labels)


def test_a_seat_is_disputed_and_a_border_is_not() -> None:
    person, seat = box(10, 30, 64, 60), box(10, 30, 64, 60)
    seat[30:64, 70:90] = 255
    where = disputed(seat, person)
    assert where[35:60, 75:85].all()
    assert not where[:, :68].any()
    assert np.array_equal(disputed(person, seat), where), "either may be wrong"
    assert not disputed(person, box(8, 28, 64, 62)).any(), "two pixels more are a border"
    assert not disputed(person, person // 2 + 30).any(), "who is not sure does not contradict"


def test_what_is_disputed_becomes_unknown() -> None:
    teacher = box(10, 30, 64, 60) | box(30, 70, 64, 90)
    now = doubted(item("pseudo", teacher), box(10, 30, 64, 60))
    assert (now.person[35:60, 75:85] == DOUBT).all()
    assert (now.labels[35:60, 75:85] == UNKNOWN).all()
    assert (now.person[:, 30:60] == teacher[:, 30:60]).all()
    assert not now.single, "nobody is cut out with a seat"
    same = item("pseudo", teacher)
    assert doubted(same, teacher) is same
    finger = box(10, 30, 64, 60) | box(20, 20, 27, 27)
    assert doubted(item("pseudo", box(0, 0, 64, 90)), box(0, 0, 64, 90) - box(20, 20, 25, 25)).single
    assert (doubted(item("pseudo", finger), box(10, 30, 64, 60)).person == DOUBT).sum() > 20


def test_only_teachers_are_doubted(tmp_path: Path) -> None:
    masks = {"truth": box(5, 5, 60, 60), "pseudo": box(5, 5, 60, 60), "empty": box(0, 0, 0, 0)}
    index, blob = [], bytearray()
    for kind, person in masks.items():
        one = item(kind, person)
        index.append({"source": "set", "kind": kind, "single": True, "height": 64, "width": 96, "offset": len(blob)})
        for array in (one.picture, one.person, one.owner, one.labels):
            blob += array.tobytes()
    before = tmp_path / "before"
    before.mkdir()
    (before / "items.bin").write_bytes(blob)
    (before / "items.json").write_text(json.dumps(index))
    said = second_opinion(before, lambda picture: box(5, 5, 60, 30), tmp_path / "after")
    assert said == (1, 1)
    old, new = Items(before), Items(tmp_path / "after")
    for number, kind in enumerate(masks):
        same = kind != "pseudo"
        assert np.array_equal(old[number].person, new[number].person) == same
        assert np.array_equal(old[number].picture, new[number].picture)
        assert new[number].single == same


@pytest.mark.parametrize("size", [(96, 64), (101, 288)])
def test_a_network_is_asked_at_its_own_size(size: tuple[int, int]) -> None:
    said = opinion_of(Segmenter().eval())(np.zeros((*size, 3), np.uint8))
    assert said.shape == size
    assert said.dtype == np.uint8
