"""Channels cell by cell: what G is told is there, what an error in each costs, and a mixed call from end to end."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from streamgc.codec.message import unpack
from streamgc.codec.symbols import MIXED, Code, make_code
from streamgc.errors import ModelError
from streamgc.pipeline.budget import Shares
from streamgc.pipeline.call_codec import LoadedModels
from streamgc.pipeline.networks import CHANNEL_WEIGHTS, EncoderNetwork, GeneratorNetwork, KeyFeatures, NetworkOptions
from streamgc.pipeline.offline import encode_pictures
from streamgc.pipeline.sender import Sender
from streamgc.pipeline.settings import SenderSettings
from streamgc.runtime.store import Model
from tests.pipeline_fakes import FORMAT, TABLES, BoxEyes, FakeEncoder, FakeReference, receiver

Arrays = Mapping[str, NDArray[np.generic]]


class Noting:
    """A generator that keeps what it is fed."""

    def __init__(self) -> None:
        self.feeds: Arrays = {}

    def run(self, feeds: Arrays) -> dict[str, NDArray[np.generic]]:
        self.feeds = dict(feeds)
        return {"picture": np.zeros((1, 32, 48, 4), np.uint8), "flow": np.zeros((1, 2, 4, 6), np.float32)}


def test_the_generator_is_told_which_channels_are_there() -> None:
    noting = Noting()
    network = GeneratorNetwork(FakeReference(), noting)
    empty = np.zeros((1, 1, 1, 1), np.float32)
    key = KeyFeatures(np.zeros((32, 48, 3), np.uint8), empty, empty, empty)
    keep, rich = np.ones((2, 3), bool), np.zeros((2, 3), bool)
    rich[1, 2] = True
    network.generate(make_code(np.ones((8, 2, 3)), keep, rich), np.ones((2, 3), np.uint8), key)
    present = noting.feeds["present"]
    assert present.shape == (1, 8, 2, 3)
    assert (present[0, :2] == 1).all()
    assert np.array_equal(present[0, 7] == 1, rich)
    assert np.array_equal(noting.feeds["symbols"][0, 5] == 1, rich)
    network.generate(make_code(np.ones((4, 2, 3)), keep), np.ones((2, 3), np.uint8), key)
    assert noting.feeds["present"].sum(axis=(0, 2, 3)).tolist() == [6] * 4 + [0] * 4


class BusyEncoder(FakeEncoder):
    """Something new in the left upper corner of the box, that takes all channels to say."""

    def run(self, feeds: Arrays) -> dict[str, NDArray[np.generic]]:
        latent = super().run(feeds)["latent"]
        latent[0, 2:, 2:4, 3:5] = 2.0
        return {"latent": latent}


def mixed_call(weights: list[float] | None) -> list[bytes]:
    encoder = EncoderNetwork(BusyEncoder(), weights)
    settings = SenderSettings(FORMAT, 15.0, 8.0, framing=False)
    sender = Sender(settings, BoxEyes(), encoder, TABLES, shares=Shares(MIXED, 0.3, 50))
    pictures = [np.full((FORMAT.height, FORMAT.width, 3), 100 + 3 * i, np.uint8) for i in range(12)]
    return [frame.message for frame in encode_pictures(pictures, sender, receiver(), 15.0, 130.0)]


def test_a_mixed_call_is_understood_and_rich_only_where_it_pays() -> None:
    there = receiver()
    messages = mixed_call(None)
    for message in messages:
        there.receive(message)
        assert there.render() is not None
    assert {unpack(message).layout for message in messages} == {MIXED}
    code = there._history.get(len(messages) - 1)
    assert code is not None
    rich = code[0].rich
    assert rich is not None
    assert rich[2:4, 3:5].all()
    assert rich.sum() == 4


def test_channels_whose_errors_cost_nothing_are_not_sent() -> None:
    there = receiver()
    for message in mixed_call([1.0, 1.0] + [0.001] * 6):
        there.receive(message)
    found = there._history.get(11)
    assert found is not None
    assert found[0].rich is not None
    assert not found[0].rich.any()


class AttentiveEncoder(FakeEncoder):
    """Says where eyes and mouth are."""

    def run(self, feeds: Arrays) -> dict[str, NDArray[np.generic]]:
        out = super().run(feeds)
        attention = np.zeros((1, 1, *out["latent"].shape[2:]), np.float32)
        attention[0, 0, 3, 4] = 0.9
        return {**out, "attention": attention}


def test_an_encoder_may_say_where_eyes_and_mouth_are() -> None:
    picture = np.full((FORMAT.height, FORMAT.width, 3), 100, np.uint8)
    matte = np.full(picture.shape[:2], 255, np.uint8)
    silent = EncoderNetwork(FakeEncoder())(picture, matte, picture)
    assert silent.attention.shape == silent.latent.shape[1:] == FORMAT.grid
    assert not silent.attention.any()
    found = EncoderNetwork(AttentiveEncoder())(picture, matte, picture)
    assert found.attention[3, 4] == np.float32(0.9)
    np.testing.assert_array_equal(found.latent, silent.latent)


class Saying(FakeEncoder):
    """Says this of attention."""

    def __init__(self, said: NDArray[np.float32]) -> None:
        self._said = said

    def run(self, feeds: Arrays) -> dict[str, NDArray[np.generic]]:
        return {**super().run(feeds), "attention": self._said}


def test_attention_that_is_none_is_put_right_or_refused() -> None:
    picture = np.full((FORMAT.height, FORMAT.width, 3), 100, np.uint8)
    matte = np.full(picture.shape[:2], 255, np.uint8)
    said = np.full((1, 1, *FORMAT.grid), 7.0, np.float32)
    said[0, 0, 0, 0], said[0, 0, 1, 1] = np.nan, -3
    found = EncoderNetwork(Saying(said))(picture, matte, picture).attention
    assert (found[0, 0], found[1, 1], found[2, 2]) == (0, 0, 1)
    with pytest.raises(ModelError, match="attention"):
        EncoderNetwork(Saying(said[..., 1:]))(picture, matte, picture)


def code_of(encoder: FakeEncoder, shares: Shares, strength: float) -> Code:
    """The last code of three still pictures, sent at this λ, as a receiver has it."""
    sender = Sender(
        SenderSettings(FORMAT, 15.0, 8.0, framing=False), BoxEyes(), EncoderNetwork(encoder), TABLES, shares=shares
    )
    sender._budget.strength = strength
    there = receiver()
    pictures = [np.full((FORMAT.height, FORMAT.width, 3), 100, np.uint8)] * 3
    for frame in encode_pictures(pictures, sender, receiver(), 15.0, 130.0):
        there.receive(frame.message)
    found = there._history.get(2)
    assert found is not None
    return found[0]


def test_a_call_sends_what_the_mouth_does_before_what_a_sleeve_does() -> None:
    """Both change alike, and there are bits for little: the one that is attended to is sent."""

    class Both(FakeEncoder):
        def run(self, feeds: Arrays) -> dict[str, NDArray[np.generic]]:
            out = super().run(feeds)
            latent = np.zeros_like(out["latent"])
            latent[0, 0, 2, 3] = latent[0, 0, 2, 6] = 1.0
            attention = np.zeros((1, 1, *FORMAT.grid), np.float32)
            attention[0, 0, 2, 3] = 1.0
            return {"latent": latent, "attention": attention}

    code = code_of(Both(), Shares(2, 0.3, 50, face_care=12), strength=1.0)
    assert code.symbols[0, 2, 3] == 1
    assert code.symbols[0, 2, 6] == 0


@pytest.mark.parametrize("only_faces", [False, True])
def test_where_bits_are_scarce_only_eyes_and_mouth_are_rich(only_faces: bool) -> None:
    class Everywhere(FakeEncoder):
        def run(self, feeds: Arrays) -> dict[str, NDArray[np.generic]]:
            latent = super().run(feeds)["latent"]
            latent[0, 2:, 2:6, 3:7] = 2.0
            attention = np.zeros((1, 1, *FORMAT.grid), np.float32)
            attention[0, 0, 3, 4] = 0.8
            return {"latent": latent, "attention": attention}

    rich = code_of(Everywhere(), Shares(MIXED, 0.3, 50, rich_faces=only_faces), strength=0.3).rich
    assert rich is not None
    assert rich[3, 4]
    assert (rich.sum() == 1) == only_faces


@pytest.mark.parametrize("said", [[1.0] * 7, [1.0] * 7 + [0], "all", [1.0] * 7 + ["a"]])
def test_wrong_channel_weights_are_refused(said: object, monkeypatch: pytest.MonkeyPatch) -> None:
    models = LoadedModels("lite", FORMAT, NetworkOptions(threads=1))
    monkeypatch.setattr(Model, "extra", lambda model, key: said if key == CHANNEL_WEIGHTS else None)
    with pytest.raises(ModelError, match=CHANNEL_WEIGHTS):
        models.encoder()


def test_a_model_that_says_nothing_of_its_channels_weighs_them_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    models = LoadedModels("lite", FORMAT, NetworkOptions(threads=1))
    monkeypatch.setattr(Model, "extra", lambda model, key: None)
    assert models.encoder().weights.ravel().tolist() == [1.0] * 8
