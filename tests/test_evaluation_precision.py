"""What networks of fewer bits cost: measured from the same keys and references."""

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")
pytest.importorskip("stlpips_pytorch")

from streamgc.call.sources import packaged_clip
from streamgc.errors import InputError
from streamgc.evaluation.clips import Clip, load_clip
from streamgc.evaluation.precision import PrecisionCost, PrecisionStudy, mean_cost
from streamgc.evaluation.scores import Scorer


def middle(frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
    mask = np.zeros(frame.shape[:2], bool)
    mask[40:, 60:200] = True
    return mask


@pytest.fixture(scope="module")
def clip() -> Clip:
    return load_clip(packaged_clip(), 256, 15, 22)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(middle, ("alex",))


def test_a_precision_costs_nothing_beside_itself(clip: Clip, scorer: Scorer) -> None:
    cost = PrecisionStudy(scorer, "fp32", "fp32", "openvino").cost(clip, 5)
    assert cost[1:] == (0, 0, 0, 0)


def test_int8_costs_the_packaged_clip_little_and_not_nothing(clip: Clip, scorer: Scorer) -> None:
    cost = PrecisionStudy(scorer, "fp32", "int8", "openvino").cost(clip, 5)
    assert cost.psnr <= 0.15
    assert cost.alex <= 0.003
    assert 0 < cost.flips < 0.05


def test_pictures_of_another_size_are_refused(scorer: Scorer) -> None:
    small = Clip("small", "0", [np.zeros((128, 128, 3), np.uint8)], 15)
    with pytest.raises(InputError, match="small: pictures of 128x128"):
        PrecisionStudy(scorer).cost(small, 5)


def test_the_mean_counts_every_clip_alike() -> None:
    mean = mean_cost([PrecisionCost("a", 0.1, 0.002, 0.02, 0.01), PrecisionCost("b", -0.1, 0.0, 0.0, 0.03)])
    assert mean.clip == "mean of 2"
    assert mean[1:] == pytest.approx((0, 0.001, 0.01, 0.02))
    assert "+0.000 dB" in str(mean)
