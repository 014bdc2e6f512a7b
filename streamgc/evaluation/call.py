"""The record of a call: every codec on every clip at the call's rates, and R against AV1."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from streamgc.errors import BackendMissing, InputError, StreamGCError
from streamgc.evaluation.anchors import TARGETS, Anchors, Row, Setting
from streamgc.evaluation.cache import RowCache
from streamgc.evaluation.clips import Clip, Frame, load_clip, read_decoded
from streamgc.evaluation.identity import FaceIdentity
from streamgc.evaluation.metrics import Trunk
from streamgc.evaluation.plots import Sheet, plot_call, write_contact_sheet, write_side_by_side
from streamgc.evaluation.ratio import Point, bd_rate, geometric_mean, payload_rate, ratio, wire_sizes
from streamgc.evaluation.rivals import ClipCodec, Coded, ConventionalCodec, coded_at, conventional
from streamgc.evaluation.scores import FIRST, PersonSource, Scorer, without_nan

OURS = "sgc"
CODECS = (OURS, "svtav1", "vp9", "x265", "x264", "vp8")
RATES: tuple[float, ...] = (3, 5, 7, 10)
TOLERANCE = 0.1
"""How far the actual payload may lie from the rate asked for."""
FACES_EVERY = 2
"""Faces are compared on every second picture: on every eighth, clips of 25 pictures have two or three, and a share of
them is luck."""


@dataclass(frozen=True)
class CallResult:
    """What `evaluate_call` found; `rows` has one dictionary for each clip, codec and rate."""

    r: dict[str, Any]
    rows: list[Row]
    bd_rates: dict[str, dict[str, float | None]]
    settings: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    anchors: list[Row] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The document that is written: `R`, `rows`, `bd_rate`, `anchors`, `settings`, `notes`."""
        return {
            "R": self.r,
            "rows": self.rows,
            "bd_rate": self.bd_rates,
            "settings": self.settings,
            "notes": self.notes,
            "anchors": self.anchors,
        }

    def write_json(self, path: str | Path) -> None:
        """Writes the document through a temporary name."""
        _replace(Path(path), json.dumps(self.as_json(), indent=1, allow_nan=False) + "\n")

    def write_csv(self, path: str | Path) -> None:
        """Writes the rows, a column for every field any row has, through a temporary name."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        temporary = target.with_name(f".{target.name}.partial")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)
        temporary.replace(target)


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text)
    temporary.replace(path)


def our_codec(fine: bool = False, model: str = "lite") -> ClipCodec:
    """The call's own codec: `OfflineCodec` of `streamgc.pipeline.offline`; ``fine`` and ``model`` as there.

    Raises BackendMissing in an installation that has none.
    """
    try:
        maker = importlib.import_module("streamgc.pipeline.offline").OfflineCodec
    except (ImportError, AttributeError) as error:
        raise BackendMissing(f"the sgc codec is not available here ({error})") from error
    return cast(ClipCodec, maker(model, fine=fine))


class _Evaluation:
    """One run of `evaluate_call`: the instruments, the codecs and what has been found so far."""

    def __init__(
        self,
        codecs: Mapping[str, ClipCodec],
        rates: Sequence[float],
        ack_delay_ms: float,
        scorer: Scorer,
        anchors: Anchors,
        cache: RowCache,
        setting: Setting,
        say: Callable[[str], None],
    ) -> None:
        self.codecs, self.rates, self.ack_delay_ms = codecs, rates, ack_delay_ms
        self.scorer, self.anchors, self.cache, self.setting, self.say = scorer, anchors, cache, setting, say
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self.identity: FaceIdentity | None = None
        try:
            self.identity = FaceIdentity()
        except BackendMissing as error:
            self.notes.append(f"not measured: {error}")

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.say(text)

    def code(self, name: str, clip: Clip, rate: float) -> tuple[Coded, float]:
        """Ours is asked for the rate itself; the others until their actual payload is near it."""
        codec = self.codecs[name]
        if name == OURS:
            coded, asked = Coded(*codec.encode(clip.frames, clip.fps, rate, self.ack_delay_ms)), rate
        else:
            coded, asked = coded_at(codec, clip.frames, clip.fps, rate, self.ack_delay_ms)
        if len(coded.frames) != len(clip.frames):
            raise InputError(f"{len(coded.frames)} pictures for {len(clip.frames)} frames")
        return coded, asked

    def measure(self, name: str, clip: Clip, rate: float, coded: Coded, asked: float) -> Row:
        """All that is measured of one coding; what is not known or not measured is None."""
        payload = payload_rate(coded.sizes, clip.fps)
        row: Row = {
            "clip": clip.name,
            "codec": name,
            "rate": rate,
            "target": asked,
            "frames": len(coded.frames),
            **payload._asdict(),
            "on_rate": abs(payload.kbps / rate - 1) <= TOLERANCE,
            "wire_kbps": payload_rate(wire_sizes(coded.sizes), clip.fps).kbps,
            **self.scorer.person(clip, coded.frames),
            **self.scorer.more(clip, coded.frames),
            "encode_ms": _rounded(coded.encode_ms),
            "decode_ms": _rounded(coded.decode_ms),
        }
        if self.identity is not None:
            row |= self.identity.compare(clip.frames[FIRST::FACES_EVERY], coded.frames[FIRST::FACES_EVERY])
        return without_nan(row)

    def key(self, name: str, clip: Clip, rate: float) -> str | None:
        """What a conventional codec's row depends on; None for a codec that has no settled settings."""
        codec = self.codecs[name]
        if not isinstance(codec, ConventionalCodec):
            return None
        measured = [*self.scorer.trunks, *(["identity", "expression"] if self.identity is not None else [])]
        options = sorted(codec.settings.options.items())
        return json.dumps([clip.digest, name, rate, *self.setting, codec.settings.encoder, options, measured])

    def with_ratio(self, clip: Clip, row: Row) -> Row:
        """The row with R, AV1's payload at its score, and where in AV1's range that score lies."""
        curves = self.anchors.curves(clip.name, clip.digest, self.setting)
        found = ratio(curves, Point(row["kbps"], row["alex"]))
        return row | {"r": found.r, "av1_kbps": found.anchor_kbps, "r_where": found.where}

    def one(self, name: str, clip: Clip, rate: float, pictures: bool) -> tuple[Row, list[Frame]]:
        """The row of one coding, from the cache if it is known, and its pictures if they are wanted."""
        key = self.key(name, clip, rate)
        row = self.cache.get(key) if key is not None else None
        if row is not None and not pictures:
            return self.with_ratio(clip, row), []
        if row is not None:
            shown = Coded(*self.codecs[name].encode(clip.frames, clip.fps, row["target"], self.ack_delay_ms)).frames
            return self.with_ratio(clip, row), shown
        coded, asked = self.code(name, clip, rate)
        row = self.measure(name, clip, rate, coded, asked)
        if key is not None:
            self.cache.put(key, row)
        return self.with_ratio(clip, row), coded.frames

    def clip(self, clip: Clip, sheet_rate: float | None) -> Sheet:
        """Measures one clip; returns the pictures of every codec at the rate that is shown side by side, if any."""
        self.anchors.complete(clip, self.scorer, self.setting, say=self.say)
        sheet = Sheet(clip.name, clip.frames, clip.fps, [])
        for name in self.codecs:
            for rate in self.rates:
                try:
                    row, pictures = self.one(name, clip, rate, rate == sheet_rate)
                except StreamGCError as error:
                    self.note(f"{clip.name} {name} {rate:g} kbps: {error}")
                    continue
                self.rows.append(row)
                self.say(f"{clip.name} {name}: {row['kbps']} kbps, ST-LPIPS {row['alex']}, R {row['r']}")
                if rate == sheet_rate:
                    sheet.columns.append((f"{name} {row['kbps']:.1f} kbps", pictures))
        self.cache.save()
        return sheet

    def result(self, settings: dict[str, Any]) -> CallResult:
        """Of the clips that have been measured so far."""
        names = {row["clip"] for row in self.rows}
        used = [row for row in self.anchors.rows if row["clip"] in names]
        return CallResult(summarise(self.rows), self.rows, bd_rates(self.rows), settings, self.notes, used)


