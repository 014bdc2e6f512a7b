"""The call's codec with knobs that turn while it runs: background mode, whom to keep, the mark on what is synthesised.

Changes are noted by the event loop and done by the codec's own thread before its next picture, so that the codec is
never touched from two threads.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np

from streamgc.call.codec import Codec
from streamgc.pipeline.call_codec import CallCodec
from streamgc.pipeline.eyes import SceneEyes
from streamgc.pipeline.settings import parse_background
from streamgc.profiling.spans import Spans
from streamgc.rtc.pictures import Encoded, Picture, PictureReceiver, PictureSender, Received, Shown
from streamgc.scene.policy import parse_policy

MARK_STEP = 6
"""Width in pixels of the stripes that mark synthesised regions."""
_MARK_COLOUR = np.array([0, 190, 160], np.uint16)


class LookedAt(SceneEyes):
    """Eyes that can say who is where in the last picture. They outlive a connection: who was ``id:1`` stays that."""

    def renew(self, preserve: str, spans: Spans) -> None:
        """For another connection: people keep their ids, what was kept is forgotten."""
        self._spans = spans
        self.set_preserve(preserve)
        self.reset()

    def person_at(self, x: float, y: float) -> int | None:
        """Id of the instance at (x, y) in 0..1 of the coded picture; None when nobody is there."""
        seen = self._observer.last
        if seen is None or not seen.number:
            return None
        height, width = seen.size
        column, row = min(width - 1, int(x * width)), min(height - 1, int(y * height))
        here = seen.masks[:, row, column]
        best = int(here.argmax())
        return int(seen.ids[best]) if here[best] >= 128 else None


class TurnableSender:
    """A `PictureSender` that does what it is told between two pictures."""

    def __init__(self, inner: PictureSender) -> None:
        self._inner = inner
        self._orders: deque[Callable[[], Any]] = deque()

    def order(self, action: Callable[[], Any]) -> None:
        """Have `action` done on the codec's thread before the next picture."""
        self._orders.append(action)

    def encode(self, frame: Picture, number: int, captured_at: int) -> Encoded:
        """See `PictureSender`."""
        while self._orders:
            self._orders.popleft()()
        return self._inner.encode(frame, number, captured_at)

    def feedback(self, data: bytes) -> None:
        """See `PictureSender`."""
        self._inner.feedback(data)

    def request_intra(self) -> None:
        """See `PictureSender`."""
        self._inner.request_intra()

    def set_rate(self, kbps: float, fps: float, burst: float = inf, narrow: bool = False) -> None:
        """See `PictureSender`."""
        self._inner.set_rate(kbps, fps, burst, narrow)


class MarkingReceiver:
    """A `PictureReceiver` that can stripe what was synthesised."""

    def __init__(self, inner: PictureReceiver, marked: Callable[[], bool]) -> None:
        self._inner, self._marked = inner, marked

    def receive(self, message: bytes, arrived_at: int) -> Received:
        """See `PictureReceiver`."""
        return self._inner.receive(message, arrived_at)

    def render(self) -> Shown | None:
        """See `PictureReceiver`."""
        shown: Any = self._inner.render()
        person = getattr(shown, "person", None)
        if person is not None and self._marked():
            shown = shown._replace(picture=stripe(shown.picture, person[..., 3]))
        rendered: Shown | None = shown
        return rendered


