"""Where the person is, by the selfie-segmentation teacher: the mask of every score, never a codec's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamgc.errors import BackendMissing, InputError
from streamgc.evaluation.clips import Frame

Mask = NDArray[np.bool_]
"""True on the person, bool (H, W)."""

TEACHER_SIZE = 256


class PersonMask:
    """MediaPipe's selfie segmentation (TFLite, 256 x 256 float input in [0, 1]) at probability 0.5."""

    def __init__(self, model: str | Path) -> None:
        """Loads the network; raises InputError (no such model) or BackendMissing (no LiteRT)."""
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise BackendMissing("the person mask needs ai-edge-litert: pip install 'streamgc[teachers]'") from error
        if not Path(model).is_file():
            raise InputError(f"{model}: no such segmentation model")
        self._interpreter: Any = Interpreter(str(model))
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def __call__(self, frame: Frame) -> Mask:
        """The mask of one RGB picture, bool and as large as it; the rounding is that of the published measurement."""
        small = Image.fromarray(frame).resize((TEACHER_SIZE, TEACHER_SIZE))
        self._interpreter.set_tensor(self._input, np.asarray(small, np.float32)[None] / 255)
        self._interpreter.invoke()
        probability = self._interpreter.get_tensor(self._output)[0, ..., 0]
        full = Image.fromarray((probability * 255).astype(np.uint8)).resize((frame.shape[1], frame.shape[0]))
        return np.asarray(full) > 127