def _apart(clip: Clip, path: Path, known: set[str]) -> Clip:
    """The clip under a name of its own: two folders may hold files of the same name."""
    name, number = clip.name, 1
    while name in known:
        number += 1
        name = f"{path.stem}-{number}{path.suffix}"
    return clip._replace(name=name)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def summarise(rows: Iterable[Row], codec: str = OURS) -> dict[str, Any]:
    """`geomean`, `by_rate` and `clips` of R over one codec's rows, and how often AV1's range was left.

    `clips` maps a clip's name to its `geomean` and `by_rate`; rates are keys as in "3".
    """
    own = [row for row in rows if row["codec"] == codec]

    def mean(chosen: Iterable[Row]) -> float | None:
        values = [row["r"] for row in chosen]
        return geometric_mean(values) if values else None

    rates = {f"{row['rate']:g}": row["rate"] for row in own}
    names = list(dict.fromkeys(row["clip"] for row in own))
    return {
        "geomean": mean(own),
        "by_rate": {key: mean(row for row in own if row["rate"] == rate) for key, rate in rates.items()},
        "clips": {
            name: {
                "geomean": mean(row for row in own if row["clip"] == name),
                "by_rate": {f"{row['rate']:g}": row["r"] for row in own if row["clip"] == name},
            }
            for name in names
        },
        "below": sum(row["r_where"] == "below" for row in own),
        "above": sum(row["r_where"] == "above" for row in own),
        "off_rate": sum(not row["on_rate"] for row in own),
    }


def bd_rates(rows: Sequence[Row], codec: str = OURS) -> dict[str, dict[str, float | None]]:
    """BD-rate of `codec` against every other one on every clip, in per cent; None where the scores do not overlap."""
    curves: dict[str, dict[str, list[Point]]] = {}
    for row in rows:
        curves.setdefault(row["clip"], {}).setdefault(row["codec"], []).append(Point(row["kbps"], row["alex"]))
    return {
        clip: {other: bd_rate(points, by_codec[codec]) for other, points in by_codec.items() if other != codec}
        for clip, by_codec in curves.items()
        if codec in by_codec
    }


