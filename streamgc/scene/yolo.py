"""YOLO segmentation models (v8, 11, 26) as a source of `Instances`, with all of COCO's classes.

Two ways in. `UltralyticsSegmenter` runs any weights that Ultralytics reads (.pt, .onnx, .engine, OpenVINO folders) and
needs the `[yolo]` extra, which is AGPL-3.0 and therefore never installed by default. `RawYoloSegmenter` runs an
exported ONNX through this project's own engines and post-processes its raw outputs in numpy: `(1, 4 + classes + 32,
anchors)` boxes as centre and size, scores, mask coefficients, and `(1, 32, h, w)` prototypes; or the end-to-end form
`(1, N, 6 + 32)` of YOLO26, which needs no suppression.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from streamgc.errors import BackendMissing, InputError, SceneError
from streamgc.scene.instances import UNTRACKED, Instances, grid_of, nobody, require
from streamgc.scene.labels import COCO_NAMES, Label, label_table
from streamgc.scene.segmenter import Runs, as_rgb
from streamgc.scene.tracking import box_iou

Floats = npt.NDArray[np.float32]
MASK_CHANNELS = 32
GREY = 114
"""Value of the letterbox's border, as YOLO is trained."""


@dataclass(frozen=True)
class YoloSettings:
    """score: least confidence. overlap: IoU from which the weaker of two boxes of a class is dropped. most: instances
    at most. side: the square (H = W) the network takes. normalised: boxes come in 0..1 of that square instead of
    pixels, as tflite exports give them."""

    score: float = 0.35
    overlap: float = 0.6
    most: int = 20
    side: int = 640
    normalised: bool = False


class Letterbox(NamedTuple):
    """How a frame was fitted into the square: scale, and the border at the left and above."""

    scale: float
    left: int
    top: int


def letterbox(frame: npt.NDArray[np.uint8], side: int) -> tuple[Floats, Letterbox]:
    """RGB u8 (H, W, 3) → f32 (1, 3, side, side) in 0..1, aspect kept, border grey, picture in the middle; and how."""
    height, width = frame.shape[:2]
    scale = side / max(height, width)
    wide, tall = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (side - wide) // 2, (side - tall) // 2
    canvas = np.full((side, side, 3), GREY, np.uint8)
    image = Image.fromarray(np.ascontiguousarray(frame)).resize((wide, tall), Image.Resampling.BILINEAR)
    canvas[top : top + tall, left : left + wide] = np.asarray(image)
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], np.float32) / np.float32(255), Letterbox(
        scale, left, top
    )


def suppress(boxes: Floats, scores: Floats, classes: npt.NDArray[np.int64], overlap: float, most: int) -> list[int]:
    """Indices that greedy non-maximum suppression within each class keeps, best first."""
    order = np.argsort(-scores, kind="stable")[:1000]
    # Boxes of different classes never meet when each class has its own far-away corner.
    apart = boxes + (classes[:, None] * np.float32(4 * (np.abs(boxes).max(initial=0) + 1))).astype(np.float32)
    keep: list[int] = []
    free = np.ones(len(order), bool)
    for place, index in enumerate(order):
        if not free[place]:
            continue
        keep.append(int(index))
        if len(keep) == most:
            break
        free &= box_iou(apart[index][None], apart[order])[0] < overlap
    return keep


def postprocess(
    predictions: Floats, prototypes: Floats, fit: Letterbox, size: tuple[int, int], settings: YoloSettings
) -> Instances:
    """Raw outputs of a YOLO-seg network as `Instances` of a frame of `size` (H, W); raises SceneError naming a tensor
    that does not fit.

    Coarse labels are painted from the masks, weakest first, people last.
    """
    require("prototypes", prototypes, (1, MASK_CHANNELS, None, None))
    require("predictions", predictions, (1, None, None))
    boxes, scores, classes, coefficients = _decode(predictions[0], settings)
    height, width = size
    if not len(scores):
        return nobody(height, width)
    masks = _masks(coefficients, prototypes[0], boxes, settings.side, fit, size)
    boxes = (boxes - np.array([fit.left, fit.top] * 2, np.float32)) / np.float32(fit.scale)
    boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
    kinds = classes.astype(np.int32)
    return Instances(
        masks,
        boxes.astype(np.float32),
        scores,
        kinds,
        np.full(len(scores), UNTRACKED, np.int32),
        paint_labels(masks, kinds),
    )


