"""Still files: exact symbols, context tables that pay, errors for everything else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamgc.codec.contours import vectorise
from streamgc.codec.sgc import (
    StillCode,
    decode_heatmap,
    decode_still_file,
    encode_heatmap,
    encode_still_file,
    model_of,
)
from streamgc.codec.still_planes import (
    Method,
    StillTables,
    decode_still_symbols,
    encode_still_symbols,
    ideal_bits,
    parse_still_tables,
)
from streamgc.codec.torchac_planes import built, torchac_wanted
from streamgc.errors import BackendMissing, BitstreamError, ModelError, ModelMismatch
from streamgc.training.still_tables import fit_still_tables

HASH = bytes(range(8))
METHODS: tuple[Method, ...] = ("static", "contexts")


def smooth_code(seed: int, channels: int = 4, shape: tuple[int, int] = (12, 17)) -> NDArray[np.int8]:
    """Symbols with structure along rows and between channels."""
    random = np.random.default_rng(seed)
    base = random.normal(0, 1, shape).cumsum(0).cumsum(1) / 4
    planes = [base * (1 + channel / 3) + random.normal(0, 0.4, shape) for channel in range(channels)]
    return np.clip(np.round(planes), -2, 2).astype(np.int8)


@pytest.fixture(scope="module")
def tables() -> StillTables:
    return fit_still_tables([smooth_code(seed) for seed in range(40)])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from(["static", "contexts"]),
)
def test_any_symbols_come_back(
    tables: StillTables, seed: int, channels: int, height: int, width: int, method: Method
) -> None:
    random = np.random.default_rng(seed)
    keep = random.random((height, width)) < random.random()
    symbols = (random.integers(-2, 3, (channels, height, width)) * keep).astype(np.int8)
    payload = encode_still_symbols(symbols, keep, tables, method)
    assert np.array_equal(decode_still_symbols(payload, channels, keep, tables, method), symbols)
    assert abs(len(payload) - ideal_bits(symbols, keep, tables, method) / 8) < 2


def test_contexts_beat_static_frequencies_on_the_same_symbols(tables: StillTables) -> None:
    everything = np.ones((12, 17), bool)
    sizes = {
        method: sum(len(encode_still_symbols(smooth_code(seed), everything, tables, method)) for seed in range(90, 100))
        for method in ("static", "contexts")
    }
    assert sizes["contexts"] < 0.85 * sizes["static"]


def same_by_both(tables: StillTables, count: int) -> None:
    random = np.random.default_rng(3)
    for _ in range(count):
        channels, height, width = (int(random.integers(1, most)) for most in (5, 9, 9))
        keep = random.random((height, width)) < random.random()
        values = random.normal(0, 1.5 * random.random(), (channels, height, width))
        symbols = (np.clip(np.round(values), -2, 2) * keep).astype(np.int8)
        for method in METHODS:
            ours = encode_still_symbols(symbols, keep, tables, method, "own")
            assert encode_still_symbols(symbols, keep, tables, method, "torchac") == ours
            assert np.array_equal(decode_still_symbols(ours, channels, keep, tables, method, "torchac"), symbols)


def test_torchac_gives_the_same_bytes(tables: StillTables) -> None:
    pytest.importorskip("torch")
    if not built():
        pytest.skip("torchac has not been compiled here; -m slow does it")
    same_by_both(tables, 200)
    symbols = smooth_code(3)
    everything = np.ones((12, 17), bool)
    # torch is loaded now, so auto is torchac; more bytes than the symbols need are an error there, too.
    payload = encode_still_symbols(symbols, everything, tables, "static")
    with pytest.raises(BitstreamError, match="longer than its symbols"):
        decode_still_symbols(payload + b"\1", 4, everything, tables, "static")


@pytest.mark.slow
def test_torchac_compiles_and_gives_the_same_bytes(tables: StillTables) -> None:
    """Slow because torchac compiles when it is first asked for."""
    pytest.importorskip("torch")
    try:
        torchac_wanted("torchac", 1)
    except BackendMissing as error:
        pytest.skip(str(error))
    same_by_both(tables, 2000)


def test_tables_survive_their_file(tables: StillTables) -> None:
    data = tables.to_bytes()
    again = parse_still_tables(data)
    assert again.to_bytes() == data
    for bad, text in ((data[:-1], "truncated"), (data + b"\0", "too long"), (b"SGCT" + data[4:], "not a still")):
        with pytest.raises(ModelError, match=text):
            parse_still_tables(bad)
    with pytest.raises(ModelError, match="do not increase"):
        parse_still_tables(data[:6] + bytes(8) + data[14:])


def selective() -> StillCode:
    random = np.random.default_rng(1)
    keep = np.zeros((4, 6), bool)
    keep[1:3, 2:5] = True
    symbols = (random.integers(-2, 3, (4, 4, 6)) * keep).astype(np.int8)
    labels = np.zeros((55, 91), np.uint8)
    labels[10:40, 20:60] = 7
    return StillCode(91, 55, symbols, keep, vectorise(labels))


def same(a: StillCode, b: StillCode) -> bool:
    keeps = a.keep is b.keep or (a.keep is not None and b.keep is not None and np.array_equal(a.keep, b.keep))
    return (
        keeps and np.array_equal(a.symbols, b.symbols) and a[:2] == b[:2] and a.labels == b.labels and a.cell == b.cell
    )


@pytest.mark.parametrize("method", ["static", "contexts"])
def test_files_hold_whole_and_selective_pictures(tables: StillTables, method: Method) -> None:
    whole = StillCode(91, 55, smooth_code(2, 2, (4, 6)))
    fine = StillCode(20, 17, smooth_code(2, 4, (4, 4)), cell=8)
    for code in (whole, selective(), fine):
        data, parts = encode_still_file(code, tables, HASH, method)
        assert same(decode_still_file(data, tables, HASH), code)
        assert sum(parts) == len(data)
        assert model_of(data) == HASH
    assert encode_still_file(whole, tables, HASH)[1].header <= 22


def test_only_preserved_symbols_cost_bits(tables: StillTables) -> None:
    code = selective()
    whole = smooth_code(4, 4, (4, 6))
    _, parts = encode_still_file(code, tables, HASH, "static")
    _, all_parts = encode_still_file(code._replace(symbols=whole, keep=None), tables, HASH, "static")
    assert parts.symbols < all_parts.symbols / 2


def test_damaged_files_are_errors(tables: StillTables) -> None:
    data, _ = encode_still_file(selective(), tables, HASH)
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 4
        with pytest.raises(BitstreamError):
            decode_still_file(bytes(changed), tables, HASH)
        with pytest.raises(BitstreamError):
            decode_still_file(data[:position], tables, HASH)
    with pytest.raises(ModelMismatch, match="made by model 0001"):
        decode_still_file(data, tables, bytes(8))
    with pytest.raises(BitstreamError, match=r"not an \.sgc"):
        decode_still_file(b"\xff\xd8\xff" + data, tables, HASH)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
def test_forged_checksums_do_not_help(tables: StillTables, body: bytes) -> None:
    """Bytes whose checksum is right are still decoded in bounded time, to a code or an error."""
    from zlib import crc32

    head = b"SGCI" + bytes((0,)) + body
    data = head + crc32(head).to_bytes(4, "little")
    try:
        decode_still_file(data, tables, body[2:10])
    except BitstreamError:
        return


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 20))
def test_heatmaps_come_back(seed: int, height: int, width: int) -> None:
    random = np.random.default_rng(seed)
    keep = random.random((height, width)) < random.random()
    assert np.array_equal(decode_heatmap(encode_heatmap(keep), (height, width)), keep)


def test_codes_that_cannot_be(tables: StillTables) -> None:
    with pytest.raises(ValueError, match="grid"):
        encode_still_file(StillCode(16, 16, np.zeros((2, 2, 2), np.int8)), tables, HASH)
    with pytest.raises(ValueError, match="outside"):
        encode_still_symbols(np.full((1, 2, 2), 3, np.int8), np.ones((2, 2), bool), tables)
    with pytest.raises(ValueError, match="channels"):
        encode_still_symbols(np.zeros((5, 2, 2), np.int8), np.ones((2, 2), bool), tables)
