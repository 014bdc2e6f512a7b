"""libopus, through ctypes: the library that PyAV's wheel carries and loads anyway.

PyAV's own encoder fixes rate and packet length when it is opened, and its decoder can neither conceal a lost packet
nor read the copy of it in the next one. A call needs all of that. RFC 6716 is Opus, RFC 7587 its RTP payload.
"""

import ctypes
import ctypes.util
import functools
import importlib.metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamgc.errors import BackendMissing, BitstreamError

Samples = NDArray[np.int16]
"""Mono sound, int16, (n,), 48 000 a second."""

SAMPLE_RATE = 48_000
PACKET_MS = (20, 40, 60, 80, 100, 120)
"""Lengths of a packet that the encoder makes."""

PACKET_MAX = 1275 * 6
_DTX_BYTES = 2
"""A packet of at most so many bytes says only that there is silence, and need not be sent."""

_VOIP = 2048
_SET_BITRATE, _SET_COMPLEXITY, _SET_INBAND_FEC, _SET_LOSS, _SET_DTX = 4002, 4010, 4012, 4014, 4016
_COMPLEXITY = 8


class OpusEncoder:
    """Mono speech. Rate and expected loss may change with every packet."""

    def __init__(self) -> None:
        """Raises `BackendMissing` where there is no libopus."""
        self._library = _library()
        self._state = _created(self._library.opus_encoder_create, SAMPLE_RATE, 1, _VOIP)
        self._out = ctypes.create_string_buffer(PACKET_MAX)
        self._set(_SET_COMPLEXITY, _COMPLEXITY)
        self._set(_SET_INBAND_FEC, 1)
        self._set(_SET_DTX, 1)

    def configure(self, kbps: float, loss: float) -> None:
        """Rate in kbit/s and the share of packets lost, which decides whether a packet carries a copy of the one before
        (in-band FEC; libopus spends nothing on it below about 12 kbit/s)."""
        self._set(_SET_BITRATE, round(kbps * 1000))
        self._set(_SET_LOSS, min(100, round(loss * 100)))

    def encode(self, samples: Samples) -> bytes:
        """One packet; `samples` are as many as one of `PACKET_MS` takes. Empty: silence, nothing to send."""
        block = np.ascontiguousarray(samples, np.int16)
        size = self._library.opus_encode(self._state, block.ctypes.data, len(block), self._out, PACKET_MAX)
        if size < 0:
            raise BitstreamError(f"libopus does not encode {len(block)} samples (error {size})")
        return self._out.raw[:size] if size > _DTX_BYTES else b""

    def _set(self, request: int, value: int) -> None:
        self._library.opus_encoder_ctl(self._state, request, ctypes.c_int(value))

    def __del__(self) -> None:
        if hasattr(self, "_state"):
            self._library.opus_encoder_destroy(self._state)


class OpusDecoder:
    """To mono, whatever was sent."""

    def __init__(self) -> None:
        """Raises `BackendMissing` where there is no libopus."""
        self._library = _library()
        self._state = _created(self._library.opus_decoder_create, SAMPLE_RATE, 1)
        self._out = np.zeros(SAMPLE_RATE * max(PACKET_MS) // 1000, np.int16)

    def decode(self, packet: bytes) -> Samples:
        """The sound of a packet. Raises `BitstreamError` for what is none."""
        return self._decode(packet, len(self._out), copy_before=False)

    def recover(self, following: bytes, count: int) -> Samples:
        """`count` samples of a lost packet from the one after it: from the copy in there if it has one, else concealed.

        Raises `BitstreamError` as `decode`.
        """
        return self._decode(following, min(count, len(self._out)), copy_before=True)

    def conceal(self, count: int) -> Samples:
        """`count` samples (a multiple of 120, at most 5760) that continue what was heard last, fading."""
        return self._decode(b"", min(count, len(self._out)), copy_before=False)

    def _decode(self, packet: bytes, count: int, copy_before: bool) -> Samples:
        data = packet if packet else None
        made = self._library.opus_decode(self._state, data, len(packet), self._out.ctypes.data, count, int(copy_before))
        if made < 0:
            raise BitstreamError(f"not an Opus packet (libopus error {made})")
        return self._out[:made].copy()

    def __del__(self) -> None:
        if hasattr(self, "_state"):
            self._library.opus_decoder_destroy(self._state)


def packet_samples(packet: bytes) -> int:
    """How many samples at 48 kHz a packet holds. Raises `BitstreamError` for what is no Opus packet, or more than
    120 ms."""
    count: int = _library().opus_packet_get_nb_samples(packet, len(packet), SAMPLE_RATE)
    if not 0 < count <= SAMPLE_RATE * max(PACKET_MS) // 1000:
        raise BitstreamError("not an Opus packet")
    return count


@functools.cache
def _library() -> ctypes.CDLL:
    path = _beside_pyav() or ctypes.util.find_library("opus")
    if path is None:
        raise BackendMissing("there is no libopus here, so the call has no sound: pip install av, or install libopus")
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise BackendMissing(f"libopus cannot be loaded, so the call has no sound: {error}") from error
    number, pointer, data = ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p
    library.opus_encoder_create.restype = library.opus_decoder_create.restype = pointer
    library.opus_encoder_create.argtypes = [ctypes.c_int32, number, number, pointer]
    library.opus_decoder_create.argtypes = [ctypes.c_int32, number, pointer]
    library.opus_encoder_ctl.argtypes = [pointer, number]  # the rest is variadic
    library.opus_encode.argtypes = [pointer, pointer, number, pointer, ctypes.c_int32]
    library.opus_decode.argtypes = [pointer, data, ctypes.c_int32, pointer, number, number]
    library.opus_packet_get_nb_samples.argtypes = [data, ctypes.c_int32, ctypes.c_int32]
    library.opus_encoder_destroy.argtypes = library.opus_decoder_destroy.argtypes = [pointer]
    library.opus_encoder_destroy.restype = library.opus_decoder_destroy.restype = None
    return library


def _beside_pyav() -> str | None:
    try:
        files = importlib.metadata.files("av") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if "opus" in file.name.lower() and (".so" in file.name or file.suffix in (".dylib", ".dll")):
            return str(Path(str(file.locate())))
    return None


def _created(create: "ctypes._NamedFuncPointer", *arguments: int) -> ctypes.c_void_p:
    status = ctypes.c_int(0)
    state = create(*arguments, ctypes.byref(status))
    if not state or status.value:
        raise BackendMissing(f"libopus does not start (error {status.value})")
    return ctypes.c_void_p(state)
