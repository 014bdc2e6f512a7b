"""The home of faces in picture payloads: where they are in the key, and how far around them the key is moved."""

import numpy as np
import pytest

from streamgc.codec.arithmetic import Encoder
from streamgc.codec.code import decode_code, encode_code
from streamgc.codec.contexts import AGE_BUCKET, face_contexts, face_home_context, face_reach_context
from streamgc.codec.face import FACE_SYMBOLS, REACHES, FaceCode, FacePose, check_face
from streamgc.codec.face_coding import face_bits
from streamgc.codec.tables import Tables, default_tables
from streamgc.errors import BitstreamError
from streamgc.training.tables import FaceSample, with_faces
from tests.codec_strategies import random_face, reach_bits
from tests.test_codec_face import EVEN, GRID, STILL, TABLES, empty, face_at, write_near

POSE = 10, 10, 10, 0
HOME = FacePose(12, 30, 10, -1)
AT_HOME = face_at(*POSE)._replace(home=HOME, reach=2)
NOWHERE = face_at(*POSE)

Numbers = tuple[tuple[int, int | None], ...]


def written(reference: FaceCode, numbers: Numbers | None, reach: int | None, lost: int | None = None) -> bytes:
    """A payload of `NOWHERE` or `AT_HOME` with another home, one frame after: its numbers as in `write_near`."""
    encoder = Encoder()
    encoder.encode(0, TABLES.moved_rows[AGE_BUCKET[1]])
    encoder.encode(1, TABLES.face_there_rows[2])
    encoder.encode(0, TABLES.face_moved_rows[AGE_BUCKET[1]])
    encoder.encode(1, TABLES.face_home_rows[AGE_BUCKET[1]])
    if lost is not None:
        encoder.encode(lost, EVEN)
    if numbers is not None:
        write_near(encoder, *numbers)
    if reach is not None:
        encoder.encode(reach, TABLES.face_reach_rows[face_reach_context(reference)])
    encoder.encode(0, TABLES.face_stays_rows[AGE_BUCKET[1]])
    return encoder.finish(shortest=True)


def read(data: bytes, reference: FaceCode) -> FaceCode | None:
    return decode_code(data, GRID, 2, empty(reference), 1, TABLES).face


@pytest.mark.parametrize(
    ("reference", "lost", "numbers", "home", "reach"),
    [
        (NOWHERE, None, ((9, None), (15, 30), STILL, (6, None)), HOME, 1),
        (AT_HOME, 0, (STILL, STILL, STILL, STILL), FacePose(*POSE), 0),  # where the face is: no different from no move
        (AT_HOME, 0, ((15, 63), STILL, (15, 0), (15, 0)), FacePose(63, 10, 0, -22), 2),
        (AT_HOME, 1, None, None, None),
    ],
)
def test_a_home_is_written_next_to_the_face(
    reference: FaceCode, lost: int | None, numbers: Numbers | None, home: FacePose | None, reach: int | None
) -> None:
    data = written(reference, numbers, reach, lost)
    face = read(data, reference)
    assert face is not None
    assert face.equals(FaceCode(FacePose(*POSE), reference.symbols, home, reach or 0))
    assert encode_code(empty(face), empty(reference), 1, TABLES) == data


@pytest.mark.parametrize(
    ("reference", "lost", "numbers", "message"),
    [
        (AT_HOME, 0, ((9, None), (15, 30), STILL, (6, None)), "home of a face is said to differ"),
        (NOWHERE, None, ((15, 17), STILL, STILL, STILL), "fits"),
        (NOWHERE, None, (STILL, (15, 48), STILL, STILL), "has 48"),
        (NOWHERE, None, (STILL, STILL, (15, 96), STILL), "has 96"),
        (NOWHERE, None, (STILL, STILL, STILL, (15, 45)), "has 23"),
    ],
)
def test_other_spellings_of_a_home_are_refused(
    reference: FaceCode, lost: int | None, numbers: Numbers, message: str
) -> None:
    with pytest.raises(BitstreamError, match=message):
        read(written(reference, numbers, 0, lost), reference)


def test_a_home_outside_the_grid_is_refused() -> None:
    """By a difference to a pose at its edge."""
    edge = face_at(60, 10, 10, 0)
    with pytest.raises(BitstreamError, match="has 67"):
        read(written(edge, ((14, None), STILL, STILL, STILL), 0), edge)


def test_a_home_counts_from_the_pose_of_its_own_picture() -> None:
    """Which has moved; not from the reference's, nor from its home."""
    near = face_at(40, 33, 40, 9)._replace(home=FacePose(41, 33, 40, 9), reach=1)
    far = near._replace(home=FacePose(10, 10, 10, 1))
    assert face_bits(near, AT_HOME, 1, TABLES, GRID) < face_bits(far, AT_HOME, 1, TABLES, GRID) - 15


