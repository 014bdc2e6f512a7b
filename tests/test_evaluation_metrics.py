"""Picture scores against independent computations."""

import sys

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from streamgc.evaluation.clips import Frame
from streamgc.evaluation.metrics import PerceptualDistance, flicker, ms_ssim, psnr, restore_outside

pytestmark = pytest.mark.usefixtures("one_thread")


def picture(seed: int, size: int = 192) -> Frame:
    """Smooth colours with some grain, so that every scale has structure."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (size // 16, size // 16, 3)).repeat(16, 0).repeat(16, 1)
    return np.clip(coarse + random.normal(0, 8, (size, size, 3)), 0, 255).astype(np.uint8)


def noisy(frame: Frame, level: float, seed: int = 9) -> Frame:
    random = np.random.default_rng(seed)
    return np.clip(frame + random.normal(0, level, frame.shape), 0, 255).astype(np.uint8)


def left_half(size: int = 192) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    mask = np.zeros((size, size), bool)
    mask[:, : size // 2] = True
    return mask


def test_psnr_of_a_known_error() -> None:
    black = np.zeros((32, 32, 3), np.uint8)
    assert psnr(black, black + np.uint8(10)) == pytest.approx(20 * np.log10(255 / 10))
    assert psnr(black, black) == pytest.approx(10 * np.log10(255**2 / 1e-9))


def test_psnr_sees_the_mask_only() -> None:
    first = picture(1)
    second = first.copy()
    second[:, 96:] = 0
    assert psnr(first, second, left_half()) > 130
    assert psnr(first, second) < 20


def test_pixels_outside_the_mask_are_the_originals() -> None:
    first, second, mask = picture(1), picture(2), left_half()
    composed = restore_outside(first, second, mask)
    assert np.array_equal(composed[:, :96], second[:, :96])
    assert np.array_equal(composed[:, 96:], first[:, 96:])


@pytest.mark.parametrize("level", [5, 40])
def test_ms_ssim_without_a_mask_is_the_reference_packages(level: float) -> None:
    package = pytest.importorskip("pytorch_msssim")
    first = picture(3)
    second = noisy(first, level)
    tensors = [torch.from_numpy(p).permute(2, 0, 1)[None].float() for p in (first, second)]
    assert ms_ssim(first, second) == pytest.approx(float(package.ms_ssim(*tensors, data_range=255)), abs=1e-5)


def test_a_full_mask_changes_nothing_and_a_half_mask_does() -> None:
    first = picture(4)
    second = first.copy()
    second[:, :96] = noisy(first, 60)[:, :96]
    whole = ms_ssim(first, second)
    assert ms_ssim(first, second, np.ones((192, 192), bool)) == pytest.approx(whole, abs=1e-6)
    assert ms_ssim(first, second, left_half()) < whole - 0.02
    assert ms_ssim(first, second, ~left_half()) > whole + 0.02


def test_a_mask_of_one_pixel_still_has_a_score() -> None:
    first, mask = picture(4), np.zeros((192, 192), bool)
    mask[0, 0] = True
    assert 0 <= ms_ssim(first, noisy(first, 30), mask) <= 1


def test_flicker_counts_still_pixels_only() -> None:
    base = picture(5)
    moving = base.copy()
    moving[:, 96:] = picture(6)[:, 96:]
    sources = [base, moving, base]
    shown = [base, np.clip(base.astype(int) + 4, 0, 255).astype(np.uint8), base]
    found = flicker(sources, shown)
    assert found.source == pytest.approx(0, abs=1e-3)
    assert found.shown == pytest.approx(4, abs=0.3)


def test_a_codec_that_shows_the_source_flickers_as_the_source_does() -> None:
    sources = [noisy(picture(7), 0.8, seed) for seed in range(4)]
    found = flicker(sources, sources)
    assert found.shown == found.source > 0


def test_no_flicker_where_nothing_is_still() -> None:
    found = flicker([picture(1), picture(2)], [picture(1), picture(2)])
    assert np.isnan(found.shown)
    assert np.isnan(found.source)


@pytest.fixture(scope="module")
def alex() -> PerceptualDistance:
    pytest.importorskip("stlpips_pytorch")
    return PerceptualDistance("alex", memory=2)


class TestPerceptualDistance:
    """The wrapper against the package's own forward pass."""

    def test_equal_pictures_are_at_distance_zero(self, alex: PerceptualDistance) -> None:
        found = alex.map(picture(1), picture(1))
        assert found.shape == (192, 192)
        assert float(np.abs(found).max()) == 0

    def test_it_is_the_packages_map(self, alex: PerceptualDistance) -> None:
        first, second = picture(1), noisy(picture(1), 20)
        tensors = [torch.from_numpy(p).permute(2, 0, 1)[None].float() / 127.5 - 1 for p in (first, second)]
        with torch.no_grad():
            expected = alex._network(*tensors)[0, 0].numpy()
        assert np.array_equal(alex.map(first, second), expected)
        assert np.array_equal(alex.map(first, second), expected), "the remembered original gives the same"

    def test_it_grows_with_the_damage_and_stays_where_it_is(self, alex: PerceptualDistance) -> None:
        first = picture(1)
        damaged = restore_outside(first, noisy(first, 60), left_half())
        little, much = alex.map(first, noisy(first, 5)).mean(), alex.map(first, noisy(first, 60)).mean()
        assert 0 < little < much
        found = alex.map(first, damaged)
        assert found[:, :48].mean() > 5 * found[:, 144:].mean()

    def test_more_originals_than_it_remembers(self, alex: PerceptualDistance) -> None:
        originals = [picture(seed) for seed in range(4)]
        expected = [alex.map(original, originals[0]).mean() for original in originals]
        again = [alex.map(original, originals[0]).mean() for original in originals]
        assert expected == again

    def test_no_stand_in_modules_are_left_behind(self, alex: PerceptualDistance) -> None:
        for name in ("torchsummary", "IPython", "torchvision"):
            module = sys.modules.get(name)
            assert module is None or getattr(module, "__file__", None) is not None
