"""Measures of who is in the frame: a table for clips, an overlay to look at, and truth where masks are known.

Clips have no truth; a reference segmenter (a teacher, say) stands for it, so that loss and leak there are differences
between two segmenters. Stills with masks and composites with known instances (`evaluation/scene_truth.py`) are truth.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streamgc.codec.labels import encode_labels
from streamgc.evaluation.clips import Frame, load_clip, write_video
from streamgc.scene.heatmap import Kept, cell_shares, spread_cells
from streamgc.scene.instances import CELL
from streamgc.scene.labels import LABEL_COLOURS, colour_labels
from streamgc.scene.observer import Observation, SceneObserver, SceneSettings, Segment

Mask = npt.NDArray[np.bool_]
Reference = Callable[[Frame], Mask]
"""A frame's person mask, bool (H, W), from a segmenter that is trusted."""

STILL = 3.0
"""Mean absolute difference, in grey levels, up to which a cell counts as not having changed between two frames."""
LONGEST_LAG = 4


@dataclass(frozen=True)
class SceneRow:
    """The figures of one clip; shares are in per cent.

    iou: person matte without margin against the reference. loss: reference's person pixels that are not kept. leak:
    other pixels that are kept, of all other pixels; the margin is part of it. beyond: kept pixels farther from the
    reference's person than margin + 2 px. changed: cells that change a frame. still_changed: of the cells whose picture
    (and neighbours) stood still, those that changed. raw_changed: cells that would change a frame without smoothing and
    hysteresis. lag: frames by which the matte trails what the segmenter sees. people: people a frame. bytes_a_frame:
    heatmap and label map, coded as differences. segment_ms, rest_ms: medians.
    """

    clip: str
    frames: int
    iou: float
    loss: float
    leak: float
    beyond: float
    changed: float
    still_changed: float
    raw_changed: float
    lag: float
    people: float
    bytes_a_frame: float
    segment_ms: float
    rest_ms: float


class _Seen(NamedTuple):
    observation: Observation
    raw: Mask
    truth: Mask | None


def iou(found: Mask, truth: Mask) -> float:
    """Intersection over union of two masks; 1 when both are empty."""
    union = int((found | truth).sum())
    return float((found & truth).sum() / union) if union else 1.0


def label_bytes(now: Kept, before: Kept | None) -> int:
    """Bytes of heatmap and label map together, as the difference from the frame before; nothing when nothing
    changed."""
    if before is not None and np.array_equal(now.labels, before.labels):
        return 0
    return len(encode_labels(now.labels, None if before is None else before.labels))


def still_cells(now: Frame, before: Frame) -> Mask:
    """Cells bool (h, w) whose picture, and that of the eight around them, did not change between two frames."""
    difference = np.abs(now.astype(np.int16) - before).mean(axis=2)
    height, width = difference.shape
    rows, columns = height // CELL, width // CELL
    moved = difference[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL).mean(axis=(1, 3)) > STILL
    padded = np.pad(moved, 1)
    near = np.zeros_like(moved)
    for dy in range(3):
        for dx in range(3):
            near |= padded[dy : dy + rows, dx : dx + columns]
    return np.asarray(~near)


def lag_of(mattes: Sequence[Mask], raws: Sequence[Mask]) -> float:
    """Frames by which mattes trail raw masks: the delay at which they fit best, over frames where the raw mask
    moves."""
    moving = [k for k in range(LONGEST_LAG, len(raws)) if iou(raws[k], raws[k - 2]) < 0.97]
    if not moving:
        return 0.0
    fits = [float(np.mean([iou(mattes[k], raws[k - delay]) for k in moving])) for delay in range(LONGEST_LAG + 1)]
    return float(np.argmax(fits))


def _observe(
    frames: Sequence[Frame], segment: Segment, settings: SceneSettings, reference: Reference | None
) -> Iterator[_Seen]:
    observer = SceneObserver(segment, settings)
    for frame in frames:
        seen = observer.observe(frame)
        masks = seen.kept.instances.masks
        raw = masks.max(axis=0) > 127 if len(masks) else np.zeros(seen.picture.shape[:2], bool)
        yield _Seen(seen, raw, reference(seen.picture) if reference else None)


def evaluate_frames(
    name: str,
    frames: Sequence[Frame],
    segment: Segment,
    settings: SceneSettings,
    reference: Reference | None = None,
    overlay: list[Frame] | None = None,
    label_cost: Callable[[Kept, Kept | None], int] = label_bytes,
) -> SceneRow:
    """One clip's figures; overlay pictures are appended to `overlay`."""
    seen = list(_observe(frames, segment, settings, reference))
    kept = [s.observation.kept for s in seen]
    changes, stills, raws = [0.0], [0.0], [0.0]
    for before, now in pairwise(seen):
        changed = before.observation.kept.cells != now.observation.kept.cells
        quiet = still_cells(now.observation.picture, before.observation.picture)
        changes.append(float(changed.mean()))
        stills.append(float((changed & quiet).sum() / max(1, quiet.sum())))
        raws.append(float(((cell_shares(before.raw) > 0.03) != (cell_shares(now.raw) > 0.03)).mean()))
    agreement = _agreement(seen, settings.heatmap.margin)
    statistics = [s.observation.statistics for s in seen]
    costs = [label_cost(now, before) for now, before in zip(kept, [None, *kept], strict=False)]
    if overlay is not None:
        overlay.extend(draw_overlay(s.observation) for s in seen)
    return SceneRow(
        name,
        len(seen),
        *agreement,
        changed=100 * float(np.mean(changes)),
        still_changed=100 * float(np.mean(stills)),
        raw_changed=100 * float(np.mean(raws)),
        lag=lag_of([k.alpha > 127 for k in kept], [s.raw for s in seen]),
        people=float(np.mean([s.found for s in statistics])),
        bytes_a_frame=float(np.mean(costs[1:])) if len(costs) > 1 else float(costs[0]),
        segment_ms=float(np.median([s.segment_ms for s in statistics])),
        rest_ms=float(np.median([s.total_ms - s.segment_ms for s in statistics])),
    )


