"""Faces in picture payloads: what goes in comes out, in one spelling; and the choice of symbols."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgc.codec.arithmetic import TOTAL, Encoder
from streamgc.codec.code import code_bits, decode_code, encode_code
from streamgc.codec.contexts import AGE_BUCKET, face_contexts, face_home_context
from streamgc.codec.face import FACE_SYMBOLS, FaceCode, FacePose, check_face, pose_ranges
from streamgc.codec.face_coding import choose_face_symbols, face_bits
from streamgc.codec.symbols import Code, check_code, make_code
from streamgc.codec.tables import Tables, default_tables
from streamgc.errors import BitstreamError, TrainingError
from streamgc.training.tables import FaceSample, Sample, fit_tables, measure_tables, with_faces
from tests.codec_strategies import GRIDS, all_tables, altered_face, quick, random_face, reach_bits

GRID = (3, 4)
TABLES = default_tables()
EVEN = (0, TOTAL // 2, TOTAL)

FaceCase = tuple[Code, Code | None, int]


def empty(face: FaceCode | None, grid: tuple[int, int] = GRID) -> Code:
    """A code that keeps no cell, so that its payload is what is kept and the face."""
    return Code(np.zeros((2, *grid), np.int8), np.zeros(grid, bool), face=face)


def face_at(*pose: int) -> FaceCode:
    return FaceCode(FacePose(*pose), np.zeros(FACE_SYMBOLS, np.int8))


@st.composite
def face_cases(draw: st.DrawFn) -> FaceCase:
    """A face, a reference with one that is alike or foreign, without one, or no reference, and its age."""
    grid = draw(st.sampled_from(GRIDS))
    seed = draw(st.integers(0, 2**32 - 1))
    face = random_face(seed, grid)
    kind = draw(st.sampled_from(["no reference", "none", "same", "near", "far", "foreign"]))
    if kind == "no reference":
        return empty(face, grid), None, 0
    references = {
        "none": None,
        "same": face,
        "near": altered_face(face, seed + 1, grid, 1),
        "far": altered_face(face, seed + 1, grid, 12),
        "foreign": random_face(seed + 2, grid),
    }
    return empty(face, grid), empty(references[kind], grid), draw(st.integers(1, 7))


@quick
@given(face_cases(), st.sampled_from(range(3)))
def test_round_trip(case: FaceCase, which: int) -> None:
    code, reference, age = case
    tables = all_tables()[which]
    decoded = decode_code(encode_code(code, reference, age, tables), code.grid, 2, reference, age, tables)
    assert decoded.equals(code)
    assert not decoded.equals(code._replace(face=None))
    check_code(decoded)


@quick
@given(face_cases(), st.sampled_from(range(3)))
def test_bits_are_those_of_the_coder(case: FaceCase, which: int) -> None:
    code, reference, age = case
    tables = all_tables()[which]
    was = reference.face if reference else None
    without = code_bits(code._replace(face=None), reference, age, tables)
    nothing = face_bits(None, was, age, tables, code.grid)
    ideal = without - nothing + face_bits(code.face, was, age, tables, code.grid)
    assert code_bits(code, reference, age, tables) == pytest.approx(ideal)
    assert 8 * len(encode_code(code, reference, age, tables)) <= 12 + ideal * 1.001


@quick
@given(st.integers(0, 2**32 - 1))
def test_length_is_about_the_bits(seed: int) -> None:
    """Only zero bytes at the end, which are left out, make a payload much shorter."""
    code, reference = empty(random_face(seed, GRID)), empty(random_face(seed + 1, GRID))
    ideal = code_bits(code, reference, 2, TABLES)
    assert ideal - 24 <= 8 * len(encode_code(code, reference, 2, TABLES)) <= ideal * 1.001 + 12


@quick
@given(face_cases(), st.binary(max_size=24), st.sampled_from(range(3)))
def test_any_bytes_give_a_valid_code_or_one_error(case: FaceCase, data: bytes, which: int) -> None:
    code, reference, age = case
    tables = all_tables()[which]
    try:
        decoded = decode_code(data, code.grid, 2, reference, age, tables)
    except BitstreamError:
        return
    check_code(decoded)
    again = encode_code(decoded, reference, age, tables)
    # The one spelling, up to the coder's free last bits.
    assert decode_code(again, code.grid, 2, reference, age, tables).equals(decoded)


REFERENCE = empty(face_at(10, 10, 10, 0))


def written(*numbers: tuple[int, int | None], age: int = 1) -> bytes:
    """A payload against `REFERENCE`, or one without a home too, whose pose is said to differ: (difference + 7 or 15,
    value as it is or None)."""
    encoder = Encoder()
    encoder.encode(0, TABLES.moved_rows[AGE_BUCKET[age]])
    encoder.encode(1, TABLES.face_there_rows[2])
    encoder.encode(1, TABLES.face_moved_rows[AGE_BUCKET[age]])
    write_near(encoder, *numbers)
    encoder.encode(0, TABLES.face_home_rows[AGE_BUCKET[age]])
    encoder.encode(0, TABLES.face_stays_rows[AGE_BUCKET[age]])
    return encoder.finish(shortest=True)


WIDTHS = (6, 6, 7, 6)
"""On 3 × 4 cells: x < 64, y < 48 in 6 bits, size < 96 in 7, turn + 22 < 45 in 6."""


def write_near(encoder: Encoder, *numbers: tuple[int, int | None]) -> None:
    """(difference + 7 or 15, value as it is or None) of the numbers of a pose."""
    for row, (symbol, value), width in zip(TABLES.face_pose_rows, numbers, WIDTHS, strict=True):
        encoder.encode(symbol, row)
        if value is not None:
            write_number(encoder, value, width)


def write_number(encoder: Encoder, value: int, width: int) -> None:
    for shift in reversed(range(width)):
        encoder.encode(value >> shift & 1, EVEN)


def read(data: bytes) -> Code:
    return decode_code(data, GRID, 2, REFERENCE, 1, TABLES)


STILL = (7, None)


def test_symbols_that_are_said_to_differ_do() -> None:
    encoder = Encoder()
    encoder.encode(0, TABLES.moved_rows[AGE_BUCKET[1]])
    encoder.encode(1, TABLES.face_there_rows[2])
    encoder.encode(0, TABLES.face_moved_rows[AGE_BUCKET[1]])
    encoder.encode(0, TABLES.face_home_rows[AGE_BUCKET[1]])
    encoder.encode(1, TABLES.face_stays_rows[AGE_BUCKET[1]])
    for context in face_contexts(REFERENCE.face, 1):
        encoder.encode(4, TABLES.face_symbol_rows[context])
    with pytest.raises(BitstreamError, match="symbols of a face are said to differ"):
        read(encoder.finish(shortest=True))


def test_differences_and_escapes_are_read() -> None:
    code = read(written((14, None), (15, 2), (15, 95), (0, None)))
    assert code.equals(empty(face_at(17, 2, 95, -7)))
    assert encode_code(code, REFERENCE, 1, TABLES) == written((14, None), (15, 2), (15, 95), (0, None))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((STILL, STILL, STILL, STILL), "does not"),
        (((15, 17), STILL, STILL, STILL), "fits"),
        (((15, 10), (8, None), STILL, STILL), "fits"),
        ((STILL, (15, 48), STILL, STILL), "has 48"),
        ((STILL, STILL, (15, 96), STILL), "has 96"),
        ((STILL, STILL, STILL, (15, 15)), "fits"),
        ((STILL, STILL, STILL, (15, 45)), "has 23"),
    ],
)
def test_other_spellings_are_refused(numbers: tuple[tuple[int, int | None], ...], message: str) -> None:
    with pytest.raises(BitstreamError, match=message):
        read(written(*numbers))


@pytest.mark.parametrize(
    ("pose", "symbol"), [((6, 10, 10, 0), 0), ((10, 41, 10, 0), 14), ((10, 10, 89, 0), 14), ((10, 10, 10, -16), 0)]
)
def test_a_difference_that_leads_out_is_refused(pose: tuple[int, int, int, int], symbol: int) -> None:
    reference = empty(face_at(*pose))
    moved = next(k for k in range(4) if pose[k] != face_at(10, 10, 10, 0).pose[k])
    numbers = [(symbol, None) if k == moved else STILL for k in range(4)]
    with pytest.raises(BitstreamError, match="possible"):
        decode_code(written(*numbers), GRID, 2, reference, 1, TABLES)


def test_a_first_pose_out_of_range_is_refused() -> None:
    """Where the reference has no face: y = 48 of 3 rows, and turn + 22 = 45."""
    for y, turn in ((48, 22), (0, 45)):
        with pytest.raises(BitstreamError, match="possible"):
            decode_code(_first_pose(y, turn), GRID, 2, empty(None), 1, TABLES)
    assert decode_code(_first_pose(47, 44), GRID, 2, empty(None), 1, TABLES).equals(empty(face_at(5, 47, 6, 22)))


def _first_pose(y: int, turn: int) -> bytes:
    encoder = Encoder()
    encoder.encode(0, TABLES.moved_rows[1])
    encoder.encode(1, TABLES.face_there_rows[1])
    for value, width in zip((5, y, 6, turn), WIDTHS, strict=True):
        write_number(encoder, value, width)
    encoder.encode(0, TABLES.face_home_rows[face_home_context(None, 1)])
    for context in face_contexts(None, 1):
        encoder.encode(4, TABLES.face_symbol_rows[context])
    return encoder.finish(shortest=True)


@pytest.mark.parametrize("pose", [(64, 0, 0, 0), (0, 48, 0, 0), (-1, 0, 0, 0), (0, 0, 96, 0), (0, 0, 0, 23)])
def test_poses_outside_the_grid_are_no_faces(pose: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="possible"):
        check_face(face_at(*pose), GRID)
    with pytest.raises(ValueError, match="possible"):
        make_code(np.zeros((2, *GRID)), np.ones(GRID), face=face_at(*pose))
    with pytest.raises(ValueError, match="of a face's home"):
        check_face(face_at(0, 0, 0, 0)._replace(home=FacePose(*pose)), GRID)


def test_bad_symbols_are_no_faces() -> None:
    face = face_at(0, 0, 0, 0)
    wrong: list[np.ndarray] = [
        np.zeros(FACE_SYMBOLS - 1, np.int8),
        np.zeros(FACE_SYMBOLS, np.int16),
        np.full(FACE_SYMBOLS, 5, np.int8),
    ]
    for symbols in wrong:
        with pytest.raises(ValueError, match="symbol"):
            encode_code(empty(face._replace(symbols=symbols)), None, 0, TABLES)
    with pytest.raises(ValueError, match="x of a face"):
        check_face(FaceCode(FacePose(0.5, 0, 0, 0), face.symbols), GRID)  # type: ignore[arg-type]


def test_codes_with_other_faces_differ() -> None:
    face = random_face(1, GRID)
    code = make_code(np.zeros((8, *GRID)), np.ones(GRID), face=face)
    assert code.equals(code._replace(face=face._replace(symbols=face.symbols.copy())))
    assert not code.equals(code._replace(face=None))
    assert not code._replace(face=None).equals(code)
    assert not code.equals(code._replace(face=face._replace(symbols=-face.symbols)))
    assert not code.equals(code._replace(face=face._replace(pose=face.pose._replace(turn=-face.pose.turn or 1))))
    there = face._replace(home=face.pose, reach=1)
    assert code._replace(face=there).equals(code._replace(face=there._replace(home=FacePose(*face.pose))))
    for other in (there._replace(reach=2), there._replace(home=None, reach=0)):
        assert not code._replace(face=there).equals(code._replace(face=other))
    assert code.first(2).face is face


@quick
@given(st.integers(0, 2**32 - 1), st.integers(0, 7), st.booleans(), st.sampled_from([0.0, 0.05, 0.5, 100.0]))
def test_chosen_symbols_cost_least(seed: int, age: int, known: bool, strength: float) -> None:
    rng = np.random.default_rng(seed)
    latent = rng.uniform(-4.6, 4.6, FACE_SYMBOLS).astype(np.float32)
    weight = rng.uniform(0.1, 3, FACE_SYMBOLS).astype(np.float32)
    reference = random_face(seed, GRID) if age and known else None
    tables = all_tables()[seed % 3]
    chosen = choose_face_symbols(latent, reference, age, tables, strength, weight)
    pose = FacePose(1, 2, 3, 4)

    def score(symbols: np.ndarray) -> float:
        bits = face_bits(FaceCode(pose, symbols), reference, age, tables, GRID)
        return float((weight * (latent - symbols) ** 2).sum()) + strength * bits

    check_face(FaceCode(pose, chosen), GRID)
    least = score(chosen)
    for slot in range(FACE_SYMBOLS):
        for value in range(-4, 5):
            other = chosen.copy()
            other[slot] = value
            assert least <= score(other) * (1 + 1e-6) + 1e-6
    if strength == 0:
        assert np.array_equal(chosen, np.clip(np.rint(latent), -4, 4))


def test_a_dear_bit_keeps_the_reference() -> None:
    reference = random_face(5, GRID)
    latent = np.clip(reference.symbols + 1, -4, 4).astype(np.float32)
    assert np.array_equal(
        choose_face_symbols(latent, reference, 1, TABLES, 1e3, np.ones(FACE_SYMBOLS, np.float32)), reference[1]
    )


def test_impossible_choices_are_refused() -> None:
    latent, weight = np.zeros(FACE_SYMBOLS, np.float32), np.ones(FACE_SYMBOLS, np.float32)
    for bad in (np.zeros(FACE_SYMBOLS - 1, np.float32), np.full(FACE_SYMBOLS, np.nan, np.float32)):
        with pytest.raises(ValueError):
            choose_face_symbols(bad, None, 0, TABLES, 0.1, weight)
    with pytest.raises(ValueError, match="negative"):
        choose_face_symbols(latent, None, 0, TABLES, -0.1, weight)
    with pytest.raises(ValueError, match="age"):
        choose_face_symbols(latent, random_face(1, GRID), 0, TABLES, 0.1, weight)


def speaker(seed: int, frames: int) -> list[Sample]:
    """A face that drifts away from its home to the right while half of its symbols never change, each against the one
    two before."""
    rng = np.random.default_rng(seed)
    home = FacePose(3, 8, 9, 0)
    faces = [FaceCode(home, rng.integers(-1, 2, FACE_SYMBOLS).astype(np.int8), home)]
    for frame in range(1, frames):
        symbols = faces[-1].symbols.copy()
        symbols[: FACE_SYMBOLS // 2] = rng.integers(-1, 2, FACE_SYMBOLS // 2)
        faces.append(FaceCode(FacePose(3 + frame // 2, 8, 9, 0), symbols, home, min(frame // 5, 2)))
    codes = [make_code(np.zeros((2, *GRID)), np.ones(GRID), face=face) for face in faces]
    return [(codes[0], None, 0), (codes[1], codes[0], 1)] + [(codes[i], codes[i - 2], 2) for i in range(2, frames)]


def faces_of(samples: list[Sample]) -> list[FaceSample]:
    return [
        (code.face, reference.face if reference else None, age)
        for code, reference, age in samples
        if code.face is not None
    ]


def cost(samples: list[Sample], tables: Tables) -> float:
    return sum(face_bits(face, was, age, tables, GRID) for face, was, age in faces_of(samples))


def test_fitted_tables_beat_the_default_ones() -> None:
    samples = [sample for seed in range(8) for sample in speaker(seed, 40)]
    other = speaker(99, 40)
    tables, report = fit_tables(samples)
    assert report.face_bits == pytest.approx(cost(samples, tables))
    assert "for the face" in str(report)
    assert measure_tables(other, tables).face_bits < 0.7 * measure_tables(other, TABLES).face_bits
    decoded = decode_code(encode_code(*other[3], tables), GRID, 2, *other[3][1:], tables)
    assert decoded.equals(other[3][0])


def test_faces_are_fitted_apart_from_the_rest() -> None:
    samples = [sample for seed in range(8) for sample in speaker(seed, 40)]
    other = speaker(99, 40)
    tables = with_faces(TABLES, faces_of(samples))
    assert cost(other, tables) < 0.7 * cost(other, TABLES)
    for name in ("symbols", "keep", "moved", "rich", "face_there"):
        assert np.array_equal(getattr(tables, name), getattr(TABLES, name))
    # First faces have a home and reach 0; homes stay at age 2, most of them with reach 2.
    assert tables.face_home[0] < TABLES.face_home[0]
    assert tables.face_home[2] > 65_000 > TABLES.face_home[2]
    assert reach_bits(tables)[2, 2] < reach_bits(TABLES)[2, 2]
    assert reach_bits(tables)[3, 0] < 1 < reach_bits(TABLES)[3, 0]
    with pytest.raises(TrainingError, match="face"):
        with_faces(TABLES, [])


def test_without_faces_their_tables_stay_the_default_ones() -> None:
    samples = [(code._replace(face=None), None, 0) for code, _, _ in speaker(1, 10)]
    tables, report = fit_tables(samples)
    for name in ("face_there", "face_moved", "face_stays", "face_pose", "face_symbols", "face_home", "face_reach"):
        assert np.array_equal(getattr(tables, name), getattr(TABLES, name))
    assert report.face_bits == pytest.approx(len(samples))


def test_default_tables_expect_the_reference() -> None:
    face = random_face(3, GRID)
    still = face_bits(face, face, 1, TABLES, GRID)
    assert still < face_bits(face, face, 4, TABLES, GRID) < face_bits(face, None, 4, TABLES, GRID)
    assert still < 16
    assert face_bits(None, None, 1, TABLES, GRID) < 0.03
    assert [len(allowed) for allowed in pose_ranges((1024, 1))] == [16, 16384, 96, 45]
