"""Which segmenter looks: the shipped one (or another model's folder), or YOLO weights of the user's."""

from __future__ import annotations

from pathlib import Path

from streamgc.errors import InputError
from streamgc.runtime.engine import Engine, load_engine
from streamgc.scene.observer import Segment
from streamgc.scene.yolo import RawYoloSegmenter, UltralyticsSegmenter, YoloSettings

SHIPPED = "segmenter"
"""Name of the shipped segmenter's model folder."""
YOLO_SUFFIXES = (".pt", ".onnx", ".engine")
OPENVINO_FOLDER = "_openvino_model"
"""How the folders end that Ultralytics exports for OpenVINO."""


def is_yolo(choice: str) -> bool:
    """Whether a choice of segmenter means YOLO weights: a .pt, .onnx or .engine file, or an OpenVINO folder of
    Ultralytics."""
    return choice.endswith(YOLO_SUFFIXES) or choice.rstrip("/").endswith(OPENVINO_FOLDER)


def open_yolo(choice: str, threads: int | None = None) -> Segment:
    """YOLO-seg weights as a segmenter: .onnx through this project's engines, everything else through Ultralytics.

    Raises InputError when there is no such file or it is no YOLO-seg, BackendMissing without Ultralytics, EngineError.
    """
    path = Path(choice)
    if not path.exists():
        raise InputError(f"no YOLO weights at {path}")
    if path.suffix != ".onnx":
        return UltralyticsSegmenter(path)
    engine = load_engine(path, precision="fp32", threads=threads)
    return RawYoloSegmenter(engine, YoloSettings(side=_side(engine, path)), next(iter(engine.inputs)))


def _side(engine: Engine, path: Path) -> int:
    """The square that a YOLO network takes; where it may vary, the one YOLO is trained at."""
    shapes = [spec.shape for spec in engine.inputs.values()]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] not in (3, None):
        raise InputError(f"{path} is no YOLO network: it takes {len(shapes)} inputs of shapes {shapes}")
    rows, columns = shapes[0][2], shapes[0][3]
    if rows != columns:
        raise InputError(f"{path} takes pictures of {columns}x{rows}; only squares are supported")
    return rows or YoloSettings.side
