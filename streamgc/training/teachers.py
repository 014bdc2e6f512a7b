"""Teachers whose answers become pseudo-labels: selfie segmentation in YOLOX person boxes, and DeepLab for things and
rooms.

They run offline, once, into a cache (`training/segmenter_data.py`). All three are Apache-2.0. They need `ai-edge-
litert` and `onnxruntime` (the `teachers` and `train` extras).
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from streamgc.errors import TrainingError
from streamgc.scene.labels import COCO_NAMES, COCO_PERSON, PASCAL_NAMES, Label, label_of, label_table

Picture = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]

YOLOX_SIDE = 416
SELFIE_SIDE = 256
DEEPLAB_SIDE = 513


class Detections(NamedTuple):
    """Boxes f32 (N, 4) as x0, y0, x1, y1 in pixels, scores f32 (N,), COCO classes int64 (N,), best first."""

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]


class Teaching(NamedTuple):
    """What the teachers say of a picture (H, W).

    person: probability u8 0..255 (H, W); owner: u8 (H, W), 0 = nobody, k = k-th person; labels: `Label` ids u8 (H, W);
    overlap: two people's boxes overlap so much that `owner` is a guess.
    """

    person: npt.NDArray[np.uint8]
    owner: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    overlap: bool


def box_iou(boxes: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Intersection over union f32 (N, M) of boxes (N, 4) and (M, 4)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (boxes, others)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.asarray(common / np.maximum(union, 1e-6), np.float32)


def suppress(detections: Detections, iou: float = 0.5) -> Detections:
    """Greedy non-maximum suppression within each class; best first."""
    order = list(np.argsort(-detections.scores))
    keep: list[int] = []
    overlaps = box_iou(detections.boxes, detections.boxes)
    for index in order:
        if all(detections.classes[index] != detections.classes[k] or overlaps[index, k] < iou for k in keep):
            keep.append(int(index))
    return Detections(detections.boxes[keep], detections.scores[keep], detections.classes[keep])


def _resize(picture: Picture, width: int, height: int) -> Picture:
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))


def _resize_plane(plane: Plane, width: int, height: int) -> Plane:
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


class Teachers:
    """The three networks, loaded once from the folder that holds them; raises TrainingError when one cannot be
    loaded."""

    def __init__(self, weights: Path) -> None:
        try:
            import onnxruntime
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise TrainingError(f"pseudo-labels need the extras [train] and [teachers]: {error}") from error
        try:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self._yolox = onnxruntime.InferenceSession(
                str(weights / "yolox_nano.onnx"), options, providers=["CPUExecutionProvider"]
            )
            self._selfie = Interpreter(model_path=str(weights / "selfie_segmentation.tflite"), num_threads=1)
            self._deeplab = Interpreter(model_path=str(weights / "deeplabv3_mnv2_pascal_quant.tflite"), num_threads=1)
        except Exception as error:
            raise TrainingError(f"cannot load the teachers from {weights}: {error}") from error
        self._selfie.allocate_tensors()
        self._deeplab.allocate_tensors()
        self._pascal = label_table(PASCAL_NAMES)

    @staticmethod
    def _invoke(interpreter: Any, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], array)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))

    def detect(self, picture: Picture, threshold: float = 0.3) -> Detections:
        """Things of COCO's classes in an RGB picture u8 (H, W, 3)."""
        height, width = picture.shape[:2]
        scale = YOLOX_SIDE / max(height, width)
        small = _resize(picture, round(width * scale), round(height * scale))
        canvas = np.full((YOLOX_SIDE, YOLOX_SIDE, 3), 114, np.uint8)
        canvas[: small.shape[0], : small.shape[1]] = small
        feed = canvas[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32)
        raw = self._yolox.run(None, {self._yolox.get_inputs()[0].name: feed})[0][0]
        grids = []
        for stride in (8, 16, 32):
            side = YOLOX_SIDE // stride
            ys, xs = np.mgrid[:side, :side]
            grids.append(np.stack([xs.ravel(), ys.ravel(), np.full(side * side, stride)], 1))
        grid = np.concatenate(grids).astype(np.float32)
        centres = (raw[:, :2] + grid[:, :2]) * grid[:, 2:]
        sizes = np.exp(np.minimum(raw[:, 2:4], 8)) * grid[:, 2:]
        scores = raw[:, 4:5] * raw[:, 5:]
        classes = scores.argmax(1)
        best = scores.max(1)
        boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], 1) / scale
        boxes = np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)
        sure = best > threshold
        return suppress(Detections(boxes[sure], best[sure].astype(np.float32), classes[sure].astype(np.int64)))

    def selfie(self, picture: Picture, box: npt.NDArray[np.float32]) -> Plane:
        """Probability f32 (H, W) of the person in one box of an RGB picture; 0 outside the widened box."""
        height, width = picture.shape[:2]
        x0, y0, x1, y1 = (float(v) for v in box)
        side = max(x1 - x0, y1 - y0) * 1.2
        cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
        left, right = int(max(0, cx - side / 2)), int(min(width, np.ceil(cx + side / 2)))
        top, bottom = int(max(0, cy - side / 2)), int(min(height, np.ceil(cy + side / 2)))
        crop = np.ascontiguousarray(picture[top:bottom, left:right])
        small = _resize(crop, SELFIE_SIDE, SELFIE_SIDE).astype(np.float32)[None] / 255
        answer = self._invoke(self._selfie, small)[0, :, :, 0].astype(np.float32)
        # The box of a detector often cuts a hand or hair: the gate falls off over a tenth of the box beyond it.
        gate_x = _ramp(np.arange(width), x0, x1, 0.1 * (x1 - x0) + 2)
        gate_y = _ramp(np.arange(height), y0, y1, 0.1 * (y1 - y0) + 2)
        plane = np.zeros((height, width), np.float32)
        plane[top:bottom, left:right] = _resize_plane(answer, right - left, bottom - top)
        return np.asarray(plane * gate_y[:, None] * gate_x[None], np.float32)

    def whole_person(self, picture: Picture) -> npt.NDArray[np.uint8]:
        """Person probability u8 (H, W) of one portrait: the selfie network on the whole picture."""
        height, width = picture.shape[:2]
        probability = self.selfie(picture, np.array([0, 0, width, height], np.float32))
        return np.asarray((probability * 255).clip(0, 255), np.uint8)

    def scene(self, picture: Picture, detections: Detections) -> npt.NDArray[np.uint8]:
        """`Label` ids u8 (H, W): DeepLab's Pascal classes, beds and screens sharpened by YOLOX boxes."""
        height, width = picture.shape[:2]
        answer = self._invoke(self._deeplab, _resize(picture, DEEPLAB_SIDE, DEEPLAB_SIDE)[None])
        pascal = answer.reshape(answer.shape[1:3]) if answer.ndim == 4 else answer[0]
        labels = self._pascal[np.clip(pascal, 0, 20).astype(np.int64)]
        image = Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST)
        labels = np.array(image)
        for box, score, kind in zip(*detections, strict=True):
            label = label_of(COCO_NAMES[int(kind)])
            if label not in (Label.BED, Label.SCREEN) or score < 0.4:
                continue
            # A screen fills its box; a bed leaves its corners.
            inset = 0.02 if label is Label.SCREEN else 0.08
            dx, dy = inset * (box[2] - box[0]), inset * (box[3] - box[1])
            part = labels[int(box[1] + dy) : int(box[3] - dy), int(box[0] + dx) : int(box[2] - dx)]
            part[(part == Label.ROOM) | (part == Label.SOFA) | (part == label)] = label
        return labels

    def teach(self, picture: Picture, whole: bool = False, labels: bool = True) -> Teaching:
        """All of it for one RGB picture; `whole` takes the whole picture as a person's box when no box is found."""
        height, width = picture.shape[:2]
        detections = self.detect(picture)
        people = [b for b, s, c in zip(*detections, strict=True) if c == COCO_PERSON and s > 0.4]
        if not people and whole:
            people = [np.array([0, 0, width, height], np.float32)]
        planes = [self.selfie(picture, box) for box in people[:8]]
        scene = self.scene(picture, detections) if labels else np.zeros((height, width), np.uint8)
        if not planes:
            empty = np.zeros((height, width), np.uint8)
            return Teaching(empty, empty.copy(), scene, False)
        stack = np.stack(planes)
        person = stack.max(0)
        owner = np.where(person > 0.5, stack.argmax(0) + 1, 0).astype(np.uint8)
        boxes = np.stack(people[:8])
        overlaps = box_iou(boxes, boxes) - np.eye(len(boxes), dtype=np.float32)
        return Teaching((person * 255 + 0.5).astype(np.uint8), owner, scene, bool(overlaps.max() > 0.1))


def _ramp(positions: npt.NDArray[np.int64], low: float, high: float, width: float) -> Plane:
    """1 between low and high, falling to 0 within `width` beyond them."""
    outside = np.maximum(low - positions, positions - high)
    return np.asarray(np.clip(1 - outside / max(width, 1e-6), 0, 1), np.float32)
