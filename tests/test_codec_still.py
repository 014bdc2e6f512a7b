"""codec.still: single AV1 pictures come back, and one that asks for gigabytes is refused."""

import numpy as np
import pytest

from streamgc.codec.still import LARGEST, decode_still, encode_still
from streamgc.errors import BitstreamError


def test_a_still_comes_back() -> None:
    y, x = np.mgrid[:48, :64]
    picture = np.stack([4 * x, 5 * y, x + y], -1).astype(np.uint8)
    shown = decode_still(encode_still(picture, crf=30), 64, 48)
    assert np.abs(shown.astype(int) - picture).mean() < 4


def test_a_few_bytes_that_ask_for_a_huge_picture_are_refused() -> None:
    side = 3200
    assert side * side > LARGEST
    data = encode_still(np.full((side, side, 3), 90, np.uint8), crf=60, preset=10)
    assert len(data) < 4000
    with pytest.raises(BitstreamError):
        decode_still(data, 64, 64)


@pytest.mark.parametrize("data", [b"", b"\x00", bytes(200)])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(BitstreamError):
        decode_still(data, 64, 64)
