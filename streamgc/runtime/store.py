"""Shipped models: a folder with ``model.json``, its networks, its tables, a card and a licence.

The folder is checked file by file when it is opened, so that a call never starts with weights and tables that do not
belong together. The 8-byte model hash covers what two peers must share – the networks as trained and the tables –
and not their compiled or quantised variants.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from streamgc.errors import ModelError
from streamgc.runtime.assets import asset_root
from streamgc.runtime.engine import Engine, Precision, first_backend, load_engine

MANIFEST = "model.json"
FORMAT = 1
NOT_HALF = ("face_locator", "face_encoder", "face_painter")
"""Networks that are computed in fp32 where half precision is asked for: in it, places in a picture are off by pixels.
Int8 leaves coordinates alone."""


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the folder and the SHA-256 of its bytes, in hex."""

    file: str
    sha256: str


class NetworkEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A network: the file whose precision is ``precision``, and the same network stored otherwise."""

    file: str
    sha256: str
    precision: str = "fp32"
    variants: dict[str, FileEntry] = {}


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``model.json`` as written.

    ``channels`` are the nested code widths, ``levels`` the symbol alphabet, ``cell`` the pixels of one code cell a
    side. ``extra`` holds what a family adds for itself (a segmenter's class list, say).
    """

    format: int
    name: str
    family: str
    version: str
    networks: dict[str, NetworkEntry]
    hash: str
    channels: list[int] = []
    levels: int = 5
    cell: int = 16
    precision: str = "fp32"
    tables: FileEntry | None = None
    licence: str = ""
    card: str = ""
    extra: dict[str, msgspec.Raw] = {}


class Model:
    """A model folder that was found complete and consistent."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def family(self) -> str:
        return self.manifest.family

    @property
    def hash(self) -> bytes:
        """The 8 bytes that name networks and tables together, in SDP and in files."""
        return bytes.fromhex(self.manifest.hash)

    @property
    def channels(self) -> tuple[int, ...]:
        return tuple(self.manifest.channels)

    @property
    def roles(self) -> tuple[str, ...]:
        """The networks there are, by role."""
        return tuple(self.manifest.networks)

    @property
    def tables(self) -> Path | None:
        """The context tables' file, where the model has any."""
        return self.folder / self.manifest.tables.file if self.manifest.tables else None

    @property
    def card(self) -> Path | None:
        return self.folder / self.manifest.card if self.manifest.card else None

    @property
    def licence(self) -> Path | None:
        return self.folder / self.manifest.licence if self.manifest.licence else None

    def network(self, role: str, precision: str = "auto") -> Path:
        """The ONNX file of a role; "int8" needs the quantised variant. Raises ModelError."""
        entry = self.manifest.networks.get(role)
        if entry is None:
            raise ModelError(f"model {self.name!r} has no {role!r} network; it has {', '.join(self.roles)}")
        if precision in entry.variants:
            return self.folder / entry.variants[precision].file
        if precision == "int8" and entry.precision != "int8":
            raise ModelError(f"model {self.name!r} ships no int8 {role}: streamgc engines export --precision int8")
        return self.folder / entry.file

    def has(self, role: str, precision: str) -> bool:
        """Can the role be run in a precision, as far as its files are concerned: int8 needs a quantised file."""
        entry = self.manifest.networks.get(role)
        return entry is not None and (precision != "int8" or "int8" in (entry.precision, *entry.variants))

    def load(
        self,
        role: str,
        *,
        backend: str = "auto",
        precision: Precision = "auto",
        threads: int | None = None,
        size: tuple[int, int] | None = None,
        cache: Path | None = None,
    ) -> Engine:
        """Compile one network; the arguments are those of `load_engine`."""
        return load_engine(
            self.network(role, precision),
            backend=backend,
            precision=precision,
            threads=threads,
            size=size,
            cache=cache,
            model_hash=self.manifest.hash,
        )

    def extra(self, key: str) -> object:
        """A value the family put into ``model.json`` for itself, or None."""
        raw = self.manifest.extra.get(key)
        return None if raw is None else msgspec.json.decode(raw)

    def __repr__(self) -> str:
        return f"<model {self.name} {self.manifest.version} {self.manifest.hash}>"


def preferred_precision(model: Model, role: str, backend: str = "auto") -> Precision:
    """What a call computes a network in: int8 where it is shipped and OpenVINO runs it, otherwise what the backend
    finds fastest.

    Half the time, and no quality that can be measured; on other backends int8 is slower than fp32
    (``docs/results/engines.md``).
    """
    if backend == "auto":
        backend = first_backend() or ""
    return "int8" if backend == "openvino" and model.has(role, "int8") else "auto"


class ModelStore:
    """The models of one folder; by default those that ship with streamgc."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root if root is not None else asset_root("engines")

    def names(self) -> list[str]:
        """Folders that hold a model, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(entry.name for entry in self.root.iterdir() if (entry / MANIFEST).is_file())

    def open(self, name: str | Path, *, check_files: bool = True) -> Model:
        """Open a model by name, or by the path of its folder.

        Raises ModelError when it is unknown (listing those there are), incomplete, corrupt or inconsistent.
        ``check_files=False`` skips hashing the files (for listings).
        """
        folder = self.root / name
        if not (folder / MANIFEST).is_file() and not (folder := Path(name)).joinpath(MANIFEST).is_file():
            there = ", ".join(self.names()) or "none"
            raise ModelError(f"no model {str(name)!r}; there are: {there}")
        manifest = read_manifest(folder / MANIFEST)
        if check_files:
            check_folder(folder, manifest)
        return Model(folder, manifest)


