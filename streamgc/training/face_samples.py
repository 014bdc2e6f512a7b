"""What the face's networks learn from: cut-out faces as they were sent, and as the call model shows them.

A clip's or a still's face, in part with eyes and mouth moved or those of somebody else, goes at a size as in calls
through the shipped E, quantiser and G, beside a coded key. No network is trained here: the call model is as it ships.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamgc.codec.face import FACE_SYMBOLS, FaceCode
from streamgc.codec.quantise import quantise
from streamgc.codec.symbols import Code
from streamgc.codec.tables import Tables
from streamgc.evaluation.faces import FaceFinder
from streamgc.pipeline.alignment import Aligner
from streamgc.pipeline.budget import Shares, shares_for
from streamgc.pipeline.call_codec import LoadedModels
from streamgc.pipeline.face import Place, cut_out, place_of, pose_of
from streamgc.pipeline.importance import code_weight
from streamgc.pipeline.networks import KEPT, SYNTHESISED, EncoderNetwork, GeneratorNetwork, NetworkOptions
from streamgc.pipeline.sender import blanked
from streamgc.pipeline.settings import BLANK, PictureFormat
from streamgc.training.call_samples import SQUARE, Cache, clip_weights, kept_of
from streamgc.training.face_moves import moved, some_expression
from streamgc.training.face_swaps import mirrored, some_parts, swapped
from streamgc.training.key_pictures import coded_still
from streamgc.training.together import Together

Picture = NDArray[np.uint8]
Face = NDArray[np.float32]
PART = 800
"""Samples in a file."""
NAMES = ("sent", "shown")
CONTOURS = "contours"
STILL_SHARE = 0.3
MOVED_SHARE, SWAPPED_SHARE = 0.45, 0.25
"""Shares of samples with eyes and mouth moved, and with those of another person; the others are as they were filmed."""
SIZED_SHARE = 0.65
"""Share of samples shown at another size, with a key coded at that size."""
DISTANCES = (14.0, 66.0)
"""Pixels between the eyes in these: somebody at the far end of a sofa, and near the camera."""
KEY_CRF = (31, 35, 35, 40, 48)
MARGINS = (1, 7)
STRENGTHS = {3.0: (0.06, 1.0), 5.0: (0.02, 0.35), 10.0: (0.003, 0.06)}
"""Rates, kbit/s, and the λ that calls have there."""
RATE_SHARES = (0.5, 0.35, 0.15)
JITTER = (0.05, 0.05, 0.05)
"""Spread of a face's place as found and as coded: in distances of the eyes, of the distance's logarithm, in radians."""


class FaceSample(NamedTuple):
    """One sample: a face as `pipeline.face.cut_out` makes it, (FACE_SIDE, FACE_SIDE, 3)."""

    sent: Picture
    shown: Picture


class _Scene(NamedTuple):
    """Pictures of one person before they are sized: earlier, now, and that of the key."""

    pictures: list[Picture]
    masks: list[Picture]
    faces: list[Face]
    key: Picture | None  # as coded; None: to be coded


class FaceSampler:
    """Draws samples; one random generator, so that a seed repeats them."""

    def __init__(
        self, cache: Cache, encoder: EncoderNetwork, generator: GeneratorNetwork, tables: Tables, seed: int
    ) -> None:
        self._cache, self._encoder, self._generator, self._tables = cache, encoder, generator, tables
        self._random = np.random.default_rng(seed)
        self._stills = np.flatnonzero(~np.isnan(cache.s_faces).any(1))
        self._clip_weights = clip_weights(cache)

    def samples(self) -> Iterator[FaceSample]:
        """Without end."""
        while True:
            scene = self._still() if self._random.random() < STILL_SHARE else self._clip()
            if not any(np.isnan(face).any() for face in scene.faces):
                yield self._sample(self._sized(self._with_another_face(scene)))

    def _clip(self) -> _Scene:
        cache, random = self._cache, self._random
        clip = int(random.choice(len(self._clip_weights), p=self._clip_weights))
        first, last = int(cache.starts[clip]), int(cache.starts[clip + 1])
        now = int(random.integers(first + 1, last))
        before = max(first, now - int(random.integers(1, 5)))
        low, high = np.searchsorted(cache.key_index, [first, last])
        wanted = max(now - int(random.exponential(25.0)), first)
        index = min(max(int(np.searchsorted(cache.key_index, wanted, side="right")) - 1, int(low)), int(high) - 1)
        quality = int(random.choice(4, p=[0.55, 0.3, 0.1, 0.05]))
        frames = [before, now, int(cache.key_index[index])]
        key = None if random.random() < SIZED_SHARE else cache.keys[index, quality]
        pictures, masks, faces = ([of[n] for n in frames] for of in (cache.frames, cache.masks, cache.faces))
        return _Scene(pictures, masks, faces, key)

    def _still(self) -> _Scene:
        index = int(self._random.choice(self._stills))
        cache = self._cache
        key = None if self._random.random() < SIZED_SHARE else cache.s_keys[index]
        pictures, masks, faces = ([of[index]] * 3 for of in (cache.s_frames, cache.s_masks, cache.s_faces))
        return _Scene(pictures, masks, faces, key)

    def _with_another_face(self, scene: _Scene) -> _Scene:
        """Eyes and mouth moved, or those of another: now, and half of the time in the same way before; or in the
        key."""
        random = self._random
        roll, still = random.random(), scene.pictures[0] is scene.pictures[1]
        if roll >= MOVED_SHARE + SWAPPED_SHARE and not still:
            return scene
        pictures = list(scene.pictures)
        which = [2] if random.random() < 0.2 and scene.key is None else [0, 1] if random.random() < 0.4 else [1]
        if roll < SWAPPED_SHARE:
            number = int(random.choice(self._stills))
            donor, donor_face = self._cache.s_frames[number], self._cache.s_faces[number]
            if random.random() < 0.5:
                donor, donor_face = mirrored(donor, donor_face)
            parts = some_parts(random)
            for k in which:
                pictures[k] = swapped(pictures[k], scene.faces[k], donor, donor_face, parts)
        else:
            expression = some_expression(random)
            for k in which:
                pictures[k] = moved(pictures[k], scene.faces[k], expression)
        if 0 not in which and random.random() < 0.5:
            pictures[0] = moved(pictures[0], scene.faces[0], some_expression(random))
        return scene._replace(pictures=pictures)

    def _sized(self, scene: _Scene) -> _Scene:
        """At another size and place in the picture, where the key is to be coded; stills move a little, too."""
        if scene.key is not None:
            return scene
        random, face = self._random, scene.faces[1]
        distance = max(float(face[6]), 4.0)
        scale = min(1.15, math.exp(random.uniform(*np.log(DISTANCES))) / distance)
        target = random.uniform((76, 60), (180, 150)) if scale < 0.8 else face[:2] + random.normal(0, 6, 2)
        pictures, masks, faces = [], [], []
        for k in range(3):
            own = scale * math.exp(random.normal(0, 0.015))
            matrix = _matrix(face[:2], target + random.normal(0, 0.06, 2) * scale * distance, own)
            pictures.append(_moved_to(scene.pictures[k], matrix, own, BLANK))
            masks.append(_moved_to(scene.masks[k], matrix, own, 0))
            faces.append(_face_at(scene.faces[k], matrix, own))
        return _Scene(pictures, masks, faces, None)

    def _sample(self, scene: _Scene) -> FaceSample:
        random = self._random
        margin = int(random.integers(*MARGINS))
        mattes, cells = zip(*(kept_of(mask, margin) for mask in scene.masks), strict=True)
        blank = [blanked(picture, matte) for picture, matte in zip(scene.pictures, mattes, strict=True)]
        coarse = random.random() < 0.04
        key = scene.key
        if key is None:
            key = coded_still(blank[2], 50, 2) if coarse else coded_still(blank[2], int(random.choice(KEY_CRF)))
        rate = float(random.choice(list(STRENGTHS), p=RATE_SHARES))
        strength = math.exp(random.uniform(*np.log(STRENGTHS[rate])))
        reference, aligner = None, Aligner()
        before, now, home = (pose_of(place_of(face[:2], face[2:4]), SQUARE, SQUARE) for face in scene.faces)
        for k, pose in enumerate((before, now)):
            aligned = aligner.choose(blank[k], mattes[k], pose, home, key)
            found = blank[k], mattes[k], cells[k], aligned.picture
            code = self._code(found, shares_for(rate), strength, reference)
            face_code = FaceCode(pose, np.zeros(FACE_SYMBOLS, np.int8), home, aligned.reach)
            reference = code._replace(face=face_code)
        assert reference is not None
        plane = np.where(reference.keep, np.uint8(KEPT), np.uint8(SYNTHESISED))
        made = self._generator.generate(reference, plane, self._generator.features(key))
        face = scene.faces[1]
        place = self._near(place_of(face[:2], face[2:4]))
        return FaceSample(cut_out(blank[1], place), cut_out(np.ascontiguousarray(made.person[..., :3]), place))

    def _code(
        self,
        seen: tuple[Picture, Picture, NDArray[np.bool_], Picture],
        shares: Shares,
        strength: float,
        reference: Code | None,
    ) -> Code:
        """As `Sender` does it."""
        kept, matte, keep, key = seen
        latent, attention = self._encoder(kept, matte, key)
        looked = keep, kept, key, attention
        weight = code_weight(looked, self._encoder.weights, shares.face_care, shares.rich_faces)
        age = 0 if reference is None else 2
        return quantise(latent, keep, reference, age, self._tables, strength, weight, mixed=True).code

    def _near(self, place: Place) -> Place:
        random = self._random
        x, y = random.normal(0, JITTER[0], 2) * place.distance
        size, turn = float(random.normal(0, JITTER[1])), float(random.normal(0, JITTER[2]))
        return Place(place.x + x, place.y + y, place.distance * math.exp(size), place.turn + turn)


def _matrix(source: Face, target: NDArray[np.float64], scale: float) -> tuple[float, ...]:
    """PIL's affine matrix that brings a place of a picture to another, enlarging by ``scale``."""
    x, y = (float(s + 0.5 - (t + 0.5) / scale) for s, t in zip(source[:2], target, strict=True))
    return 1 / scale, 0.0, x, 0.0, 1 / scale, y


