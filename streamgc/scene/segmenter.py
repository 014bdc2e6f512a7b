"""The shipped segmenter behind `Instances`: any frame in, people told apart, labels of the cells out.

The network (`engines/segmenter/segmenter.onnx`) takes `frame` u8 (1, H, W, 3), H and W multiples of 16, and gives
`matte` u8 (1, H, W, 1), `centre` f32 (1, H/4, W/4, 1), `offset` f32 (1, H/4, W/4, 2) in pixels, `labels` u8 (1, H/16,
W/16), `embedding` f32 (1, H/4, W/4, 8) and `query` f32 (1, H/8, W/8, 9). People are told apart by asking cells who
belongs to them (`streamgc.scene.affinity`), and their masks follow the picture's edges (`streamgc.scene.matting`).
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from streamgc.errors import SceneError
from streamgc.scene import affinity
from streamgc.scene.affinity import EMBEDDING, votes_of
from streamgc.scene.instances import CELL, UNTRACKED, Instances, grid_of, mask_box, nobody, require
from streamgc.scene.labels import COCO_PERSON, LABEL_COUNT
from streamgc.scene.matting import refine_matte

Mask = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]

SOLID = 110
"""Matte value above which a pixel surely is person."""
PEAK = 0.2
"""Value of the centre map from which a cell may be a person's first."""
MOST = 12
"""People told apart at most."""
SAME = 0.5
"""Share of the cells somebody claims that are claimed already, from which it is the same person again."""
ASKED = 64
"""Cells asked at most: a network whose cells claim nobody must not hold up a call."""
SMALLEST = 20
"""Cells at /4 (of 16 pixels each) below which a person is noise."""


