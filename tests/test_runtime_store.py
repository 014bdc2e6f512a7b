"""The model store: what a folder must hold, and one clear line for each way in which it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamgc.errors import ModelError
from streamgc.runtime.assets import asset_root
from streamgc.runtime.store import Model, ModelStore, write_model_json
from tests.runtime_networks import model_folder


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return model_folder(tmp_path)


def test_round_trip(model: Model, tmp_path: Path) -> None:
    opened = ModelStore(tmp_path).open("small")
    assert opened.manifest == model.manifest
    assert len(opened.hash) == 8
    assert opened.channels == (2, 4, 8)
    assert opened.roles == ("encoder", "generator")
    assert opened.tables is not None
    assert opened.tables.read_bytes() == b"tables"
    assert opened.extra("classes") == ["person"]
    assert opened.extra("nothing") is None
    assert ModelStore(tmp_path).names() == ["small"]
    assert ModelStore(tmp_path / "elsewhere").open(tmp_path / "small").hash == model.hash
    with opened.load("encoder", backend="openvino", threads=1) as engine:
        assert "picture" in engine.inputs


def test_hash_depends_on_networks_and_tables_only(model: Model, tmp_path: Path) -> None:
    folder = model.folder
    networks = {"encoder": "encoder.onnx", "generator": "generator.onnx"}
    arguments = {"name": "other", "family": "lite", "version": "2", "networks": networks}
    variants = {"encoder": {"fp16": "encoder.onnx"}}
    assert write_model_json(folder, **arguments, tables="tables.bin", variants=variants).hash == model.hash  # type: ignore[arg-type]
    (folder / "tables.bin").write_bytes(b"other tables")
    assert write_model_json(folder, **arguments, tables="tables.bin").hash != model.hash  # type: ignore[arg-type]
    assert write_model_json(folder, **arguments).hash != model.hash  # type: ignore[arg-type]


def test_unknown_model_lists_what_there_is(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model 'large'; there are: small"):
        ModelStore(tmp_path).open("large")
    with pytest.raises(ModelError, match="there are: none"):
        ModelStore(tmp_path / "empty").open("large")


def test_unknown_network_and_variant(model: Model) -> None:
    with pytest.raises(ModelError, match="has no 'room' network; it has encoder, generator"):
        model.network("room")
    with pytest.raises(ModelError, match="ships no int8 encoder"):
        model.network("encoder", "int8")


def test_tables_of_another_model(model: Model, tmp_path: Path) -> None:
    (model.folder / "tables.bin").write_bytes(b"tabels")
    with pytest.raises(ModelError, match=r"inconsistent: .*tables\.bin is not the file it was published with"):
        ModelStore(tmp_path).open("small")
    assert ModelStore(tmp_path).open("small", check_files=False).name == "small"


@pytest.mark.parametrize("file", ["encoder.onnx", "tables.bin", "LICENCE", "CARD.md"])
def test_missing_file(model: Model, tmp_path: Path, file: str) -> None:
    (model.folder / file).unlink()
    with pytest.raises(ModelError, match=f"incomplete: .*{file} is missing"):
        ModelStore(tmp_path).open("small")


def _edit(model: Model, **changes: object) -> None:
    path = model.folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hash": "0011223344556677"}, "its tables and networks do not make its hash"),
        ({"format": 2}, "has format 2; this streamgc reads format 1"),
        ({"networks": {}}, "names no networks"),
        ({"licence": "../../etc/passwd"}, "names a file outside its folder"),
        ({"channels": "many"}, "no valid model description"),
        ({"surprise": 1}, "no valid model description"),
    ],
)
def test_edited_description(model: Model, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    _edit(model, **changes)
    with pytest.raises(ModelError, match=message):
        ModelStore(tmp_path).open("small")


def test_description_that_is_no_json(model: Model, tmp_path: Path) -> None:
    (model.folder / "model.json").write_text("{")
    with pytest.raises(ModelError, match="no valid model description"):
        ModelStore(tmp_path).open("small")


def test_writer_needs_the_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"encoder\.onnx is missing"):
        write_model_json(tmp_path, name="x", family="lite", version="1", networks={"encoder": "encoder.onnx"})
    assert not list(tmp_path.iterdir())


def test_assets_are_found() -> None:
    for asset in ("engines", "demo", "signaling"):
        assert asset_root(asset).is_dir()


def test_shipped_models_are_whole() -> None:
    store = ModelStore()
    if not store.names():
        pytest.skip("no model is shipped in this checkout")
    for name in store.names():
        model = store.open(name)
        assert model.licence is not None, f"{name} ships without a licence"
        assert model.card is not None, f"{name} ships without a card"
