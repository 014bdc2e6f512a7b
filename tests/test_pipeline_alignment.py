"""A key's face brought to where the picture's is, and how far around it the key is moved along."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamgc.codec.face import FACE_SYMBOLS, LARGEST_TURN, SIZES, FaceCode, FacePose
from streamgc.pipeline.alignment import FAVOURED, LOWER, MESH, RADII, Aligner, align, displacement
from streamgc.pipeline.face import place_at

Picture = NDArray[np.uint8]
HEIGHT, WIDTH = 224, 288
REACHES = (1, 2)
HOME = FacePose(140, 96, 45, 0)
"""Eyes 30 pixels apart."""
MOVES = {
    "aside": HOME._replace(x=HOME.x + 11),
    "up": HOME._replace(y=HOME.y - 9),
    "nearer": HOME._replace(size=HOME.size + 6),
    "turned": HOME._replace(turn=6),
    "all of it": FacePose(HOME.x - 7, HOME.y + 6, HOME.size - 5, -5),
}
WHOLE = np.full((HEIGHT, WIDTH), 255, np.uint8)
"""A matte that keeps everything."""
SMALL = 96, 128
POSES = st.builds(
    FacePose,
    x=st.integers(0, SMALL[1] - 1),
    y=st.integers(0, SMALL[0] - 1),
    size=st.integers(0, SIZES - 1),
    turn=st.integers(-LARGEST_TURN, LARGEST_TURN),
)


def _upright(pose: FacePose) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where each pixel lies from the middle of the eyes, in their distances, the head held upright."""
    place = place_at(pose)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    x, y = (columns - place.x) / place.distance, (rows - place.y) / place.distance
    along, across = np.cos(place.turn), np.sin(place.turn)
    return x * along + y * across, y * along - x * across


