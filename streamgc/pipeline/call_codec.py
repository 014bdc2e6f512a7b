"""The shipped picture codec, loaded once: makes a fresh sender and receiver for every connection."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamgc.codec.message import Background
from streamgc.codec.symbols import MAX_CHANNELS
from streamgc.codec.tables import Tables, load_tables
from streamgc.errors import ModelError, StreamGCError
from streamgc.pipeline.background import BackgroundKeeper
from streamgc.pipeline.eyes import SceneEyes
from streamgc.pipeline.faces import LOCATOR, PAINTER, READER, FacePainter, FaceReader
from streamgc.pipeline.looking import Eyes
from streamgc.pipeline.networks import CHANNEL_WEIGHTS, EncoderNetwork, GeneratorNetwork, NetworkOptions
from streamgc.pipeline.receiver import Receiver
from streamgc.pipeline.room_network import RoomModel
from streamgc.pipeline.segmenters import SHIPPED, is_yolo, open_yolo
from streamgc.pipeline.sender import Sender, blanked
from streamgc.pipeline.settings import PictureFormat, SenderSettings, parse_background
from streamgc.profiling.spans import Spans
from streamgc.runtime.blobs import cache_folder
from streamgc.runtime.engine import Engine, Precision
from streamgc.runtime.store import NOT_HALF, Model, ModelStore, preferred_precision
from streamgc.scene.observer import Segment
from streamgc.scene.segmenter import Segmenter

Picture = NDArray[np.uint8]
SEGMENTER, DETAIL = "segmenter", "detail"
"""Networks of models of their own, each by its role in its model."""
THREADS_MAX = 4
"""Threads beyond which networks of this size are not worth another."""


class Options(Protocol):
    """What the user chose; ``call.codec.CodecOptions`` has these and more."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def fps(self) -> float: ...
    @property
    def kbps(self) -> float: ...
    @property
    def background(self) -> str: ...
    @property
    def preserve(self) -> str: ...
    @property
    def framing(self) -> bool: ...
    @property
    def fine(self) -> bool: ...
    @property
    def model(self) -> str: ...
    @property
    def backend(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def precision(self) -> Precision: ...
    @property
    def segmenter(self) -> str: ...


class LoadedModels:
    """Compiled networks, each loaded when first needed and then shared."""

    def __init__(
        self,
        name: str,
        picture_format: PictureFormat,
        choice: NetworkOptions,
        segmenter: str = SHIPPED,
        cache: Path | None = None,
    ) -> None:
        """``segmenter``: a model's name or folder, or YOLO weights. ``cache``: folder of compiled networks.

        Raises ModelError when there is no such model or it has no tables.
        """
        self.model: Model = ModelStore().open(name)
        if self.model.tables is None:
            raise ModelError(f"model {name!r} has no context tables: it cannot code a call")
        self.tables: Tables = load_tables(self.model.tables)
        self.format = picture_format
        self._choice = choice
        self._cache = cache
        self._loaded: dict[str, Engine] = {}
        self._locks = {role: threading.Lock() for role in (*self.model.roles, SEGMENTER, DETAIL)}
        self._room: RoomModel | None = None
        self._room_lock = threading.Lock()
        self._segmenter = segmenter
        self._yolo: Segment | None = None

    def engine(self, role: str) -> Engine:
        """A network of the call model, the segmenter, or what enlarges the picture.

        The segmenter has one thread: a second one saves it a millisecond and doubles what it costs the machine
        (``docs/results/latency.md``).
        """
        with self._locks[role]:
            if role not in self._loaded:
                model = self._model_of(role)
                choice = self._choice
                self._loaded[role] = model.load(
                    role,
                    backend=choice.backend,
                    precision=_precision(model, role, choice),
                    threads=1 if role in (SEGMENTER, LOCATOR, READER) else choice.threads,
                    size=(self.format.height, self.format.width),
                    cache=self._cache,
                )
            return self._loaded[role]

    def _model_of(self, role: str) -> Model:
        others = {SEGMENTER: self._segmenter, DETAIL: DETAIL}
        return ModelStore().open(others[role]) if role in others else self.model

    def load_later(self) -> None:
        """Load what only sending needs, and run everything once, on a thread of its own, while the call is being set
        up."""
        # No daemon: a runtime that compiles while the interpreter goes away takes the process down with it.
        threading.Thread(target=self._load_rest, name="load-networks").start()

    def _load_rest(self) -> None:
        sending = ("encoder",) if is_yolo(self._segmenter) else (SEGMENTER, "encoder")
        with contextlib.suppress(StreamGCError):  # whoever needs the network gets the error
            # The first picture shown has a room behind the person.
            self.room()(np.zeros(self.format.grid, np.uint8), 0)
            faces = (LOCATOR, READER, PAINTER) if self._codes_faces else ()
            for role in ("reference", "generator", *sending, *faces, DETAIL):
                if threading.main_thread().is_alive():
                    self._rehearse(role)
            _ = self.tables.rows, self.tables.bit_rows

    def _rehearse(self, role: str) -> None:
        """Run a network once on nothing: a first run takes longer than others, and now nobody waits for it."""
        engine = self.engine(role)
        shapes = {name: [side for side in spec.shape if side is not None] for name, spec in engine.inputs.items()}
        if all(len(shape) == len(engine.inputs[name].shape) for name, shape in shapes.items()):
            engine.run({name: np.zeros(shape, engine.inputs[name].dtype) for name, shape in shapes.items()})

    @property
    def engine_name(self) -> str:
        """Backend and precision of what has been loaded."""
        names = dict.fromkeys(f"{engine.backend} {engine.precision}" for engine in self._loaded.values())
        return ", ".join(names) or "none loaded"

    def encoder(self) -> EncoderNetwork:
        """Raises ModelError when what the model says about its channels is wrong."""
        return EncoderNetwork(_Late(self, "encoder"), _channel_weights(self.model))

    def generator(self) -> GeneratorNetwork:
        return GeneratorNetwork(*(_Late(self, role) for role in ("reference", "generator", DETAIL)))

    def face_reader(self) -> FaceReader | None:
        """What a sender says of a face; None of a model without it."""
        return FaceReader(_Late(self, LOCATOR), _Late(self, READER)) if self._codes_faces else None

    def face_painter(self) -> FacePainter | None:
        """What a receiver does with it."""
        return FacePainter(_Late(self, PAINTER)) if self._codes_faces else None

    @property
    def _codes_faces(self) -> bool:
        return {LOCATOR, READER, PAINTER} <= set(self.model.roles)

    def room(self) -> RoomModel:
        """The generator of rooms."""
        with self._room_lock:
            if self._room is None:
                self._room = RoomModel(options=self._choice, cache=self._cache)
            return self._room

    def segment(self) -> Segment:
        """The segmenter. Raises InputError, BackendMissing, ModelError and EngineError."""
        if is_yolo(self._segmenter):
            if self._yolo is None:
                self._yolo = open_yolo(self._segmenter, self._choice.threads)
            return self._yolo
        return Segmenter(_Late(self, SEGMENTER), (self.format.height, self.format.width))

    def eyes(self, preserve: str, framing: bool, spans: Spans, fps: float | None = 15.0) -> SceneEyes:
        return SceneEyes(self.segment(), self.format, preserve, framing, spans, fps)


def _channel_weights(model: Model) -> list[float] | None:
    """None where the model says nothing."""
    said = model.extra(CHANNEL_WEIGHTS)
    if said is None:
        return None
    if isinstance(said, list) and len(said) == MAX_CHANNELS and all(isinstance(w, int | float) and w > 0 for w in said):
        return [float(weight) for weight in said]
    raise ModelError(f"model {model.name!r}: {CHANNEL_WEIGHTS} must be {MAX_CHANNELS} numbers above 0")


class _Late:
    """A network that is there when it is first run: whoever makes a sender or a receiver waits for none."""

    def __init__(self, models: LoadedModels, role: str) -> None:
        self._models, self._role = models, role

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """As `Engine.run`; waits for the network to be loaded, and raises what loading raises."""
        return self._models.engine(self._role).run(feeds)


def _precision(model: Model, role: str, choice: NetworkOptions) -> Precision:
    usual = preferred_precision(model, role, choice.backend)
    asked = usual if choice.precision == "auto" else choice.precision
    in_int8 = usual == asked == "int8"
    return "fp32" if role == DETAIL or (role in NOT_HALF and not in_int8) else asked


class CallCodec:
    """What a call needs of the codec."""

    def __init__(
        self, models: LoadedModels, settings: SenderSettings, seed: int = 0, own: Picture | None = None
    ) -> None:
        """``seed``: style of the rooms that the receiver's generator makes up; ``own``: its picture for ``replace``."""
        self.models, self.settings = models, settings
        self._seed, self._own = seed, own
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="beside-the-call")

    @property
    def model_name(self) -> str:
        return self.models.model.name

    @property
    def model_hash(self) -> str:
        return self.models.model.hash.hex()

    @property
    def engine(self) -> str:
        return self.models.engine_name

    def sender(self, spans: Spans, eyes: Eyes | None = None, *, live: bool = True) -> Sender:
        """A sender in its first state; ``eyes`` replaces the shipped segmenter's.

        With ``live`` false nothing is done on other threads, and nothing depends on the time that it takes: the same
        pictures make the same messages.
        """
        settings = self.settings
        looking = eyes or self.models.eyes(settings.preserve, settings.framing, spans, settings.fps if live else None)
        beside = self._beside if live else None
        encoder, tables, faces = self.models.encoder(), self.models.tables, self.models.face_reader()
        return Sender(self.settings, looking, encoder, tables, spans, executor=beside, faces=faces)

    def receiver(self, spans: Spans) -> Receiver:
        """A receiver in its first state."""
        background = BackgroundKeeper(
            self.models.format, lambda labels, seed: self.models.room()(labels, seed), self._seed, self._own
        )
        generator, tables, painter = self.models.generator(), self.models.tables, self.models.face_painter()
        return Receiver(self.models.format, generator, tables, background, spans, painter)

    def conventional(self, eyes: Eyes | None = None) -> Callable[[Picture], Picture] | None:
        """For a peer without SGC: the person before grey where the mode keeps the room private, else the picture.
        ``eyes`` as in `sender`."""
        if self.settings.background is Background.MEMORY:
            return lambda picture: picture
        looking = eyes or self.models.eyes(self.settings.preserve, self.settings.framing, Spans(enabled=False))

        def fit(picture: Picture) -> Picture:
            view = looking.look(picture)
            return blanked(view.picture, view.matte)

        return fit


