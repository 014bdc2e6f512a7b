"""Measured rows of the conventional codecs, kept in a file: they do not change while our model does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from streamgc.errors import InputError

Row = dict[str, Any]


class RowCache:
    """A JSON object from a key, which names everything a row depends on, to the row."""

    def __init__(self, path: str | Path | None) -> None:
        """Reads `path` if it is given and exists; raises InputError where it is no JSON object."""
        self._path = Path(path) if path is not None else None
        self._rows: dict[str, Row] = {}
        if self._path is None or not self._path.exists():
            return
        try:
            rows = json.loads(self._path.read_text())
        except ValueError as error:
            raise InputError(f"{self._path}: no cache of rows ({error})") from error
        if not isinstance(rows, dict):
            raise InputError(f"{self._path}: no cache of rows (a {type(rows).__name__}, not an object)")
        self._rows = rows

    def get(self, key: str) -> Row | None:
        """A copy of the row, or None."""
        row = self._rows.get(key)
        return dict(row) if row is not None else None

    def put(self, key: str, row: Row) -> None:
        """Keeps a row in memory until `save`."""
        self._rows[key] = dict(row)

    def save(self) -> None:
        """Writes the file, if there is one, through a temporary name."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f".{self._path.name}.partial")
        temporary.write_text(json.dumps(self._rows, indent=1) + "\n")
        temporary.replace(self._path)
