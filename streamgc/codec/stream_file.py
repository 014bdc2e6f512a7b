"""`.sgcv` files: the frame messages of a call, one after the other, to be measured and decoded without a network.

Layout: magic `SGCV`, version (u8), model hash (8 bytes), then varints – width, height, frame rate as numerator and
denominator, rows and columns of the cell grid, length of the settings – the settings, and the CRC-32 of all that (4
bytes, little-endian). Then the records: varint length ≥ 1, CRC-32, message. The end is a length of 0 and the number of
records as a varint with its CRC-32, so that a file that stops between records is told from a whole one.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self
from zlib import crc32

from streamgc.codec.message import MAX_MESSAGE
from streamgc.codec.sections import write_sized, write_varint
from streamgc.codec.symbols import MAX_SIDE
from streamgc.errors import BitstreamError, InputError, ModelMismatch

MAGIC = b"SGCV"
VERSION = 0
HASH_SIZE = 8
MAX_SETTINGS = 4096
MAX_PICTURE_SIDE = 16384


class StreamHeader(NamedTuple):
    """What a decoder must know before the first message; about 25 bytes in the file."""

    model_hash: bytes
    """8 bytes that name model and tables."""
    width: int
    """Width of the decoded picture in pixels, 1…16384."""
    height: int
    """Height of the decoded picture in pixels, 1…16384."""
    fps: Fraction
    """Frames a second, above 0."""
    rows: int
    """Rows of the cell grid, 1…1024."""
    columns: int
    """Columns of the cell grid, 1…1024."""
    settings: bytes = b""
    """What the session agreed on beside; opaque here, at most 4096 bytes."""

    def require_model(self, model_hash: bytes) -> None:
        """Raise ModelMismatch unless the stream was made by the model of that hash."""
        if model_hash != self.model_hash:
            raise ModelMismatch(
                f"the stream was made by model {self.model_hash.hex()}; the one loaded is {model_hash.hex()}"
            )

    def to_bytes(self) -> bytes:
        """The head of the file. Raises ValueError when a field is out of range."""
        problem = self._problem()
        if problem:
            raise ValueError(problem)
        body = bytearray(MAGIC + bytes((VERSION,)) + self.model_hash)
        for value in (self.width, self.height, self.fps.numerator, self.fps.denominator, self.rows, self.columns):
            write_varint(body, value)
        write_sized(body, self.settings)
        return bytes(body) + _checksum(bytes(body))

    def _problem(self) -> str | None:
        if len(self.model_hash) != HASH_SIZE:
            return f"a model hash of {len(self.model_hash)} bytes; {HASH_SIZE} are needed"
        if not all(1 <= side <= MAX_PICTURE_SIDE for side in (self.width, self.height)):
            return f"a picture of {self.width} × {self.height}"
        if not all(1 <= side <= MAX_SIDE for side in (self.rows, self.columns)):
            return f"a grid of {self.rows} × {self.columns} cells"
        if not 0 < self.fps <= 1000 or self.fps.denominator > 1_000_000:
            return f"{self.fps} frames a second"
        if len(self.settings) > MAX_SETTINGS:
            return f"{len(self.settings)} bytes of settings"
        return None


class StreamWriter:
    """Writes a stream; the file appears under its name when the `with` block ends without an exception, otherwise not.

    Raises InputError when the file cannot be written.
    """

    def __init__(self, path: Path, header: StreamHeader) -> None:
        self._path = path
        self._temporary = path.with_name(path.name + ".part")
        head = header.to_bytes()
        try:
            self._file: BinaryIO = self._temporary.open("wb")
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}") from error
        self.messages = 0
        """How many messages were written."""
        self._write(head)

    def write(self, message: bytes) -> None:
        """Append one frame message, 1…65536 bytes."""
        if not 1 <= len(message) <= MAX_MESSAGE:
            raise ValueError(f"a message of {len(message)} bytes")
        record = bytearray()
        write_varint(record, len(message))
        self._write(bytes(record) + _checksum(message) + message)
        self.messages += 1

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise InputError(f"{self._path} cannot be written: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                count = bytearray()
                write_varint(count, self.messages)
                self._write(b"\0" + bytes(count) + _checksum(bytes(count)))
                self._file.close()
                self._temporary.replace(self._path)
        except OSError as failure:
            raise InputError(f"{self._path} cannot be written: {failure.strerror}") from failure
        finally:
            self._file.close()
            self._temporary.unlink(missing_ok=True)


class StreamReader:
    """Reads a stream: `header`, then the messages by iterating, once.

    Raises InputError when the file cannot be opened, BitstreamError when it is foreign, of another version, truncated
    or corrupted – while iterating also, after the messages before the damage.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        self._name = path.name
        try:
            self.header = self._read_header()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[bytes]:
        count = 0
        while True:
            length = self._varint()[0]
            if length == 0:
                break
            if length > MAX_MESSAGE:
                raise BitstreamError(f"{self._name}: message {count} is corrupted (a length of {length} bytes)")
            checksum = self._take(4)
            message = self._take(length)
            if _checksum(message) != checksum:
                raise BitstreamError(f"{self._name}: message {count} is corrupted (its checksum differs)")
            yield message
            count += 1
        expected, raw = self._varint()
        if _checksum(raw) != self._take(4) or expected != count:
            raise BitstreamError(f"{self._name}: the end is corrupted ({count} messages read)")
        if self._file.read(1):
            raise BitstreamError(f"{self._name}: there is something after the end")

    def _read_header(self) -> StreamHeader:
        start = self._file.read(len(MAGIC))
        if start != MAGIC:
            raise BitstreamError(f"{self._name}: not an .sgcv stream")
        raw = start + self._take(1 + HASH_SIZE)
        if raw[len(MAGIC)] != VERSION:
            raise BitstreamError(f"{self._name}: version {raw[len(MAGIC)]} of the format; this program reads {VERSION}")
        values = []
        for _ in range(7):
            value, encoded = self._varint()
            values.append(value)
            raw += encoded
        if values[6] > MAX_SETTINGS:
            raise BitstreamError(f"{self._name}: the header is corrupted")
        settings = self._take(values[6])
        raw += settings
        if _checksum(raw) != self._take(4) or values[3] == 0:
            raise BitstreamError(f"{self._name}: the header is corrupted")
        model_hash = raw[len(MAGIC) + 1 : len(MAGIC) + 1 + HASH_SIZE]
        fps = Fraction(values[2], values[3])
        header = StreamHeader(model_hash, values[0], values[1], fps, values[4], values[5], settings)
        problem = header._problem()
        if problem:
            raise BitstreamError(f"{self._name}: the header cannot be: {problem}")
        return header

    def _take(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            raise BitstreamError(f"{self._name}: the file is truncated")
        return data

    def _varint(self) -> tuple[int, bytes]:
        """A varint of at most 5 bytes, and its bytes."""
        value, raw = 0, b""
        for position in range(5):
            byte = self._take(1)
            raw += byte
            value |= (byte[0] & 127) << (7 * position)
            if byte[0] < 128:
                return value, raw
        raise BitstreamError(f"{self._name}: the file is corrupted (a number is too long)")


def _checksum(data: bytes) -> bytes:
    return crc32(data).to_bytes(4, "little")
