"""The bitstream stays what it was: version 0, byte by byte. After a deliberate change: python -m tests.golden."""

import numpy as np
import pytest

from streamgc.codec.code import decode_code
from streamgc.codec.labels import decode_labels
from streamgc.codec.message import unpack
from streamgc.codec.symbols import MIXED
from streamgc.codec.tables import default_tables
from tests.golden import (
    FOLDER,
    MAKERS,
    as_hex,
    face_code,
    full_message,
    label_map,
    large_code,
    mixed_code,
    next_code,
    small_code,
)


def golden(name: str) -> bytes:
    return bytes.fromhex((FOLDER / f"{name}.hex").read_text())


@pytest.mark.parametrize("name", MAKERS)
def test_bytes_are_unchanged(name: str) -> None:
    assert as_hex(MAKERS[name]()) == as_hex(golden(name)), "after a deliberate change: python -m tests.golden"


def test_every_file_is_of_a_maker() -> None:
    assert {path.stem for path in FOLDER.glob("*.hex")} == set(MAKERS)


def test_the_worked_example_in_the_documentation_is_true() -> None:
    text = (FOLDER.parent.parent / "docs" / "bitstream.md").read_text()
    assert f"`{golden('tables_hash').hex()}`" in text
    for name in ("small_intra", "small_inter", "message_picture", "message_skip"):
        assert f"`{golden(name).hex(' ')}`" in text


def test_golden_pictures_decode() -> None:
    tables = default_tables()
    assert decode_code(golden("small_intra"), (3, 4), 2, None, 0, tables).equals(small_code())
    message = unpack(golden("message_picture"))
    assert decode_code(message.picture, (3, 4), message.layout, small_code(), message.age, tables).equals(next_code())
    assert decode_code(golden("large_intra"), (16, 16), 8, None, 0, tables).equals(large_code(0))
    assert decode_code(golden("large_inter"), (16, 16), 8, large_code(0), 4, tables).equals(large_code(3))
    assert decode_code(golden("mixed_intra"), (16, 16), MIXED, None, 0, tables).equals(mixed_code(0))
    assert decode_code(golden("mixed_inter"), (16, 16), MIXED, mixed_code(0), 2, tables).equals(mixed_code(3))
    assert decode_code(golden("face_intra"), (3, 4), 2, None, 0, tables).equals(face_code(0))
    assert decode_code(golden("face_inter"), (3, 4), 2, face_code(0), 1, tables).equals(face_code(1))
    assert decode_code(golden("face_far"), (3, 4), 2, face_code(0), 4, tables).equals(face_code(4))
    assert unpack(golden("message_full")) == full_message()
    assert np.array_equal(decode_labels(golden("labels"), (16, 16)), label_map())