def _agreement(seen: Sequence[_Seen], margin: int) -> tuple[float, float, float, float]:
    """IoU, loss, leak and beyond against the reference, means over frames; NaN without one."""
    from scipy.ndimage import distance_transform_edt

    rows = []
    for moment in seen:
        if moment.truth is None or not moment.truth.any():
            continue
        truth, matte = moment.truth, moment.observation.kept.matte > 0
        far = distance_transform_edt(~truth) > margin + 2
        rows.append(
            (
                iou(moment.observation.kept.alpha > 127, truth),
                100 * float((truth & ~matte).sum() / truth.sum()),
                100 * float((matte & ~truth).sum() / max(1, (~truth).sum())),
                100 * float((matte & far).sum() / truth.size),
            )
        )
    if not rows:
        return (float("nan"),) * 4
    return tuple(float(v) for v in np.mean(rows, axis=0))  # type: ignore[return-value]


def draw_overlay(observation: Observation) -> Frame:
    """Three pictures side by side: the frame with cells and people marked, what is kept, the label map; RGB u8 (H, 3 W,
    3)."""
    picture, kept = observation.picture, observation.kept
    height, width = picture.shape[:2]
    marked = picture.astype(np.float32)
    for number, mask in enumerate(kept.instances.masks):
        colour = np.array(LABEL_COLOURS[(int(kept.instances.ids[number]) + 1) % len(LABEL_COLOURS)], np.float32)
        edge = mask > 127
        inner = edge.copy()
        inner[1:] &= edge[:-1]
        inner[:-1] &= edge[1:]
        inner[:, 1:] &= edge[:, :-1]
        inner[:, :-1] &= edge[:, 1:]
        marked[edge & ~inner] = colour
    shown = spread_cells(kept.cells, height, width)
    marked[~shown] *= 0.55
    blanked = np.where(kept.matte[..., None] > 0, picture, 96).astype(np.uint8)
    labels = colour_labels(kept.labels).repeat(CELL, axis=0).repeat(CELL, axis=1)[:height, :width]
    return np.concatenate([marked.astype(np.uint8), blanked, labels], axis=1)


def evaluate_scene(
    clips: Sequence[Path],
    segment: Segment,
    settings: SceneSettings | None = None,
    reference: Reference | None = None,
    json_path: Path | None = None,
    overlay_path: Path | None = None,
    fps: int = 15,
    frames: int = 150,
) -> list[SceneRow]:
    """The table of `streamgc evaluate scene`: a row for each clip and a last one `mean`; writes JSON and an overlay
    video when asked.

    `segment` is a `scene.segmenter.Segmenter` (or YOLO's); clips are taken as centre squares at `fps`. Raises
    InputError for a clip that cannot be read.
    """
    chosen = settings or SceneSettings()
    drawn: list[Frame] | None = [] if overlay_path else None
    rows = []
    for path in clips:
        clip = load_clip(path, chosen.size[0], fps, frames)
        rows.append(evaluate_frames(clip.name, clip.frames, segment, chosen, reference, drawn))
    if len(rows) > 1:
        rows.append(mean_row(rows))
    if json_path is not None:
        write_json(json_path, {"clips": [_without_nan(row) for row in rows]})
    if overlay_path is not None and drawn:
        write_video(overlay_path, drawn, fps)
    return rows


def _without_nan(row: SceneRow) -> dict[str, object]:
    """A row for JSON, which knows no NaN: what was not measured is null."""
    return {name: None if value != value else value for name, value in asdict(row).items()}


def mean_row(rows: Sequence[SceneRow]) -> SceneRow:
    """The mean of all figures over clips; those a clip does not have (NaN) are left out."""
    figures: dict[str, float] = {}
    for name in SceneRow.__dataclass_fields__:
        if name in ("clip", "frames"):
            continue
        values = np.array([getattr(row, name) for row in rows], np.float64)
        values = values[~np.isnan(values)]
        figures[name] = float(values.mean()) if values.size else float("nan")
    return SceneRow("mean", sum(row.frames for row in rows), **figures)


def write_json(path: Path, content: object) -> None:
    """Write JSON through a temporary name."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(partial, path)


def format_table(rows: Sequence[SceneRow]) -> str:
    """The rows as a Markdown table."""
    head = "| clip | frames | IoU | loss % | leak % | beyond % | cells changed % | of still % | raw % | lag | people "
    head += "| bytes/frame | segment ms | rest ms |"
    lines = [head, "|" + "---|" * 14]
    for row in rows:
        figures = [f"{row.iou:.3f}"]
        figures += [
            f"{v:.2f}" for v in (row.loss, row.leak, row.beyond, row.changed, row.still_changed, row.raw_changed)
        ]
        figures += [f"{row.lag:.0f}", f"{row.people:.2f}"]
        figures += [f"{v:.1f}" for v in (row.bytes_a_frame, row.segment_ms, row.rest_ms)]
        lines.append(f"| {row.clip} | {row.frames} | " + " | ".join(figures) + " |")
    return "\n".join(lines)
