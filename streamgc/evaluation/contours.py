"""What label maps cost as vector graphics, and what they lose (``streamgc evaluate contours``).

Every map is brought to 1024×512 as multi-class areas with smooth borders: each class's plane is resized between pixels
and the largest wins. So teachers' coarse maps do not count as staircases, and the same scene exists at any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamgc.codec.contours import decode_contours, encode_contours
from streamgc.errors import InputError
from streamgc.evaluation.miou import Confusion
from streamgc.evaluation.still_report import Row, write_csv, write_json

WIDTH, HEIGHT = 1024, 512


def resize_labels(labels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """A map (H, W) at another size, borders smooth."""
    best = np.full((height, width), -1.0, np.float32)
    result = np.zeros((height, width), np.uint8)
    for value in np.unique(labels):
        plane = Image.fromarray((labels == value).astype(np.float32))
        share = np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC))
        result[share > best] = value
        best = np.maximum(best, share)
    return result


def read_map(path: Path) -> NDArray[np.uint8]:
    """A PNG of class ids. Raises InputError."""
    try:
        with Image.open(path) as image:
            return np.asarray(image if image.mode in ("L", "P") else image.convert("L"), np.uint8)
    except OSError as error:
        raise InputError(f"{path} cannot be read as a label map: {error}") from None


def evaluate_contours(
    folders: Sequence[Path],
    *,
    steps: int = 1024,
    tolerance: float = 0.75,
    out: Path | None = None,
    json_file: Path | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """Rate and mIoU of every map at 1024×512, and the rate of the same scene at 2048×1024.

    Means over the maps; mIoU over all pixels of all maps. Raises InputError for folders without PNG files.
    """
    files = [path for folder in folders for path in sorted(folder.rglob("*.png"))]
    if not files:
        raise InputError(f"no label maps (PNG) in {', '.join(map(str, folders))}")
    if limit is not None and limit < len(files):
        files = [files[index] for index in np.linspace(0, len(files) - 1, limit).round().astype(int)]
    rows: list[Row] = []
    confusion = Confusion()
    for path in files:
        labels = read_map(path)
        small, large = (resize_labels(labels, n * WIDTH, n * HEIGHT) for n in (1, 2))
        payload, twin = (encode_contours(each, steps=steps, tolerance=tolerance) for each in (small, large))
        shown = decode_contours(payload, HEIGHT, WIDTH)
        own = Confusion()
        for counts in (own, confusion):
            counts.add(small, shown)
        rows.append(
            {
                "map": path.name,
                "classes": len(np.unique(small)),
                "bytes": len(payload),
                "bpp": 8 * len(payload) / small.size,
                "miou": own.miou(),
                "bytes_at_double_size": len(twin),
            }
        )
    sizes = np.array([[row["bytes"], row["bytes_at_double_size"]] for row in rows], float).sum(0)
    result = {
        "maps": len(rows),
        "steps": steps,
        "tolerance": tolerance,
        "bpp": float(np.mean([row["bpp"] for row in rows])),
        "miou": confusion.miou(),
        "miou_mean_of_maps": float(np.mean([row["miou"] for row in rows])),
        "double_size_costs": float(sizes[1] / sizes[0]),
        "rows": rows,
    }
    if out is not None:
        write_csv(out / "contours.csv", rows)
    if json_file is not None:
        write_json(json_file, result)
    return result