def read_manifest(path: Path) -> Manifest:
    """Parse ``model.json``. Raises ModelError when it is unreadable, of another format, or names files outside its
    folder.
    """
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is no valid model description: {error}") from None
    if manifest.format != FORMAT:
        raise ModelError(f"{path} has format {manifest.format}; this streamgc reads format {FORMAT}")
    for file in [entry.file for entry in _entries(manifest)] + [manifest.licence, manifest.card]:
        if Path(file).name != file and file:
            raise ModelError(f"{path} names a file outside its folder: {file}")
    if not manifest.networks:
        raise ModelError(f"{path} names no networks")
    return manifest


def check_folder(folder: Path, manifest: Manifest) -> None:
    """Hash every file named. Raises ModelError on the first that is missing, altered, or of another model."""
    for entry in _entries(manifest):
        path = folder / entry.file
        if not path.is_file():
            raise ModelError(f"model {manifest.name!r} is incomplete: {path} is missing")
        if sha256_of(path) != entry.sha256:
            raise ModelError(f"model {manifest.name!r} is inconsistent: {path} is not the file it was published with")
    for file in (manifest.licence, manifest.card):
        if file and not (folder / file).is_file():
            raise ModelError(f"model {manifest.name!r} is incomplete: {folder / file} is missing")
    if model_hash(manifest.networks, manifest.tables) != manifest.hash:
        raise ModelError(f"model {manifest.name!r} is inconsistent: its tables and networks do not make its hash")


def _entries(manifest: Manifest) -> list[FileEntry]:
    entries: list[FileEntry] = []
    for network in manifest.networks.values():
        entries.append(FileEntry(network.file, network.sha256))
        entries.extend(network.variants.values())
    if manifest.tables is not None:
        entries.append(manifest.tables)
    return entries


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_hash(networks: Mapping[str, NetworkEntry], tables: FileEntry | None) -> str:
    """First 8 bytes, in hex, of the SHA-256 over roles and file hashes: networks in order of role, then the tables."""
    lines = [f"{role}:{networks[role].sha256}\n" for role in sorted(networks)]
    lines.append(f"tables:{tables.sha256 if tables else ''}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def write_model_json(
    folder: Path,
    *,
    name: str,
    family: str,
    version: str,
    networks: Mapping[str, str],
    tables: str | None = None,
    channels: tuple[int, ...] = (),
    precision: str = "fp32",
    variants: Mapping[str, Mapping[str, str]] | None = None,
    licence: str = "",
    card: str = "",
    extra: Mapping[str, object] | None = None,
) -> Model:
    """Hash the files already in ``folder`` and write ``model.json`` beside them.

    ``networks`` maps a role to a file name; ``variants`` maps a role to {precision: file name}. Raises ModelError
    when a file is missing.
    """
    entries = {
        role: NetworkEntry(
            file,
            _hash_in(folder, file),
            precision,
            {kind: FileEntry(other, _hash_in(folder, other)) for kind, other in (variants or {}).get(role, {}).items()},
        )
        for role, file in networks.items()
    }
    table_entry = FileEntry(tables, _hash_in(folder, tables)) if tables else None
    manifest = Manifest(
        format=FORMAT,
        name=name,
        family=family,
        version=version,
        networks=entries,
        hash=model_hash(entries, table_entry),
        channels=list(channels),
        precision=precision,
        tables=table_entry,
        licence=licence,
        card=card,
        extra={key: msgspec.Raw(msgspec.json.encode(value)) for key, value in (extra or {}).items()},
    )
    _write_manifest(folder, manifest)
    return ModelStore(folder.parent).open(folder)


def add_variants(model: Model, variants: Mapping[str, Mapping[str, str]]) -> Model:
    """Enter derived files, {role: {precision: file name}}, already in the folder into ``model.json``; the hash stays.

    Raises ModelError for an unknown role or a file that is missing.
    """
    networks = dict(model.manifest.networks)
    for role, files in variants.items():
        if role not in networks:
            raise ModelError(f"model {model.name!r} has no {role!r} network; it has {', '.join(model.roles)}")
        added = {kind: FileEntry(file, _hash_in(model.folder, file)) for kind, file in files.items()}
        networks[role] = msgspec.structs.replace(networks[role], variants={**networks[role].variants, **added})
    _write_manifest(model.folder, msgspec.structs.replace(model.manifest, networks=networks))
    return ModelStore(model.folder.parent).open(model.folder)


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    target = folder / MANIFEST
    temporary = target.with_suffix(".json.tmp")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    os.replace(temporary, target)


def _hash_in(folder: Path, file: str) -> str:
    path = folder / file
    if not path.is_file():
        raise ModelError(f"cannot describe the model: {path} is missing")
    return sha256_of(path)
