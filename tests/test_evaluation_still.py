"""Evaluation of stills: rivals, curves, mIoU, samples – on tiny pictures and hand-made rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from streamgc.errors import InputError
from streamgc.evaluation.miou import CITYSCAPES_TRAINED, UNCOUNTED, Confusion, as_trained
from streamgc.evaluation.rd import bits_needed, equal_rate, images_in, means, savings
from streamgc.evaluation.sampling import SamplingSettings, draw_codes, train_code_generator, uniform_codes
from streamgc.evaluation.selective import with_inset
from streamgc.evaluation.still_models import labelled_in
from streamgc.evaluation.still_report import plot_curves, write_csv
from streamgc.evaluation.still_rivals import RIVALS, rival


def photo(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width] / 16
    planes = [np.sin(x + y * k) * np.cos(y - x / (k + 1)) for k in range(3)]
    return (127 + 120 * np.stack(planes, -1)).astype(np.uint8)


@pytest.mark.parametrize("name", sorted(RIVALS))
def test_rivals_trade_bytes_for_likeness(name: str) -> None:
    picture = photo(65, 97)
    codec = rival(name)
    coarse, fine = (codec.encode(picture, codec.qualities[place]) for place in (0, -1))
    assert coarse.picture.shape == fine.picture.shape == picture.shape
    assert coarse.size < fine.size < picture.size
    errors = [np.abs(found.picture.astype(int) - picture).mean() for found in (coarse, fine)]
    assert errors[1] < errors[0]
    assert errors[1] < 12


def test_unknown_rival() -> None:
    with pytest.raises(InputError, match="there are: hevc"):
        rival("bpg")


def test_bits_needed_by_hand() -> None:
    """Our mean .3 at .05 bpp lies between the rival's .4 at .08 and .2 at .32: in log rate half way, .16, 3.2 times."""
    rows = [
        {"codec": "us", "quality": 2, "bpp": 0.04, "alex": 0.25},
        {"codec": "us", "quality": 2, "bpp": 0.06, "alex": 0.35},
        {"codec": "us", "quality": 4, "bpp": 0.5, "alex": 0.1},
        {"codec": "them", "quality": 50, "bpp": 0.08, "alex": 0.4},
        {"codec": "them", "quality": 30, "bpp": 0.32, "alex": 0.2},
    ]
    curves = means(rows)
    assert curves[0] == {"codec": "us", "quality": 2, "images": 2, "bpp": 0.05, "alex": pytest.approx(0.3)}
    found = bits_needed(curves, ["us"])
    assert found[0]["times_our_bits"] == pytest.approx(3.2)
    assert found[1]["times_our_bits"] is None


def test_equal_rate_by_hand() -> None:
    """Both curves cover .04 to .16: there we are at .4, .35 and .3; the rival at .6, .3 and .2."""
    curves = [
        {"codec": "us", "bpp": 0.01, "alex": 0.5},
        {"codec": "us", "bpp": 0.04, "alex": 0.4},
        {"codec": "us", "bpp": 0.16, "alex": 0.3},
        {"codec": "them", "bpp": 0.04, "alex": 0.6},
        {"codec": "them", "bpp": 0.08, "alex": 0.3},
        {"codec": "them", "bpp": 0.32, "alex": 0.1},
        {"codec": "far", "bpp": 2.0, "alex": 0.1},
    ]
    found = equal_rate(curves, "us")
    assert [row["bpp"] for row in found] == [0.04, 0.08, 0.16]
    assert [row["ours"] for row in found] == pytest.approx([0.4, 0.35, 0.3])
    assert [row["rivals"] for row in found] == pytest.approx([0.6, 0.3, 0.2])
    assert [row["better"] for row in found] == [True, False, False]


def test_savings_by_hand() -> None:
    row = {"codec": "us", "quality": 4, "bound_bpp": 0.04, "static_bpp": 0.03, "context_bpp": 0.024}
    assert savings([row])[0]["static_under_bound"] == pytest.approx(0.25)
    assert savings([row])[0]["contexts_under_static"] == pytest.approx(0.2)


def test_miou_by_hand() -> None:
    """Class 0: 1 of 2 in union 3; class 1: 1 of 2 in union 3 – but a seen class 7 is no class of the truth."""
    confusion = Confusion()
    confusion.add(np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 7]]))
    assert confusion.miou() == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert np.isnan(Confusion().miou())


def test_what_nobody_was_asked_to_know_is_not_counted() -> None:
    """Cityscapes' 34 label ids: road is 7 and the first that is trained, bicycle 33 and the last; 0 to 6 are void."""
    labels = np.array([[7, 33, 0, 6], [26, 7, 9, 255]])
    trained = as_trained(labels, "cityscapes")
    assert trained.tolist() == [[0, 18, UNCOUNTED, UNCOUNTED], [13, 0, UNCOUNTED, UNCOUNTED]]
    assert len(set(CITYSCAPES_TRAINED)) == 19
    assert as_trained(labels, "same") is labels
    confusion = Confusion()
    confusion.add(trained, np.array([[0, 18, 3, 4], [13, 1, 5, 0]]))
    assert confusion.miou() == pytest.approx((1 / 2 + 1 + 1) / 3)


def test_generator_of_codes_learns_which_symbols_occur() -> None:
    torch.set_num_threads(1)
    random = np.random.default_rng(1)
    codes = [random.choice([0, 2], (2, 4, 6), p=[0.3, 0.7]).astype(np.int8) for _ in range(16)]
    settings = SamplingSettings(steps=30, batch=8, critic_steps=2, rate=2e-3, width=16, noise=8)
    drawn = np.stack(draw_codes(train_code_generator(codes, settings), 16, settings, seed=1))
    uniform = np.stack(uniform_codes((2, 4, 6), 16, seed=1))
    assert drawn.shape == uniform.shape == (16, 2, 4, 6)
    assert abs(drawn.mean() - 1.4) < abs(uniform.mean() - 1.4)
    with pytest.raises(InputError, match="one shape"):
        train_code_generator([codes[0], codes[1][:1]], settings)


def test_data_folders_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no images"):
        images_in([tmp_path])
    (tmp_path / "images").mkdir()
    Image.fromarray(photo(16, 16)).save(tmp_path / "images" / "a.png")
    with pytest.raises(InputError, match=r"a\.png has no label map"):
        labelled_in(tmp_path)
    (tmp_path / "labels").mkdir()
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "labels" / "a.png")
    assert labelled_in(tmp_path)[0].labels.shape == (16, 16)
    assert len(images_in([tmp_path / "images"], 5)) == 1


def test_reports_and_insets(tmp_path: Path) -> None:
    rows = [{"codec": "a", "bpp": 0.1 * n, "psnr": 20.0 + n} for n in range(1, 4)]
    plot_curves(tmp_path / "x.png", rows, "bpp", {"psnr": "PSNR"})
    write_csv(tmp_path / "x.csv", rows)
    with Image.open(tmp_path / "x.png") as image:
        assert image.size[0] > 100
    assert (tmp_path / "x.csv").read_text().splitlines()[0] == "codec,bpp,psnr"
    kept = np.zeros((40, 40), bool)
    shown = with_inset(np.full((40, 40, 3), 9, np.uint8), kept)
    assert shown[-1, -1].tolist() == [0, 0, 0]
    assert shown[0, 0].tolist() == [9, 9, 9]