class Runs(Protocol):
    """What a compiled network must do: `streamgc.runtime` engines do it."""

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Named arrays in, named arrays out."""
        ...


def network_size(height: int, width: int, area: int = 256 * 256) -> tuple[int, int]:
    """The size, multiples of 16, at which a frame is looked at: its own when that fits and is not much larger than
    `area`, else one of about that area and its aspect."""
    if height % CELL == 0 and width % CELL == 0 and 0.4 * area <= height * width <= 1.5 * area:
        return height, width
    scale = math.sqrt(area / (height * width))
    return max(4, round(height * scale / CELL)) * CELL, max(4, round(width * scale / CELL)) * CELL


def as_rgb(frame: npt.NDArray[Any]) -> Mask:
    """A frame u8 (H, W, 3), (H, W, 1) or grey (H, W) as RGB u8 (H, W, 3); raises SceneError on anything else."""
    if frame.dtype != np.uint8:
        raise SceneError(f"a frame must be uint8, not {frame.dtype}")
    if frame.ndim == 2:
        frame = frame[..., None]
    if frame.ndim != 3 or frame.shape[2] not in (1, 3) or 0 in frame.shape:
        raise SceneError(f"a frame must be (H, W, 3) or (H, W), not {frame.shape}")
    return frame if frame.shape[2] == 3 else np.repeat(frame, 3, axis=2)


def resize_mask(mask: npt.NDArray[Any], height: int, width: int, smooth: bool = True) -> Mask:
    """A u8 mask resized, between pixels when `smooth`, else by the nearest."""
    if mask.shape == (height, width):
        return mask
    method = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(np.ascontiguousarray(mask)).resize((width, height), method), np.uint8)


class Segmenter:
    """Frames to instances through an engine. size: the fixed (H, W) the engine was compiled for; None lets it vary with
    the frame."""

    def __init__(self, engine: Runs, size: tuple[int, int] | None = None) -> None:
        if size is not None and (size[0] % CELL or size[1] % CELL):
            raise SceneError(f"the segmenter's size must be multiples of {CELL}, not {size[1]}x{size[0]}")
        self._engine = engine
        self._size = size

    def __call__(self, frame: npt.NDArray[Any]) -> Instances:
        """Instances of a frame u8 (H, W, 3) RGB or (H, W) grey, of any size; raises SceneError when the network's
        answer is unusable."""
        rgb = as_rgb(frame)
        height, width = rgb.shape[:2]
        rows, columns = self._size or network_size(height, width)
        if (rows, columns) != (height, width):
            image = Image.fromarray(np.ascontiguousarray(rgb))
            rgb = np.asarray(image.resize((columns, rows), Image.Resampling.BILINEAR, reducing_gap=2.0))
        answer = self._engine.run({"frame": np.ascontiguousarray(rgb)[None]})
        network = unpack(answer, rows, columns)
        labels = network.labels
        if (rows, columns) != (height, width):
            labels = resize_mask(labels, *grid_of(height, width), smooth=False)
        owners, scores = group(network)
        if not len(scores):
            return nobody(height, width, labels)
        return _assemble(refine_matte(rgb, network.matte), owners, scores, labels, (height, width))


class Network(NamedTuple):
    """The network's answer to one frame: matte u8 (H, W), centre f32 (H/4, W/4), offset f32 (H/4, W/4, 2) in pixels,
    labels u8 (H/16, W/16), embedding f32 (H/4, W/4, EMBEDDING), query f32 (H/8, W/8, EMBEDDING + 1)."""

    matte: Mask
    centre: Plane
    offset: Plane
    labels: Mask
    embedding: Plane
    query: Plane


def unpack(answer: Mapping[str, npt.NDArray[Any]], height: int, width: int) -> Network:
    """The network's answer, checked; raises SceneError naming the tensor that is missing, has a wrong shape or type, or
    holds NaN."""
    shapes: dict[str, tuple[int, ...]] = {
        "matte": (1, height, width, 1),
        "centre": (1, height // 4, width // 4, 1),
        "offset": (1, height // 4, width // 4, 2),
        "labels": (1, height // CELL, width // CELL),
        "embedding": (1, height // 4, width // 4, EMBEDDING),
        "query": (1, height // 8, width // 8, EMBEDDING + 1),
    }
    for name in shapes:
        if name not in answer:
            raise SceneError(f"the segmenter has no output {name!r}")
    for name, shape in shapes.items():
        if name != "labels":
            require(name, answer[name], shape)
    matte, labels = answer["matte"], answer["labels"]
    if labels.ndim == 4:
        require("labels", labels, (*shapes["labels"], LABEL_COUNT))
        labels = labels.argmax(axis=3)
    require("labels", labels, shapes["labels"])
    if matte.dtype != np.uint8:
        raise SceneError(f"segmenter output 'matte' must be uint8, got {matte.dtype}")
    if labels.size and int(labels.max()) >= LABEL_COUNT:
        raise SceneError(f"segmenter output 'labels' holds id {int(labels.max())}, the highest is {LABEL_COUNT - 1}")
    centre, offset, embedding, query = (
        answer[name][0].astype(np.float32, copy=False) for name in ("centre", "offset", "embedding", "query")
    )
    return Network(matte[0, :, :, 0], centre[..., 0], offset, labels[0].astype(np.uint8), embedding, query)


def group(answer: Network) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Who owns which /4 cell: int8 (H/4, W/4), -1 nobody, and a score f32 for each person.

    The cell with the highest centre is asked who belongs to it; then the highest of those that nobody has claimed,
    until hardly any are left (Neven et al., CVPR 2019). One who claims what somebody else has claimed is that person
    again. Cells of the soft rim are owned too, so that no instance loses its hair.
    """
    person = answer.matte[2::4, 2::4]
    solid = person > SOLID
    owners = np.full(person.shape, -1, np.int8)
    if int(solid.sum()) < SMALLEST:
        return owners, np.zeros(0, np.float32)
    rim = _grow(solid)
    rows, columns = np.nonzero(rim)
    people = _People(answer, rows, columns, solid[rim])
    for _ in range(ASKED):
        if people.number == MOST or not people.ask():
            break
    if not people.number:
        owners[rim] = 0
        return owners, np.array([max(0.5, float(answer.centre[rim].max()))], np.float32)
    owners[rows, columns] = people.owners()
    return owners, np.clip(people.scores, 0, 1).astype(np.float32)


