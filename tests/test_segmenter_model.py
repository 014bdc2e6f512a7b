"""engines/segmenter as it ships: complete, small, and it finds a person."""

import numpy as np
import pytest

from streamgc.runtime.store import ModelStore
from streamgc.scene.labels import LABEL_NAMES
from streamgc.scene.segmenter import Segmenter

pytest.importorskip("openvino")


def test_the_shipped_model_is_whole_small_and_says_its_labels() -> None:
    model = ModelStore().open("segmenter")
    assert model.extra("labels") == list(LABEL_NAMES)
    assert model.network("segmenter").stat().st_size < 3_200_000  # 1.5 million parameters in fp16
    assert model.card is not None
    assert model.licence is not None
    assert "research" in model.licence.read_text()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_shipped_model_runs_at_any_size_and_sees_nobody_in_grey(precision: str) -> None:
    model = ModelStore().open("segmenter")
    with model.load("segmenter", backend="openvino", precision=precision, threads=1) as engine:  # type: ignore[arg-type]
        segment = Segmenter(engine)
        for shape in ((256, 256, 3), (101, 203), (320, 180, 3)):
            found = segment(np.full(shape, 127, np.uint8))
            assert found.size == shape[:2]
            area = (found.masks > 127).any(axis=0).mean() if found.number else 0
            assert area < 0.05
