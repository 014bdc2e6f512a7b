"""The coarse labels of a scene, fixed in one place: what is where, as the label map s says it.

A label id fits four bits. `room` is everything a room or a street is made of that has no label of its own (walls,
floor, ground, buildings); `other` is a thing that none of the labels names (animals, bottles, bags). The order is part
of the format of messages and of the room network: append, never insert.
"""

from enum import IntEnum

import numpy as np
import numpy.typing as npt


class Label(IntEnum):
    """A coarse label; the value is its id in a label map."""

    ROOM = 0
    PERSON = 1
    SOFA = 2
    CHAIR = 3
    TABLE = 4
    PLANT = 5
    SCREEN = 6
    BED = 7
    WINDOW = 8
    VEHICLE = 9
    VEGETATION = 10
    SKY = 11
    OTHER = 12


LABEL_COUNT = len(Label)

LABEL_NAMES: tuple[str, ...] = tuple(label.name.lower() for label in Label)

LABEL_COLOURS: tuple[tuple[int, int, int], ...] = (
    (128, 128, 128),
    (230, 60, 60),
    (150, 90, 40),
    (240, 160, 40),
    (200, 200, 60),
    (40, 160, 80),
    (50, 80, 220),
    (200, 120, 200),
    (150, 220, 240),
    (90, 60, 150),
    (30, 110, 30),
    (110, 180, 250),
    (240, 240, 240),
)
"""One RGB colour a label, for overlays."""

# fmt: off
PASCAL_NAMES: tuple[str, ...] = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor",
)
"""Pascal VOC's 21 classes in their order."""

COCO_NAMES: tuple[str, ...] = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)
"""COCO's 80 classes in the order of YOLO models; an instance's class is an index into it."""
# fmt: on

COCO_PERSON = 0
"""The class of a person in `COCO_NAMES`."""

_BY_NAME: dict[str, Label] = {
    "background": Label.ROOM,
    "person": Label.PERSON,
    "tie": Label.PERSON,
    "sofa": Label.SOFA,
    "couch": Label.SOFA,
    "chair": Label.CHAIR,
    "bench": Label.CHAIR,
    "dining table": Label.TABLE,
    "potted plant": Label.PLANT,
    "vase": Label.PLANT,
    "tv": Label.SCREEN,
    "tv monitor": Label.SCREEN,
    "laptop": Label.SCREEN,
    "bed": Label.BED,
    "aeroplane": Label.VEHICLE,
    "airplane": Label.VEHICLE,
    "bicycle": Label.VEHICLE,
    "boat": Label.VEHICLE,
    "bus": Label.VEHICLE,
    "car": Label.VEHICLE,
    "motorbike": Label.VEHICLE,
    "motorcycle": Label.VEHICLE,
    "train": Label.VEHICLE,
    "truck": Label.VEHICLE,
}


def label_of(class_name: str) -> Label:
    """The coarse label of a Pascal or COCO class name; `Label.OTHER` for a thing that has none of its own."""
    return _BY_NAME.get(class_name, Label.OTHER)


def label_table(class_names: tuple[str, ...]) -> npt.NDArray[np.uint8]:
    """Lookup table u8 (len(class_names),) from class index to label id, to be indexed with a class map."""
    return np.array([label_of(name) for name in class_names], np.uint8)


def class_index(name: str) -> int:
    """Index of a COCO class by its name (case, hyphens and underscores do not matter); raises ValueError when there is
    none."""
    wanted = name.strip().lower().replace("_", " ").replace("-", " ")
    if wanted not in COCO_NAMES:
        raise ValueError(f"no class is called {name!r}; the names are COCO's, for example person, laptop, dog")
    return COCO_NAMES.index(wanted)


def colour_labels(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Label map u8 (h, w) → RGB u8 (h, w, 3); ids that are no label are black."""
    palette = np.zeros((256, 3), np.uint8)
    palette[:LABEL_COUNT] = LABEL_COLOURS
    return palette[labels]
