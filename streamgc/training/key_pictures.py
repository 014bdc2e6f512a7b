"""Coded key pictures for training: what the receiver's key looks like at the rates of a call.

The call sends keys as an AV1 chain (``pipeline/keys.py``); training must see the same artefacts, so it uses the same
coder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from streamgc.codec.still import KeyChainDecoder, KeyChainEncoder, decode_still, encode_still

Picture = NDArray[np.uint8]


def coded_chain(pictures: Iterable[Picture], crf: int) -> Iterator[Picture]:
    """Code ``pictures`` (H, W, 3) as one chain at constant quality ``crf``; yield what the receiver shows."""
    encoder: KeyChainEncoder | None = None
    decoder = KeyChainDecoder()
    for picture in pictures:
        if encoder is None:
            encoder = KeyChainEncoder(picture.shape[1], picture.shape[0], crf=crf)
        yield decoder.decode(encoder.encode(picture))


def coded_still(picture: Picture, crf: int, shrink: int = 1) -> Picture:
    """Code one picture by itself; with ``shrink`` = 2 at half size, scaled back up (the coarse key)."""
    return decode_still(encode_still(picture, crf=crf, shrink=shrink), picture.shape[1], picture.shape[0])
