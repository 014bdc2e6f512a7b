"""What is received as a camera of this machine, for other programs (extra `virtualcam`).

Needs v4l2loopback on Linux, OBS on macOS and Windows.
"""

from typing import Any

import av
import numpy as np

from streamgc.errors import InputError
from streamgc.rtc.pictures import Picture


class VirtualCamera:
    """A sink: `show(picture)` is what programs that use the camera see next."""

    def __init__(self, width: int, height: int, fps: float, device: str = "") -> None:
        """Raises `InputError` when the package or the system's virtual camera is missing."""
        try:
            import pyvirtualcam
        except ImportError as error:
            raise InputError(
                "--virtual-camera needs the package pyvirtualcam: pip install 'streamgc[virtualcam]'"
            ) from error
        try:
            self._camera: Any = pyvirtualcam.Camera(width, height, fps, device=device or None)
        except (RuntimeError, OSError) as error:
            raise InputError(f"no virtual camera: {str(error).splitlines()[0]}") from error
        self._width, self._height = width, height

    def show(self, picture: Picture) -> None:
        """RGB uint8 (H, W, 3) of any size."""
        if picture.shape[:2] != (self._height, self._width):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            picture = np.asarray(frame.reformat(self._width, self._height).to_ndarray(), np.uint8)
        self._camera.send(np.ascontiguousarray(picture))

    def close(self) -> None:
        """Other programs see no camera any more."""
        self._camera.close()