def _decode(table: Floats, settings: YoloSettings) -> tuple[Floats, Floats, npt.NDArray[np.int64], Floats]:
    """Boxes (N, 4) as corners in the square's pixels, scores, classes and coefficients (N, 32), best first."""
    if table.shape[1] == 6 + MASK_CHANNELS and table.shape[0] != 4 + len(COCO_NAMES) + MASK_CHANNELS:
        sure = np.flatnonzero(table[:, 4] >= settings.score)[: settings.most]
        rows = table[sure]
        scale = np.float32(settings.side if settings.normalised else 1)
        classes = rows[:, 5].astype(np.int64)
        if len(classes) and not 0 <= classes.min() <= classes.max() < len(COCO_NAMES):
            raise SceneError(f"segmenter output 'predictions' has classes beyond COCO's {len(COCO_NAMES)}")
        return rows[:, :4] * scale, rows[:, 4], classes, rows[:, 6:]
    count = table.shape[0] - 4 - MASK_CHANNELS
    if count < 1:
        raise SceneError(
            f"segmenter output 'predictions' has {table.shape[0]} rows, too few for boxes, classes and masks"
        )
    if count > len(COCO_NAMES):
        raise SceneError(f"segmenter output 'predictions' has {count} classes; COCO's {len(COCO_NAMES)} are known")
    best = table[4 : 4 + count].max(axis=0)
    sure = np.flatnonzero(best >= settings.score)
    chosen = table[:, sure]
    classes = chosen[4 : 4 + count].argmax(axis=0)
    half = chosen[2:4] / 2
    boxes = np.concatenate([chosen[:2] - half, chosen[:2] + half]).T
    if settings.normalised:
        boxes = boxes * np.float32(settings.side)
    boxes = np.ascontiguousarray(boxes, np.float32)
    scores = best[sure]
    keep = suppress(boxes, scores, classes, settings.overlap, settings.most)
    return boxes[keep], scores[keep].astype(np.float32), classes[keep], chosen[4 + count :].T[keep]


