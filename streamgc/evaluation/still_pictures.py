"""Decoded pictures as files (``streamgc evaluate pictures``): what a study or another judge looks at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from streamgc.errors import InputError
from streamgc.evaluation.clips import Frame
from streamgc.evaluation.rd import images_in
from streamgc.evaluation.still_rivals import RIVALS, CodedStill, rival
from streamgc.pipeline.stills import open_still_codec, read_picture


def write_pictures(
    images: Sequence[Path], codec: str | Path, quality: float | None, out: Path, *, limit: int | None = None
) -> float:
    """Every image after a rival of `RIVALS` or a still model, as PNG of the same stem in ``out``; the mean rate in bpp.

    ``quality``: the rival's, or the model's channels; None takes the coarsest, or all channels. Raises InputError,
    ModelError, BackendMissing.
    """
    files = images_in(images, limit)
    code, close = _opened(codec, quality)
    out.mkdir(parents=True, exist_ok=True)
    rates = []
    try:
        for file in files:
            original = read_picture(file)
            coded = code(original)
            target, partial = out / f"{file.stem}.png", out / f".{file.stem}.partial.png"
            if target.resolve() == file.resolve():
                raise InputError(f"{file} would be overwritten: choose another --out")
            Image.fromarray(coded.picture).save(partial)
            partial.replace(target)
            rates.append(8 * coded.size / original[..., 0].size)
    finally:
        close()
    return sum(rates) / len(rates)


def _opened(codec: str | Path, quality: float | None) -> tuple[Callable[[Frame], CodedStill], Callable[[], None]]:
    if str(codec) in RIVALS:
        chosen = rival(str(codec))
        at = chosen.qualities[0] if quality is None else quality
        return (lambda picture: chosen.encode(picture, at)), (lambda: None)
    model = open_still_codec(codec)

    def code(picture: Frame) -> CodedStill:
        data = model.compress(picture, channels=None if quality is None else round(quality)).data
        return CodedStill(len(data), model.decompress(data))

    return code, model.close
