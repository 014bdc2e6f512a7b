"""scene.yolo: raw YOLO-seg outputs become instances, checked on made-up outputs and on a real network's where it is
present."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from streamgc.errors import BackendMissing, InputError, SceneError
from streamgc.scene.instances import check_instances
from streamgc.scene.labels import COCO_NAMES, Label
from streamgc.scene.yolo import Letterbox, RawYoloSegmenter, UltralyticsSegmenter, YoloSettings, letterbox, postprocess

SHARED = Path(__file__).resolve().parents[2] / "shared"
SMALL = YoloSettings(side=64)
PERSON, LAPTOP = 0, 63


def outputs(
    things: list[tuple[int, float, tuple[float, float, float, float]]], anchors: int = 50, side: int = 64
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Raw outputs that say these things (class, score, box as corners in the square): prototype 0 is positive
    everywhere."""
    predictions = np.zeros((1, 116, anchors), np.float32)
    for column, (kind, score, (x0, y0, x1, y1)) in enumerate(things):
        predictions[0, :4, 3 * column] = (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0
        predictions[0, 4 + kind, 3 * column] = score
        predictions[0, 84, 3 * column] = 8
    prototypes = np.zeros((1, 32, side // 4, side // 4), np.float32)
    prototypes[0, 0] = 1
    return predictions, prototypes


def test_things_come_out_as_they_went_in() -> None:
    raw = outputs([(PERSON, 0.9, (8, 16, 40, 64)), (LAPTOP, 0.6, (40, 40, 60, 60))])
    found = check_instances(postprocess(*raw, Letterbox(1.0, 0, 0), (64, 64), SMALL))
    assert found.classes.tolist() == [PERSON, LAPTOP]
    np.testing.assert_allclose(found.boxes, [[8, 16, 40, 64], [40, 40, 60, 60]])
    truth = np.zeros((64, 64), bool)
    truth[16:64, 8:40] = True
    mask = found.masks[0] > 127
    assert (mask & truth).sum() / (mask | truth).sum() > 0.85
    assert found.labels[2, 1] == Label.PERSON
    assert Label.SCREEN in found.labels


def test_the_letterbox_is_undone() -> None:
    frame = np.zeros((90, 160, 3), np.uint8)
    feed, fit = letterbox(frame, 64)
    assert (feed.shape, fit) == ((1, 3, 64, 64), Letterbox(0.4, 0, 14))
    assert feed[0, 0, 5, 5] == pytest.approx(114 / 255)
    raw = outputs([(PERSON, 0.9, (16, 14, 32, 50))])
    found = postprocess(*raw, fit, (90, 160), SMALL)
    np.testing.assert_allclose(found.boxes[0], [40, 0, 80, 90], atol=0.01)
    assert found.masks[0, 45, 60] > 200
    assert found.masks[0, 45, 110] == 0


def test_doubles_of_a_class_are_suppressed_and_of_two_classes_are_not() -> None:
    box = (8.0, 8.0, 40.0, 40.0)
    shifted = (9.0, 9.0, 41.0, 41.0)
    raw = outputs([(PERSON, 0.8, box), (PERSON, 0.9, shifted), (LAPTOP, 0.7, box)])
    found = postprocess(*raw, Letterbox(1.0, 0, 0), (64, 64), SMALL)
    assert found.classes.tolist() == [PERSON, LAPTOP]
    np.testing.assert_allclose(found.scores, [0.9, 0.7], atol=1e-6)


def test_the_end_to_end_form_of_yolo26_needs_no_suppression() -> None:
    table = np.zeros((1, 300, 38), np.float32)
    table[0, 0, :7] = 8, 16, 40, 64, 0.9, PERSON, 8
    _, prototypes = outputs([])
    found = postprocess(table, prototypes, Letterbox(1.0, 0, 0), (64, 64), SMALL)
    assert found.number == 1
    assert found.boxes[0].tolist() == [8, 16, 40, 64]


@pytest.mark.parametrize("number", [-1, 80, 1000])
def test_classes_beyond_coco_are_named(number: int) -> None:
    table = np.zeros((1, 300, 38), np.float32)
    table[0, 0, :7] = 8, 16, 40, 64, 0.9, number, 8
    with pytest.raises(SceneError, match="beyond COCO's 80"):
        postprocess(table, outputs([])[1], Letterbox(1.0, 0, 0), (64, 64), SMALL)


def test_nothing_found_is_nobody() -> None:
    assert postprocess(*outputs([]), Letterbox(1.0, 0, 0), (64, 64), SMALL).number == 0


def test_outputs_that_are_not_yolos_are_named() -> None:
    predictions, prototypes = outputs([(PERSON, 0.9, (8, 16, 40, 64))])
    fit = Letterbox(1.0, 0, 0)
    with pytest.raises(SceneError, match="'prototypes' has shape 1×16×16×16"):
        postprocess(predictions, prototypes[:, :16], fit, (64, 64), SMALL)
    with pytest.raises(SceneError, match="'predictions' holds NaN"):
        postprocess(predictions * np.nan, prototypes, fit, (64, 64), SMALL)
    with pytest.raises(SceneError, match="20 rows"):
        postprocess(predictions[:, :20], prototypes, fit, (64, 64), SMALL)

    class Foreign:
        def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
            return {"logits": np.zeros((1, 1000), np.float32)}

    with pytest.raises(SceneError, match="'logits'"):
        RawYoloSegmenter(Foreign())(np.zeros((64, 64, 3), np.uint8))


def test_without_ultralytics_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(BackendMissing, match=r"streamgc\[yolo\]"):
        UltralyticsSegmenter(tmp_path / "yolo.pt")


def ultralytics_or_skip() -> Any:
    """The package; skips where the extra, or something it needs, is not installed."""
    try:
        return importlib.import_module("ultralytics")
    except ImportError as error:
        pytest.skip(f"the [yolo] extra is not installed: {error}")


def random_weights(ultralytics: Any, name: str, folder: Path) -> Path:
    """A randomly initialised network that is sure of some things: as it is born, no score is above any threshold."""
    torch = importlib.import_module("torch")
    torch.manual_seed(3)
    model = ultralytics.YOLO(f"{name}.yaml", task="segment")
    model.model.names = dict(enumerate(COCO_NAMES))
    head = model.model.model[-1]
    with torch.no_grad():
        for branch in [*head.cv3, *(getattr(head, "one2one_cv3", None) or [])]:
            branch[-1].bias.copy_(torch.linspace(-6, 0, branch[-1].bias.numel()))
        for branch in [*head.cv4, *(getattr(head, "one2one_cv4", None) or [])]:
            branch[-1].bias.fill_(9)
        head.proto.cv3.bn.bias.fill_(1)
    weights = folder / f"{name}.pt"
    model.save(str(weights))
    return weights


@pytest.mark.parametrize("name", ["yolov8n-seg", "yolo11n-seg", "yolo26n-seg"])
def test_ultralytics_itself_with_random_weights(name: str, tmp_path: Path) -> None:
    ultralytics = ultralytics_or_skip()
    weights = random_weights(ultralytics, name, tmp_path)
    segment = UltralyticsSegmenter(weights, YoloSettings(score=0.01, side=64, most=3))
    found = check_instances(segment(np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8)))
    assert found.size == (90, 160)
    assert 1 <= found.number <= 3
    with pytest.raises(InputError, match="no YOLO weights"):
        UltralyticsSegmenter(tmp_path / "missing.pt")


def test_our_post_processing_is_ultralyticss() -> None:
    """Crowded made-up predictions through `postprocess`, and through the suppression and masks of Ultralytics."""
    ultralytics_or_skip()
    torch = importlib.import_module("torch")
    suppression = importlib.import_module("ultralytics.utils.nms").non_max_suppression
    masks_of = importlib.import_module("ultralytics.utils.ops").process_mask_native
    rng = np.random.default_rng(2)
    predictions = rng.uniform(0, 0.2, (1, 116, 200)).astype(np.float32)
    predictions[0, :2] = rng.uniform(30, 98, (2, 200))
    predictions[0, 2:4] = rng.uniform(20, 60, (2, 200))
    predictions[0, 4 + rng.choice([PERSON, LAPTOP], 200), np.arange(200)] = rng.uniform(0.1, 1, 200)
    predictions[0, 84:] = rng.normal(0, 1, (32, 200))
    prototypes = rng.normal(0, 1, (1, 32, 4, 4)).repeat(8, axis=2).repeat(8, axis=3).astype(np.float32)
    settings = YoloSettings(score=0.4, side=128, most=12)
    ours = postprocess(predictions, prototypes, Letterbox(1.0, 0, 0), (128, 128), settings)
    table = suppression(torch.from_numpy(predictions.copy()), 0.4, settings.overlap, max_det=12, nc=80)[0]
    assert ours.number == len(table) == 12
    assert ours.classes.tolist() == table[:, 5].tolist()
    np.testing.assert_allclose(ours.scores, table[:, 4], atol=1e-6)
    np.testing.assert_allclose(ours.boxes, table[:, :4], atol=1e-3)
    theirs = masks_of(torch.from_numpy(prototypes[0]), table[:, 6:], table[:, :4], (128, 128)).numpy() > 0
    # Theirs begin and end at whole pixels: one along the border of a box may differ.
    assert ((ours.masks > 127) & theirs).sum() >= 0.88 * ((ours.masks > 127) | theirs).sum()


class Tflite:
    """The real yolov8n-seg as an engine: batch 1, channels first."""

    def __init__(self, path: Path) -> None:
        interpreter = pytest.importorskip("ai_edge_litert.interpreter")
        self._network = interpreter.Interpreter(model_path=str(path), num_threads=1)
        self._network.allocate_tensors()

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        self._network.set_tensor(self._network.get_input_details()[0]["index"], feeds["images"])
        self._network.invoke()
        return {d["name"]: self._network.get_tensor(d["index"]) for d in self._network.get_output_details()}


def test_a_real_networks_outputs_find_the_person_of_the_photograph() -> None:
    weights = SHARED / "weights" / "yolov8n-seg_int8.tflite"
    stills = SHARED / "data" / "val" / "stills" / "ccp"
    if not weights.exists() or not stills.is_dir():
        pytest.skip("needs yolov8n-seg_int8.tflite and the CCP validation stills beside the checkout")
    from PIL import Image

    segment = RawYoloSegmenter(Tflite(weights), YoloSettings(score=0.3, normalised=True))
    scores = []
    for path in sorted(stills.glob("*.jpg"))[:4]:
        frame = np.asarray(Image.open(path).convert("RGB"))
        truth = np.asarray(Image.open(SHARED / "data" / "val" / "masks" / "ccp" / f"{path.stem}.png")) > 0
        found = check_instances(segment(frame))
        people = found.masks[found.classes == COCO_NAMES.index("person")]
        mask = people.max(axis=0) > 127
        scores.append((mask & truth).sum() / (mask | truth).sum())
    assert np.mean(scores) > 0.8
