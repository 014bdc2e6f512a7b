"""What the command line says to wrong options of `evaluate call`, `newcomer` and `precision`."""

from pathlib import Path

import pytest

pytest.importorskip("torch")

from streamgc.errors import InputError, one_of
from streamgc.evaluation.call_commands import COARSE, evaluate_precision, rates_of


def test_rates_are_numbers_above_nothing() -> None:
    assert rates_of("3,5.5, 10") == (3, 5.5, 10)
    for wrong in ("", "3,x", "3,,5", "0", "-3", "nan", "inf"):
        with pytest.raises(InputError, match="--rates"):
            rates_of(wrong)


def test_a_choice_that_is_none_names_those_there_are() -> None:
    assert one_of("bf16", COARSE, "--precision") == "bf16"
    with pytest.raises(InputError, match="--precision fp32: one of int8, bf16, fp16"):
        one_of("fp32", COARSE, "--precision")


def test_options_are_read_before_models_and_clips() -> None:
    with pytest.raises(InputError, match="--rates"):
        evaluate_precision([Path("none.mp4")], Path("none.tflite"), rates="fast")
