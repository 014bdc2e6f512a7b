"""Picture scores: ST-LPIPS maps, MS-SSIM, PSNR and flicker, each on a mask or on the whole frame."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch.nn import functional as F

from streamgc.errors import BackendMissing
from streamgc.evaluation.clips import Frame
from streamgc.evaluation.person import Mask

MS_SSIM_LEAST = 176
"""Five scales of an 11-pixel window need this many pixels a side."""
Trunk = Literal["alex", "vgg"]
Map = NDArray[np.float32]


@contextmanager
def _shims() -> Iterator[None]:
    """Empty modules for what stlpips_pytorch imports and never calls, gone again afterwards."""
    added: list[str] = []
    try:
        for name, attribute in (("torchsummary", "summary"), ("IPython", "embed"), ("torchvision", "models")):
            if name in sys.modules or importlib.util.find_spec(name) is not None:
                continue
            module = types.ModuleType(name)
            setattr(module, attribute, None)
            sys.modules[name] = module
            added.append(name)
        yield
    finally:
        for name in added:
            del sys.modules[name]


class PerceptualDistance:
    """Shift-tolerant LPIPS (Ghildyal and Liu, ECCV 2022) as a map, with the weights inside stlpips-pytorch's wheel.

    What the network computes on an original is kept for the last `memory` originals by object identity, since
    every codec and every rate is compared with the same ones.
    """

    def __init__(self, trunk: Trunk, memory: int = 20) -> None:
        """Loads one trunk; raises BackendMissing where stlpips-pytorch is not installed."""
        try:
            with _shims():
                from stlpips_pytorch import stlpips, utils
        except ImportError as error:
            raise BackendMissing(
                "ST-LPIPS needs stlpips-pytorch: pip install --no-deps stlpips-pytorch==0.0.2"
            ) from error
        self.trunk = trunk
        self._memory = memory
        self._known: dict[int, tuple[Frame, list[torch.Tensor]]] = {}
        self._network: Any = stlpips.LPIPS(net=trunk, variant="shift_tolerant", verbose=False, spatial=True)
        self._network.requires_grad_(False)
        self._normalise = utils.normalize_tensor

    def _features(self, picture: Frame) -> list[torch.Tensor]:
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
        layers = self._network.net.forward(self._network.scaling_layer(pixels))
        return [self._normalise(layer) for layer in layers]

    def _original(self, picture: Frame) -> list[torch.Tensor]:
        found = self._known.get(id(picture))
        if found is not None and found[0] is picture:
            return found[1]
        features = self._features(picture)
        if len(self._known) >= self._memory:
            self._known.pop(next(iter(self._known)))
        self._known[id(picture)] = (picture, features)
        return features

    def map(self, original: Frame, shown: Frame) -> Map:
        """Distance of each pixel, float32 (H, W), 0 for equal pictures; both RGB uint8 (H, W, 3)."""
        with torch.no_grad():
            pairs = zip(self._original(original), self._features(shown), self._network.lins, strict=True)
            total = torch.zeros(1, 1, *original.shape[:2])
            for first, second, linear in pairs:
                layer = linear((first - second) ** 2)
                total += F.interpolate(layer, size=original.shape[:2], mode="bilinear", align_corners=False)
        result: Map = total[0, 0].numpy()
        return result


def restore_outside(original: Frame, shown: Frame, mask: Mask) -> Frame:
    """`shown` on the mask and `original` elsewhere, so that only the person can differ."""
    result: Frame = np.where(mask[..., None], shown, original)
    return result


def psnr(original: Frame, shown: Frame, mask: Mask | None = None) -> float:
    """Peak signal-to-noise ratio in dB over the mask (mean over R, G and B); 138.1 dB for equal pictures."""
    error = ((original.astype(np.float64) - shown.astype(np.float64)) ** 2).mean(-1)
    mean = error.mean() if mask is None else error[mask].mean()
    return float(10 * np.log10(255**2 / max(float(mean), 1e-9)))


_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW = 11


def _window_blur(images: torch.Tensor) -> torch.Tensor:
    positions = torch.arange(_WINDOW, dtype=torch.float32) - _WINDOW // 2
    weights = torch.exp(-(positions**2) / (2 * 1.5**2))
    weights = (weights / weights.sum()).expand(images.shape[1], 1, 1, _WINDOW)
    across = F.conv2d(images, weights, groups=images.shape[1])
    return F.conv2d(across, weights.transpose(2, 3), groups=images.shape[1])


def _structure(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """SSIM and its contrast-structure part at every window that fits, for images in [0, 255]."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean1, mean2 = _window_blur(first), _window_blur(second)
    variance1 = _window_blur(first * first) - mean1 * mean1
    variance2 = _window_blur(second * second) - mean2 * mean2
    covariance = _window_blur(first * second) - mean1 * mean2
    contrast = (2 * covariance + c2) / (variance1 + variance2 + c2)
    return (2 * mean1 * mean2 + c1) / (mean1 * mean1 + mean2 * mean2 + c1) * contrast, contrast


