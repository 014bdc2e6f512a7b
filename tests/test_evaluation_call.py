"""The record of a call, from clips to JSON, with a made-up person and a toy codec."""

import csv
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("stlpips_pytorch")


from streamgc.errors import BackendMissing, InputError
from streamgc.evaluation.anchors import TARGETS, Anchors, Setting
from streamgc.evaluation.call import bd_rates, evaluate_call, evaluate_frames, summarise
from streamgc.evaluation.clips import load_clip, read_frames
from streamgc.evaluation.identity import FaceIdentity
from streamgc.evaluation.person import PersonMask
from streamgc.evaluation.quick import QuickRatio
from streamgc.evaluation.ratio import Point, ratio
from streamgc.evaluation.scores import Scorer, without_nan
from tests.evaluation_clips import SIZE, ToyCodec, clip, clip_file, person

SHARED = Path(__file__).resolve().parents[2] / "shared"
SETTING = Setting(size=SIZE, limit=6)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(person, ("alex",))


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip and a file of made-up points of AV1 for it, at every rate the definition asks for."""
    made = tmp_path_factory.mktemp("evaluation")
    loaded = load_clip(clip_file(made), SIZE, 15, 6)
    rows = [
        {
            "clip": loaded.name,
            "codec": f"svtav1-{variant}",
            "target": target,
            "kbps": target + 1,
            "alex": round(scale / target, 4),
            "digest": loaded.digest,
            **SETTING._asdict(),
        }
        for variant, scale in (("raw", 1), ("person-only", 0.9), ("person-only-192", 0.8))
        for target in TARGETS
    ]
    (made / "anchors.json").write_text(json.dumps(rows))
    return made


def test_the_person_alone_is_scored(scorer: Scorer) -> None:
    whole = clip()
    room_gone = [np.where(person(frame)[..., None], frame, 0).astype(np.uint8) for frame in whole.frames]
    found = scorer.person(whole, room_gone)
    assert found["alex"] == 0
    assert found["psnr"] > 130
    more = scorer.more(whole, room_gone)
    assert more["ms_ssim"] == pytest.approx(1, abs=1e-4)
    assert more["frame_psnr"] < 15
    assert more["frame_alex"] > 0.1
    assert more["flicker"] == 0


def test_nobody_is_no_score(scorer: Scorer) -> None:
    nobody = Scorer(lambda frame: np.zeros(frame.shape[:2], bool), ())
    with pytest.raises(InputError, match="no person"):
        nobody.person(clip(), clip().frames)
    with pytest.raises(InputError, match="pixels square"):
        scorer.person(clip(), [frame[:64, :64] for frame in clip().frames])


def test_anchors_are_measured_once_and_found_again(tmp_path: Path, scorer: Scorer) -> None:
    loaded = clip()
    path = tmp_path / "new" / "anchors.json"
    Anchors(path).complete(loaded, scorer, SETTING, (20,))
    anchors = Anchors(path)
    assert [row["codec"] for row in anchors.rows] == ["svtav1-raw", "svtav1-person-only", "svtav1-person-only-192"]
    assert all(0 < row["alex"] < 1 and row["kbps"] > 1 for row in anchors.rows)
    said: list[str] = []
    assert len(anchors.complete(loaded, scorer, SETTING, (20,), said.append)) == 3
    assert said == []
    assert anchors.of("made-up.mp4", "another digest", SETTING) == []
    assert anchors.of("made-up.mp4", None, Setting()) == []
    assert [len(curve) for curve in anchors.curves("renamed.mp4", loaded.digest, SETTING)] == [1, 1, 1]


def test_a_published_list_of_anchors_is_understood(tmp_path: Path) -> None:
    path = tmp_path / "anchors.json"
    rows = [{"clip": "a.mp4", "codec": "svtav1-raw", "target": 2, "kbps": 2.5, "alex": 0.4}, {"note": "other"}]
    path.write_text(json.dumps(rows))
    assert Anchors(path).curves("a.mp4", "any digest") == [[Point(2.5, 0.4)]]
    for text in ("{", "3", "[3]"):
        path.write_text(text)
        with pytest.raises(InputError, match="no anchors file"):
            Anchors(path)


def test_a_call_is_measured(folder: Path, tmp_path: Path) -> None:
    result = evaluate_call(
        [folder / "made-up.mp4"],
        person,
        codecs=("sgc", "vp9"),
        rates=(3, 10),
        size=SIZE,
        limit=6,
        anchors=folder / "anchors.json",
        cache=tmp_path / "rivals.json",
        trunks=("alex",),
        json_path=tmp_path / "call.json",
        out=tmp_path / "out",
        codec=ToyCodec(),
    )
    document = json.loads((tmp_path / "call.json").read_text())
    assert document["rows"] == result.rows
    assert [(row["codec"], row["rate"]) for row in result.rows] == [("sgc", 3), ("sgc", 10), ("vp9", 3), ("vp9", 10)]
    curves = Anchors(folder / "anchors.json").curves("made-up.mp4", None, SETTING)
    for row in result.rows:
        assert row["r"] == ratio(curves, Point(row["kbps"], row["alex"])).r
        assert row["wire_kbps"] == pytest.approx(row["kbps"] + 60 * 15 * 8 / 1000, abs=0.1)
    ours = result.rows[:2]
    assert [row["on_rate"] for row in ours] == [True, True]
    r = document["R"]
    assert r["by_rate"] == {"3": ours[0]["r"], "10": ours[1]["r"]}
    assert r["geomean"] == pytest.approx((ours[0]["r"] * ours[1]["r"]) ** 0.5, abs=1e-3)
    assert r["clips"]["made-up.mp4"]["by_rate"] == r["by_rate"]
    assert len(document["anchors"]) == 15
    out = tmp_path / "out"
    with (out / "rows.csv").open() as file:
        assert [row["codec"] for row in csv.DictReader(file)] == ["sgc", "sgc", "vp9", "vp9"]
    assert len(read_frames(out / "made-up.mp4", 64)) == 6
    assert Image.open(out / "contact-sheet.png").size == (3 * SIZE, SIZE + 20)
    assert {path.name for path in out.glob("*.png")} == {"clips.png", "contact-sheet.png", "means.png", "ratio.png"}
    assert not list(out.glob(".*"))
    again = evaluate_call(
        [folder / "made-up.mp4"],
        person,
        codecs=("vp9",),
        rates=(3, 10),
        size=SIZE,
        limit=6,
        anchors=folder / "anchors.json",
        cache=tmp_path / "rivals.json",
        trunks=("alex",),
    )
    assert again.rows == result.rows[2:], "milliseconds and all, so they come from the cache"
    assert again.r["geomean"] is None


def test_what_fails_is_noted_and_the_rest_measured(folder: Path) -> None:
    class Dropping(ToyCodec):
        def encode(self, frames, fps, kbps, ack_delay_ms):  # type: ignore[no-untyped-def]
            shown, sizes = super().encode(frames, fps, kbps, ack_delay_ms)
            return (shown[:-1], sizes) if kbps < 5 else (shown, sizes)

    result = evaluate_call(
        [folder / "made-up.mp4"],
        person,
        codecs=("sgc",),
        rates=(3, 10),
        size=SIZE,
        limit=6,
        anchors=folder / "anchors.json",
        trunks=("alex",),
        codec=Dropping(),
    )
    assert [row["rate"] for row in result.rows] == [10]
    assert any("5 pictures for 6 frames" in note for note in result.notes)
    with pytest.raises(InputError, match="unknown codec"):
        evaluate_call([folder / "made-up.mp4"], person, codecs=("mpeg2",), trunks=("alex",))


def test_a_measurement_that_is_broken_off_has_written_the_clips_before(folder: Path, tmp_path: Path) -> None:
    def say(text: str) -> None:
        if "left out" in text:
            raise KeyboardInterrupt

    clip = folder / "made-up.mp4"
    clips, path = [clip, folder / "nothing.mp4", clip], tmp_path / "found.json"
    with pytest.raises(KeyboardInterrupt):
        evaluate_call(
            clips, person, codecs=("sgc",), rates=(10,), size=SIZE, limit=6, anchors=folder / "anchors.json",
            trunks=("alex",), codec=ToyCodec(), json_path=path, say=say,
        )  # fmt: skip
    found = json.loads(path.read_text())
    assert [row["clip"] for row in found["rows"]] == ["made-up.mp4"]
    assert found["R"]["clips"]["made-up.mp4"]["geomean"] == found["rows"][0]["r"]


def test_clips_of_the_same_name_stay_apart(folder: Path) -> None:
    clip = folder / "made-up.mp4"
    found = evaluate_call(
        [clip, clip], person, codecs=("sgc",), rates=(10,), size=SIZE, limit=6, anchors=folder / "anchors.json",
        trunks=("alex",), codec=ToyCodec(),
    )  # fmt: skip
    assert list(found.r["clips"]) == ["made-up.mp4", "made-up-2.mp4"]
    assert found.rows[0]["r"] == found.rows[1]["r"]


def test_the_quick_ratio_is_the_calls(folder: Path) -> None:
    quick = QuickRatio(folder, person, folder / "anchors.json", ("made-up",), SETTING)
    found = quick(ToyCodec(), (3, 10))
    full = evaluate_call(
        [folder / "made-up.mp4"],
        person,
        codecs=("sgc",),
        rates=(3, 10),
        size=SIZE,
        limit=6,
        anchors=folder / "anchors.json",
        trunks=("alex",),
        codec=ToyCodec(),
    )
    assert found.r == full.r
    assert f"R {full.r['geomean']}" in str(found)
    with pytest.raises(InputError, match="none of"):
        QuickRatio(folder, person, folder / "anchors.json")


def test_frames_that_are_already_decoded(folder: Path, tmp_path: Path) -> None:
    loaded = load_clip(folder / "made-up.mp4", SIZE, 15, 6)
    shown, sizes = ToyCodec().encode(loaded.frames, 15, 10, 130)
    for index, frame in enumerate(shown):
        Image.fromarray(frame).save(tmp_path / f"{index:04d}.png")
    (tmp_path / "sizes.txt").write_text("\n".join(map(str, sizes)))
    row = evaluate_frames(
        folder / "made-up.mp4", tmp_path, person, tmp_path / "sizes.txt", SIZE, limit=6, trunks=("alex",)
    )
    scores = Scorer(person, ("alex",)).person(loaded, shown)
    assert {name: row[name] for name in scores} == scores
    assert row["kbps"] == pytest.approx(10, rel=0.02)
    assert "r" not in row
    (tmp_path / "sizes.txt").write_text("10\n10")
    with pytest.raises(InputError, match="2 sizes for 6 pictures"):
        evaluate_frames(
            folder / "made-up.mp4", tmp_path, person, tmp_path / "sizes.txt", SIZE, limit=6, trunks=("alex",)
        )
    (tmp_path / "sizes.txt").write_text("ten")
    with pytest.raises(InputError, match="bytes a line"):
        evaluate_frames(
            folder / "made-up.mp4", tmp_path, person, tmp_path / "sizes.txt", SIZE, limit=6, trunks=("alex",)
        )


def test_the_summary_counts_what_left_the_range() -> None:
    rows = [
        {"clip": "a", "codec": "sgc", "rate": 3, "r": 4.0, "r_where": "above", "on_rate": True},
        {"clip": "b", "codec": "sgc", "rate": 3, "r": 1.0, "r_where": "within", "on_rate": True},
        {"clip": "b", "codec": "sgc", "rate": 7, "r": 0.5, "r_where": "below", "on_rate": False},
        {"clip": "b", "codec": "vp9", "rate": 7, "r": 9.0, "r_where": "within", "on_rate": False},
    ]
    found = summarise(rows)
    assert found["by_rate"] == {"3": 2.0, "7": 0.5}
    assert found["geomean"] == pytest.approx(2 ** (1 / 3), abs=1e-3)
    assert (found["below"], found["above"], found["off_rate"]) == (1, 1, 1)
    assert summarise(rows, "x265")["geomean"] is None


def test_bd_rates_are_per_clip_and_against_each_other_codec() -> None:
    pytest.importorskip("bjontegaard")
    rows = [
        {"clip": "a", "codec": codec, "kbps": kbps * factor, "alex": alex}
        for codec, factor in (("sgc", 0.5), ("vp9", 1))
        for kbps, alex in ((4, 0.5), (8, 0.3), (16, 0.1))
    ]
    assert bd_rates(rows) == {"a": {"vp9": pytest.approx(-50, abs=0.01)}}


def test_nan_is_no_json() -> None:
    assert without_nan({"a": float("nan"), "b": 1.5, "c": "x"}) == {"a": None, "b": 1.5, "c": "x"}


def test_a_missing_teacher_is_said(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    with pytest.raises(InputError, match="no such segmentation model"):
        PersonMask(tmp_path / "absent.tflite")


def test_face_identity_says_what_it_needs_or_knows_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("dlib") and importlib.util.find_spec("face_recognition_models"):
        found = FaceIdentity().compare(clip().frames[:1], clip().frames[:1])
        assert found["identity_frames"] == 0
        assert np.isnan(found["identity_same"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendMissing, match="dlib"):
        FaceIdentity()


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "measure.py").exists(), reason="needs the published measurement and its data")
def test_it_agrees_with_the_published_measurement(tmp_path: Path) -> None:
    source = next((SHARED / "data/val/clips").glob("*sbia1a.mpg"))
    teacher = SHARED / "weights/selfie_segmentation.tflite"
    arguments = ["anchors", source, "--kbps", "4", "12", "--limit", "24", "--selfie", teacher, "--out"]
    command = [sys.executable, SHARED / "measure.py", *arguments, tmp_path / "published.json"]
    subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=250)
    published = json.loads((tmp_path / "published.json").read_text())
    ours = Anchors()
    setting = Setting(limit=24)
    ours.complete(load_clip(source, limit=24), Scorer(teacher), setting, (4, 12))
    assert [{name: row[name] for name in theirs} for row, theirs in zip(ours.rows, published, strict=True)] == published
