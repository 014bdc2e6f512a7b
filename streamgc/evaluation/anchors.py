"""AV1's measured points, kept in a file so that a new model of ours is judged without coding AV1 again.

The file is a JSON list of rows in the form of the published measurement (`clip`, `codec` = "svtav1-" + variant,
`target`, `frames`, `steady`, `start_excess_bytes`, `kbps`, `psnr`, `alex`, `vgg`) with the clip's digest and the
settings beside them; rows without those are taken for the default settings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from streamgc.errors import InputError
from streamgc.evaluation.clips import Clip
from streamgc.evaluation.metrics import Trunk
from streamgc.evaluation.ratio import Point, payload_rate
from streamgc.evaluation.rivals import conventional, variants
from streamgc.evaluation.scores import Scorer

TARGETS: tuple[float, ...] = (2, 4, 8, 12, 20)
"""The rates AV1 is asked for, in kbit/s, by the definition of R."""

Row = dict[str, Any]
Say = Callable[[str], None]


class Setting(NamedTuple):
    """What AV1's points depend on beside the clip."""

    size: int = 256
    fps: int = 15
    limit: int = 150
    preset: int = 6


def _silent(text: str) -> None:
    del text


def _matches(row: Row, name: str, digest: str | None, setting: Setting) -> bool:
    if any(row.get(field, default) != asked for field, default, asked in _fields(setting)):
        return False
    known = row.get("digest")
    return bool(row["clip"] == name) if known is None or digest is None else bool(known == digest)


def _fields(setting: Setting) -> list[tuple[str, int, int]]:
    return [(field, getattr(Setting(), field), getattr(setting, field)) for field in Setting._fields]


class Anchors:
    """The rows of an anchors file, read at once and rewritten whole when a clip has been added."""

    def __init__(self, path: str | Path | None = None) -> None:
        """Reads `path` if it exists; raises InputError where it is no list of rows."""
        self.path = Path(path) if path is not None else None
        self.rows: list[Row] = []
        if self.path is None or not self.path.exists():
            return
        try:
            rows = json.loads(self.path.read_text())
            self.rows = [row for row in rows if {"clip", "codec", "target", "kbps", "alex"} <= row.keys()]
        except (ValueError, AttributeError, TypeError) as error:
            raise InputError(f"{self.path}: no anchors file ({error})") from error

    def save(self) -> None:
        """Writes the file, if there is one, through a temporary name."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.partial")
        temporary.write_text(json.dumps(self.rows, indent=1) + "\n")
        temporary.replace(self.path)

    def of(self, name: str, digest: str | None = None, setting: Setting | None = None) -> list[Row]:
        """AV1's rows for one clip, by digest where both sides have one and by file name otherwise."""
        return [row for row in self.rows if _matches(row, name, digest, setting or Setting())]

    def curves(self, name: str, digest: str | None = None, setting: Setting | None = None) -> list[list[Point]]:
        """AV1's points for one clip, a list for each variant that has been measured."""
        curves: dict[str, list[Point]] = {}
        for row in self.of(name, digest, setting):
            curves.setdefault(row["codec"], []).append(Point(row["kbps"], row["alex"]))
        return list(curves.values())

    def complete(
        self,
        clip: Clip,
        scorer: Scorer,
        setting: Setting | None = None,
        targets: Sequence[float] = TARGETS,
        say: Say = _silent,
        trunks: Sequence[Trunk] = ("alex",),
    ) -> list[Row]:
        """Measures what is missing of one clip, saves if anything was, and returns all its rows.

        A row counts as missing until it holds every one of `trunks`; R needs AlexNet's only. A coding
        the encoder refuses is said and left out. Raises InputError where the clip shows no person.
        """
        asked = setting or Setting()
        codec = conventional("svtav1", asked.preset)
        added = False
        known = {(row["codec"], row["target"]): row for row in self.of(clip.name, clip.digest, asked)}
        for variant, given in variants(clip.frames, scorer.masks(clip.frames)).items():
            for target in targets:
                name = f"svtav1-{variant}"
                old = known.get((name, target))
                if old is not None and all(trunk in old for trunk in trunks):
                    continue
                try:
                    coded = codec.encode(given.frames, clip.fps, target)
                except InputError as error:
                    say(f"{clip.name} {name} {target:g}: {error}")
                    continue
                shown = [given.restore(picture) for picture in coded.frames]
                row = {
                    "clip": clip.name,
                    "codec": name,
                    "target": target,
                    "frames": len(clip.frames),
                    **payload_rate(coded.sizes, clip.fps)._asdict(),
                    **scorer.person(clip, shown),
                    "digest": clip.digest,
                    **asked._asdict(),
                }
                if old is not None:
                    self.rows.remove(old)
                self.rows.append(row)
                added = True
                say(json.dumps(row))
        if added:
            self.save()
        return self.of(clip.name, clip.digest, asked)