def evaluate_call(
    clips: Sequence[str | Path],
    selfie: PersonSource,
    codecs: Sequence[str] = CODECS,
    rates: Sequence[float] = RATES,
    size: int = 256,
    fps: int = 15,
    ack_delay_ms: float = 130,
    limit: int = 150,
    preset: int = 6,
    anchors: str | Path | None = None,
    cache: str | Path | None = None,
    trunks: Sequence[Trunk] = ("alex", "vgg"),
    json_path: str | Path | None = None,
    out: str | Path | None = None,
    sheet_rate: float = 5,
    codec: ClipCodec | None = None,
    fine: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> CallResult:
    """Measures codecs on clips at the call's rates (kbit/s of payload) and R of ours.

    `selfie` is the segmentation teacher's TFLite file; `anchors` a file that keeps AV1's points (measured where it
    lacks any), `cache` one that keeps the conventional codecs' rows; without "vgg" in `trunks` the verdict (AlexNet)
    is there three times as fast. `json_path` receives the result, after every clip what is there of it; `out` a folder
    for rows.csv, plots, the contact sheet and for each clip a video of all codecs side by side at `sheet_rate`. `codec`
    stands for "sgc" instead of the shipped one, which with `fine` codes pictures of half the size with keys as large as
    they are. Raises InputError (clips, model or codec names) or BackendMissing; a clip that shows no person, or a
    coding that fails, becomes a note of the result.
    """
    setting = Setting(size, fps, limit, preset)
    known: dict[str, ClipCodec] = {}
    for name in codecs:
        if name == OURS:
            known[name] = codec if codec is not None else our_codec(fine)
        else:
            known[name] = conventional(name, preset)
    run = _Evaluation(
        known, rates, ack_delay_ms, Scorer(selfie, trunks), Anchors(anchors), RowCache(cache), setting, say
    )
    folder = Path(out) if out is not None else None
    shown = min(rates, key=lambda rate: abs(rate - sheet_rate))
    stills: list[Sheet] = []
    settings = {**setting._asdict(), "rates": list(rates), "codecs": list(codecs), "ack_delay_ms": ack_delay_ms}
    settings["anchor_targets"] = list(TARGETS)
    for path in clips:
        try:
            clip = _apart(load_clip(path, size, fps, limit), Path(path), {row["clip"] for row in run.rows})
            sheet = run.clip(clip, shown if folder is not None else None)
        except InputError as error:
            run.note(f"left out: {error}")
            continue
        if folder is not None and sheet.columns:
            write_side_by_side(folder / f"{Path(clip.name).stem}.mp4", sheet)
            stills.append(sheet.still())
        if json_path is not None:  # an hour's work must not be lost with its last minute
            run.result(settings).write_json(json_path)
    result = run.result(settings)
    if json_path is not None:
        result.write_json(json_path)
    if folder is not None and run.rows:
        result.write_csv(folder / "rows.csv")
        write_contact_sheet(folder / "contact-sheet.png", stills)
        plot_call(folder, result.rows, result.anchors, result.r)
    return result


def evaluate_frames(
    clip: str | Path,
    decoded: str | Path,
    selfie: PersonSource,
    sizes: str | Path | None = None,
    size: int = 256,
    fps: int = 15,
    limit: int = 150,
    anchors: str | Path | None = None,
    trunks: Sequence[Trunk] = ("alex", "vgg"),
) -> Row:
    """Scores pictures that some codec has already decoded: a video, or a folder of PNG files in order of name.

    `sizes` is a text file with the bytes of each frame's message, a line each; without it no rate and no R are
    given. With `anchors` R is given where the file knows the clip. Raises InputError for what cannot be read.
    """
    loaded = load_clip(clip, size, fps, limit)
    shown = read_decoded(decoded, size, fps, limit)
    scorer = Scorer(selfie, trunks)
    row: Row = {"clip": loaded.name, "frames": len(shown)}
    if sizes is not None:
        try:
            lines = [int(line) for line in Path(sizes).read_text().split()][: len(loaded.frames)]
        except (OSError, ValueError) as error:
            raise InputError(f"{sizes}: needs one number of bytes a line ({error})") from error
        if len(lines) < len(shown):
            raise InputError(f"{sizes}: {len(lines)} sizes for {len(shown)} pictures")
        row |= payload_rate(lines, fps)._asdict()
        row["wire_kbps"] = payload_rate(wire_sizes(lines), fps).kbps
    row |= scorer.person(loaded, shown)
    row |= scorer.more(loaded, shown)
    if anchors is not None and sizes is not None:
        curves = Anchors(anchors).curves(loaded.name, loaded.digest, Setting(size, fps, limit))
        if curves:
            found = ratio(curves, Point(row["kbps"], row["alex"]))
            row |= {"r": found.r, "av1_kbps": found.anchor_kbps, "r_where": found.where}
    return without_nan(row)
