"""What the receiver shows: steady where nothing moves, at once where something does."""

import numpy as np
import pytest

from streamgc.pipeline.steady import CALM, MOVED, PART, Steadier


def grey(level: float, channels: int = 3) -> np.ndarray:
    return np.full((40, 48, channels), level, np.uint8)


def test_the_first_picture_is_shown_as_it_is() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (40, 48, 4), np.uint8)
    np.testing.assert_array_equal(Steadier().show(picture), picture)


def test_what_wavers_is_calmed_and_nothing_drifts_away() -> None:
    random = np.random.default_rng(1)
    pictures = [np.clip(128 + random.normal(0, 1.0, (40, 48, 4)), 0, 255).astype(np.uint8) for _ in range(40)]
    steadier = Steadier()
    shown = [steadier.show(picture) for picture in pictures]

    def wavering(sequence: list[np.ndarray]) -> float:
        return float(np.abs(np.diff(np.stack(sequence[5:]).astype(int), axis=0)).mean())

    assert wavering(shown) < 0.6 * wavering(pictures)
    assert abs(float(np.mean(shown[-10:])) - float(np.mean(pictures[-10:]))) < 0.6


def test_what_moves_is_shown_at_once() -> None:
    steadier = Steadier()
    steadier.show(grey(100))
    moved = grey(100)
    moved[10:30, 10:30] = 160
    shown = steadier.show(moved)
    np.testing.assert_array_equal(shown[12:28, 12:28], moved[12:28, 12:28])
    np.testing.assert_array_equal(shown[:6], moved[:6])


def test_a_small_change_arrives_in_the_end() -> None:
    steadier = Steadier()
    steadier.show(grey(100))
    first = steadier.show(grey(100 + CALM))
    assert first.mean() == pytest.approx(100 + PART * CALM, abs=0.5)
    for _ in range(12):
        last = steadier.show(grey(100 + CALM))
    np.testing.assert_array_equal(last, grey(100 + CALM))
    np.testing.assert_array_equal(steadier.show(grey(102 + MOVED)), grey(102 + MOVED))


def test_another_size_and_another_scene_begin_anew() -> None:
    steadier = Steadier()
    steadier.show(grey(100))
    np.testing.assert_array_equal(steadier.show(grey(101, 4)), grey(101, 4))
    steadier.forget()
    np.testing.assert_array_equal(steadier.show(grey(102, 4)), grey(102, 4))
