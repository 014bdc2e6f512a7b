"""What selective compression saves when chosen classes are synthesised (Fig. 8).

For each class: bits with everything preserved, bits with that class left to the generator, and ST-LPIPS of what is
still preserved, both times with the original put back around it, as persons in calls are scored: the score's wide view
then sees no pixel that was meant to be synthesised. ``saved`` of a class is of the bits of all its pictures together.
Beside it a picture: original, everything preserved, class synthesised with its heatmap inset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamgc.errors import ModelError
from streamgc.evaluation.clips import Frame
from streamgc.evaluation.metrics import PerceptualDistance, restore_outside
from streamgc.evaluation.plots import Sheet, write_contact_sheet
from streamgc.evaluation.still_models import LabelledPicture, code_by, labelled_in
from streamgc.evaluation.still_report import Row, write_csv, write_json
from streamgc.pipeline.stills import StillCodec, open_still_codec
from streamgc.runtime.store import ModelStore

MEANS = ("share", "bpp_whole", "bpp", "kept_alex_whole", "kept_alex")
LEAST_SHARE = 0.02
"""Classes that cover less of a picture are not tried on it."""
INSET = 4
"""The heatmap is shown at one INSET-th of the picture's width."""


def evaluate_selective(
    data: Path,
    model: str | Path,
    *,
    classes: Sequence[int] | None = None,
    channels: int | None = None,
    out: Path | None = None,
    json_file: Path | None = None,
    limit: int | None = None,
    backend: str = "auto",
    store: ModelStore | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Synthesise each class (or those of ``classes``) of each picture of ``data`` with an SC model.

    Writes ``selective.csv`` and ``pictures/`` under ``out``. Raises ModelError for a model that is not SC, InputError.
    """
    items = labelled_in(data, limit)
    codec = open_still_codec(model, backend=backend, store=store)
    if codec.task != "sc":
        codec.close()
        raise ModelError(f"model {codec.model.name!r} is not selective")
    distance = PerceptualDistance("alex", memory=1)
    rows: list[Row] = []
    try:
        for item in items:
            for label in np.unique(item.labels).tolist() if classes is None else classes:
                share = float((item.labels == label).mean())
                if LEAST_SHARE <= share < 1:
                    rows.append(_measure(codec, item, label, channels, distance, out))
                    note(f"{item.name} class {label}: {rows[-1]['saved']:.0%} saved")
    finally:
        codec.close()
    by_class = [
        {
            "class": label,
            "pictures": len(own),
            **{name: float(np.mean([row[name] for row in own])) for name in MEANS},
            "saved": 1 - sum(row["bpp"] for row in own) / sum(row["bpp_whole"] for row in own),
        }
        for label in sorted({row["class"] for row in rows})
        if (own := [row for row in rows if row["class"] == label])
    ]
    result = {"images": len(items), "classes": by_class, "rows": rows}
    if out is not None:
        write_csv(out / "selective.csv", rows)
    if json_file is not None:
        write_json(json_file, result)
    return result


def _measure(
    codec: StillCodec,
    item: LabelledPicture,
    label: int,
    channels: int | None,
    distance: PerceptualDistance,
    out: Path | None,
) -> Row:
    kept = item.labels != label
    whole, part = code_by(codec, item, channels), code_by(codec, item, channels, kept)
    pixels = kept.size
    composed = [restore_outside(item.picture, shown.picture, kept) for shown in (whole, part)]
    scores = [float(distance.map(item.picture, picture)[kept].mean()) for picture in composed]
    if out is not None:
        columns = [
            (f"all preserved: {8 * whole.size / pixels:.3f} bpp", [whole.picture]),
            (f"{label} synthesised: {8 * part.size / pixels:.3f} bpp", [with_inset(part.picture, kept)]),
        ]
        sheet = Sheet("original", [item.picture], 1, columns)
        write_contact_sheet(out / "pictures" / f"{Path(item.name).stem}-{label}.png", [sheet])
    return {
        "image": item.name,
        "class": label,
        "share": 1 - float(kept.mean()),
        "bpp_whole": 8 * whole.size / pixels,
        "bpp": 8 * part.size / pixels,
        "saved": 1 - part.size / whole.size,
        "kept_alex_whole": scores[0],
        "kept_alex": scores[1],
    }


def with_inset(picture: Frame, kept: NDArray[np.bool_]) -> Frame:
    """The picture with its heatmap (white = preserved) in the lower right corner."""
    height, width = (max(1, side // INSET) for side in kept.shape)
    small = np.asarray(Image.fromarray(kept.astype(np.uint8) * 255).resize((width, height), Image.Resampling.NEAREST))
    result = picture.copy()
    result[-height:, -width:] = small[..., None]
    return result