def test_homes_without_a_face_in_the_reference() -> None:
    """Are compared with none, whether there is a reference or not, in the same context."""
    face = random_face(3, GRID)._replace(home=HOME, reach=1)
    lost = face._replace(home=None, reach=0)
    for reference, age in ((None, 0), (empty(None), 3)):
        for given in (face, lost):
            data = encode_code(empty(given), reference, age, TABLES)
            assert decode_code(data, GRID, 2, reference, age, TABLES).equals(empty(given))
        differs = face_bits(face, None, age, TABLES, GRID) - face_bits(lost, None, age, TABLES, GRID)
        assert differs > 5
    assert [face_home_context(None, age) for age in (0, 3)] == [0, 0]
    assert [face_home_context(face, age) for age in (1, 3, 7)] == [1, 3, 4]
    assert face_contexts(face, 1).shape == (FACE_SYMBOLS,)


def test_a_reach_has_the_context_of_the_one_before() -> None:
    assert [face_reach_context(AT_HOME._replace(reach=reach)) for reach in range(REACHES)] == [0, 1, 2]
    assert face_reach_context(NOWHERE) == face_reach_context(None) == 3
    for was in range(REACHES):
        reference = AT_HOME._replace(reach=was)
        costs = [face_bits(AT_HOME._replace(reach=now), reference, 1, TABLES, GRID) for now in range(REACHES)]
        assert np.argmin(costs) == was
        rest = costs[0] - reach_bits(TABLES)[was, 0]
        assert costs == pytest.approx(rest + reach_bits(TABLES)[was])


def test_what_stays_costs_next_to_nothing() -> None:
    for face in (AT_HOME, NOWHERE):
        assert face_bits(face, face, 1, TABLES, GRID) < 0.6
    data = encode_code(empty(AT_HOME), empty(AT_HOME), 1, TABLES)
    assert len(data) <= 1
    # A face that moves pays for its pose, not for a home that is as it was.
    moved = AT_HOME._replace(pose=FacePose(11, 10, 10, 0))
    nowhere = NOWHERE._replace(pose=FacePose(11, 10, 10, 0))
    assert face_bits(moved, AT_HOME, 1, TABLES, GRID) < face_bits(nowhere, NOWHERE, 1, TABLES, GRID) + 0.1


def test_what_is_no_reach_is_refused() -> None:
    for reach in (-1, 3, 0.5):
        with pytest.raises(ValueError, match="reach of a face"):
            check_face(AT_HOME._replace(reach=reach), GRID)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nobody knows"):
        check_face(NOWHERE._replace(reach=1), GRID)
    check_face(AT_HOME._replace(reach=np.int8(2)), GRID)  # type: ignore[arg-type]


def fitted(*samples: FaceSample) -> Tables:
    """Tables of samples that each occur a hundred times."""
    return with_faces(TABLES, [sample for sample in samples for _ in range(100)])


def test_homes_and_reaches_are_fitted_by_context() -> None:
    first = face_at(*POSE)._replace(home=FacePose(13, 10, 10, 0), reach=1)
    spoken = first._replace(symbols=np.ones(FACE_SYMBOLS, np.int8), reach=2)
    tables = fitted((first, None, 0), (spoken, first, 1), (spoken._replace(home=HOME), spoken, 2))
    default = default_tables()
    assert tables.face_home[0] < default.face_home[0] < 10_000
    assert tables.face_home[1] > default.face_home[1]
    assert tables.face_home[2] < 0.2 * default.face_home[2]
    assert tables.face_home[3:] == pytest.approx(default.face_home[3:], abs=1)
    # By the reach before: none was 0, 1 becomes 2, 2 stays, and a first one is 1.
    assert tables.face_reach[0] == pytest.approx(default.face_reach[0], abs=2)
    assert reach_bits(tables)[1, 2] < 0.5 < 5 < reach_bits(default)[1, 2]
    assert reach_bits(tables)[2, 2] < reach_bits(default)[2, 2]
    assert reach_bits(tables)[3, 1] < 0.3
    # Numbers of a home are numbers of a pose: x is three steps off in one of two, y outside what fits in the other.
    rows = np.diff(np.array(tables.face_pose_rows)) / 65536
    assert rows[0, 10] > 0.4
    assert rows[1, 15] > 0.4


def test_homes_that_nobody_knows_are_fitted_too() -> None:
    spoken = NOWHERE._replace(symbols=np.ones(FACE_SYMBOLS, np.int8))
    tables = fitted((NOWHERE, None, 0), (spoken, NOWHERE, 1))
    assert tables.face_home[0] > 50_000
    assert np.array_equal(tables.face_reach, default_tables().face_reach)
