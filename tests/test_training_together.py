"""training.together: processes that average their gradients, over real sockets."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the [train] extra is not installed")

from streamgc.errors import TrainingError  # noqa: E402
from streamgc.training.call_model import CallRun, train_call  # noqa: E402
from streamgc.training.call_settings import CallTraining  # noqa: E402
from streamgc.training.together import Together, train_together  # noqa: E402


def take_a_step(folder: Path, place: Together) -> None:
    """A process whose gradient is its number + 1; each writes what it got."""
    weight = torch.nn.Parameter(torch.zeros(3))
    untrained = torch.nn.Parameter(torch.zeros(2))
    (weight.sum() * (place.number + 1)).backward()
    place.average([weight, untrained])
    clock = place.agree(10.0 + place.number)
    assert weight.grad is not None
    (folder / f"{place.number}.txt").write_text(f"{weight.grad.tolist()} {clock} {place.leads}")


def fail_beside_the_leader(folder: Path, place: Together) -> None:
    if not place.leads:
        raise SystemExit(3)
    place.agree(1.0)
    place.agree(2.0)


def test_all_get_the_mean_gradient_and_the_leaders_clock(tmp_path: Path) -> None:
    train_together(take_a_step, tmp_path, 2)
    assert (tmp_path / "0.txt").read_text() == "[1.5, 1.5, 1.5] 10.0 True"
    assert (tmp_path / "1.txt").read_text() == "[1.5, 1.5, 1.5] 10.0 False"


def test_one_alone_keeps_its_gradient(tmp_path: Path) -> None:
    train_together(take_a_step, tmp_path, 1)
    assert (tmp_path / "0.txt").read_text() == "[1.0, 1.0, 1.0] 10.0 True"


def test_a_process_that_dies_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="a process of the training is gone"):
        train_together(fail_beside_the_leader, tmp_path, 2)


def test_what_is_missing_is_said_before_other_processes_start(tmp_path: Path) -> None:
    run = CallRun(tmp_path, tmp_path / "run", CallTraining(minutes=1), tmp_path / "none.safetensors")
    with pytest.raises(TrainingError, match="no such file of weights"):
        train_call(run, 2)
    with pytest.raises(TrainingError, match="train cache"):
        train_call(run._replace(start=None), 2)
    assert not (tmp_path / "run").exists()
