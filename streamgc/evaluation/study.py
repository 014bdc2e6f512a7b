"""The paper's pairwise study: a local page, answers in SQLite, and the preference with its standard error.

A rater sees the original between two codings, in random order, and says which is closer to it. Probing comparisons –
the original itself against an obvious JPEG – are mixed in; who fails one is left out. Each remaining rater's share of
votes for ours is one sample; the preference is their mean, its error the standard error of that mean. Who went before
any probe is not counted. Studies of other pictures may share a file: each counts its own votes.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from aiohttp import web
from PIL import Image

from streamgc.errors import InputError

PROBES = 3
PROBE_JPEG_QUALITY = 3
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class Vote(NamedTuple):
    """One answer: ``ours`` is true where the rater chose ours, or the original in a probe."""

    rater: str
    item: str
    probe: bool
    ours: bool


class Preference(NamedTuple):
    """Result of a study; ``mean`` and ``error`` are shares, NaN without raters (error: with fewer than two)."""

    mean: float
    error: float
    raters: int
    dropped: int  # failed a probe
    unproven: int = 0  # went before they had seen one


class Pair(NamedTuple):
    """A comparison: files of the original and of both codings; for a probe, ``ours`` is the original."""

    item: str
    original: Path
    ours: Path
    theirs: Path
    probe: bool = False


def preference(votes: Iterable[Vote]) -> Preference:
    """The mean over the raters of their share for ours, and its standard error; of raters who passed their probes."""
    by_rater: dict[str, list[Vote]] = {}
    for vote in votes:
        by_rater.setdefault(vote.rater, []).append(vote)
    shares = []
    dropped = unproven = 0
    for own in by_rater.values():
        if any(vote.probe and not vote.ours for vote in own):
            dropped += 1
            continue
        if not any(vote.probe for vote in own):
            unproven += 1
            continue
        counted = [vote.ours for vote in own if not vote.probe]
        if counted:
            shares.append(sum(counted) / len(counted))
    if not shares:
        return Preference(math.nan, math.nan, 0, dropped, unproven)
    mean = sum(shares) / len(shares)
    if len(shares) < 2:
        return Preference(mean, math.nan, 1, dropped, unproven)
    variance = sum((share - mean) ** 2 for share in shares) / (len(shares) - 1)
    return Preference(mean, math.sqrt(variance / len(shares)), len(shares), dropped, unproven)


def study_of(pairs: Iterable[Pair]) -> str:
    """16 hexadecimal digits of the pictures that are compared: other pictures, another study. Raises InputError."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(pair.item.encode() + b"\0")
        for path in (pair.original, pair.ours, pair.theirs):
            try:
                digest.update(hashlib.sha256(path.read_bytes()).digest())
            except OSError as error:
                raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    return digest.hexdigest()[:16]


class VoteBook:
    """One study's votes in an SQLite file, one row each; what a rater has already answered is not counted twice."""

    def __init__(self, path: Path, study: str) -> None:
        """Creates the file; ``study`` is `study_of` the pictures. Raises InputError when it cannot be, or is none."""
        self._path, self._study = path, study
        try:
            with closing(self._open()) as book, book:
                book.execute(
                    "CREATE TABLE IF NOT EXISTS votes (study TEXT, rater TEXT, item TEXT, probe INTEGER, "
                    "ours INTEGER, at TEXT DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (study, rater, item))"
                )
                book.execute("SELECT study FROM votes LIMIT 1")
        except sqlite3.Error as error:
            raise InputError(f"cannot keep votes in {path}: {error}") from None

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path)

    def add(self, vote: Vote) -> None:
        """Keep the first answer of a rater to an item."""
        with closing(self._open()) as book, book:
            book.execute(
                "INSERT OR IGNORE INTO votes (study, rater, item, probe, ours) VALUES (?, ?, ?, ?, ?)",
                (self._study, *vote),
            )

    def votes(self) -> list[Vote]:
        """All votes of this study."""
        with closing(self._open()) as book:
            asked = "SELECT rater, item, probe, ours FROM votes WHERE study = ?"
            rows = book.execute(asked, (self._study,)).fetchall()
        return [Vote(rater, item, bool(probe), bool(ours)) for rater, item, probe, ours in rows]


def pairs_in(originals: Path, ours: Path, theirs: Path) -> list[Pair]:
    """Comparisons of the files of the same stem in three folders. Raises InputError naming what is missing."""
    found = []
    for path in sorted(originals.glob("*")) if originals.is_dir() else []:
        if path.suffix.lower() in _SUFFIXES:
            found.append(Pair(path.stem, path, _same_stem(ours, path.stem), _same_stem(theirs, path.stem)))
    if not found:
        raise InputError(f"{originals} holds no images")
    return found


def _same_stem(folder: Path, stem: str) -> Path:
    for suffix in _SUFFIXES:
        if (folder / (stem + suffix)).is_file():
            return folder / (stem + suffix)
    raise InputError(f"{folder} has no image {stem}.*")


