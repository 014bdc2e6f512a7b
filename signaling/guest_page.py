"""What a room's link shows in a browser: a page that joins by itself, over VP8."""

from pathlib import Path

from aiohttp import web

FOLDER = Path(__file__).with_name("guest")
_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; media-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(self), microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


async def page(request: web.Request) -> web.Response:
    """`GET /ROOM`. Whether the room exists is said when it is joined, so that nobody can ask for rooms here."""
    return _file("index.html")


async def file(request: web.Request) -> web.Response:
    """`GET /guest/NAME`: a file of the page, or 404."""
    return _file(request.match_info["name"])


def _file(name: str) -> web.Response:
    path = FOLDER / name
    kind = _KINDS.get(path.suffix)
    if kind is None or path.name != name or not path.is_file():
        raise web.HTTPNotFound(text="no such file")
    return web.Response(body=path.read_bytes(), content_type=kind, charset="utf-8", headers=_HEADERS)


def routes() -> list[web.RouteDef]:
    """The page's routes."""
    return [web.get("/guest/{name}", file), web.get("/{room:[A-Za-z0-9_-]{16,64}}", page)]
