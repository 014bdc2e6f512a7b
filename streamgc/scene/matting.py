"""The matte drawn to the picture's edges: a guided filter with all three colours (He, Sun & Tang, TPAMI 2013, eq. 14 to
16), its coefficients at a quarter of the size (He & Sun, arXiv:1505.00996).

A network's border is two pixels wide, the picture knows it to one: in a window the matte is taken for a linear function
of red, green and blue, so it changes where the colours do. Where it is not one (dark hair before a dark room) the
filter would smear it; there the network's matte stays.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

Mask = npt.NDArray[np.uint8]
Planes = npt.NDArray[np.float32]

SCALE = 4
"""The coefficients' pixels are so many of the picture's wide."""
REACH = 1
"""Windows reach so many of these to each side."""
SMOOTH = 1e-4
"""Variance of a colour (of 0..1) up to which it is noise."""
EXPLAINED = (0.3, 0.8)
"""Share of the matte's variance that the colours explain: below the first the matte stays, above the second it is
theirs."""


def refine_matte(frame: Mask, matte: Mask) -> Mask:
    """A matte u8 (H, W) fitted to the edges of its frame u8 (H, W, 3); H and W are multiples of 4."""
    slopes = _magnify(_coefficients(_reduced(frame) / np.float32(255), _reduced(matte[..., None])[0] / np.float32(255)))
    fitted = slopes[3] * np.float32(255)
    fitted += slopes[4] * matte
    for plane, colour in zip(slopes[:3], frame.transpose(2, 0, 1), strict=True):
        fitted += plane * colour
    return np.asarray(np.clip(fitted + np.float32(0.5), 0, 255), np.uint8)


def _reduced(picture: Mask) -> Planes:
    """Means of SCALE×SCALE pixels of u8 (H, W, C), f32 (C, H/SCALE, W/SCALE)."""
    image = Image.fromarray(np.ascontiguousarray(picture.squeeze(2) if picture.shape[2] == 1 else picture))
    small = np.asarray(image.reduce(SCALE), np.float32)
    return small[None] if small.ndim == 2 else np.ascontiguousarray(small.transpose(2, 0, 1))


def _coefficients(colours: Planes, matte: Planes) -> Planes:
    """What red, green, blue, one and the old matte weigh in the new one, f32 (5, h, w): the least squares of every
    window, averaged over the windows a pixel is in."""
    r, g, b = colours
    moments = [r * r, r * g, r * b, g * g, g * b, b * b, r * matte, g * matte, b * matte, matte * matte]
    # A grey picture's colours say the same: in fp32 the determinant of their covariance would be rounding.
    means = _box(np.stack([r, g, b, matte, *moments])).astype(np.float64)
    r, g, b, m = means[:4]
    rr, rg, rb = means[4] - r * r + SMOOTH, means[5] - r * g, means[6] - r * b
    gg, gb, bb = means[7] - g * g + SMOOTH, means[8] - g * b, means[9] - b * b + SMOOTH
    rm, gm, bm = means[10] - r * m, means[11] - g * m, means[12] - b * m
    # The inverse of the symmetric covariance of the colours, by cofactors.
    c_rr, c_rg, c_rb = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    c_gg, c_gb, c_bb = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    scale = 1 / (rr * c_rr + rg * c_rg + rb * c_rb)
    red = (c_rr * rm + c_rg * gm + c_rb * bm) * scale
    green = (c_rg * rm + c_gg * gm + c_gb * bm) * scale
    blue = (c_rb * rm + c_gb * gm + c_bb * bm) * scale
    explained = (red * rm + green * gm + blue * bm) / (means[13] - m * m + SMOOTH)
    low, high = EXPLAINED
    trust = np.clip((explained - low) / (high - low), 0, 1)
    slopes = _box(np.stack([red, green, blue, m - red * r - green * g - blue * b, trust]).astype(np.float32))
    slopes[:4] *= slopes[4]
    slopes[4] = 1 - slopes[4]
    return slopes


def _box(planes: Planes) -> Planes:
    """Means over windows that reach REACH to each side, edges repeated, f32 (C, h, w)."""
    height, width = planes.shape[1:]
    padded = np.pad(planes, ((0, 0), (REACH, REACH), (REACH, REACH)), mode="edge")
    rows = padded[:, :height].copy()
    for offset in range(1, 2 * REACH + 1):
        rows += padded[:, offset : offset + height]
    total = rows[:, :, :width].copy()
    for offset in range(1, 2 * REACH + 1):
        total += rows[:, :, offset : offset + width]
    total /= np.float32((2 * REACH + 1) ** 2)
    return total


def _magnify(planes: Planes) -> Planes:
    """f32 (C, h, w) at SCALE times the size, linear between pixels, edges repeated."""
    count, height, width = planes.shape
    padded = np.pad(planes, ((0, 0), (1, 1), (1, 1)), mode="edge")
    wide = np.empty((count, height + 2, width, SCALE), np.float32)
    for phase, (offset, share) in enumerate(_PHASES):
        left = padded[:, :, offset : offset + width]
        wide[..., phase] = left + share * (padded[:, :, offset + 1 : offset + 1 + width] - left)
    wide = wide.reshape(count, height + 2, width * SCALE)
    tall = np.empty((count, height, SCALE, width * SCALE), np.float32)
    for phase, (offset, share) in enumerate(_PHASES):
        above = wide[:, offset : offset + height]
        tall[:, :, phase] = above + share * (wide[:, offset + 1 : offset + 1 + height] - above)
    return tall.reshape(count, height * SCALE, width * SCALE)


_PHASES = tuple(
    (int((phase + 0.5) / SCALE + 0.5), np.float32(((phase + 0.5) / SCALE + 0.5) % 1)) for phase in range(SCALE)
)
"""For each of the SCALE pixels of a coefficient: which of three neighbours is the one before it, and how far it is
past that."""
