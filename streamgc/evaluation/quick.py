"""R in a minute, to steer training: five clips, few rates, one trunk, AV1's points from the anchors file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from streamgc.errors import InputError
from streamgc.evaluation.anchors import Anchors, Setting
from streamgc.evaluation.call import OURS, TOLERANCE, summarise
from streamgc.evaluation.clips import load_clip
from streamgc.evaluation.ratio import Point, payload_rate, ratio
from streamgc.evaluation.rivals import ClipCodec, Coded
from streamgc.evaluation.scores import PersonSource, Scorer

QUICK_CLIPS = ("carphone", "__d9.", "akiyo", "gestures__bird", "sbia1a")
"""Parts of the names of the clips that are measured: a car, a close head, a newsreader, signing, a speaker."""


class QuickResult(NamedTuple):
    """`r` as `R` of the full evaluation; `rows` have clip, rate, kbps, psnr, alex, r and where."""

    r: dict[str, Any]
    rows: list[dict[str, Any]]

    def __str__(self) -> str:
        lines = [
            f"{row['clip'][-28:]:28s} {row['rate']:4g} kbps: {row['kbps']:6.2f} kbps  {row['psnr']:5.2f} dB  "
            f"alex {row['alex']:.4f}  R {row['r']:.2f} ({row['r_where']})"
            for row in self.rows
        ]
        return "\n".join([*lines, f"R {self.r['geomean']}  by rate {self.r['by_rate']}"])


class QuickRatio:
    """The five clips and the instruments, loaded once; call it with a codec as often as one likes."""

    def __init__(
        self,
        folder: str | Path,
        selfie: PersonSource,
        anchors: str | Path,
        clips: Sequence[str] = QUICK_CLIPS,
        setting: Setting | None = None,
    ) -> None:
        """Loads the clips of `folder` whose names contain one of `clips`; AV1 is measured where `anchors` lacks it.

        Raises InputError where the folder has none of them.
        """
        self.setting = setting or Setting()
        paths = [path for part in clips for path in sorted(Path(folder).iterdir()) if part in path.name]
        if not paths:
            raise InputError(f"{folder}: none of {', '.join(clips)} in it")
        self.clips = [load_clip(path, self.setting.size, self.setting.fps, self.setting.limit) for path in paths]
        self.scorers = [Scorer(selfie, ("alex",)) for _ in self.clips]
        self.anchors = Anchors(anchors)
        for clip, scorer in zip(self.clips, self.scorers, strict=True):
            self.anchors.complete(clip, scorer, self.setting)

    def __call__(self, codec: ClipCodec, rates: Sequence[float] = (3, 5, 10), ack_delay_ms: float = 130) -> QuickResult:
        """R of `codec` at `rates` in kbit/s; raises what the codec raises, and InputError for other sizes."""
        rows: list[dict[str, Any]] = []
        for clip, scorer in zip(self.clips, self.scorers, strict=True):
            curves = self.anchors.curves(clip.name, clip.digest, self.setting)
            for rate in rates:
                coded = Coded(*codec.encode(clip.frames, clip.fps, rate, ack_delay_ms))
                payload = payload_rate(coded.sizes, clip.fps)
                scores = scorer.person(clip, coded.frames)
                found = ratio(curves, Point(payload.kbps, scores["alex"]))
                row = {"clip": clip.name, "codec": OURS, "rate": rate, **payload._asdict(), **scores}
                row |= {"r": found.r, "av1_kbps": found.anchor_kbps, "r_where": found.where}
                rows.append(row | {"on_rate": abs(payload.kbps / rate - 1) <= TOLERANCE})
        return QuickResult(summarise(rows), rows)
