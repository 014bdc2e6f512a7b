"""Payload rates, AV1's curve and R."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgc.errors import InputError
from streamgc.evaluation.ratio import (
    Point,
    bd_rate,
    frontier,
    geometric_mean,
    payload_rate,
    rate_at,
    ratio,
    wire_sizes,
)

RAW = [Point(4, 0.5), Point(8, 0.3), Point(16, 0.1)]
PERSON = [Point(3, 0.4), Point(6, 0.35), Point(12, 0.2)]

points = st.lists(
    st.builds(Point, st.floats(0.5, 50), st.floats(0.01, 0.9)),
    min_size=1,
    max_size=8,
)


def test_a_constant_stream_has_its_rate() -> None:
    assert payload_rate([50] * 150, 15) == (6.0, 0, 6.0)


def test_the_start_is_spread_over_a_minute() -> None:
    sizes = [3000] + [50] * 149
    assert payload_rate(sizes, 15) == (6.0, 2950, round(6.0 + 2950 / 60 * 8 / 1000, 2))


def test_a_cheap_start_earns_nothing() -> None:
    rate = payload_rate([0] * 30 + [50] * 120, 15)
    assert rate.start_excess_bytes == -1500
    assert rate.kbps == rate.steady == 6.0


def test_a_short_clip_starts_with_its_first_half() -> None:
    assert payload_rate([100, 100, 10, 10], 10) == (0.8, 180, 0.82)


def test_one_message_is_no_rate() -> None:
    with pytest.raises(InputError, match="two coded frames"):
        payload_rate([100], 15)


def test_every_packet_costs_its_headers() -> None:
    assert wire_sizes([0, 1, 1200, 1201, 3000]) == [0, 61, 1260, 1321, 3180]


def test_the_frontier_drops_points_that_pay_more_for_less() -> None:
    assert frontier([Point(4, 0.5), Point(5, 0.6), Point(4, 0.7), Point(9, 0.2)]) == [Point(4, 0.5), Point(9, 0.2)]


@given(points)
def test_a_frontier_rises_in_rate_and_falls_in_score(found: list[Point]) -> None:
    kept = frontier(found)
    assert all(a.kbps < b.kbps and a.alex > b.alex for a, b in itertools.pairwise(kept))
    assert min(found).kbps == kept[0].kbps
    assert min(point.alex for point in found) == kept[-1].alex


@given(points, st.floats(0.01, 0.9))
def test_the_rate_at_a_score_lies_on_the_curve(found: list[Point], alex: float) -> None:
    kept = frontier(found)
    rate = rate_at(kept, alex)
    assert math.isinf(rate) == (alex < kept[-1].alex)
    if math.isfinite(rate):
        assert kept[0].kbps * 0.999 <= rate <= kept[-1].kbps * 1.001


def test_the_curve_is_straight_in_log_rate() -> None:
    assert rate_at(frontier(RAW), 0.4) == pytest.approx(math.sqrt(4 * 8))
    assert rate_at(frontier(RAW), 0.15) == pytest.approx(8 * 2**0.75)


def test_r_takes_the_best_variant_at_our_score() -> None:
    found = ratio([RAW, PERSON], Point(3, 0.35))
    assert found == (2.0, 6.0, "within")
    better_raw = ratio([RAW, PERSON], Point(4, 0.1))
    assert better_raw == (4.0, 16.0, "within")


def test_below_the_cheapest_point_r_is_a_half() -> None:
    assert ratio([RAW, PERSON], Point(0.1, 0.45)) == (0.5, 3.0, "below")


def test_at_the_cheapest_point_r_is_its_rate() -> None:
    assert ratio([RAW, PERSON], Point(3, 0.4)) == (1.0, 3.0, "within")


def test_above_every_point_the_highest_rate_caps_r() -> None:
    assert ratio([RAW, PERSON], Point(4, 0.05)) == (4.0, 16, "above")


@given(points, st.floats(1, 20), st.floats(0.01, 0.9), st.floats(0, 0.3))
def test_a_better_score_never_lowers_r_within_the_range(
    found: list[Point], kbps: float, alex: float, gain: float
) -> None:
    worse, better = ratio([found], Point(kbps, alex)), ratio([found], Point(kbps, max(alex - gain, 0.0)))
    if worse.where == "within" and better.where == "within":
        assert better.r >= worse.r - 2e-4


def test_r_needs_a_curve() -> None:
    with pytest.raises(InputError, match="measured points"):
        ratio([], Point(3, 0.3))
    with pytest.raises(InputError, match="measured points"):
        ratio([[]], Point(3, 0.3))


def test_the_geometric_mean() -> None:
    assert geometric_mean([1, 4]) == 2
    assert math.isnan(geometric_mean([]))


def test_half_the_bits_is_a_bd_rate_of_minus_fifty() -> None:
    pytest.importorskip("bjontegaard")
    halved = [Point(point.kbps / 2, point.alex) for point in RAW]
    assert bd_rate(RAW, halved) == pytest.approx(-50, abs=0.01)
    assert bd_rate(halved, RAW) == pytest.approx(100, abs=0.01)


def test_no_bd_rate_without_common_scores() -> None:
    assert bd_rate(RAW, [Point(1, 0.9), Point(2, 0.8)]) is None
    assert bd_rate(RAW, [Point(1, 0.4)]) is None
