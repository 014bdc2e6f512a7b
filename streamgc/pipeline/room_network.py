"""The shipped room network as the background keeper wants it: labels and a seed in, a picture out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamgc.pipeline.networks import NetworkOptions, Runs
from streamgc.runtime.store import ModelStore

STYLE = 8
"""Numbers of a style."""
SPREAD = 0.8
"""Styles are drawn a little nearer to the middle than in training: calmer rooms, fewer odd ones."""
FURTHEST = 1.6
"""No number of a style lies further out than this."""


def style_of(seed: int) -> NDArray[np.float32]:
    """The style (1, 8, 1, 1) that a seed names, the same on every machine."""
    drawn = np.random.Generator(np.random.PCG64(abs(seed))).standard_normal(STYLE) * SPREAD
    return np.clip(drawn, -FURTHEST, FURTHEST).astype(np.float32).reshape(1, STYLE, 1, 1)


class RoomModel:
    """The model `engines/room`: a ``RoomNetwork`` of `pipeline.background`. It is asked once a call, or once a label
    map."""

    def __init__(
        self,
        name: str = "room",
        options: NetworkOptions | None = None,
        store: ModelStore | None = None,
        cache: Path | None = None,
    ) -> None:
        """``cache``: folder of compiled networks.

        Raises ModelError when there is no such model, EngineError when it cannot be compiled.
        """
        options = options or NetworkOptions()
        model = (store or ModelStore()).open(name)
        self._engine: Runs = model.load(
            "room", backend=options.backend, precision=options.precision, threads=options.threads, cache=cache
        )

    def __call__(self, labels: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        """Label ids u8 (h, w) of `scene.labels` and any seed → RGB u8 (16h, 16w, 3). A person's cells are shown as
        room, ids without a label as `other`. Raises EngineError when the network fails."""
        out = self._engine.run({"labels": labels[None], "seed": style_of(seed)})
        return np.asarray(out["picture"][0], np.uint8)
