"""Label maps as vector graphics: exact coding, painting at any size, hostile bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamgc.codec.adaptive import BitCoder
from streamgc.codec.contours import (
    decode_contours,
    decode_graphic,
    encode_contours,
    encode_graphic,
    paint,
    vectorise,
)
from streamgc.errors import BitstreamError


def blobs(seed: int, height: int, width: int, count: int = 12) -> NDArray[np.uint8]:
    """Ellipses and rectangles over each other, the same scene at any size."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    y, x = (y + 0.5) / height, (x + 0.5) / width
    labels = np.zeros((height, width), np.uint8)
    for number in range(count):
        cy, cx, ry, rx = *random.random(2), *(0.05 + 0.2 * random.random(2))
        if number % 3:
            inside = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
        else:
            inside = (abs(y - cy) < ry) & (abs(x - cx) < rx)
        labels[inside] = random.integers(0, 9)
    return labels


def mean_iou(truth: NDArray[np.integer], shown: NDArray[np.integer]) -> float:
    scores = []
    for value in np.unique(truth):
        a, b = truth == value, shown == value
        scores.append((a & b).sum() / (a | b).sum())
    return float(np.mean(scores))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 14), st.integers(1, 14), st.integers(1, 5))
def test_without_simplification_any_map_comes_back_exactly(seed: int, height: int, width: int, values: int) -> None:
    labels = np.random.default_rng(seed).integers(0, values, (height, width)) * 7001
    payload = encode_contours(labels, tolerance=0, least_area=0)
    assert np.array_equal(decode_contours(payload, height, width), labels)
    twice = np.kron(labels, np.ones((2, 2), np.int64))
    assert np.array_equal(decode_contours(payload, 2 * height, 2 * width), twice)


@pytest.mark.parametrize("seed", range(4))
def test_the_simplified_graphic_is_coded_exactly(seed: int) -> None:
    graphic = vectorise(blobs(seed, 128, 256), steps=128)
    payload = encode_graphic(graphic)
    assert decode_graphic(payload) == graphic
    assert encode_graphic(decode_graphic(payload)) == payload


def test_scenes_cost_the_same_at_any_size_and_keep_their_shape() -> None:
    small, large = blobs(7, 512, 1024), blobs(7, 1024, 2048)
    payload, twin = (encode_contours(labels) for labels in (small, large))
    assert abs(len(twin) / len(payload) - 1) < 0.1
    assert len(payload) * 8 / small.size < 0.036
    assert mean_iou(small, decode_contours(payload, 512, 1024)) > 0.97
    assert mean_iou(large, decode_contours(payload, 1024, 2048)) > 0.97
    coarse = encode_contours(small, steps=128, tolerance=1.5)
    assert len(coarse) < len(payload)


def test_odd_sizes_and_single_values() -> None:
    assert decode_contours(encode_contours(np.full((3, 5), 9)), 7, 1).tolist() == [[9]] * 7
    labels = blobs(3, 333, 517)
    shown = decode_contours(encode_contours(labels), 333, 517)
    assert shown.shape == labels.shape
    assert mean_iou(labels, shown) > 0.95


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_give_a_map_or_an_error(payload: bytes) -> None:
    try:
        graphic = decode_graphic(payload)
    except BitstreamError:
        return
    assert set(np.unique(paint(graphic, 20, 30)).tolist()) <= set(graphic.palette)


def test_truncated_bytes_do_not_pass_for_the_whole() -> None:
    graphic = vectorise(blobs(5, 64, 64))
    payload = encode_graphic(graphic)
    for length in range(len(payload)):
        try:
            assert decode_graphic(payload[:length]) != graphic
        except BitstreamError:
            continue
    with pytest.raises(BitstreamError, match="longer"):
        decode_graphic(payload + b"\1\1\1")


def test_maps_that_cannot_be_coded() -> None:
    for labels in (np.zeros((0, 3), int), np.full((2, 2), -1), np.zeros((2, 2, 2), int), np.full((2, 2), 70000)):
        with pytest.raises(ValueError, match="label map"):
            encode_contours(labels)
    with pytest.raises(ValueError, match="steps"):
        encode_contours(np.zeros((2, 2), int), steps=0)


@given(st.lists(st.tuples(st.sampled_from("bnsc"), st.integers(-500, 500)), max_size=60))
def test_adaptive_bits_write_and_read_the_same(values: list[tuple[str, int]]) -> None:
    def run(coder: BitCoder, given: bool) -> list[int]:
        result = []
        for kind, value in values:
            shown = value if given else 0
            match kind:
                case "b":
                    result.append(coder.bit(abs(shown) & 1, "bit"))
                case "n":
                    result.append(coder.number(abs(shown), "number"))
                case "s":
                    result.append(coder.signed(shown, "signed"))
                case _:
                    result.append(coder.choice(abs(shown) % 7, 7, "choice"))
        return result

    writer = BitCoder()
    wrote = run(writer, True)
    reader = BitCoder(writer.finish())
    assert run(reader, False) == wrote
    reader.finish()
