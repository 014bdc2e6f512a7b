"""How a call's networks are loaded: on how many threads, and run once before anybody waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import cast

import pytest

from streamgc.errors import StreamGCError
from streamgc.pipeline.call_codec import SEGMENTER, LoadedModels, call_threads
from streamgc.pipeline.faces import LOCATOR, PAINTER, READER
from streamgc.pipeline.networks import NetworkOptions
from streamgc.pipeline.settings import PictureFormat
from streamgc.runtime.engine import Array, Engine, Precision

FORMAT = PictureFormat(64, 64)


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (3, 1), (4, 2), (8, 4), (64, 4)])
def test_half_the_cores_run_what_is_sent_and_half_what_comes(cores: int, threads: int) -> None:
    assert call_threads(cores) == threads


def test_everything_has_run_once_when_loading_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    models = LoadedModels("lite", FORMAT, NetworkOptions(threads=1))
    ran: list[str] = []

    def noted(role: str, engine: Engine) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
        run = engine.run

        def noting(feeds: Mapping[str, Array]) -> dict[str, Array]:
            ran.append(role)
            return run(feeds)

        return noting

    for role in ("reference", "generator", "encoder", SEGMENTER):
        engine = models.engine(role)
        monkeypatch.setattr(engine, "run", noted(role, engine))
    models.load_later()
    _wait_for_loading()
    assert ran == ["reference", "generator", SEGMENTER, "encoder"]
    assert {"rows", "bit_rows"} <= set(vars(models.tables))


def test_a_network_that_cannot_be_loaded_is_told_to_whoever_needs_it() -> None:
    models = LoadedModels("lite", FORMAT, NetworkOptions(threads=1), segmenter="no such model")
    models.load_later()
    _wait_for_loading()
    with pytest.raises(StreamGCError, match="no such model"):
        models.engine(SEGMENTER)


@pytest.mark.parametrize(
    ("asked", "face", "encoder"), [("auto", "int8", "int8"), ("int8", "int8", "int8"), ("fp32", "fp32", "fp32")]
)
def test_the_face_s_networks_are_in_int8_like_the_others(asked: str, face: str, encoder: str) -> None:
    models = LoadedModels("lite", FORMAT, NetworkOptions("openvino", cast("Precision", asked), threads=1))
    assert {models.engine(role).precision for role in (LOCATOR, READER, PAINTER)} == {face}
    assert models.engine("encoder").precision == encoder


def test_where_int8_is_not_used_the_face_s_networks_are_in_fp32() -> None:
    """Half precision would put places off by pixels."""
    for options in (NetworkOptions("onnxruntime", threads=1), NetworkOptions("onnxruntime", "int8", threads=1)):
        models = LoadedModels("lite", FORMAT, options)
        assert {models.engine(role).precision for role in (LOCATOR, READER, PAINTER)} == {"fp32"}


def _wait_for_loading() -> None:
    for thread in threading.enumerate():
        if thread.name == "load-networks":
            thread.join(30)
            assert not thread.is_alive()