def _moved_to(picture: Picture, matrix: tuple[float, ...], scale: float, beyond: int) -> Picture:
    image, reduced = Image.fromarray(picture), 1
    while scale * reduced <= 0.5:
        image, reduced = image.reduce(2), reduced * 2
    fill = beyond if picture.ndim == 2 else (beyond,) * 3
    matrix = tuple(part / reduced for part in matrix)
    size = (SQUARE, SQUARE)
    return np.asarray(image.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=fill))


def _face_at(face: Face, matrix: tuple[float, ...], scale: float) -> Face:
    points = (face[:6].reshape(3, 2) + 0.5 - np.array([matrix[2], matrix[5]])) * scale - 0.5
    return np.concatenate([points.ravel(), face[6:] * scale]).astype(np.float32)


def write_samples(
    sampler: FaceSampler, contours: Callable[[Picture], NDArray[np.float64]], folder: Path, count: int, part: int = 0
) -> None:
    """Put ``count`` samples into ``folder``, as part number ``part`` of what several processes draw, with the
    ``contours`` (68, 2) of each face as sent and as shown."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [sample for sample, _ in zip(sampler.samples(), range(count), strict=False)]
    arrays = dict(zip(NAMES, map(np.stack, zip(*drawn, strict=True)), strict=True))
    arrays[CONTOURS] = np.array([[contours(face) for face in sample] for sample in drawn], np.float32)
    for name, values in arrays.items():
        temporary = folder / f".{name}{part}.partial.npy"
        np.save(temporary, values)
        temporary.replace(folder / f"{name}{part}.npy")


class SampleRun(NamedTuple):
    """What several processes draw together."""

    cache: Path
    model: str  # the call model that shows the faces
    folder: Path
    faces: int
    seed: int


def draw_samples(run: SampleRun, place: Together) -> None:
    """One process's share, `PART` at a time; parts that are there are left as they are. Raises
    BackendMissing without dlib."""
    finder = FaceFinder()
    models = LoadedModels(run.model, PictureFormat(SQUARE, SQUARE), NetworkOptions(threads=1))
    wanted = math.ceil(run.faces / PART / place.count)
    for part in range(place.number, wanted * place.count, place.count):
        if not (run.folder / f"{CONTOURS}{part}.npy").is_file():
            networks = models.encoder(), models.generator(), models.tables
            sampler = FaceSampler(Cache(run.cache), *networks, run.seed + part)
            write_samples(sampler, finder.face_contours, run.folder, PART, part)
        if place.leads:
            print(f"{min(run.faces, (part + 1) * PART)} of {run.faces} faces", flush=True)