def ms_ssim(original: Frame, shown: Frame, mask: Mask | None = None) -> float:
    """Multi-scale SSIM (Wang et al. 2003, five scales) of RGB pictures of at least 176 x 176, mean over channels.

    With a mask each scale averages the windows whose centre lies on the person (by the mask's share of the
    cell); without one this equals pytorch_msssim.ms_ssim, which has no masks.
    """
    first, second = (torch.from_numpy(np.array(p)).permute(2, 0, 1)[None].float() for p in (original, shown))
    weights = torch.ones(1, 1, *original.shape[:2]) if mask is None else torch.from_numpy(mask)[None, None].float()
    result = torch.ones(first.shape[1])
    margin = _WINDOW // 2
    for level, exponent in enumerate(_SCALE_WEIGHTS):
        similarity, contrast = _structure(first, second)
        inner = weights[..., margin:-margin, margin:-margin]
        inner = inner if bool(inner.any()) else torch.ones_like(inner)
        last = level == len(_SCALE_WEIGHTS) - 1
        value = ((similarity if last else contrast) * inner).sum((0, 2, 3)) / inner.sum()
        result = result * torch.relu(value) ** exponent
        padding = [side % 2 for side in first.shape[2:]]
        first, second, weights = (F.avg_pool2d(image, 2, padding=padding) for image in (first, second, weights))
    return float(result.mean())


class Flicker(NamedTuple):
    """Mean absolute difference from the picture before, in grey levels, where the source stands still."""

    shown: float
    source: float


def _still(first: Frame, second: Frame, level: float) -> Mask:
    """Pixels whose neighbourhood (5 x 5) changes by no more than `level` grey levels on the average."""
    change = np.abs(first.astype(np.int16) - second.astype(np.int16)).max(-1).astype(np.uint8)
    return np.asarray(Image.fromarray(change).filter(ImageFilter.BoxBlur(2))) <= level


def flicker(originals: list[Frame], shown: list[Frame], masks: list[Mask] | None = None, level: float = 3) -> Flicker:
    """Flicker of a coded sequence beside the source's own noise on the same pixels; NaN where nothing is still."""
    ours: list[NDArray[np.float64]] = []
    own: list[NDArray[np.float64]] = []
    for index in range(1, min(len(originals), len(shown))):
        still = _still(originals[index - 1], originals[index], level)
        if masks is not None:
            still = still & masks[index] & masks[index - 1]
        for sequence, sums in ((shown, ours), (originals, own)):
            change = sequence[index][still].astype(np.int16) - sequence[index - 1][still].astype(np.int16)
            sums.append(np.array([np.abs(change).sum(), change.size], np.float64))
    counts = np.sum(ours, axis=0) if ours else np.zeros(2)
    if counts[1] == 0:
        return Flicker(float("nan"), float("nan"))
    return Flicker(float(counts[0] / counts[1]), float(np.sum(own, axis=0)[0] / counts[1]))