class AgentCodec:
    """Satisfies `Codec`; wraps the codec of the call."""

    def __init__(self, codec: Codec, background: str, preserve: str, framing: bool) -> None:
        """Raises `InputError` for a background or a policy that does not exist."""
        parse_background(background)
        parse_policy(preserve)
        self.background, self.preserve, self.mark = background, preserve, False
        self._codec, self._framing = codec, framing
        self._live: tuple[TurnableSender, Any] | None = None
        self._eyes: LookedAt | None = None

    @property
    def model_name(self) -> str:
        return self._codec.model_name

    @property
    def model_hash(self) -> str:
        return self._codec.model_hash

    @property
    def engine(self) -> str:
        return self._codec.engine

    @property
    def switchable(self) -> bool:
        """Whether background and people can be changed during a call."""
        return isinstance(self._codec, CallCodec)

    def sender(self, spans: Spans) -> PictureSender:
        """A sender with what is set now; later changes reach it."""
        codec = self._now()
        if not isinstance(codec, CallCodec):
            return codec.sender(spans)
        eyes = self._looking(codec, spans)
        inner = codec.sender(spans, eyes)
        turnable = TurnableSender(inner)
        self._live = (turnable, inner)
        return turnable

    def receiver(self, spans: Spans) -> PictureReceiver:
        """A receiver whose pictures can be marked."""
        return MarkingReceiver(self._codec.receiver(spans), lambda: self.mark)

    def conventional(self) -> Callable[[Picture], Picture] | None:
        """Fits pictures for VP8 by the mode and the policy of the moment."""
        made: dict[tuple[str, str], Callable[[Picture], Picture] | None] = {}

        def fit(picture: Picture) -> Picture:
            wanted = self.background, self.preserve
            if wanted not in made:
                made.clear()
                codec = self._now()
                if isinstance(codec, CallCodec):
                    made[wanted] = codec.conventional(self._looking(codec, Spans(enabled=False)))
                else:
                    made[wanted] = codec.conventional()
            convert = made[wanted]
            return np.full_like(picture, 128) if convert is None else convert(picture)

        return fit

    def set_background(self, mode: str) -> None:
        """Switch the background mode; raises `InputError`."""
        wanted = parse_background(mode)
        self.background = mode

        def switch(inner: Any, eyes: LookedAt) -> None:
            inner.set_background(wanted)
            eyes.reset()

        self._order(switch)

    def set_preserve(self, policy: str) -> None:
        """Keep other people; raises `InputError`."""
        parse_policy(policy)
        self.preserve = policy

        def turn(inner: Any, eyes: LookedAt) -> None:
            eyes.set_preserve(policy)
            inner.request_intra()  # keys, sent or on their way, show who is kept no longer

        self._order(turn)

    def pick(self, x: float, y: float) -> str:
        """Keep only the person at (x, y) of the coded picture, or everyone when nobody is there or that one is kept
        alone already; returns the policy."""
        number = None
        if self._eyes is not None:
            number = self._eyes.person_at(x, y)
        policy = "all" if number is None or self.preserve == f"id:{number}" else f"id:{number}"
        self.set_preserve(policy)
        return policy

    def _order(self, action: Callable[[Any, LookedAt], None]) -> None:
        """Have ``action(sender, eyes)`` done before the next picture, where one of ours is sending."""
        if self._live is not None and self._eyes is not None:
            (turnable, inner), eyes = self._live, self._eyes
            turnable.order(lambda: action(inner, eyes))

    def _looking(self, codec: CallCodec, spans: Spans) -> LookedAt:
        """The eyes, which are the same for every connection."""
        if self._eyes is None:
            models = codec.models
            self._eyes = LookedAt(
                models.segment(), models.format, self.preserve, self._framing, spans, codec.settings.fps
            )
        else:
            self._eyes.renew(self.preserve, spans)
        return self._eyes

    def _now(self) -> Codec:
        """The codec with the background of the moment."""
        codec = self._codec
        if isinstance(codec, CallCodec):
            settings = replace(
                codec.settings,
                background=parse_background(self.background),
                preserve=self.preserve,
                framing=self._framing,
            )
            return CallCodec(codec.models, settings)
        return codec


def stripe(picture: Picture, alpha: Picture) -> Picture:
    """`picture` (H, W, 3) with diagonal stripes where `alpha` u8 (H, W) is below one half."""
    height, width = alpha.shape
    rows, columns = np.ogrid[:height, :width]
    striped = ((rows + columns) // MARK_STEP % 2 == 0) & (alpha < 128)
    marked = picture.copy()
    marked[striped] = (picture[striped].astype(np.uint16) * 3 + _MARK_COLOUR) // 4
    return marked