def _masks(
    coefficients: Floats, prototypes: Floats, boxes: Floats, side: int, fit: Letterbox, size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """Soft masks u8 (N, H, W): prototypes mixed, cut to the boxes, brought to the frame's size."""
    height, width = size
    rows, columns = prototypes.shape[1:]
    step = side / rows
    logits = (coefficients @ prototypes.reshape(MASK_CHANNELS, -1)).reshape(-1, rows, columns).clip(-20, 20)
    window = (
        fit.left / step,
        fit.top / step,
        (fit.left + width * fit.scale) / step,
        (fit.top + height * fit.scale) / step,
    )
    ys, xs = (np.arange(height) + 0.5) * fit.scale + fit.top, (np.arange(width) + 0.5) * fit.scale + fit.left
    masks = np.zeros((len(boxes), height, width), np.uint8)
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        plane = Image.fromarray(logits[number]).resize((width, height), Image.Resampling.BILINEAR, window)
        # Cut at the frame's resolution: a cell of the prototypes is several pixels wide.
        inside = ((ys >= y0) & (ys <= y1))[:, None] & ((xs >= x0) & (xs <= x1))[None]
        masks[number] = np.where(inside, 255 / (1 + np.exp(-np.asarray(plane))), 0)
    return masks


def paint_labels(masks: npt.NDArray[np.uint8], classes: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """Coarse labels u8 (h, w) from instances: each cell takes the label of the best instance that fills it by half;
    people win."""
    rows, columns = grid_of(*masks.shape[1:])
    labels = np.full((rows, columns), Label.ROOM, np.uint8)
    table = label_table(COCO_NAMES)
    order = sorted(range(len(masks)), key=lambda k: (table[classes[k]] == Label.PERSON, -k))
    for number in order:
        image = Image.fromarray(masks[number]).resize((columns, rows), Image.Resampling.BOX)
        labels[np.asarray(image) > 110] = table[classes[number]]
    return labels


class RawYoloSegmenter:
    """A YOLO-seg ONNX without Ultralytics, through an engine of `streamgc.runtime`."""

    def __init__(self, engine: Runs, settings: YoloSettings | None = None, input_name: str = "images") -> None:
        self._engine = engine
        self._settings = settings or YoloSettings()
        self._input = input_name

    def __call__(self, frame: npt.NDArray[Any]) -> Instances:
        """Instances of a frame u8 (H, W, 3) or (H, W); raises SceneError when the outputs are not YOLO-seg's."""
        rgb = as_rgb(frame)
        feed, fit = letterbox(rgb, self._settings.side)
        outputs = self._engine.run({self._input: feed})
        flat = {name: array for name, array in outputs.items() if array.ndim == 3}
        planes = {name: array for name, array in outputs.items() if array.ndim == 4}
        if len(flat) != 1 or len(planes) != 1:
            shapes = ", ".join(f"{name!r} {array.shape}" for name, array in outputs.items())
            raise SceneError(f"not the outputs of a YOLO segmentation network: {shapes}")
        prediction, prototype = next(iter(flat.values())), next(iter(planes.values()))
        return postprocess(prediction, prototype, fit, (rgb.shape[0], rgb.shape[1]), self._settings)


class UltralyticsSegmenter:
    """Any YOLO segmentation weights through the Ultralytics package; raises BackendMissing when it is not installed."""

    def __init__(self, weights: Path, settings: YoloSettings | None = None, device: str = "cpu") -> None:
        try:
            ultralytics = importlib.import_module("ultralytics")
        except ImportError as error:
            raise BackendMissing(
                f'YOLO segmentation needs Ultralytics (AGPL-3.0): pip install "streamgc[yolo]" ({error})'
            ) from error
        # Ultralytics downloads weights it does not find; a call downloads nothing unless asked.
        if not weights.exists():
            raise InputError(f"no YOLO weights at {weights}")
        self._settings = settings or YoloSettings()
        self._model = ultralytics.YOLO(str(weights), task="segment")
        self._device = device

    def __call__(self, frame: npt.NDArray[Any]) -> Instances:
        """Instances of a frame u8 (H, W, 3) RGB or (H, W)."""
        rgb = as_rgb(frame)
        settings = self._settings
        result = self._model.predict(
            np.ascontiguousarray(rgb[..., ::-1]),
            conf=settings.score,
            iou=settings.overlap,
            max_det=settings.most,
            imgsz=settings.side,
            retina_masks=True,
            device=self._device,
            verbose=False,
        )[0]
        return from_ultralytics(result, rgb.shape[0], rgb.shape[1])


def from_ultralytics(result: Any, height: int, width: int) -> Instances:
    """One `ultralytics.engine.results.Results` as `Instances`; raises SceneError on a class that is not COCO's."""
    if result.masks is None or len(result.boxes) == 0:
        return nobody(height, width)
    soft = (result.masks.data.float().cpu().numpy() * 255).astype(np.uint8)
    require("masks", soft, (len(result.boxes), height, width))
    names = [str(result.names[int(c)]) for c in result.boxes.cls.tolist()]
    known = {name: index for index, name in enumerate(COCO_NAMES)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SceneError(f"the YOLO model has a class {unknown[0]!r} that is not COCO's")
    classes = np.array([known[name] for name in names], np.int32)
    boxes = result.boxes.xyxy.float().cpu().numpy().astype(np.float32)
    scores = result.boxes.conf.float().cpu().numpy().astype(np.float32)
    ids = np.full(len(names), UNTRACKED, np.int32)
    return Instances(soft, boxes, scores, classes, ids, paint_labels(soft, classes))
