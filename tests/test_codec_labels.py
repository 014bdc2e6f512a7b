"""Label maps: lossless, small, and any bytes survived."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgc.codec.labels import decode_labels, encode_labels, uses_previous
from streamgc.errors import BitstreamError
from tests.codec_strategies import GRIDS, quick
from tests.golden import label_map

Labels = np.ndarray


@st.composite
def label_maps(draw: st.DrawFn) -> tuple[Labels, Labels | None]:
    """A map of blocks or of noise, and one before it or none."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, columns = draw(st.sampled_from(GRIDS))
    block = draw(st.sampled_from([1, 3, 8]))
    coarse = rng.integers(0, draw(st.sampled_from([1, 3, 16])), (rows // block + 1, columns // block + 1))
    labels = np.kron(coarse, np.ones((block, block)))[:rows, :columns].astype(np.uint8)
    if draw(st.booleans()):
        return labels, None
    before = np.where(rng.random(labels.shape) < draw(st.sampled_from([0.0, 0.05, 1.0])), 5, labels).astype(np.uint8)
    return labels, before


@quick
@given(label_maps())
def test_round_trip(maps: tuple[Labels, Labels | None]) -> None:
    labels, before = maps
    payload = encode_labels(labels, before)
    rows, columns = labels.shape
    assert uses_previous(payload) == (before is not None)
    decoded = decode_labels(payload, (rows, columns), before)
    assert np.array_equal(decoded, labels)
    assert decoded.dtype == np.uint8


@quick
@given(st.binary(max_size=60), label_maps())
def test_any_bytes_give_a_map_or_one_error(data: bytes, maps: tuple[Labels, Labels | None]) -> None:
    rows, columns = maps[0].shape
    try:
        decoded = decode_labels(data, (rows, columns), maps[1])
    except BitstreamError:
        return
    assert decoded.shape == maps[0].shape
    assert decoded.max() < 16


def test_sizes() -> None:
    """A person, a wall and a sofa: few bytes at first, fewer when the person moves by a cell, two when nothing does."""
    labels = label_map()
    assert len(encode_labels(labels)) <= 20
    assert len(encode_labels(np.roll(labels, 1, axis=1), labels)) <= 16
    assert len(encode_labels(labels, labels)) <= 3
    noise = np.random.default_rng(0).integers(0, 16, (16, 16)).astype(np.uint8)
    assert len(encode_labels(noise)) <= 160


def test_a_difference_without_its_map_is_refused() -> None:
    labels = label_map()
    payload = encode_labels(np.roll(labels, 1, axis=0), labels)
    for before in (None, labels[:8]):
        with pytest.raises(BitstreamError, match="before"):
            decode_labels(payload, (16, 16), before)


@pytest.mark.parametrize("labels", [np.full((4, 4), 16, np.uint8), np.zeros(4, np.uint8), np.zeros((4, 4), int)])
def test_bad_maps_are_refused(labels: Labels) -> None:
    with pytest.raises(ValueError):
        encode_labels(labels)


@pytest.mark.parametrize("surplus", [b"\0", b"abcdef"])
def test_surplus_bytes_are_refused(surplus: bytes) -> None:
    with pytest.raises(BitstreamError):
        decode_labels(encode_labels(label_map()) + surplus, (16, 16))


def test_an_impossible_grid_is_refused() -> None:
    with pytest.raises(BitstreamError):
        decode_labels(b"", (0, 16))
