"""A short run of `tests/fuzzing.py`; the long one is `python -m tests.fuzzing --messages 1000000`."""

from tests.fuzzing import run

INPUTS = 12_000


def test_malformed_input_is_refused_soon_and_leaves_nothing_behind() -> None:
    outcome = run(INPUTS)
    assert outcome.inputs == INPUTS
    assert outcome.refused > INPUTS // 5
    assert outcome.slowest_s < 1.0, outcome.slowest  # a busy machine included; alone it is 20 ms
    assert outcome.grown_mb < 40
