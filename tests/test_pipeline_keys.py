"""Which key a frame is shown with: one that the far side still holds when the frame is there."""

from __future__ import annotations

import numpy as np

from streamgc.pipeline.keys import HELD_KEYS
from tests.pipeline_fakes import moving, receiver, sender


def test_no_frame_builds_on_the_key_that_a_new_one_beside_it_evicts() -> None:
    base = moving(1)[0].astype(np.int16)
    far, near = receiver(), sender(kbps=200.0)
    used: list[int | None] = []

    def show(level: int, frames: int) -> None:
        for _ in range(frames):
            number = len(used)
            sent = near.encode((base + level).clip(0, 255).astype(np.uint8), number)
            taken = far.receive(sent.message)
            near.feedback(taken.feedback)
            used.append(taken.shown_with)

    for level in (0, 30, 60, 90):
        show(level, 25)
    assert len(near._keys.choice) == HELD_KEYS
    oldest = near._keys.choice[0].number
    show(11, 2)  # nearest to the oldest, and so far from it that a new one is made
    assert oldest not in [key.number for key in near._keys.choice]
    assert None not in used[5:]
