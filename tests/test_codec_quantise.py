"""Rate–distortion-optimised quantisation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgc.codec.code import code_bits, decode_code, encode_code
from streamgc.codec.face_coding import face_bits
from streamgc.codec.quantise import quantise
from streamgc.codec.symbols import LAYOUTS, MIXED, Code, check_code, make_code
from streamgc.codec.tables import default_tables
from tests.codec_strategies import GRIDS, quick, random_code
from tests.test_codec_code import disc, least_seconds

Latent = np.ndarray


def scene(seed: int, channels: int = 4) -> tuple[Latent, Code]:
    """A latent near its reference on a disc of cells."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(channels, 16, 16)) * 0.5
    reference = make_code(np.clip(np.rint(base), -2, 2) * disc(), disc())
    return (base + rng.normal(size=base.shape) * 0.2).astype(np.float32), reference


@quick
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(GRIDS),
    st.sampled_from(LAYOUTS),
    st.integers(0, 7),
    st.sampled_from([0.0, 0.01, 0.1, 1.0, 50.0]),
)
def test_code_is_valid_and_bits_are_those_of_the_coder(
    seed: int, grid: tuple[int, int], layout: int, age: int, strength: float
) -> None:
    rng = np.random.default_rng(seed)
    mixed = layout == MIXED
    latent = rng.uniform(-2.4, 2.4, (8 if mixed else layout, *grid)).astype(np.float32)
    reference = random_code(seed, grid, LAYOUTS[seed % 4], 0.3, 0.7) if age else None
    keep = rng.random(grid) < 0.6
    code, bits = quantise(latent, keep, reference, age, default_tables(), strength, mixed=mixed)
    check_code(code)
    assert np.array_equal(code.keep, keep)
    no_face = face_bits(None, None, age, default_tables(), grid)
    assert bits + no_face == pytest.approx(code_bits(code, reference, age, default_tables()))
    payload = encode_code(code, reference, age, default_tables())
    assert decode_code(payload, grid, layout, reference, age, default_tables()).equals(code)


def test_strength_zero_rounds() -> None:
    latent, reference = scene(1)
    code = quantise(latent, disc(), reference, 3, default_tables(), 0).code
    assert np.array_equal(code.symbols, np.rint(latent) * disc())


def test_the_smallest_strength_rounds_too() -> None:
    latent, reference = scene(1)
    code = quantise(latent, disc(), reference, 3, default_tables(), 1e-9).code
    assert np.array_equal(code.symbols, np.rint(latent) * disc())


def test_more_strength_is_fewer_bits_and_more_error() -> None:
    latent, reference = scene(2)
    results = [quantise(latent, disc(), reference, 3, default_tables(), s) for s in (0, 0.03, 0.1, 0.3, 1.0, 100.0)]
    bits = [result.bits for result in results]
    errors = [float((((latent - result.code.symbols) ** 2) * disc()).sum()) for result in results]
    assert bits == sorted(bits, reverse=True)
    assert errors == sorted(errors)
    assert results[-1].code.equals(reference)


def test_it_beats_plain_rounding_in_what_it_minimises() -> None:
    strength = 0.1
    for seed in range(5):
        latent, reference = scene(seed)

        def score(code: Code, latent: Latent = latent, reference: Code = reference) -> float:
            error = float((((latent - code.symbols) ** 2) * disc()).sum())
            return error + strength * code_bits(code, reference, 3, default_tables())

        chosen = quantise(latent, disc(), reference, 3, default_tables(), strength).code
        assert score(chosen) < score(make_code(np.rint(latent), disc()))
        assert score(chosen) <= score(reference)


def test_weight_keeps_what_matters() -> None:
    latent, reference = scene(3)
    weight = np.ones((16, 16), np.float32)
    weight[4:8] = 100
    chosen = quantise(latent, disc(), reference, 3, default_tables(), 0.3, weight).code
    rounded = np.rint(latent) * disc()
    assert np.array_equal(chosen.symbols[:, 4:8], rounded[:, 4:8])
    assert not np.array_equal(chosen.symbols[:, 8:], rounded[:, 8:])


def test_a_still_scene_does_not_flicker() -> None:
    """A latent with a little noise keeps the symbols it had, even on the edge between two."""
    rng = np.random.default_rng(0)
    edge = np.full((2, 16, 16), 0.5, np.float32)
    reference = quantise(edge, disc(), None, 0, default_tables(), 0.05).code
    for _ in range(5):
        noisy = edge + rng.normal(size=edge.shape).astype(np.float32) * 0.02
        assert quantise(noisy, disc(), reference, 1, default_tables(), 0.05).code.equals(reference)


def test_what_moves_gets_all_channels() -> None:
    """In a mixed code only the cells that are unlike the reference are rich; the dearer a bit, the fewer."""
    rng = np.random.default_rng(4)
    latent = np.zeros((8, 16, 16), np.float32)
    latent[:, 5:8, 5:8] = rng.choice([-2, -1, 1, 2], (8, 3, 3))
    still = make_code(np.zeros((8, 16, 16)), disc(), np.zeros((16, 16)))
    counts = []
    for strength in (0.02, 0.3, 1.0, 100.0):
        code, bits = quantise(latent, disc(), still, 1, default_tables(), strength, mixed=True)
        assert code.rich is not None
        assert not code.rich[:5].any()
        no_face = face_bits(None, None, 1, default_tables(), (16, 16))
        assert bits + no_face == pytest.approx(code_bits(code, still, 1, default_tables()))
        counts.append(int(code.rich.sum()))
    assert counts[0] == 9
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 0
    moved = quantise(latent, disc(), still, 1, default_tables(), 0.02, mixed=True).code
    assert quantise(latent, disc(), moved, 1, default_tables(), 0.1, mixed=True).code.equals(moved)
    with pytest.raises(ValueError, match="mixed"):
        quantise(latent[:4], disc(), None, 0, default_tables(), 0.1, mixed=True)


@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 4, 5), (4, 4)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError):
        quantise(np.zeros(shape, np.float32), np.ones((4, 4), bool), None, 0, default_tables(), 0.1)


def test_a_latent_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        quantise(np.full((2, 4, 4), np.nan, np.float32), np.ones((4, 4), bool), None, 0, default_tables(), 0.1)


@pytest.mark.slow
def test_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    for layout in LAYOUTS:
        mixed = layout == MIXED
        latent, reference = scene(1, 8 if mixed else layout)
        seconds = least_seconds(
            lambda x=latent, r=reference, m=mixed: quantise(x, disc(), r, 3, default_tables(), 0.1, mixed=m)
        )
        with capsys.disabled():
            print(f"\n{layout} channels, 16 × 16: {seconds * 1e3:.2f} ms", end="")
        assert seconds < 0.02
