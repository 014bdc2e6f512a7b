"""Training the call model: its cache, its samples, where faces weigh more, and steps that a killed run repeats."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("torch")

import torch
from safetensors.torch import save_file

from streamgc.errors import TrainingError
from streamgc.networks.lite import NO_ATTENTION
from streamgc.training.averaging import averaged
from streamgc.training.call_adversary import Adversary
from streamgc.training.call_cache import CacheSettings, add_faces, build_cache
from streamgc.training.call_designs import CONDITIONAL
from streamgc.training.call_losses import NEW_LIMIT, SINGLED_OUT, Losses, novelty
from streamgc.training.call_model import (
    MIXED,
    PAINTED,
    RICH_PRICE,
    CallModel,
    CallRun,
    CallTrainer,
    planes,
    rich_cells,
    train_call,
)
from streamgc.training.call_samples import (
    CLOSE_UP,
    FACE_NUMBERS,
    FACE_WEIGHT,
    PART_WEIGHT,
    Cache,
    Sampler,
    SampleSettings,
    attention,
    face_change,
    kept_change,
)
from streamgc.training.call_settings import CallTraining
from streamgc.training.call_ship import load_checkpoint
from streamgc.training.together import Together
from tests.test_call_sources import write_talking

FACE = np.array([100, 100, 140, 100, 120, 140, 40], np.float32)
FRAMES = 24
SMALL = SampleSettings(batch=2, size=64)
pytestmark = pytest.mark.usefixtures("one_thread")


def middle(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    mask = np.zeros(picture.shape[:2], np.uint8)
    mask[60:220, 70:190] = 255
    return mask


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    (data / "clips").mkdir()
    write_talking(data / "clips" / "one.mp4", FRAMES / 15)
    stills = data / "stills" / "portraits"
    stills.mkdir(parents=True)
    for index in range(2):
        Image.fromarray(np.random.default_rng(index).integers(0, 255, (70, 90, 3), np.uint8)).save(
            stills / f"{index}.png"
        )
    build_cache(data, data / "cache", middle, CacheSettings(clip_frames=FRAMES, sets=("portraits",)))
    return data / "cache"


def test_a_face_weighs_more_and_its_parts_most() -> None:
    weights = attention(FACE)
    assert weights.shape == (64, 64)
    assert weights.dtype == np.float32
    assert weights.min() >= 1
    at = {name: weights[y // 4, x // 4] for name, (x, y) in {"eye": (100, 100), "mouth": (120, 140)}.items()}
    cheek, corner = weights[120 // 4, 100 // 4], weights[63, 63]
    assert min(at.values()) > PART_WEIGHT > cheek > SINGLED_OUT > 1.01 > corner
    assert weights.max() <= 1 + FACE_WEIGHT + PART_WEIGHT
    np.testing.assert_array_equal(attention(np.full(FACE_NUMBERS, np.nan, np.float32)), np.ones((64, 64)))


def test_faces_lie_beside_the_cache_and_move_with_the_crop(folder: Path) -> None:
    assert np.isnan(Cache(folder).faces).all(), "a cache that was built without a face finder weighs none"
    searched: list[int] = []

    def every_other(picture: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        searched.append(1)
        return FACE if len(searched) % 2 else None

    add_faces(folder, every_other)
    cache = Cache(folder)
    # Two stills; the second is looked at again, enlarged, since nothing was found in it.
    assert len(searched) == FRAMES // 2 + 3
    np.testing.assert_array_equal(np.isnan(cache.faces[:, 0]).reshape(-1, 4), [[False, False, True, True]] * 6)
    samples = Sampler(cache, SampleSettings(batch=8, size=64, still_share=0), 3).batch()
    assert samples.attention.shape == (8, 2, 1, 64, 64)
    assert samples.attention.min() >= 1 - 1e-5
    assert (samples.attention.flatten(1).amax(1) > SINGLED_OUT).any()
    again = Sampler(cache, SampleSettings(batch=8, size=64, still_share=0), 3).batch()
    for one, other in zip(samples, again, strict=True):
        assert torch.equal(one, other)


def test_of_two_clips_the_turned_face_is_taken(folder: Path) -> None:
    cache = Cache(folder)
    sampler = Sampler(cache, SampleSettings(batch=2, size=64, still_share=0, turned_share=1.0, stirred_share=0), 3)
    plain = Sampler(cache, SampleSettings(batch=2, size=64, still_share=0, turned_share=0.0, stirred_share=0), 3)
    frame = np.full((2, 256, 256, 3), 100, np.uint8)
    drawn = sampler._clip()._replace(frames=frame, faces=np.stack([FACE, FACE]), key=frame[0])
    assert face_change(drawn) == 0
    assert face_change(drawn._replace(key=frame[0] + 30)) == pytest.approx(30)
    away = frame[0].copy()
    away[200:, 200:] = 0
    assert face_change(drawn._replace(key=away)) < 1, "what is not the face does not count"
    assert face_change(drawn._replace(faces=np.full((2, FACE_NUMBERS), np.nan, np.float32), key=away)) == 0
    add_faces(folder, lambda picture: FACE)
    known = Cache(folder)
    sampler, plain = (Sampler(known, s.settings, 3) for s in (sampler, plain))
    chosen, any_of = (np.mean([face_change(s._clip()) for _ in range(40)]) for s in (sampler, plain))
    assert chosen > any_of


def test_of_two_clips_what_moves_more_is_taken(folder: Path) -> None:
    cache = Cache(folder)
    shares = ((0.0, 1.0), (0.0, 0.0))
    sampler, plain = (
        Sampler(cache, SampleSettings(still_share=0, turned_share=turned, stirred_share=stirred), 3)
        for turned, stirred in shares
    )
    frame, mask = np.full((2, 256, 256, 3), 100, np.uint8), np.zeros((2, 256, 256), np.uint8)
    mask[:, :128] = 255
    drawn = sampler._clip()._replace(frames=frame, masks=mask, key=frame[0].copy())
    drawn.key[128:] = 0
    assert kept_change(drawn) == 0, "what is not kept does not count"
    drawn.key[:128] = 70
    assert kept_change(drawn) == pytest.approx(30)
    assert kept_change(drawn._replace(masks=mask * 0)) == 0
    chosen, any_of = (np.mean([kept_change(s._clip()) for _ in range(40)]) for s in (sampler, plain))
    assert chosen > any_of


def test_eyes_and_mouths_of_others_come_into_the_key_or_the_pictures(folder: Path) -> None:
    add_faces(folder, lambda picture: FACE)
    sampler = Sampler(Cache(folder), SampleSettings(still_share=0), 3)
    seen = set()
    for _ in range(30):
        drawn = sampler._clip()
        now = sampler._swapped(drawn)
        changed = [not np.array_equal(one, other) for one, other in zip(now.frames, drawn.frames, strict=True)]
        of_key = not np.array_equal(now.key, drawn.key)
        assert of_key != any(changed), "one of the two, or the code would have nothing to say"
        assert np.array_equal(now.frames[:, :60], drawn.frames[:, :60]), "above the face nothing changes"
        seen.add((of_key, *changed))
    assert seen == {(True, False, False), (False, True, True), (False, False, True)}
    unknown = drawn._replace(faces=np.full((2, FACE_NUMBERS), np.nan, np.float32))
    assert sampler._swapped(unknown) is unknown


def test_a_close_up_is_cut_around_the_face(folder: Path) -> None:
    add_faces(folder, lambda picture: FACE)
    cache = Cache(folder)
    near, far = (Sampler(cache, SampleSettings(close_share=share, moved_share=0), 3) for share in (1.0, 0.0))

    def middles(sampler: Sampler) -> NDArray[np.floating]:
        grids = [sampler._grids(sampler._clip())[1] for _ in range(40)]
        return np.array([np.hypot(*((grid.mean((0, 1)) + 1) * 128 - [120, 113])) for grid in grids])

    assert middles(near).mean() < 0.8 * middles(far).mean()
    for _ in range(40):
        grid = near._grids(near._clip())[1]
        eyes = 40 / (abs(grid[0, 1, 0] - grid[0, 0, 0]) * 128)  # pixels of the sample between them
        assert CLOSE_UP[0] * 0.99 < eyes < CLOSE_UP[1] * 1.4, "the least crop is larger than the closest wish"


def test_the_encoder_learns_where_eyes_and_mouth_are(folder: Path, tmp_path: Path) -> None:
    add_faces(folder, lambda picture: FACE)
    settings = CallTraining(minutes=0, rate=3e-3, samples=SampleSettings(batch=2, size=64, close_share=1), attention=1)
    trainer = CallTrainer(Cache(folder), tmp_path, settings)
    before = {n: v.clone() for n, v in trainer.model.state_dict().items() if "attend" in n}
    for _ in range(3):
        trainer.step(trainer.sampler.batch())
    after = trainer.model.state_dict()
    assert before
    assert all(not torch.equal(value, after[name]) for name, value in before.items())
    assert float(after["encoder.attend.bias"]) > NO_ATTENTION, "in a close-up there is more of them than it began with"


def test_weights_of_before_e_paid_attention_can_be_trained_on(folder: Path, tmp_path: Path) -> None:
    state = {name: value.contiguous() for name, value in CallModel().state_dict().items() if "attend" not in name}
    save_file(state, tmp_path / "old.safetensors")
    trainer = CallTrainer(Cache(folder), tmp_path / "run", CallTraining(samples=SMALL), tmp_path / "old.safetensors")
    assert trainer.model.state_dict()["encoder.attend.bias"].tolist() == [NO_ATTENTION]
    name = next(iter(state))
    assert torch.equal(trainer.model.state_dict()[name], state[name])
    model, _ = load_checkpoint(tmp_path / "old.safetensors")
    assert torch.equal(model.state_dict()[name], state[name])
    for wrong in ({name: state[name]}, {**state, name: state[name][:1]}, {**state, "other.weight": torch.zeros(1)}):
        save_file({key: value.contiguous() for key, value in wrong.items()}, tmp_path / "wrong.safetensors")
        with pytest.raises(TrainingError, match="another network"):
            load_checkpoint(tmp_path / "wrong.safetensors")


def test_a_checkpoint_of_another_network_is_refused(folder: Path, tmp_path: Path) -> None:
    trainer = CallTrainer(Cache(folder), tmp_path, CallTraining(samples=SMALL))
    trainer.save()
    state = torch.load(trainer.checkpoint, weights_only=True)
    state["model"] = {name: value for name, value in state["model"].items() if "attend" not in name}
    torch.save(state, trainer.checkpoint)
    with pytest.raises(TrainingError, match="--start"):
        CallTrainer(Cache(folder), tmp_path, CallTraining(samples=SMALL))


def test_what_the_key_does_not_show_is_new() -> None:
    key = torch.full((1, 3, 64, 64), 0.5)
    truth, kept = key.clone(), torch.zeros(1, 1, 64, 64)
    kept[..., :48] = 1
    assert novelty(truth, key, kept).abs().max() == 0
    truth[..., 20:36, 8:24] = 1.0
    truth[..., 20:36, 50:60] = 0.0
    news = novelty(truth, key, kept)
    assert news[0, 0, 28, 16] == NEW_LIMIT
    assert news[0, 0, 50, 40] == 0
    assert news[..., 48:].abs().max() == 0, "outside the mask nothing is new"
    noisy = key + 0.01 * torch.randn(key.shape, generator=torch.Generator().manual_seed(0))
    assert novelty(noisy, key, kept).max() < 0.5, "noise is no news"


def test_rich_cells_are_those_that_change(folder: Path) -> None:
    random = np.random.default_rng(0)
    kept = torch.ones(4, 1, 8, 8)
    kept[:, :, :2] = 0
    change = torch.full((4, 1, 8, 8), 0.01)
    change[..., 3, 3] = 100.0
    rich = rich_cells(change, kept, random)
    assert (rich[..., 3, 3] == 1).all()
    assert rich[:, :, :2].sum() == 0
    assert rich.flatten(1).sum(1).tolist() == pytest.approx([48 * 0.2] * 4, abs=48 * 0.16)
    assert rich_cells(change * 0, kept, random).sum() == 0
    trainer = CallTrainer(Cache(folder), folder / "none", CallTraining(samples=SMALL, threads=1))
    news = change.repeat_interleave(16, 2).repeat_interleave(16, 3)
    present = trainer._present(np.array([2, MIXED, 4, 8]), news, kept)
    assert present.flatten(2).amax(2).sum(1).tolist() == [2, 8, 4, 8]
    assert present[1, 2:].amin() == 0
    prices = trainer._prices(np.array([2, MIXED]))[:, :, 0, 0]
    assert prices[0].tolist() == pytest.approx([trainer.beta[2]] * 8)
    assert prices[1].tolist() == pytest.approx([trainer.beta[2]] * 2 + [RICH_PRICE * trainer.beta[8]] * 6)


def test_a_painted_sample_has_the_key_of_another_and_all_of_its_code(folder: Path) -> None:
    trainer = CallTrainer(Cache(folder), folder / "none", CallTraining(samples=SMALL, threads=1))
    counts = np.array([2, PAINTED, MIXED])
    samples = Sampler(Cache(folder), SampleSettings(batch=3, size=128), 5).batch()
    numbered = torch.arange(3.0).view(3, 1, 1, 1).expand_as(samples.key)
    keys, moved = trainer._keys(samples._replace(key=numbered, moved=torch.ones_like(samples.moved)), counts)
    assert keys[:, 0, 0, 0].tolist() == [0, 0, 2]
    assert moved[:, 0, 0, 0, 0].tolist() == [1, 0, 1]  # not somebody else's face
    kept = torch.ones(3, 1, 8, 8)
    present = trainer._present(counts, torch.ones(3, 1, 128, 128), kept)
    assert present[1].min() == 1
    assert trainer._prices(counts)[1, :, 0, 0].tolist() == pytest.approx([RICH_PRICE * trainer.beta[8]] * 8)
    lost = planes(kept, np.random.default_rng(0), np.array([1.0, 0.0, 1.0]))[:, 2]
    assert lost[1].sum() == 0
    assert min(lost[0].sum(), lost[2].sum()) > 0


def test_two_processes_train_one_call_model(folder: Path, tmp_path: Path) -> None:
    train_call(CallRun(folder, tmp_path, CallTraining(samples=SMALL, minutes=0.02)), 2)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["steps"] >= 1


def test_an_error_in_a_face_costs_more(folder: Path) -> None:
    cache = Cache(folder)
    samples = Sampler(cache, SMALL, 5).batch()
    trainer = CallTrainer(cache, folder / "none", CallTraining(samples=SMALL, threads=1))
    model, key = trainer.model, samples.key
    symbols = torch.zeros(2, 8, 4, 4)
    plane = torch.cat([torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)], 1)
    made = model.generator(symbols, torch.ones(2, 8, 4, 4), plane, key, model.reference(key))
    ones = torch.ones(2, 1, 64, 64)
    face, spoilt = ones.clone(), made.picture.detach().clone()
    face[..., 20:40, 20:40] = 5.0
    spoilt[..., 20:40, 20:40] += 0.5
    losses, random = Losses(CallTraining(), Together()), np.random.default_rng(0)
    plain, _ = losses(made, spoilt, ones, ones, ones, random, sharp=False)
    weighted, _ = losses(made, spoilt, ones, ones, face, random, sharp=False)
    assert weighted > 1.5 * plain


def test_a_sharp_crop_holds_the_face(folder: Path) -> None:
    weights = torch.ones(1, 128, 128)
    weights[0, 10, 100] = 6.0
    settings = dataclasses.replace(CallTraining(), face_crops=1.0)
    losses, random = Losses(settings, Together()), np.random.default_rng(1)
    for _ in range(20):
        y, x = losses._corner(weights, 64, random)
        assert 0 <= y <= 10 < y + 64
        assert x <= 100 < x + 64 <= 128


def test_it_trains_stops_and_goes_on(folder: Path, tmp_path: Path) -> None:
    settings = CallTraining(samples=SMALL, threads=1, minutes=0)
    first = CallTrainer(Cache(folder), tmp_path, settings)
    before = {name: value.clone() for name, value in first.model.state_dict().items()}
    for _ in range(2):
        first.step(first.sampler.batch())
    assert all(np.isfinite(values).all() for values in first.log.values())
    assert any(not torch.equal(before[name], value) for name, value in first.model.state_dict().items())
    first.save()
    second = CallTrainer(Cache(folder), tmp_path, settings)
    assert second.steps == 2
    for name, value in first.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], value)
    assert not list(tmp_path.glob("*.tmp"))


def test_only_what_flickers_is_charged_for_it() -> None:
    losses = Losses(CallTraining(), Together())
    still = torch.full((2, 2, 3, 32, 32), 0.5)
    kept = torch.zeros(2, 2, 1, 32, 32)
    kept[..., :16] = 1
    before, after = torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 32, 32)
    assert losses.unsteady([before, after], still, kept) == 0
    after[..., 16:] = 1.0
    assert losses.unsteady([before, after], still, kept) == 0, "outside the mask nobody looks"
    after[..., :16] = 0.1
    assert losses.unsteady([before, after], still, kept) == pytest.approx(0.1, rel=1e-3)
    moving = still.clone()
    moving[:, 1] += 0.1
    assert losses.unsteady([before, after], moving, kept) == 0, "what moves may change"


def test_the_adversary_tells_pictures_apart_and_its_word_grows() -> None:
    torch.manual_seed(0)
    adversary = Adversary(Together())
    truth = torch.rand(4, 3, 64, 64)
    shown = torch.full_like(truth, 0.5).requires_grad_()
    assert adversary.judge(shown, truth) == 0, "at first its word has no weight"
    costs = []
    for _ in range(30):
        adversary.judge(shown, truth)
        costs.append(adversary.learn())
    assert costs[-1] < 0.5 * costs[0]
    cost = adversary.judge(shown, truth)
    cost.backward()  # type: ignore[no-untyped-call]
    assert shown.grad is not None
    assert shown.grad.abs().sum() > 0
    again = Adversary(Together())
    again.load(adversary.state())
    torch.testing.assert_close(again.judge(shown, truth), cost)


def test_a_training_with_an_adversary_goes_on_with_it(folder: Path, tmp_path: Path) -> None:
    settings = CallTraining(samples=SMALL, threads=1, minutes=0, perceptual_samples=2, adversarial=0.1)
    first = CallTrainer(Cache(folder), tmp_path, settings)
    first.step(first.sampler.batch())
    first.save()
    second = CallTrainer(Cache(folder), tmp_path, settings)
    assert first.losses.adversary is not None
    assert second.losses.adversary is not None
    for name, value in first.losses.adversary.network.state_dict().items():
        assert torch.equal(second.losses.adversary.network.state_dict()[name], value)


def test_the_other_design_has_the_same_weights_and_moves_nothing(folder: Path, tmp_path: Path) -> None:
    settings = CallTraining(samples=SMALL, threads=1, minutes=0, design=CONDITIONAL)
    trainer = CallTrainer(Cache(folder), tmp_path, settings)
    trainer.step(trainer.sampler.batch())
    trainer.save()
    model, steps = load_checkpoint(trainer.checkpoint)
    assert steps == 1
    assert model.state_dict().keys() == CallModel().state_dict().keys()
    key = torch.rand(1, 3, 64, 64)
    plane = torch.cat([torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)], 1)
    with torch.no_grad():
        made = model.generator(torch.zeros(1, 8, 4, 4), torch.ones(1, 8, 4, 4), plane, key, model.reference(key))
    torch.testing.assert_close(made.warped, key)
    with pytest.raises(TrainingError, match="one of aligned, conditional"):
        CallModel("guessed")


def test_a_cache_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no frames"):
        Cache(tmp_path)


def test_the_mean_of_two_checkpoints_lies_between_them(folder: Path, tmp_path: Path) -> None:
    settings = CallTraining(minutes=0, samples=SMALL, threads=1)
    trainers = [
        CallTrainer(Cache(folder), tmp_path / name, dataclasses.replace(settings, seed=seed))
        for name, seed in (("one", 1), ("two", 2))
    ]
    for trainer in trainers:
        trainer.save()
    one, two = (load_checkpoint(trainer.checkpoint)[0].state_dict() for trainer in trainers)
    mean = averaged(load_checkpoint(trainers[0].checkpoint)[0], two).state_dict()
    name = next(name for name, value in one.items() if value.numel() > 1000)
    assert not torch.equal(one[name], two[name])
    assert torch.allclose(mean[name] - one[name], two[name] - mean[name], atol=1e-6)
