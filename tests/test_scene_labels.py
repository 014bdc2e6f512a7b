"""scene.labels: one fixed list of coarse labels and the way to it from Pascal's and COCO's classes."""

import numpy as np
import pytest

from streamgc.scene.labels import (
    COCO_NAMES,
    LABEL_COLOURS,
    LABEL_COUNT,
    PASCAL_NAMES,
    Label,
    class_index,
    colour_labels,
    label_of,
    label_table,
)


def test_ids_fit_four_bits_and_keep_their_order() -> None:
    assert LABEL_COUNT <= 16
    assert [label.value for label in Label] == list(range(LABEL_COUNT))
    assert (Label.ROOM, Label.PERSON, Label.OTHER) == (0, 1, 12)
    assert len(set(LABEL_COLOURS)) == LABEL_COUNT


def test_class_lists_are_complete() -> None:
    assert (len(PASCAL_NAMES), len(COCO_NAMES)) == (21, 80)
    assert COCO_NAMES[0] == "person"
    assert COCO_NAMES[63] == "laptop"
    assert PASCAL_NAMES[15] == "person"


def test_both_lists_agree_on_what_a_thing_is() -> None:
    pascal = label_table(PASCAL_NAMES)
    assert pascal[[0, 9, 11, 15, 16, 18, 20]].tolist() == [
        Label.ROOM,
        Label.CHAIR,
        Label.TABLE,
        Label.PERSON,
        Label.PLANT,
        Label.SOFA,
        Label.SCREEN,
    ]
    assert label_of("couch") == label_of("sofa") == Label.SOFA
    assert label_of("giraffe") == Label.OTHER


def test_class_names_are_read_as_people_write_them() -> None:
    assert class_index(" Cell_Phone ") == COCO_NAMES.index("cell phone")
    with pytest.raises(ValueError, match="unicorn"):
        class_index("unicorn")


def test_unknown_ids_are_drawn_black() -> None:
    drawn = colour_labels(np.array([[Label.PERSON, 255]], np.uint8))
    assert drawn[0, 0].tolist() == list(LABEL_COLOURS[Label.PERSON])
    assert drawn[0, 1].tolist() == [0, 0, 0]
