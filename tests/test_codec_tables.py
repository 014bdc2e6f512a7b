"""Frequency tables: their file, their hash, and fitting."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamgc.codec.code import code_bits, decode_code, encode_code
from streamgc.codec.symbols import MIXED, Code, make_code
from streamgc.codec.tables import default_tables, load_tables, parse_tables
from streamgc.errors import ModelError, TrainingError
from streamgc.training.tables import TableCounts, fit_tables, measure_tables
from tests.codec_strategies import all_tables, altered, random_code


@pytest.mark.parametrize("which", range(3))
def test_file_round_trip(which: int, tmp_path: Path) -> None:
    tables = all_tables()[which]
    tables.save(tmp_path / "tables.bin")
    loaded = load_tables(tmp_path / "tables.bin")
    assert loaded.hash == tables.hash
    assert len(loaded.hash) == 8
    assert np.array_equal(loaded.cumulative, tables.cumulative)
    assert not list(tmp_path.glob("*.part"))


def test_different_tables_have_different_hashes() -> None:
    assert len({tables.hash for tables in all_tables()}) == 3


@pytest.mark.parametrize("which", range(3))
def test_every_symbol_has_a_count(which: int) -> None:
    assert np.diff(all_tables()[which].cumulative).min() >= 1
    assert np.diff(all_tables()[which].cumulative).sum(axis=1).tolist() == [65536] * len(all_tables()[which].rows)


def test_bad_files_are_refused(tmp_path: Path) -> None:
    data = default_tables().to_bytes()
    for bad in (b"", b"SGCT", data[:-1], data + b"\0", b"SGCV" + data[4:], data[:4] + b"\x09" + data[5:]):
        with pytest.raises(ModelError):
            parse_tables(bad)
    with pytest.raises(ModelError, match="version"):
        parse_tables(data[:4] + b"\x02" + data[5:-26])  # before faces had homes
    with pytest.raises(ModelError, match="no count"):
        parse_tables(data[:16] + b"\0\0" + data[18:])
    with pytest.raises(ModelError, match="increase"):
        parse_tables(data[:16] + b"\xff\xff" + data[18:])
    with pytest.raises(ModelError, match="cannot be read"):
        load_tables(tmp_path / "absent.bin")


def test_wrong_arrays_are_refused() -> None:
    with pytest.raises(ModelError, match="moved"):
        replace(default_tables(), moved=default_tables().moved[:3])
    with pytest.raises(ModelError, match="face_pose"):
        replace(default_tables(), face_pose=default_tables().face_pose[:, ::-1])
    with pytest.raises(ModelError, match="face_home"):
        replace(default_tables(), face_home=default_tables().face_moved[:3])
    with pytest.raises(ModelError, match="face_reach"):
        replace(default_tables(), face_reach=default_tables().face_reach[:, ::-1])


def test_rich_cells_are_foretold_by_the_reference() -> None:
    codes = [random_code(1, (16, 16), MIXED, 0.2, 1.0)]
    for frame in range(30):
        codes.append(altered(codes[-1], frame, 0.03))
    samples: list[tuple[Code, Code | None, int]] = [(codes[i], codes[i - 1], 1) for i in range(1, 31)]
    tables, report = fit_tables(samples)
    ideal = sum(code_bits(*sample, tables) for sample in samples)
    assert report.context_bits + report.keep_bits + report.face_bits == pytest.approx(ideal)
    assert tables.rich[1, 1].max() < 10_000 < 55_000 < tables.rich[1, 0].min()


def clip(seed: int, frames: int) -> list[tuple[Code, Code | None, int]]:
    """A first picture, then a random walk of sparse codes, each with the one three before it as its reference."""
    codes = [make_code(random_code(seed, (16, 16), 4, 0.2, 1.0).symbols, np.ones((16, 16), bool))]
    for frame in range(frames - 1):
        codes.append(make_code(altered(codes[-1], seed * 1000 + frame, 0.03).symbols, codes[0].keep))
    return [(codes[0], None, 0)] + [(codes[i], codes[max(i - 3, 0)], min(i, 3)) for i in range(1, frames)]


def test_fitted_tables_beat_the_static_ones_on_other_clips() -> None:
    tables, on_training = fit_tables(sample for seed in range(6) for sample in clip(seed, 20))
    held_out = measure_tables(clip(99, 20), tables)
    assert on_training.frames == 120
    assert held_out.symbols == 20 * 4 * 256
    assert held_out.saving > 0.3
    assert held_out.context_bits < measure_tables(clip(99, 20), default_tables()).context_bits
    assert "saved" in str(held_out)


def test_report_is_what_the_coder_writes() -> None:
    samples = clip(5, 10)
    tables, report = fit_tables(samples)
    written = sum(8 * len(encode_code(*sample, tables)) for sample in samples)
    ideal = sum(code_bits(*sample, tables) for sample in samples)
    assert report.context_bits + report.keep_bits + report.face_bits == pytest.approx(ideal)
    assert ideal - 8 * len(samples) < written < ideal + 12 * len(samples)


def test_fitted_tables_code_what_they_never_saw() -> None:
    tables, _ = fit_tables([(make_code(np.zeros((2, 4, 4)), np.ones((4, 4))), None, 0)])
    code = random_code(3, (9, 16), 8, 1.0, 0.5)
    assert decode_code(encode_code(code, None, 0, tables), (9, 16), 8, None, 0, tables).equals(code)


def test_nothing_to_fit_is_an_error() -> None:
    with pytest.raises(TrainingError):
        TableCounts().fit()