def _drawn(pose: FacePose) -> Picture:
    """Two dark discs and a bar on a light ellipse."""
    u, v = _upright(pose)

    def shape(far: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.clip(10 * (1 - far) + 0.5, 0, 1)

    level = 80 + 120 * shape(np.hypot(u / 1.0, (v - 0.5) / 1.25))
    for eye in (-0.5, 0.5):
        level -= 150 * shape(np.hypot(u - eye, v) / 0.2)
    level -= 120 * shape(np.maximum(abs(u) / 0.4, abs(v - 1.1) / 0.1))
    return np.repeat(level.clip(0, 255).astype(np.uint8)[..., None], 3, -1)


def _far(pose: FacePose) -> NDArray[np.float64]:
    """From the face's middle to each pixel, in distances of the eyes."""
    u, v = _upright(pose)
    return np.asarray(np.hypot(u, v - LOWER))


def _apart(one: Picture, other: Picture, where: NDArray[np.bool_] | None = None) -> float:
    """Mean difference in grey levels."""
    far = np.abs(one.astype(int) - other)
    return float((far if where is None else far[where]).mean())


def _noise(height: int = HEIGHT, width: int = WIDTH) -> Picture:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


def _code(pose: FacePose, home: FacePose | None, reach: int) -> FaceCode:
    return FaceCode(pose, np.zeros(FACE_SYMBOLS, np.int8), home, reach)


def test_a_key_that_need_not_be_moved_is_the_key_itself() -> None:
    key = _drawn(HOME)
    assert align(key, MOVES["aside"], HOME, 0) is key
    assert all(align(key, HOME, HOME, reach) is key for reach in REACHES)


@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize("pose", MOVES.values(), ids=MOVES)
def test_the_key_s_face_lies_where_the_picture_s_is(pose: FacePose, reach: int) -> None:
    key, wanted = _drawn(HOME), _drawn(pose)
    before = key.copy()
    made = align(key, pose, HOME, reach)
    assert np.array_equal(key, before)
    assert _apart(made, wanted) < 0.5 * _apart(key, wanted)
    inner = _far(pose) < RADII[reach - 1][0]
    assert _apart(made, wanted, inner) < 0.2 * _apart(key, wanted, inner)


@pytest.mark.parametrize("reach", REACHES)
def test_nothing_moves_far_from_the_face(reach: int) -> None:
    pose, outer = FacePose(144, 100, 30, 4), RADII[reach - 1][1]
    key = _noise()
    made = align(key, pose, pose._replace(x=134, y=95), reach)
    beyond = outer + 1.5 * MESH / place_at(pose).distance  # places are given at the corners of squares
    assert (_far(pose) < beyond).mean() < 0.75  # there is something beyond
    assert np.array_equal(made[_far(pose) >= beyond], key[_far(pose) >= beyond])
    assert _apart(made, key, _far(pose) < 1) > 20
    centres = _far(pose)[4::8, 4::8]  # of squares of 8, half a pixel off
    moved = displacement(_code(pose, pose._replace(x=134, y=95), reach), HEIGHT, WIDTH)
    assert not moved[:, centres > outer + 0.05].any()
    assert moved[:, centres < outer - 0.3].any(0).all()


def test_a_wider_reach_moves_more() -> None:
    key, pose = _noise(), MOVES["aside"]
    near, far = (align(key, pose, HOME, reach) for reach in REACHES)
    assert (far != key).any(-1).sum() > 1.4 * (near != key).any(-1).sum()


@settings(max_examples=120, deadline=None)
@given(POSES, POSES, st.sampled_from(REACHES))
def test_faces_at_the_edge_leave_nothing_black(pose: FacePose, home: FacePose, reach: int) -> None:
    white = np.full((*SMALL, 3), 255, np.uint8)
    made = align(white, pose, home, reach)
    assert (made.shape, made.dtype) == (white.shape, white.dtype)
    assert made.min() >= 250
    moved = displacement(_code(pose, home, reach), *SMALL)
    assert moved.shape == (2, SMALL[0] // 8, SMALL[1] // 8)
    assert np.isfinite(moved).all()


@settings(max_examples=40, deadline=None)
@given(POSES, POSES)
def test_an_aligner_takes_faces_anywhere(pose: FacePose, home: FacePose) -> None:
    """Also in pictures whose halves are no whole squares."""
    key, kept = _noise(80, 112), _noise(80, 112)[::-1].copy()
    aligned = Aligner().choose(kept, np.full((80, 112), 255, np.uint8), pose, home, key)
    assert aligned.reach in (0, *REACHES)
    assert np.array_equal(aligned.picture, align(key, pose, home, aligned.reach))


def test_there_is_no_displacement_without_a_face_its_home_or_a_reach() -> None:
    for face in (None, _code(HOME, None, 0), _code(MOVES["aside"], HOME, 0)):
        moved = displacement(face, HEIGHT, WIDTH)
        assert moved.shape == (2, HEIGHT // 8, WIDTH // 8)
        assert moved.dtype == np.float32
        assert not moved.any()


def test_a_displacement_leads_from_the_picture_to_the_key() -> None:
    moved = displacement(_code(MOVES["aside"], HOME, 1), HEIGHT, WIDTH)
    row, column = HOME.y // 8 + 1, MOVES["aside"].x // 8
    assert moved[:, row, column] == pytest.approx((-11, 0), abs=1e-3)


@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize("pose", MOVES.values(), ids=MOVES)
def test_g_s_displacement_moves_the_key_as_e_sees_it(pose: FacePose, reach: int) -> None:
    torch = pytest.importorskip("torch")
    from streamgc.networks.lite import enlarged, warp

    key = _drawn(HOME)
    moved = torch.from_numpy(displacement(_code(pose, HOME, reach), HEIGHT, WIDTH)[None])
    planes = torch.from_numpy(key).permute(2, 0, 1)[None].float()
    warped = warp(planes, enlarged(moved, 8), 1)[0].permute(1, 2, 0).round().to(torch.uint8).numpy()
    made = align(key, pose, HOME, reach)
    assert _apart(warped, made) < 0.15 * _apart(key, made)


def _choose(aligner: Aligner, kept: Picture, key: Picture, pose: FacePose = MOVES["aside"]) -> int:
    return aligner.choose(kept, WHOLE, pose, HOME, key).reach


def test_a_key_that_fits_already_is_not_moved() -> None:
    aligner, key = Aligner(), _drawn(HOME)
    for pose in (HOME, MOVES["aside"]):  # also where it is said that the face has moved
        aligned = aligner.choose(key.copy(), WHOLE, pose, HOME, key)
        assert aligned.picture is key
        assert (aligned.home, aligned.reach) == (HOME, 0)


@pytest.mark.parametrize("pose", MOVES.values(), ids=MOVES)
def test_a_key_is_moved_where_the_face_has_moved(pose: FacePose) -> None:
    key, kept = _drawn(HOME), _drawn(pose)
    aligned = Aligner().choose(kept, WHOLE, pose, HOME, key)
    assert aligned.reach in REACHES
    assert aligned.home == HOME
    assert np.array_equal(aligned.picture, align(key, pose, HOME, aligned.reach))
    apart = {reach: _apart(align(key, pose, HOME, reach), kept) for reach in (0, *REACHES)}
    assert apart[aligned.reach] <= min(apart.values()) / FAVOURED


@pytest.mark.parametrize("reach", REACHES)
def test_the_reach_is_chosen_that_comes_nearest(reach: int) -> None:
    key = _noise() // 4 + _drawn(HOME) // 2
    assert _choose(Aligner(), align(key, MOVES["aside"], HOME, reach), key) == reach


def test_what_is_not_kept_is_not_compared() -> None:
    key = _drawn(HOME)
    nothing = np.zeros_like(WHOLE)
    assert Aligner().choose(_drawn(MOVES["aside"]), nothing, MOVES["aside"], HOME, key).reach == 0


def test_a_reach_is_kept_until_another_is_clearly_better() -> None:
    """Where the picture is something between the key as it is and the key moved."""
    key = _drawn(HOME)
    moved = align(key, MOVES["aside"], HOME, 1)
    chosen = []
    for share in np.linspace(0.3, 0.7, 41):
        kept = np.rint((1 - share) * key + share * moved).astype(np.uint8)
        rested, moving = Aligner(), Aligner()
        assert (_choose(rested, key, key), _choose(moving, moved, key)) == (0, 1)
        chosen.append((_choose(rested, kept, key), _choose(moving, kept, key)))
    assert chosen == sorted(chosen)
    assert set(chosen) == {(0, 0), (0, 1), (1, 1)}
    assert chosen.count((0, 1)) in range(2, 8)  # of a hundredth each; errors are equal in the middle


def test_a_key_is_moved_once_while_nothing_changes_and_a_new_one_anew() -> None:
    aligner, pose = Aligner(), MOVES["aside"]
    first, second = _drawn(HOME), _drawn(HOME) // 2 + 20
    kept = _drawn(pose)
    once, again = (aligner.choose(kept, WHOLE, pose, HOME, first) for _ in range(2))
    assert once.reach in REACHES
    assert again.picture is once.picture
    other = aligner.choose(kept // 2 + 20, WHOLE, pose, HOME, second)
    assert other.reach in REACHES
    assert np.array_equal(other.picture, align(second, pose, HOME, other.reach))
    further = pose._replace(x=pose.x + 3)
    moved = aligner.choose(_drawn(further), WHOLE, further, HOME, second)
    assert np.array_equal(moved.picture, align(second, further, HOME, moved.reach))


def test_without_a_home_the_key_stays_and_the_reach_is_forgotten() -> None:
    aligner, key = Aligner(), _drawn(HOME)
    kept = _drawn(MOVES["aside"])
    assert _choose(aligner, kept, key) in REACHES
    aligned = aligner.choose(kept, WHOLE, MOVES["aside"], None, key)
    assert aligned.picture is key
    assert (aligned.home, aligned.reach) == (None, 0)
    moved = align(key, MOVES["aside"], HOME, 1)
    half = np.asarray((key.astype(int) + moved) // 2, np.uint8)
    assert _choose(aligner, half, key) == 0
