"""Keys twice as large as the code's picture: what both sides hold of them, and what is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from streamgc.call.codec import CodecOptions
from streamgc.call.sources import packaged_clip
from streamgc.codec.message import Background
from streamgc.codec.sections import PartKind
from streamgc.codec.still import KeyChainEncoder
from streamgc.errors import BitstreamError
from streamgc.pipeline.detail import doubled, fine_part, halved
from streamgc.pipeline.files import decode_stream, encode_clip
from streamgc.pipeline.keys import STARTS_CHAIN, KeyStore, key_of
from streamgc.pipeline.looking import View
from streamgc.pipeline.networks import NetworkOptions
from streamgc.pipeline.settings import SenderSettings
from tests.pipeline_fakes import FORMAT, BoxEyes, keeper, receiver, sender

Picture = NDArray[np.uint8]
HEIGHT, WIDTH = FORMAT.height, FORMAT.width


class LargeEyes(BoxEyes):
    """Sees one person in pictures twice as large as the code's, and counts how often those are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def look(self, picture: Picture) -> View:
        def large() -> Picture:
            self.asked += 1
            return picture

        return super().look(halved(picture))._replace(large=large)


def textured(count: int) -> list[Picture]:
    """Pictures of twice the code's size with a pattern of single pixels, which the code's size cannot show."""
    rows, columns = np.mgrid[: 2 * HEIGHT, : 2 * WIDTH]
    pattern = ((rows // 3 + columns) % 2 * 60).astype(np.uint8)
    return [np.repeat((pattern + 90 + 2 * number)[..., None], 3, -1).astype(np.uint8) for number in range(count)]


def test_the_small_key_is_the_mean_of_each_two_by_two() -> None:
    large = np.random.default_rng(1).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    expected = np.floor(large.reshape(3, 2, 4, 2, 3).mean((1, 3)) + 0.5)
    np.testing.assert_array_equal(halved(large), expected)


def test_what_is_fine_is_what_enlarging_the_small_picture_lacks() -> None:
    large = textured(1)[0]
    luma = large.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    small = luma.reshape(HEIGHT, 2, WIDTH, 2).mean((1, 3), dtype=np.float32)
    enlarged = np.asarray(Image.fromarray(small).resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.BICUBIC))
    fine = fine_part(large)
    assert fine.shape == (1, 1, 2 * HEIGHT, 2 * WIDTH)
    np.testing.assert_allclose(enlarged + fine[0, 0], luma, atol=1e-3)
    assert np.abs(fine).mean() > 20
    assert np.abs(fine_part(np.full_like(large, 77))).max() < 1e-3


def test_the_edge_of_the_mask_is_not_fine_structure() -> None:
    large = textured(1)[0]
    large[:, : 2 * 40] = 128
    fine = np.abs(fine_part(large)[0, 0])
    assert fine[:, : 2 * 40 + 2].max() == 0
    assert fine[:, 2 * 40 + 8 :].mean() > 20
    grey = np.where(textured(1)[0] > 100, 150, 106).astype(np.uint8)  # 128 in the mean, but not even
    assert np.abs(fine_part(grey)).mean() > 15


def test_a_blanking_mask_grows_pixel_by_pixel() -> None:
    matte = np.zeros((HEIGHT, WIDTH), np.uint8)
    matte[10:20, 30:50] = 255
    large = doubled(matte)
    assert large.shape == (2 * HEIGHT, 2 * WIDTH)
    assert (large > 0).sum() == 4 * (matte > 0).sum()
    assert (large[20:40, 60:100] == 255).all()


def test_a_key_has_the_code_s_size_or_twice_that() -> None:
    small, large = textured(1)[0][:HEIGHT, :WIDTH], textured(1)[0]
    assert key_of(1, small, FORMAT).large is None
    key = key_of(2, large, FORMAT)
    np.testing.assert_array_equal(key.picture, halved(large))
    assert key.large is large
    for wrong in ((HEIGHT, 2 * WIDTH, 3), (3 * HEIGHT, 3 * WIDTH, 3)):
        with pytest.raises(BitstreamError, match="a key of"):
            key_of(3, np.zeros(wrong, np.uint8), FORMAT)


def test_a_chain_of_another_size_is_refused_and_a_new_one_taken() -> None:
    store = KeyStore(FORMAT)
    wrong = KeyChainEncoder(3 * WIDTH, 3 * HEIGHT).encode(np.zeros((3 * HEIGHT, 3 * WIDTH, 3), np.uint8))
    with pytest.raises(BitstreamError, match="a key of"):
        store.accept(PartKind.KEY, 1, bytes((STARTS_CHAIN,)) + wrong)
    right = KeyChainEncoder(2 * WIDTH, 2 * HEIGHT).encode(textured(1)[0])
    store.accept(PartKind.KEY, 2, bytes((STARTS_CHAIN,)) + right)
    key = store.get(2)
    assert key is not None
    assert key.large is not None
    assert key.picture.shape == (HEIGHT, WIDTH, 3)


def test_a_call_shows_pictures_twice_as_large_with_the_pattern_of_the_key() -> None:
    eyes = LargeEyes()
    there, here = sender(eyes=eyes, fine=True, kbps=60), receiver()
    shown, plain = [], []
    other = receiver()
    small = sender(kbps=60)
    pictures = textured(12)
    for number, picture in enumerate(pictures):
        taken = here.receive(there.encode(picture, number).message)
        there.feedback(taken.feedback)
        shown.append(here.render())
        small.feedback(other.receive(small.encode(halved(picture), number).message).feedback)
        plain.append(other.render())
    first, last, flat = shown[0], shown[-1], plain[-1]
    assert first is not None
    assert last is not None
    assert flat is not None
    assert first.picture.shape == (HEIGHT, WIDTH, 3), "the coarse key is small"
    assert last.picture.shape == (2 * HEIGHT, 2 * WIDTH, 3)
    assert last.person.shape == (2 * HEIGHT, 2 * WIDTH, 4)
    assert flat.picture.shape == (HEIGHT, WIDTH, 3)
    assert eyes.asked < len(pictures), "only keys need the large picture"
    top, bottom, left, right = (2 * side for side in eyes.box)
    inside = np.s_[top + 8 : bottom - 8, left + 8 : right - 8]
    pattern = pictures[-1][inside].astype(float)
    told = last.picture[inside].astype(float)
    assert np.corrcoef(pattern.ravel(), told.ravel())[0, 1] > 0.9


def test_nothing_outside_the_mask_reaches_a_fine_key() -> None:
    def messages(outside: int) -> list[bytes]:
        eyes = LargeEyes()
        there, here = sender(eyes=eyes, fine=True, kbps=60), receiver()
        sent = []
        for number, picture in enumerate(textured(8)):
            changed = np.full_like(picture, outside)
            top, bottom, left, right = (2 * side for side in eyes.box)
            changed[top:bottom, left:right] = picture[top:bottom, left:right]
            message = there.encode(changed, number).message
            there.feedback(here.receive(message).feedback)
            sent.append(message)
        return sent

    assert messages(0) == messages(200)


def test_the_room_is_enlarged_once() -> None:
    room = keeper()
    small = room.picture(Background.PRIVATE)
    large = room.picture(Background.PRIVATE, 2)
    assert large.shape == (2 * HEIGHT, 2 * WIDTH, 3)
    assert room.picture(Background.PRIVATE, 2) is large
    assert abs(int(large.mean()) - int(small.mean())) <= 1


def test_the_settings_say_what_is_shown() -> None:
    assert SenderSettings(FORMAT).shown == (WIDTH, HEIGHT)
    assert SenderSettings(FORMAT, fine=True).shown == (2 * WIDTH, 2 * HEIGHT)


def test_a_stream_with_fine_keys_is_decoded_at_their_size(tmp_path: Path) -> None:
    options = CodecOptions(fine=True, framing=False, background="replace")
    assert options.shown == (512, 512)
    assert len(encode_clip(Path(packaged_clip()), tmp_path / "call.sgcv", options, 130.0, limit=8)) == 8
    assert decode_stream(tmp_path / "call.sgcv", tmp_path / "frames", "lite", NetworkOptions()) == 8
    sizes = {Image.open(path).size for path in (tmp_path / "frames").iterdir()}
    assert sizes == {(512, 512)}, "those before the first fine key, too"