class _People:
    """The people found so far among some /4 cells, and which cells nobody has claimed."""

    def __init__(
        self,
        answer: Network,
        rows: npt.NDArray[np.int64],
        columns: npt.NDArray[np.int64],
        solid: npt.NDArray[np.bool_],
    ) -> None:
        self._centre = answer.centre[rows, columns]
        self._votes = votes_of(answer.offset)[rows, columns]
        self._embedding = answer.embedding[rows, columns]
        self._query = answer.query[rows // 2, columns // 2]
        self._solid = solid
        self._free = solid.copy()
        self._logits: list[Plane] = []
        self.scores: list[float] = []

    @property
    def number(self) -> int:
        """How many people are found."""
        return len(self._logits)

    def ask(self) -> bool:
        """Ask one cell; False when there is none left that is worth it."""
        if int(self._free.sum()) < SMALLEST:
            return False
        cell = int(np.where(self._free, self._centre, -1).argmax())
        logits = affinity.logits(self._votes, self._embedding, self._votes[cell], self._query[cell])
        claimed = (logits > 0) & self._solid
        new = claimed & self._free
        known = self._same(claimed)
        if known is not None:
            self._logits[known] = np.maximum(self._logits[known], logits)
        elif int(new.sum()) >= SMALLEST and self._centre[cell] >= PEAK:
            self._logits.append(logits)
            self.scores.append(float(self._centre[cell]))
        self._free &= ~claimed
        self._free[cell] = False
        return True

    def _same(self, claimed: npt.NDArray[np.bool_]) -> int | None:
        """Whom the claimed cells belong to already, if most of them do."""
        overlaps = [int((claimed & (known > 0)).sum()) for known in self._logits]
        if not overlaps or max(overlaps) < SAME * int(claimed.sum()):
            return None
        return int(np.argmax(overlaps))

    def owners(self) -> npt.NDArray[np.int8]:
        """The person of each cell, int8 (cells,)."""
        return np.asarray(np.stack(self._logits).argmax(axis=0), np.int8)


def _grow(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """A mask and its neighbours within two cells."""
    grown = mask.copy()
    for step in (1, 1):
        past = grown.copy()
        grown[step:] |= past[:-step]
        grown[:-step] |= past[step:]
        past = grown.copy()
        grown[:, step:] |= past[:, :-step]
        grown[:, :-step] |= past[:, step:]
    return grown


def _assemble(
    matte: Mask, owners: npt.NDArray[np.int8], scores: npt.NDArray[np.float32], labels: Mask, size: tuple[int, int]
) -> Instances:
    """Instances at the frame's size from owners at /4 of the network's."""
    height, width = size
    step_y, step_x = 4 * height / matte.shape[0], 4 * width / matte.shape[1]
    # The rim belongs to the masks; boxes are of what is surely person.
    solid = matte[2::4, 2::4] > SOLID
    masks, boxes = [], []
    for number in range(len(scores)):
        mine = owners == number
        mask = matte
        if len(scores) > 1:
            mask = matte * mine.view(np.uint8).repeat(4, axis=0).repeat(4, axis=1)
        masks.append(resize_mask(mask, height, width))
        left, top, right, bottom = mask_box(mine & solid) or mask_box(mine) or (0.0, 0.0, 0.0, 0.0)
        boxes.append([left * step_x, top * step_y, right * step_x, bottom * step_y])
    count = len(scores)
    return Instances(
        np.stack(masks),
        np.array(boxes, np.float32),
        scores,
        np.full(count, COCO_PERSON, np.int32),
        np.full(count, UNTRACKED, np.int32),
        labels,
    )
