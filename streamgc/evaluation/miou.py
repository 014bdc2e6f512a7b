"""Do decoded pictures still mean the same? mIoU of a segmentation network on them, against bits per pixel (Fig. 7).

The network is any ONNX file: one picture in (u8 or float, channels first or last), one class map or one set of scores
out. Truth is the label maps of the data; where a network knows other classes, the truth is what it says of the
originals (``truth="network"``), and the table says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamgc.errors import EngineError, InputError
from streamgc.evaluation.clips import Frame
from streamgc.evaluation.still_models import LabelledPicture, channel_counts, code_by, labelled_in, open_any
from streamgc.evaluation.still_report import Row, plot_curves, write_csv, write_json
from streamgc.evaluation.still_rivals import rival
from streamgc.runtime.engine import load_engine
from streamgc.runtime.store import ModelStore

Truth = Literal["labels", "network"]
Classes = Literal["same", "cityscapes"]
UNCOUNTED = 255
"""A pixel of this true class is not counted: nobody was asked to know it."""
CITYSCAPES_TRAINED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Cityscapes' label ids of the 19 classes that its benchmark counts, in the order in which networks are trained on them
(the train ids of cityscapesScripts' ``labels.py``). The other 15 are not counted."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class SegmentationNetwork:
    """A segmentation ONNX: pictures in, class ids (H, W) out."""

    def __init__(self, path: Path, *, output: str = "", side: int = 512, backend: str = "auto") -> None:
        """``output`` names the output where there are several; ``side`` is the input's where it is free.

        Raises EngineError when the network's input or output cannot be understood.
        """
        self._engine = load_engine(path, backend=backend)
        (self._input, *others) = self._engine.inputs.values()
        outputs = self._engine.outputs
        if others or len(self._input.shape) != 4 or (output and output not in outputs):
            raise EngineError(f"{path.name} is no segmentation network: it takes {', '.join(self._engine.inputs)}")
        self._output = output or ("labels" if "labels" in outputs else next(iter(outputs)))
        self._last = self._input.shape[-1] in (1, 3)
        sides = self._input.shape[1:3] if self._last else self._input.shape[2:]
        self._size = tuple(side if value is None else value for value in sides)

    def classes(self, picture: Frame) -> NDArray[np.int64]:
        """Class ids of every pixel of (H, W, 3) RGB."""
        height, width = picture.shape[:2]
        size = (int(self._size[1]), int(self._size[0]))
        image = Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR)
        values: NDArray[Any] = np.asarray(image)[None]
        if self._input.dtype != np.uint8:
            values = ((values / 255 - MEAN) / DEVIATION).astype(self._input.dtype)
        if not self._last:
            values = values.transpose(0, 3, 1, 2)
        found = self._engine.run({self._input.name: np.ascontiguousarray(values)})[self._output]
        if found.ndim == 4:
            found = found.argmax(3 if found.shape[3] < found.shape[1] else 1)
        if found.ndim != 3:
            raise EngineError(f"output {self._output!r} is {found.shape}: neither a class map nor scores")
        ids = Image.fromarray(found[0].astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
        return np.asarray(ids, np.int64)

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()


class Confusion:
    """Counts of (true class, seen class) over pictures."""

    def __init__(self, classes: int = 256) -> None:
        self._counts = np.zeros((classes, classes), np.int64)

    def add(self, truth: NDArray[np.integer], seen: NDArray[np.integer]) -> None:
        """Count two maps of one shape; where the truth is `UNCOUNTED`, nothing."""
        classes = len(self._counts)
        counted = truth != UNCOUNTED
        pairs = truth[counted].astype(np.int64) * classes + seen[counted].astype(np.int64)
        self._counts += np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)

    def miou(self) -> float:
        """Mean over the classes that occur in the truth of intersection over union; NaN of nothing."""
        hit = self._counts.diagonal()
        union = self._counts.sum(0) + self._counts.sum(1) - hit
        there = self._counts.sum(1) > 0
        return float((hit[there] / union[there]).mean()) if there.any() else float("nan")


def as_trained(labels: NDArray[np.integer], classes: Classes) -> NDArray[np.integer]:
    """Label maps of the data in the classes of the network: as they are, or Cityscapes' 34 label ids as its 19 train
    ids, `UNCOUNTED` where there is none."""
    if classes == "same":
        return labels
    table = np.full(256, UNCOUNTED, np.uint8)
    table[list(CITYSCAPES_TRAINED)] = np.arange(len(CITYSCAPES_TRAINED))
    return table[labels.astype(np.uint8)]


def evaluate_miou(
    data: Path,
    network: Path,
    *,
    models: Sequence[str | Path],
    rivals: Sequence[str] = ("hevc",),
    truth: Truth = "labels",
    classes: Classes = "same",
    output: str = "",
    out: Path | None = None,
    json_file: Path | None = None,
    limit: int | None = None,
    backend: str = "auto",
    store: ModelStore | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """The table of Fig. 7: originals, every model at every channel count, and conventional codecs.

    SC models are shown with everything preserved. ``classes`` says how the data's label ids become the network's
    (`as_trained`); a pixel whose class is `UNCOUNTED` is not counted. Writes ``miou.csv`` and ``miou.png`` under
    ``out``. Raises InputError, ModelError, EngineError.
    """
    if truth == "network" and classes != "same":
        raise InputError(f"classes {classes!r} are of label maps: what the network says of the originals has its own")
    items = labelled_in(data, limit)
    segmenter = SegmentationNetwork(network, output=output, backend=backend)
    truths = [
        as_trained(item.labels, classes) if truth == "labels" else segmenter.classes(item.picture) for item in items
    ]
    rows: list[Row] = []

    def measure(name: str, quality: float | None, shown: Callable[[LabelledPicture], tuple[int, Frame]]) -> None:
        confusion = Confusion()
        bits = pixels = 0
        for item, labels in zip(items, truths, strict=True):
            size, picture = shown(item)
            confusion.add(labels, segmenter.classes(picture))
            bits += 8 * size
            pixels += labels.size
        rows.append({"codec": name, "quality": quality, "bpp": bits / pixels, "miou": confusion.miou()})
        note(f"{name} {'' if quality is None else quality}: {rows[-1]['miou']:.3f} at {rows[-1]['bpp']:.3f} bpp")

    try:
        measure("original", None, lambda item: (0, item.picture))
        for model in models:
            codec = open_any(model, backend=backend, store=store)
            for channels in channel_counts(codec):
                measure(Path(model).name, channels, lambda item, c=codec, n=channels: code_by(c, item, n))  # type: ignore[misc]
            codec.close()
        for name in rivals:
            conventional = rival(name)
            for value in conventional.qualities:
                measure(name, value, lambda item, c=conventional, q=value: c.encode(item.picture, q))  # type: ignore[misc]
    finally:
        segmenter.close()
    result = {"images": len(items), "truth": truth, "classes": classes, "network": network.name, "rows": rows}
    if out is not None:
        write_csv(out / "miou.csv", rows)
        plot_curves(out / "miou.png", [row for row in rows if row["bpp"]], "bpp", {"miou": "mIoU"})
    if json_file is not None:
        write_json(json_file, result)
    return result
