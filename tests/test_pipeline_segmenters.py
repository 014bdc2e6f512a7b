"""pipeline.segmenters and pipeline.eyes: which segmenter looks, how often, and what the statistics say of it."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from streamgc.call.codec import CodecOptions
from streamgc.errors import InputError
from streamgc.pipeline import segmenters
from streamgc.pipeline.call_codec import load_codec
from streamgc.pipeline.eyes import SceneEyes
from streamgc.pipeline.settings import PictureFormat
from streamgc.profiling.spans import Spans
from streamgc.scene.instances import Instances, check_instances, nobody
from streamgc.scene.observer import keep_everything
from tests.scene_pictures import boxes_as_instances

onnx = pytest.importorskip("onnx", reason="the [train] extra is not installed")


def write_yolo(path: Path, side: int = 64, channels: int = 116) -> Path:
    """A network of YOLO-seg's interface that always sees one person in the middle of its square."""
    from onnx import TensorProto, helper, numpy_helper

    predictions = np.zeros((1, channels, 21), np.float32)
    predictions[0, :5, 0] = side / 2, side / 2, side / 2, side / 2, 0.9
    predictions[0, 84:, 0] = 4
    prototypes = np.ones((1, 32, side // 4, side // 4), np.float32)
    nodes = [
        helper.make_node("ReduceSum", ["images"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Add", ["predictions", "nothing"], ["output0"]),
        helper.make_node("Add", ["prototypes", "nothing"], ["output1"]),
    ]
    constants = {"zero": np.zeros((), np.float32), "predictions": predictions, "prototypes": prototypes}
    graph = helper.make_graph(
        nodes,
        "yolo",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, 3, side, side))],
        [
            helper.make_tensor_value_info("output0", TensorProto.FLOAT, predictions.shape),
            helper.make_tensor_value_info("output1", TensorProto.FLOAT, prototypes.shape),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
    return path


def test_an_exported_yolo_needs_no_ultralytics(tmp_path: Path) -> None:
    weights = write_yolo(tmp_path / "any-seg.onnx")
    assert segmenters.is_yolo(str(weights))
    found = check_instances(segmenters.open_yolo(str(weights), threads=1)(np.zeros((96, 128, 3), np.uint8)))
    assert found.number == 1
    np.testing.assert_allclose(found.boxes[0], [32, 16, 96, 80], atol=2)
    assert found.masks[0, 48, 64] > 200


@pytest.mark.parametrize("name", ["yolo11n-seg.pt", "a/yolo_openvino_model", "x.engine", "y.onnx"])
def test_weights_that_are_not_there_are_named(name: str) -> None:
    assert segmenters.is_yolo(name)
    with pytest.raises(InputError, match="no YOLO weights at"):
        segmenters.open_yolo(name)


def test_a_models_name_is_no_yolo() -> None:
    assert not segmenters.is_yolo("segmenter")
    assert not segmenters.is_yolo("engines/segmenter")


def test_a_call_looks_with_the_yolo_it_was_given(tmp_path: Path) -> None:
    weights = write_yolo(tmp_path / "any-seg.onnx")
    options = CodecOptions(64, 64, preserve="person", framing=False, threads=1, segmenter=str(weights))
    sent = load_codec(options).sender(Spans(enabled=False)).encode(np.full((64, 64, 3), 90, np.uint8), 0, 0)
    assert (sent.people, sent.people_found, sent.kept_strength) == (1, 1, 1.0)


def test_who_is_gone_fades_and_the_message_says_so() -> None:
    seen: list[Instances] = [boxes_as_instances([(16, 16, 48, 64)], 64, 64)]
    eyes = SceneEyes(lambda picture: seen[-1], PictureFormat(64, 64), "all", framing=False)
    picture = np.zeros((64, 64, 3), np.uint8)
    first = eyes.look(picture)
    assert (first.people, first.found, first.strength) == (1, 1, 1.0)
    seen.append(nobody(64, 64))
    views = [eyes.look(picture) for _ in range(40)]
    strengths = [view.strength for view in views]
    assert strengths == sorted(strengths, reverse=True)
    assert any(0 < strength < 1 for strength in strengths)
    assert views[-1].strength == 0
    assert not views[-1].matte.any()
    assert not views[-1].keep.any()


@pytest.mark.parametrize(
    ("fps", "least", "most"),
    [(15.0, 31, 59), (None, 100, 100)],  # offline the same pictures make the same messages, however busy the machine
)
def test_a_slow_segmenter_is_asked_more_seldom_where_somebody_waits(
    monkeypatch: pytest.MonkeyPatch, fps: float | None, least: int, most: int
) -> None:
    calls = 0

    def slow(picture: npt.NDArray[np.uint8]) -> Instances:
        nonlocal calls
        calls += 1
        clock[0] += 0.05
        return keep_everything(picture)

    clock = [0.0]
    monkeypatch.setattr("streamgc.scene.observer.time.perf_counter", lambda: clock[0])
    eyes = SceneEyes(slow, PictureFormat(64, 64), "all", framing=False, fps=fps)
    views = [eyes.look(np.zeros((64, 64, 3), np.uint8)) for _ in range(100)]
    assert least <= calls <= most
    assert all(view.keep.all() for view in views)
