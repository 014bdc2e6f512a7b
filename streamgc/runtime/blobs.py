"""Networks as compiled, kept between calls: loading one takes a tenth of the time that compiling takes.

A blob's name is a digest of everything it was made from: the network's file, the runtime and its version, the device,
the settings, the shapes. Its first bytes are a digest of the rest, so that a file that was cut short or has rotted is
compiled anew and never run. Files appear under their name when they are complete; nothing that goes wrong with them
keeps a call from starting.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

_DIGEST = 32
_KEPT = 64
"""Blobs in the folder; the ones used longest ago go first."""


def cache_folder() -> Path:
    """Where this user's programs keep what they can make again."""
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "streamgc"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "streamgc"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "streamgc"


class BlobCache:
    """Blobs of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, network: Path, circumstances: Iterable[object]) -> Path:
        """The file for a network under these circumstances, in this order."""
        digest = hashlib.blake2b(network.read_bytes(), digest_size=16)
        for one in circumstances:
            digest.update(f"\0{one}".encode())
        return self._folder / f"{network.stem}-{digest.hexdigest()}.blob"

    def read(self, path: Path) -> bytes | None:
        """The blob, or None where there is none that is whole."""
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        blob = data[_DIGEST:]
        return blob if hashlib.blake2b(blob, digest_size=_DIGEST).digest() == data[:_DIGEST] else None

    def write(self, path: Path, blob: bytes) -> None:
        """Keep a blob; where the folder cannot be written to, nothing is kept."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.write_bytes(hashlib.blake2b(blob, digest_size=_DIGEST).digest() + blob)
            os.replace(temporary, path)
            self._forget_oldest()
        except OSError:
            return

    def _forget_oldest(self) -> None:
        blobs = sorted(self._folder.glob("*.blob"), key=lambda file: -file.stat().st_mtime_ns)
        for file in blobs[_KEPT:]:
            file.unlink(missing_ok=True)
