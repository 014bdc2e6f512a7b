"""torchac for whole planes of still codes: our bytes, coded by its C++.

torchac takes all tables of a plane at once. An encoder knows them; a decoder does for static frequencies, while with
context tables each symbol decides the next one's table, which only our own coder can follow. torchac is torch and a
compiler: nothing here is imported before it is asked for, and a call never asks.
"""

from __future__ import annotations

import os
import sys
import tempfile
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamgc.errors import BackendMissing

Coder = Literal["auto", "own", "torchac"]
EXTENSION = "torchac_backend"
WORTH_LOADING = 2_000_000
"""Symbols from which loading torch (seconds) takes no longer than coding them without."""


def torchac_wanted(coder: Coder, symbols: int) -> bool:
    """Whether so many symbols go through torchac.

    ``auto``: where it is built and pays – torch is loaded already, or there are `WORTH_LOADING` symbols. ``torchac``
    builds it first, half a minute to two, once. Raises BackendMissing when it is asked for by name and cannot be had.
    """
    if coder == "own" or symbols == 0:
        return False
    if coder == "torchac":
        _torchac()
        return True
    if ("torch" not in sys.modules and symbols < WORTH_LOADING) or not built():
        return False
    try:
        _torchac()
    except BackendMissing:
        return False
    return True


def encode_planes(rows: NDArray[np.int32], indices: NDArray[np.int32]) -> bytes:
    """The payload of symbols (n,) with their cumulative counts (n, 6), in its shortest form. Raises BackendMissing."""
    torch, torchac = _torchac()
    tables, symbols = _wrapped(rows), indices.astype(np.int16)
    theirs: bytes = torchac.encode_cdf(torch.from_numpy(tables), torch.from_numpy(symbols))
    for shorter in _shorter(theirs):
        # A number outside the last interval decodes to other symbols, so what decodes alike is the shortest form.
        if np.array_equal(_decode(torch, torchac, tables, shorter), symbols):
            return shorter
    return theirs.rstrip(b"\0")


def decode_planes(rows: NDArray[np.int32], payload: bytes) -> NDArray[np.int32]:
    """The symbols (n,) of a payload, given the cumulative counts (n, 6) of all of them. Raises BackendMissing."""
    torch, torchac = _torchac()
    return _decode(torch, torchac, _wrapped(rows), payload).astype(np.int32)


def _decode(torch: Any, torchac: Any, tables: NDArray[np.int16], payload: bytes) -> NDArray[np.int16]:
    found: NDArray[np.int16] = torchac.decode_cdf(torch.from_numpy(tables), payload).numpy()
    return found


def _wrapped(rows: NDArray[np.int32]) -> NDArray[np.int16]:
    """torchac reads counts as unsigned 16 bits in signed ones; it knows that the last is 65536."""
    return np.ascontiguousarray((rows & 0xFFFF).astype(np.uint16)).view(np.int16)


def _shorter(theirs: bytes) -> list[bytes]:
    """Payloads that may stand for torchac's, shortest first.

    torchac ends in 0 and then ones, or in 1 and then zeros; ours stops before the first, or says 1 in its place.
    """
    bits = int.from_bytes(theirs, "big")
    if bits == 0:
        return [b""]
    count = 8 * len(theirs)
    zeros = (bits & -bits).bit_length() - 1
    bits, count = bits >> zeros, count - zeros
    ones = (~bits & (bits + 1)).bit_length() - 1
    bits, count = bits >> (ones + 1), count - ones - 1
    return [_bytes(bits, count), _bytes(bits << 1 | 1, count + 1)] if count >= 0 else []


def _bytes(bits: int, count: int) -> bytes:
    padding = -count & 7
    return (bits << padding).to_bytes((count + padding) >> 3, "big").rstrip(b"\0")


def built() -> bool:
    """Whether torchac has been compiled for this Python and this torch."""
    return (library := _library()) is not None and library.is_file()


@lru_cache(maxsize=1)
def _library() -> Path | None:
    """Where the compiled torchac of this Python and this torch belongs; None where a package is missing.

    Not torch's own folder for extensions: that one is shared by all environments, and each compiles anew what another
    left there.
    """
    try:
        versions = f"torchac-{version('torchac')}-torch-{version('torch')}-{sys.implementation.cache_tag}"
    except PackageNotFoundError:
        return None
    return Path.home() / ".cache" / "streamgc" / versions / f"{EXTENSION}{'.pyd' if os.name == 'nt' else '.so'}"


@lru_cache(maxsize=1)
def _found() -> tuple[Any, Any] | str:
    """torch and torchac's backend, compiled if need be; or why they cannot be had."""
    library = _library()
    if library is None:
        return "it is not installed: pip install 'streamgc[train]'"
    try:
        torch = import_module("torch")
        if not library.is_file():
            _compile(library)
        spec = spec_from_file_location(EXTENSION, library)
        assert spec is not None
        assert spec.loader is not None
        backend = module_from_spec(spec)
        spec.loader.exec_module(backend)
    except (ImportError, OSError, RuntimeError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
    return torch, backend


def _compile(library: Path) -> None:
    """Compile torchac's source beside its place, then move it there. Raises OSError, RuntimeError, ImportError."""
    package = find_spec("torchac")
    if package is None or package.origin is None:
        raise ImportError("torchac has no source")
    source = Path(package.origin).resolve().parent / "backend" / f"{EXTENSION}.cpp"
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        # Not by importing torchac, which writes the compiler's progress to standard output.
        extension = import_module("torch.utils.cpp_extension")
        extension.load(EXTENSION, [str(source)], build_directory=folder, verbose=False)
        os.replace(Path(folder) / library.name, library)


def _torchac() -> tuple[Any, Any]:
    found = _found()
    if isinstance(found, str):
        raise BackendMissing(f"torchac cannot be used: {found}")
    return found
