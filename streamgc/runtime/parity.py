"""Is it still the same network? Errors of an engine against a reference, and the limits that fail."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streamgc.errors import EngineError
from streamgc.runtime.engine import Array, Engine

LATENT_PEAK = 2.4
"""Latents lie in ±2.4 (see ``networks.lite``)."""
PEAKS = {"attention": 1.0, "numbers": 4.4}
"""Largest possible value of outputs that may be near 0 everywhere: in a picture without a face nothing is attended to,
and a face may look ahead with its mouth closed."""


@dataclass(frozen=True)
class Limits:
    """What a network may differ from its reference before that is an error.

    ``mean_error`` and ``max_error`` are in units of the output's own range (255 for pictures, 2.4 for latents, the
    largest magnitude otherwise); ``decibels`` is the PSNR on that range; ``flips`` the share of latent values that
    round to another symbol, or of ids that are others.
    """

    mean_error: float
    max_error: float
    decibels: float
    flips: float


LIMITS: Mapping[str, Limits] = {
    "fp32": Limits(mean_error=0.001, max_error=0.05, decibels=55.0, flips=0.003),
    "fp16": Limits(mean_error=0.003, max_error=0.15, decibels=45.0, flips=0.01),
    "bf16": Limits(mean_error=0.01, max_error=0.4, decibels=34.0, flips=0.04),
    "int8": Limits(mean_error=0.03, max_error=0.6, decibels=26.0, flips=0.15),
}
IDS = frozenset({"labels"})
"""Outputs that name a class: what counts is how many differ, not by how much."""


@dataclass(frozen=True)
class Parity:
    """How far one output of an engine is from the reference's, over all inputs given.

    Errors and decibels as in `Limits`; ``flips`` is None for outputs that are neither latent nor ids.
    """

    output: str
    backend: str
    precision: str
    max_error: float
    mean_error: float
    decibels: float
    flips: float | None

    def breaches(self, limits: Limits) -> list[str]:
        """What exceeds the limits, in words; empty where all is well."""
        if self.output in IDS and self.flips is not None:
            return [f"{self.flips:.1%} other ids > {limits.flips:.1%}"] if self.flips > limits.flips else []
        found = []
        if self.mean_error > limits.mean_error:
            found.append(f"mean error {self.mean_error:.4f} > {limits.mean_error}")
        if self.max_error > limits.max_error:
            found.append(f"max error {self.max_error:.3f} > {limits.max_error}")
        if self.decibels < limits.decibels:
            found.append(f"{self.decibels:.1f} dB < {limits.decibels}")
        if self.flips is not None and self.flips > limits.flips:
            found.append(f"{self.flips:.1%} symbol flips > {limits.flips:.1%}")
        return found


def compare(output: str, engine: Engine, pairs: Sequence[tuple[Array, Array]], latent: bool) -> Parity:
    """Errors between (expected, got) pairs of one output. Raises EngineError on no pairs or on other shapes."""
    if not pairs:
        raise EngineError("parity needs at least one input")
    if any(want.shape != got.shape for want, got in pairs):
        raise EngineError(f"{engine.backend} gives {output} another shape than the reference does")
    wanted = np.concatenate([want.astype(np.float64).ravel() for want, _ in pairs])
    got = np.concatenate([have.astype(np.float64).ravel() for _, have in pairs])
    peak = LATENT_PEAK if latent else PEAKS.get(output) or max(float(np.abs(wanted).max()), 1e-9)
    if pairs[0][0].dtype == np.uint8:
        peak = 255.0
    error = np.abs(wanted - got) / peak
    flips = float((symbols_of(wanted) != symbols_of(got)).mean()) if latent else None
    if output in IDS:
        error = (wanted != got).astype(np.float64)
        flips = float(error.mean())
    square = float((error**2).mean())
    decibels = math.inf if square == 0 else -10 * math.log10(square)
    return Parity(output, engine.backend, engine.precision, float(error.max()), float(error.mean()), decibels, flips)


def parity_table(rows: Iterable[tuple[str, Parity]], limits: Mapping[str, Limits] = LIMITS) -> str:
    """A Markdown table of (network, parity) rows with a verdict by the limits."""
    lines = ["| network | engine | precision | output | mean error | max | dB | flips | |", "|---" * 9 + "|"]
    for network, row in rows:
        flips = "–" if row.flips is None else f"{row.flips:.2%}"
        verdict = "differs" if row.breaches(limits[row.precision]) else "same"
        numbers = f"{row.mean_error:.5f} | {row.max_error:.4f} | {row.decibels:.1f} | {flips}"
        lines.append(f"| {network} | {row.backend} | {row.precision} | {row.output} | {numbers} | {verdict} |")
    return "\n".join(lines)


def symbols_of(latent: Array) -> Array:
    """The symbols −2 … 2 a latent is coded as."""
    return np.clip(np.rint(latent), -2, 2)


def require(results: Iterable[Parity], limits: Mapping[str, Limits] = LIMITS) -> None:
    """Raise EngineError naming every output that breaches the limits of its precision."""
    found = [
        f"{r.output} on {r.backend} {r.precision}: {', '.join(r.breaches(limits[r.precision]))}"
        for r in results
        if r.breaches(limits[r.precision])
    ]
    if found:
        raise EngineError("not the same network: " + "; ".join(found))
