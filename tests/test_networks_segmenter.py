"""The segmenter's network: its size, its outputs, and the graph that is exported."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch", reason="the [train] extra is not installed")

from streamgc.networks.segmenter import Segmenter, SegmenterGraph, at_twice_the_size, parameter_count  # noqa: E402
from streamgc.scene.instances import check_instances  # noqa: E402
from streamgc.scene.labels import LABEL_COUNT  # noqa: E402
from streamgc.scene.segmenter import Segmenter as SceneSegmenter  # noqa: E402
from streamgc.training.segmenter_ship import OUTPUTS  # noqa: E402


def test_the_network_is_small_and_gives_what_it_says() -> None:
    network = Segmenter().eval()
    assert parameter_count(network) <= 1_500_000
    for height, width in ((64, 96), (80, 48)):
        with torch.no_grad():
            out = network(torch.rand(2, 3, height, width))
        assert out.matte.shape == (2, 1, height, width)
        assert out.centre.shape == (2, 1, height // 4, width // 4)
        assert out.offset.shape == (2, 2, height // 4, width // 4)
        assert out.labels.shape == (2, LABEL_COUNT, height // 16, width // 16)


def test_a_kernel_for_half_the_size_does_the_same_on_the_whole_picture() -> None:
    generator = torch.Generator().manual_seed(3)
    picture, kernel = torch.randn(1, 3, 32, 48, generator=generator), torch.randn(4, 3, 3, 3, generator=generator)
    halved = torch.nn.functional.avg_pool2d(picture, 2)
    expected = torch.nn.functional.conv2d(halved, kernel, stride=2)
    torch.testing.assert_close(
        torch.nn.functional.conv2d(picture, at_twice_the_size(kernel), stride=4), expected, rtol=1e-4, atol=1e-4
    )


def test_the_exported_graph_speaks_the_scenes_interface() -> None:
    graph = SegmenterGraph(Segmenter().eval()).eval()

    class Torch:
        def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
            with torch.no_grad():
                answer = graph(torch.from_numpy(feeds["frame"].copy()))
            return dict(zip(OUTPUTS, (a.numpy() for a in answer), strict=True))

    frame = np.random.default_rng(0).integers(0, 255, (100, 90, 3), dtype=np.uint8)
    check_instances(SceneSegmenter(Torch(), size=(96, 96))(frame))
