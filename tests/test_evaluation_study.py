"""The user study: its arithmetic by hand, its server as a rater meets it."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random

import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from streamgc.errors import InputError
from streamgc.evaluation.study import PROBES, Study, Vote, VoteBook, pairs_in, plan, preference, study_of


def votes(rater: str, ours: int, theirs: int, probes: tuple[bool, ...] = (True,)) -> list[Vote]:
    made = [Vote(rater, f"{n}", False, n < ours) for n in range(ours + theirs)]
    return made + [Vote(rater, f"probe {n}", True, right) for n, right in enumerate(probes)]


def test_preference_by_hand() -> None:
    """Shares .75, .5 and 1: mean .75, sample deviation .25, error .25 / √3. The fourth fails a probe."""
    cast = votes("a", 3, 1) + votes("b", 2, 2) + votes("c", 4, 0) + votes("d", 0, 4, (True, False))
    found = preference(cast)
    assert found.mean == pytest.approx(0.75)
    assert found.error == pytest.approx(0.25 / math.sqrt(3))
    assert (found.raters, found.dropped) == (3, 1)
    assert math.isnan(preference([]).mean)
    assert math.isnan(preference(votes("a", 1, 1)).error)
    unproven = preference(cast + votes("e", 0, 4, ()))
    assert unproven == found._replace(unproven=1), "who left before any probe may have pressed one key"


def folders(root: Path, count: int = 4) -> tuple[Path, Path, Path]:
    made = tuple(root / name for name in ("original", "ours", "theirs"))
    for level, folder in enumerate(made):
        folder.mkdir()
        for index in range(count):
            Image.fromarray(np.full((16, 24, 3), 40 * level + index, np.uint8)).save(folder / f"{index}.png")
    return made[0], made[1], made[2]


def test_plans_mix_probes_and_sides(tmp_path: Path) -> None:
    pairs = pairs_in(*folders(tmp_path))
    steps = plan(pairs, Random(3))
    assert len(steps) == len(pairs) + PROBES
    assert sum(pair.probe for pair, _ in steps) == PROBES
    sides = {left for seed in range(5) for _, left in plan(pairs, Random(seed))}
    assert sides == {True, False}
    (tmp_path / "ours" / "2.png").unlink()
    with pytest.raises(InputError, match=r"has no image 2\."):
        pairs_in(tmp_path / "original", tmp_path / "ours", tmp_path / "theirs")


async def test_a_rater_who_always_prefers_ours(tmp_path: Path) -> None:
    pairs = pairs_in(*folders(tmp_path))
    book = VoteBook(tmp_path / "votes.sqlite", study_of(pairs))
    study = Study(pairs, book, seed=1)
    async with TestClient(TestServer(study.application())) as client:
        assert "closer to the original" in await (await client.get("/")).text()
        begun = await (await client.post("/raters")).json()
        for number in range(begun["count"]):
            address = f"/raters/{begun['rater']}/{number}"
            levels = {}
            for side in ("left", "original", "right"):
                answer = await client.get(f"{address}/{side}")
                assert answer.content_type == "image/png"
                (tmp_path / "seen.png").write_bytes(await answer.read())
                with Image.open(tmp_path / "seen.png") as image:
                    levels[side] = np.asarray(image).astype(int)
            near = {side: abs(levels[side] - levels["original"]).mean() for side in ("left", "right")}
            # Ours is one step of grey from the original; a probe shows the original itself.
            choice = min(near, key=lambda side: near[side])
            assert (await client.post(address, data=choice)).status == 200
            assert (await client.post(address, data=choice)).status == 200
        assert (await client.post(f"/raters/{begun['rater']}/99", data="left")).status == 404
        assert (await client.post(f"/raters/{begun['rater']}/0", data="neither")).status == 400
        result = await (await client.get("/result")).json()
    assert len(book.votes()) == begun["count"]
    assert result["mean"] == 1 or result["dropped"] == 1
    ours = [vote.ours for vote in book.votes() if not vote.probe]
    assert all(ours)


def test_studies_of_other_pictures_do_not_mix(tmp_path: Path) -> None:
    made = folders(tmp_path)
    pairs = pairs_in(*made)
    first = VoteBook(tmp_path / "votes.sqlite", study_of(pairs))
    first.add(Vote("a", "0", False, True))
    Image.fromarray(np.full((16, 24, 3), 77, np.uint8)).save(made[1] / "0.png")
    second = VoteBook(tmp_path / "votes.sqlite", study_of(pairs_in(*made)))
    assert second.votes() == []
    second.add(Vote("a", "0", False, False))
    assert first.votes() == [Vote("a", "0", False, True)]
    (tmp_path / "other.sqlite").write_text("no database, but long enough to be looked at as one")
    with pytest.raises(InputError, match="cannot keep votes"):
        VoteBook(tmp_path / "other.sqlite", "0")