def call_threads(cores: int) -> int:
    """Threads a network of a call has: half of the cores, since what is sent is coded while what has come is made.

    Threads of one network wait for each other at every layer. Where another network, or another program, takes the core
    of one of them, all stand still: ``docs/results/latency.md``.
    """
    return min(max(1, cores // 2), THREADS_MAX)


def load_codec(options: Options) -> CallCodec:
    """Load the codec that the options name: what receiving needs now, the rest on a thread meanwhile.

    Compiled networks are kept in the user's cache. Raises InputError, ModelError and EngineError.
    """
    picture_format = PictureFormat(options.width, options.height)
    settings = SenderSettings(
        format=picture_format,
        fps=options.fps,
        kbps=options.kbps,
        background=parse_background(options.background),
        preserve=options.preserve,
        framing=options.framing,
        fine=options.fine,
    )
    models = LoadedModels(
        options.model,
        picture_format,
        NetworkOptions(options.backend, options.precision, options.threads or call_threads(os.cpu_count() or 1)),
        options.segmenter,
        cache_folder() / "engines",
    )
    for role in ("reference", "generator"):
        models.engine(role)
    if is_yolo(options.segmenter):
        models.segment()
    else:
        ModelStore().open(options.segmenter)  # a model that is not there is said now
    models.load_later()
    return CallCodec(models, settings)
