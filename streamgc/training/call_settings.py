"""Settings of the call model's training."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamgc.training.call_designs import ALIGNED
from streamgc.training.call_samples import SampleSettings

TRAINED_BETA = 0.033
"""β of two channels where a training came to rest; one that begins from its weights begins there."""


@dataclass(frozen=True)
class CallTraining:
    """Settings of one run; written beside the checkpoint."""

    minutes: float = 60.0
    design: str = ALIGNED
    """One of ``training/call_designs.py``."""
    rate: float = 4e-4
    seed: int = 1
    threads: int = 1
    perceptual: float = 0.0
    """Weight of the perceptual loss; 0 in the first stage."""
    perceptual_samples: int = 4
    """Samples of a batch that the perceptual loss looks at, and only their newer pictures: it is dear."""
    adversarial: float = 0.0
    """Weight of D's word; 0: there is no D."""
    steady: float = 4.0
    """Weight of what changes between the two pictures where the source stands still."""
    attention: float = 0.1
    """Weight of where E believes eyes and mouths to be."""
    samples: SampleSettings = field(default_factory=SampleSettings)
    target_bits: tuple[tuple[int, float], ...] = ((2, 1.3), (4, 4.0), (8, 10.0))
    """Target bits per kept cell for each channel count."""
    beta: float = 0.002
    """β of two channels at the beginning; a sixth of it for four, a sixtieth for eight."""
    ramp_steps: int = 2500
    """Steps over which the target falls from three times its value, in a training from nothing; 0: it begins there."""
    mixed_share: float = 0.6
    """Share of samples in which most cells carry two channels, and those that differ most from the key, and faces,
    all eight."""
    painted_share: float = 0.15
    """Share of samples whose key is another sample's, so that the code paints the whole picture."""
    novelty: float = 1.5
    """What a place weighs more, for every time that it differs from the key as much as the kept rest does in the mean:
    what is new is little of a picture and would be left out."""
    face_crops: float = 0.6
    """Share of the perceptual loss's sharp crops that are laid around what weighs most: a face, something new."""
    lost_share: float = 0.15
    checkpoint_seconds: float = 150.0
