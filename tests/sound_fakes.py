"""Sounds for tests: something like a voice, and clicks whose place can be found again."""

import numpy as np

from streamgc.rtc.opus import SAMPLE_RATE, Samples


def voice(seconds: float, seed: int = 1) -> Samples:
    """Syllables of a gliding, harmonic tone with pauses between."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = 120 + 25 * np.sin(2 * np.pi * 0.7 * time) + rng.normal(0, 1)
    phase = np.cumsum(2 * np.pi * pitch / SAMPLE_RATE)
    tone = np.sum([np.cos(k * phase) / (1 + abs(k - 5)) for k in range(1, 20)], axis=0)
    syllables = np.clip(np.sin(2 * np.pi * 3 * time) * 3, 0, 1)
    sound = tone * syllables
    return np.asarray(sound / np.abs(sound).max() * 12_000, np.int16)


def bursts(seconds: float, every_s: float = 0.5, length_s: float = 0.1) -> Samples:
    """Tone bursts at every multiple of `every_s`, silence between."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    inside = time % every_s < length_s
    return np.asarray(np.sin(2 * np.pi * 440 * time) * inside * 12_000, np.int16)