def plan(pairs: Sequence[Pair], random: Random) -> list[tuple[Pair, bool]]:
    """The comparisons of one rater in random order, `PROBES` probes among them; true: ours is on the left."""
    probes = [
        pair._replace(item=f"probe {pair.item}", probe=True)
        for pair in random.sample(list(pairs), min(PROBES, len(pairs)))
    ]
    order = [*pairs, *probes]
    random.shuffle(order)
    return [(pair, random.random() < 0.5) for pair in order]


class Study:
    """The page's server: a plan for each rater who comes, pictures by opaque address, votes into the book."""

    def __init__(self, pairs: Sequence[Pair], book: VoteBook, seed: int | None = None) -> None:
        self._pairs, self._book = list(pairs), book
        self._random = Random(secrets.randbits(64) if seed is None else seed)
        self._plans: dict[str, list[tuple[Pair, bool]]] = {}

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application()
        app.router.add_get("/", self._page)
        app.router.add_post("/raters", self._begin)
        app.router.add_get("/raters/{rater}/{number}/{side}", self._picture)
        app.router.add_post("/raters/{rater}/{number}", self._vote)
        app.router.add_get("/result", self._result)
        return app

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def _begin(self, request: web.Request) -> web.Response:
        rater = secrets.token_urlsafe(9)
        self._plans[rater] = plan(self._pairs, self._random)
        return web.json_response({"rater": rater, "count": len(self._plans[rater])})

    def _entry(self, request: web.Request) -> tuple[str, Pair, bool]:
        rater = request.match_info["rater"]
        number = request.match_info["number"]
        steps = self._plans.get(rater, [])
        if not number.isascii() or not number.isdigit() or int(number) >= len(steps):
            raise web.HTTPNotFound(text="no such comparison")
        return (rater, *steps[int(number)])

    async def _picture(self, request: web.Request) -> web.Response:
        _, pair, ours_left = self._entry(request)
        side = request.match_info["side"]
        if side not in ("left", "original", "right"):
            raise web.HTTPNotFound(text="no such picture")
        show_ours = (side == "left") == ours_left
        # Every picture goes out as PNG under a neutral address, so that neither name nor type tells which it is.
        if side == "original" or (pair.probe and show_ours):
            data = _png(pair.original)
        elif pair.probe:
            data = _png(pair.original, PROBE_JPEG_QUALITY)
        else:
            data = _png(pair.ours if show_ours else pair.theirs)
        return web.Response(body=data, content_type="image/png", headers={"Cache-Control": "no-store"})

    async def _vote(self, request: web.Request) -> web.Response:
        rater, pair, ours_left = self._entry(request)
        choice = (await request.text()).strip()
        if choice not in ("left", "right"):
            raise web.HTTPBadRequest(text="left or right")
        self._book.add(Vote(rater, pair.item, pair.probe, (choice == "left") == ours_left))
        return web.json_response({})

    async def _result(self, request: web.Request) -> web.Response:
        return web.json_response(as_dict(preference(self._book.votes())))


def as_dict(found: Preference) -> dict[str, Any]:
    """Plain values, None for what is not known."""
    return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in found._asdict().items()}


def _png(path: Path, jpeg_quality: int | None = None) -> bytes:
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    if jpeg_quality is not None:
        buffer = BytesIO()
        image.save(buffer, "JPEG", quality=jpeg_quality)
        image = Image.open(buffer)
    out = BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Which is closer to the original?</title>
<style>
body { font-family: sans-serif; margin: 1rem; background: #222; color: #eee; text-align: center }
main { display: flex; gap: .5rem; justify-content: center; flex-wrap: wrap }
figure { margin: 0 } img { max-width: 32vw; image-rendering: auto; display: block }
button { font-size: 1.1rem; padding: .6rem 1.4rem; margin: .5rem }
</style>
<h1>Which of the two is closer to the original?</h1>
<p id="state">Arrow keys or buttons. There is no right answer to most of them.</p>
<button id="start">Start</button>
<main id="pictures" hidden>
<figure><img id="left" alt="first candidate"><button data-choice="left">this one</button></figure>
<figure><img id="original" alt="the original"><figcaption>original</figcaption></figure>
<figure><img id="right" alt="second candidate"><button data-choice="right">this one</button></figure>
</main>
<script>
let rater = "", count = 0, number = 0, busy = true;
const byId = id => document.getElementById(id);
function show() {
  const over = number >= count;
  byId("pictures").hidden = over;
  byId("state").textContent = over ? "Thank you, that was all." : `${number + 1} of ${count}`;
  busy = over;
  if (!over) for (const side of ["left", "original", "right"]) byId(side).src = `/raters/${rater}/${number}/${side}`;
}
async function choose(choice) {
  if (busy) return;
  busy = true;
  const answer = await fetch(`/raters/${rater}/${number}`, { method: "POST", body: choice });
  if (answer.ok) number += 1;
  show();
}
byId("start").onclick = async () => {
  ({ rater, count } = await (await fetch("/raters", { method: "POST" })).json());
  byId("start").hidden = true;
  show();
};
for (const button of document.querySelectorAll("[data-choice]")) button.onclick = () => choose(button.dataset.choice);
addEventListener("keydown", e => {
  if (e.key === "ArrowLeft") choose("left");
  if (e.key === "ArrowRight") choose("right");
});
</script>
</html>
"""
