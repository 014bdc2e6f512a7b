"""Stream files: whole or refused, and never half-written."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamgc.codec.stream_file import StreamHeader, StreamReader, StreamWriter
from streamgc.errors import BitstreamError, InputError, ModelMismatch

HEADER = StreamHeader(b"modelxyz", 256, 144, Fraction(30000, 1001), 9, 16, b'{"background":3}')
reuse = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(path: Path, messages: list[bytes], header: StreamHeader = HEADER) -> bytes:
    with StreamWriter(path, header) as writer:
        for message in messages:
            writer.write(message)
    return path.read_bytes()


def read(path: Path) -> list[bytes]:
    with StreamReader(path) as reader:
        return list(reader)


@reuse
@given(st.lists(st.binary(min_size=1, max_size=300), max_size=20))
def test_round_trip(tmp_path: Path, messages: list[bytes]) -> None:
    write(tmp_path / "a.sgcv", messages)
    with StreamReader(tmp_path / "a.sgcv") as reader:
        assert reader.header == HEADER
        assert list(reader) == messages


def test_header_is_small(tmp_path: Path) -> None:
    assert len(write(tmp_path / "a.sgcv", [], HEADER._replace(settings=b"", fps=Fraction(15)))) <= 33


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    data = write(tmp_path / "a.sgcv", [b"one", b"three" * 30, b"x"])
    for length in range(len(data)):
        (tmp_path / "b.sgcv").write_bytes(data[:length])
        with pytest.raises(BitstreamError):
            read(tmp_path / "b.sgcv")
    (tmp_path / "b.sgcv").write_bytes(data + b"\0")
    with pytest.raises(BitstreamError, match="after the end"):
        read(tmp_path / "b.sgcv")


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    data = write(tmp_path / "a.sgcv", [b"one", b"three" * 30, b"x"])
    for position in range(len(data)):
        for change in (1, 0x80):
            changed = bytearray(data)
            changed[position] ^= change
            (tmp_path / "b.sgcv").write_bytes(changed)
            with pytest.raises(BitstreamError):
                read(tmp_path / "b.sgcv")


def test_messages_before_the_damage_are_read(tmp_path: Path) -> None:
    data = write(tmp_path / "a.sgcv", [b"one", b"two", b"three"])
    (tmp_path / "b.sgcv").write_bytes(data[:-12])
    with StreamReader(tmp_path / "b.sgcv") as reader:
        messages = iter(reader)
        assert [next(messages), next(messages)] == [b"one", b"two"]
        with pytest.raises(BitstreamError, match=r"b\.sgcv"):
            next(messages)


@reuse
@given(st.binary(max_size=100), st.booleans())
def test_any_bytes_are_a_stream_or_one_error(tmp_path: Path, data: bytes, with_magic: bool) -> None:
    (tmp_path / "b.sgcv").write_bytes((b"SGCV\0" if with_magic else b"") + data)
    with pytest.raises(BitstreamError):
        read(tmp_path / "b.sgcv")


@pytest.mark.parametrize(
    "wrong",
    [
        HEADER._replace(model_hash=b"short"),
        HEADER._replace(width=0),
        HEADER._replace(height=1 << 20),
        HEADER._replace(rows=0),
        HEADER._replace(columns=1025),
        HEADER._replace(fps=Fraction(0)),
        HEADER._replace(settings=bytes(5000)),
    ],
)
def test_impossible_headers_are_refused_and_leave_nothing(tmp_path: Path, wrong: StreamHeader) -> None:
    with pytest.raises(ValueError):
        StreamWriter(tmp_path / "a.sgcv", wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("message", [b"", bytes((1 << 16) + 1)])
def test_impossible_messages_are_refused_and_leave_nothing(tmp_path: Path, message: bytes) -> None:
    with pytest.raises(ValueError):
        write(tmp_path / "a.sgcv", [b"fine", message])
    assert not list(tmp_path.iterdir())


def test_another_model_is_told(tmp_path: Path) -> None:
    write(tmp_path / "a.sgcv", [])
    with StreamReader(tmp_path / "a.sgcv") as reader:
        reader.header.require_model(b"modelxyz")
        with pytest.raises(ModelMismatch, match=b"modelxyz".hex()):
            reader.header.require_model(bytes(8))


def test_another_version_is_told(tmp_path: Path) -> None:
    data = write(tmp_path / "a.sgcv", [])
    (tmp_path / "b.sgcv").write_bytes(data[:4] + b"\x07" + data[5:])
    with pytest.raises(BitstreamError, match="version 7"):
        read(tmp_path / "b.sgcv")


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        StreamReader(tmp_path / "absent.sgcv")
    with pytest.raises(InputError, match="cannot be read"):
        StreamReader(tmp_path)
    with pytest.raises(InputError, match="cannot be written"):
        StreamWriter(tmp_path / "no" / "folder.sgcv", HEADER)
