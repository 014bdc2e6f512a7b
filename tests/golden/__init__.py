"""Bytes that version 0 of the bitstream must keep giving.

After a deliberate change of the format `python -m tests.golden` writes them anew.
"""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from streamgc.codec.code import encode_code
from streamgc.codec.face import FACE_SYMBOLS, FaceCode, FacePose
from streamgc.codec.labels import encode_labels
from streamgc.codec.message import Background, Kind, Message
from streamgc.codec.sections import Crop, Feedback, Held, Part, PartKind
from streamgc.codec.stream_file import StreamHeader, StreamWriter
from streamgc.codec.symbols import Code, make_code
from streamgc.codec.tables import default_tables

FOLDER = Path(__file__).parent


def small_code() -> Code:
    """The worked example of docs/bitstream.md: 2 channels, 3 × 4 cells, 6 of them kept."""
    keep = np.array([[0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0]])
    symbols = np.zeros((2, 3, 4), int)
    symbols[0, 0, 1], symbols[0, 1, 2], symbols[1, 2, 2] = 1, -1, 2
    return make_code(symbols, keep)


def next_code() -> Code:
    """What follows `small_code`: one symbol and one kept cell differ."""
    keep = small_code().keep.copy()
    keep[2, 3] = True
    symbols = small_code().symbols.copy()
    symbols[0, 1, 1] = 1
    return make_code(symbols, keep)


def large_code(step: int) -> Code:
    """An arithmetic pattern of 8 channels on 16 × 16 cells; no random generator, so that it is the same everywhere."""
    channel, row, column = np.indices((8, 16, 16))
    mixed = (channel * 31 + row * 17 + column * 7 + step * (row == 5)) * 2654435761 % 4294967296 >> 16
    symbols = np.where(mixed % 11 == 0, mixed // 11 % 5 - 2, 0)
    return make_code(symbols, (row[0] - 8) ** 2 + (column[0] - 8) ** 2 < 50 + step)


def mixed_code(step: int) -> Code:
    """The large code, rich where the pattern says so."""
    code = large_code(step)
    return make_code(code.symbols, code.keep, code.symbols[7] + code.symbols[6] != 0)


def face_code(step: int) -> Code:
    """The small code with a face, whose x moves by a step and whose y by three; the first symbol changes. From step 4
    on its home is elsewhere."""
    symbols = np.arange(FACE_SYMBOLS) * 7 % 9 - 4
    symbols[::6] = (symbols[::6] + 4 + step) % 9 - 4
    pose = FacePose(14 + step, 8 + 3 * step, 12, -1)
    home = FacePose(13 + 30 * (step >= 4), 9, 12, 0)
    return small_code()._replace(face=FaceCode(pose, symbols.astype(np.int8), home, min(1 + step, 2)))


def picture_message() -> Message:
    """Frame 7 of the worked example: the second picture against the first, three frames before, with a feedback."""
    payload = encode_code(next_code(), small_code(), 3, default_tables())
    return Message(Kind.PICTURE, 7, Background.MEMORY, 3, 2, 2, payload, feedback=Feedback(41, 0b0111, 1))


def full_message() -> Message:
    """A message with every section."""
    return Message(
        kind=Kind.PICTURE,
        number=255,
        background=Background.REPLACE,
        age=7,
        key=7,
        layout=8,
        picture=b"picture",
        feedback=Feedback(254, 0b1010, None),
        crop=Crop(2047, 1, 1024),
        report=b"report",
        held=(Held(PartKind.KEY, 3, 130, 5),),
        previous=(b"one", b"two"),
        parts=(Part(PartKind.COARSE_KEY, 15, 0, 1, b"coarse"), Part(PartKind.LABELS, 0, 199, 200, b"")),
    )


def label_map() -> np.ndarray:
    """A person before a wall over a sofa, 16 × 16."""
    labels = np.zeros((16, 16), np.uint8)
    labels[11:, 9:] = 3
    labels[4:, 3:10] = 1
    return labels


def stream() -> bytes:
    """A stream file of three messages."""
    header = StreamHeader(bytes(range(8)), 256, 256, Fraction(15), 16, 16, b"{}")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "golden.sgcv"
        with StreamWriter(path, header) as writer:
            writer.write(picture_message().pack())
            writer.write(Message(Kind.SKIP, 8, Background.MEMORY, 1).pack())
            writer.write(full_message().pack())
        return path.read_bytes()


MAKERS: dict[str, Callable[[], bytes]] = {
    "tables_hash": lambda: default_tables().hash,
    "small_intra": lambda: encode_code(small_code(), None, 0, default_tables()),
    "small_inter": lambda: encode_code(next_code(), small_code(), 3, default_tables()),
    "large_intra": lambda: encode_code(large_code(0), None, 0, default_tables()),
    "large_inter": lambda: encode_code(large_code(3), large_code(0), 4, default_tables()),
    "large_nested": lambda: encode_code(large_code(3).first(2), large_code(0), 1, default_tables()),
    "mixed_intra": lambda: encode_code(mixed_code(0), None, 0, default_tables()),
    "mixed_inter": lambda: encode_code(mixed_code(3), mixed_code(0), 2, default_tables()),
    "face_intra": lambda: encode_code(face_code(0), None, 0, default_tables()),
    "face_inter": lambda: encode_code(face_code(1), face_code(0), 1, default_tables()),
    "face_far": lambda: encode_code(face_code(4), face_code(0), 4, default_tables()),
    "message_picture": lambda: picture_message().pack(),
    "message_skip": lambda: Message(Kind.SKIP, 8, Background.MEMORY, 1).pack(),
    "message_full": lambda: full_message().pack(),
    "labels": lambda: encode_labels(label_map()),
    "labels_moved": lambda: encode_labels(np.roll(label_map(), 1, axis=1), label_map()),
    "stream": stream,
}
"""Every fixture by name; the file is `NAME.hex` in this folder."""


def as_hex(data: bytes) -> str:
    """The file's text: 32 bytes a line."""
    return "".join(data[i : i + 32].hex() + "\n" for i in range(0, len(data), 32))
