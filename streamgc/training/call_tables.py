"""Fit the call model's context tables: code training clips as a call would, and count what was sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from streamgc.codec.code import decode_code
from streamgc.codec.message import Background, Kind, unpack
from streamgc.codec.symbols import MIXED
from streamgc.codec.tables import Tables, default_tables
from streamgc.pipeline.background import BackgroundKeeper
from streamgc.pipeline.budget import shares_for
from streamgc.pipeline.faces import FaceReader
from streamgc.pipeline.history import History
from streamgc.pipeline.looking import Eyes, View
from streamgc.pipeline.networks import EncoderNetwork, GeneratorNetwork
from streamgc.pipeline.offline import encode_pictures
from streamgc.pipeline.receiver import Receiver
from streamgc.pipeline.sender import Sender
from streamgc.pipeline.settings import PictureFormat, SenderSettings
from streamgc.training.call_samples import Cache, kept_of
from streamgc.training.tables import Sample, TableCounts, TableReport, measure_tables

FORMAT = PictureFormat(256, 256)
FPS = 15.0
RATES = (2.5, 3.5, 5.0, 7.0, 10.0, 20.0)
"""kbit/s at which clips are coded: tables see the λ of every rate."""
MIXED_SHARE = 0.4
"""Part of the clips that is coded mixed at whatever rate, so that the tables know such codes at every λ."""
ACK_DELAYS_MS = (70.0, 130.0, 200.0, 330.0)
"""References of several ages."""
MARGIN = 4


@dataclass(frozen=True)
class TableSettings:
    """How much is coded: ``segments`` pieces of ``frames`` frames, in ``passes`` rounds of coding and fitting."""

    segments: int = 40
    frames: int = 45
    passes: int = 2
    seed: int = 3


class MaskEyes:
    """Eyes that know the masks beforehand, in the order of the pictures."""

    def __init__(self, masks: Sequence[NDArray[np.uint8]]) -> None:
        self._masks = iter(masks)

    def look(self, picture: NDArray[np.uint8]) -> View:
        """``picture`` must have the size of its mask."""
        matte, cells = kept_of(next(self._masks), MARGIN)
        return View(picture, matte, cells, np.zeros(cells.shape, np.uint8), None, 1)


def samples_of(messages: Iterable[bytes], tables: Tables, grid: tuple[int, int] = FORMAT.grid) -> Iterator[Sample]:
    """Codes of a call's messages, with their references and ages."""
    history = History()
    for number, data in enumerate(messages):
        message = unpack(data)
        if message.kind is not Kind.PICTURE:
            continue
        found = history.get(number - message.age) if message.age else None
        reference = found.code if found else None
        code = decode_code(message.picture, grid, message.layout, reference, message.age, tables)
        history.put(number, code, message.key)
        yield code, reference, message.age


def fit_call_tables(
    cache: Cache,
    encoder: EncoderNetwork,
    generator: GeneratorNetwork,
    settings: TableSettings,
    faces: FaceReader | None = None,
) -> tuple[Tables, TableReport]:
    """Tables of an encoder, and what they save on segments that they were not fitted on. ``faces``: those to which keys
    are moved, as in a call; None: none are."""
    random = np.random.default_rng(settings.seed)
    tables = default_tables()
    held_out: list[Sample] = []
    for _ in range(settings.passes):
        counts = TableCounts()
        held_out = []
        for index in range(settings.segments):
            sender = _sender(encoder, tables, faces, random)
            messages = _code_segment(cache, sender, generator, tables, settings.frames, random)
            samples = list(samples_of(messages, tables))
            if index % 8 == 7:
                held_out += samples
                continue
            for sample in samples:
                counts.add(*sample)
        tables = counts.fit()
    return tables, measure_tables(held_out, tables)


def _sender(
    encoder: EncoderNetwork, tables: Tables, faces: FaceReader | None, random: np.random.Generator
) -> Callable[[Eyes], Sender]:
    """A sender at one of `RATES`, for what its eyes see."""
    rate = float(random.choice(RATES))
    settings = SenderSettings(FORMAT, FPS, rate, Background.REPLACE, framing=False)
    usual = shares_for(rate)
    shares = replace(usual, layout=MIXED if random.random() < MIXED_SHARE else usual.layout)
    return lambda eyes: Sender(settings, eyes, encoder, tables, shares=shares, faces=faces)


def _code_segment(
    cache: Cache,
    sender: Callable[[Eyes], Sender],
    generator: GeneratorNetwork,
    tables: Tables,
    frames: int,
    random: np.random.Generator,
) -> list[bytes]:
    clip = int(random.integers(len(cache.starts) - 1))
    first, last = int(cache.starts[clip]), int(cache.starts[clip + 1])
    start = int(random.integers(first, max(first + 1, last - frames)))
    stop = min(start + frames, last)
    room = BackgroundKeeper(FORMAT, lambda labels, seed: np.zeros((FORMAT.height, FORMAT.width, 3), np.uint8))
    mirror = Receiver(FORMAT, generator, tables, room)
    looking = sender(MaskEyes(cache.masks[start:stop]))
    coded = encode_pictures(cache.frames[start:stop], looking, mirror, FPS, float(random.choice(ACK_DELAYS_MS)))
    return [frame.message for frame in coded]
