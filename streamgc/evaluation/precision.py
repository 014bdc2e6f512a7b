"""What fewer bits in the networks cost: the same pictures, keys and references through networks of two precisions.

Two calls, one of each precision, cannot be compared: a code that is a byte larger moves the next key by a frame, and
on a clip of two seconds that counts more than all rounding does. So one call is made with the finer networks, and
beside every code the one is kept that the coarser encoder would have sent in its place. Both are drawn, each by the
generator of its own precision, from the same key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgc.codec.code import code_bits
from streamgc.codec.message import Background
from streamgc.codec.symbols import Code
from streamgc.codec.tables import Tables
from streamgc.errors import InputError
from streamgc.evaluation.clips import Clip, Frame
from streamgc.evaluation.scores import Scorer
from streamgc.pipeline.background import over_room
from streamgc.pipeline.call_codec import CallCodec, LoadedModels
from streamgc.pipeline.keys import Key
from streamgc.pipeline.looking import View
from streamgc.pipeline.networks import KEPT, SYNTHESISED, EncoderNetwork, GeneratorNetwork, KeyFeatures, NetworkOptions
from streamgc.pipeline.offline import encode_pictures
from streamgc.pipeline.sender import Sender
from streamgc.pipeline.settings import BLANK, PictureFormat, SenderSettings
from streamgc.profiling.spans import Spans
from streamgc.runtime.engine import Precision

Picture = NDArray[np.uint8]


class Twin(NamedTuple):
    """What two encoders say about one picture."""

    fine: Code
    coarse: Code
    reference: Code | None
    age: int
    key: Key


class TwinSender(Sender):
    """A sender that notes, beside each of its codes, what another encoder would have sent in the same place."""

    def __init__(self, settings: SenderSettings, models: LoadedModels, other: EncoderNetwork) -> None:
        quiet = Spans(enabled=False)
        eyes = models.eyes(settings.preserve, settings.framing, quiet, None)
        super().__init__(settings, eyes, models.encoder(), models.tables, quiet)
        self._other = other
        self.twins: list[Twin] = []

    def _quantise(self, view: View, kept: Picture, key: Key, number: int) -> tuple[Code, Code | None, int]:
        code, reference, age = super()._quantise(view, kept, key, number)
        own = self._encoder, self._attention
        self._encoder = self._other
        try:
            coarse, _, _ = super()._quantise(view, kept, key, number)
        finally:
            self._encoder, self._attention = own  # what the other pays attention to chooses no key
        self.twins.append(Twin(code, coarse, reference, age, key))
        return code, reference, age


class _Artist:
    """Draws codes as a receiver does, over flat grey."""

    def __init__(self, generator: GeneratorNetwork) -> None:
        self._generator = generator
        self._features: tuple[Picture, KeyFeatures] | None = None

    def draw(self, code: Code, key: Key) -> Frame:
        if self._features is None or self._features[0] is not key.picture:
            self._features = key.picture, self._generator.features(key.picture)
        plane = np.where(code.keep, np.uint8(KEPT), np.uint8(SYNTHESISED))
        person = self._generator.generate(code, plane, self._features[1]).person
        return over_room(person, np.full((*person.shape[:2], 3), BLANK, np.uint8), True, 1)


class PrecisionCost(NamedTuple):
    """What a clip loses."""

    clip: str
    psnr: float
    """dB that the person loses; > 0: the coarser networks are worse."""
    alex: float
    """By which the AlexNet ST-LPIPS of the person grows."""
    bits: float
    """By which the codes grow, as a share."""
    flips: float
    """Share of the symbols sent that differ."""

    def __str__(self) -> str:
        return (
            f"{self.clip}: {self.psnr:+.3f} dB lost, ST-LPIPS {self.alex:+.4f}, codes {self.bits:+.1%}, "
            f"{self.flips:.1%} of the symbols differ"
        )


class PrecisionStudy:
    """Compares two precisions of the call model on clips of one size."""

    def __init__(
        self,
        scorer: Scorer,
        fine: Precision = "fp32",
        coarse: Precision = "int8",
        backend: str = "auto",
        side: int = 256,
    ) -> None:
        """Raises ModelError where there is no such model."""
        self._format, self._scorer = PictureFormat(side, side), scorer
        self._fine, self._coarse = (
            LoadedModels("lite", self._format, NetworkOptions(backend, precision)) for precision in (fine, coarse)
        )

    def cost(self, clip: Clip, kbps: float, ack_delay_ms: float = 130.0) -> PrecisionCost:
        """Of one clip (frames of the study's size) at a rate. Raises InputError where no scored frame holds a
        person."""
        if clip.frames[0].shape[:2] != (self._format.height, self._format.width):
            raise InputError(f"{clip.name}: pictures of {clip.frames[0].shape[1]}x{clip.frames[0].shape[0]}")
        settings = SenderSettings(self._format, clip.fps, kbps, Background.REPLACE, framing=False)
        sender = TwinSender(settings, self._fine, self._coarse.encoder())
        mirror = CallCodec(self._fine, settings).receiver(Spans(enabled=False))
        for _ in encode_pictures(clip.frames, sender, mirror, clip.fps, ack_delay_ms):
            pass
        fine = self._scored(clip, self._fine, [(twin.fine, twin.key) for twin in sender.twins])
        coarse = self._scored(clip, self._coarse, [(twin.coarse, twin.key) for twin in sender.twins])
        bits, flips = _difference(sender.twins, self._fine.tables)
        return PrecisionCost(clip.name, fine["psnr"] - coarse["psnr"], coarse["alex"] - fine["alex"], bits, flips)

    def _scored(self, clip: Clip, models: LoadedModels, codes: Sequence[tuple[Code, Key]]) -> dict[str, float]:
        artist = _Artist(models.generator())
        return self._scorer.person(clip, [artist.draw(code, key) for code, key in codes])


def _difference(twins: Sequence[Twin], tables: Tables) -> tuple[float, float]:
    """By which share the second codes are larger, and the share of symbols that differ."""
    first, second, differing, symbols = 0.0, 0.0, 0, 0
    for twin in twins:
        first += code_bits(twin.fine, twin.reference, twin.age, tables)
        second += code_bits(twin.coarse, twin.reference, twin.age, tables)
        differing += int((twin.fine.symbols != twin.coarse.symbols).sum())
        symbols += int((twin.fine.present | twin.coarse.present).sum())
    return second / max(first, 1.0) - 1, differing / max(1, symbols)


def mean_cost(costs: Sequence[PrecisionCost]) -> PrecisionCost:
    """Over clips, each counting alike."""
    means = [float(np.mean([cost[field] for cost in costs])) for field in range(1, len(PrecisionCost._fields))]
    return PrecisionCost(f"mean of {len(costs)}", *means)
