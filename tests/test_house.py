"""The rules of the house: which room may import which, and that a call needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "streamgc"
LAYERS = {
    "errors": set(),
    "profiling": {"errors"},
    "codec": {"errors", "profiling"},
    "runtime": {"errors", "profiling"},
    "scene": {"errors", "profiling", "runtime"},
    "pipeline": {"errors", "profiling", "codec", "runtime", "scene"},
    "rtc": {"errors", "profiling", "codec", "runtime", "scene", "pipeline"},
    "call": {"errors", "profiling", "codec", "runtime", "scene", "pipeline", "rtc"},
}
TORCH_FREE = ("scene", "codec", "runtime", "pipeline", "rtc", "call", "profiling", "cli", "cli_groups")
OFFLINE = ("networks", "training", "evaluation")


def modules() -> list[tuple[str, Path]]:
    return [(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path) for path in sorted(PACKAGE.rglob("*.py"))]


def imports(path: Path, top_level: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
    return found


@pytest.mark.parametrize(("room", "path"), [(r, p) for r, p in modules() if r in LAYERS], ids=lambda v: str(v)[-40:])
def test_arrows_point_one_way(room: str, path: Path) -> None:
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "streamgc" and len(parts) > 1 and parts[1] != room:
            assert parts[1] in LAYERS[room], f"{path.name} of {room} imports {name}"


@pytest.mark.parametrize(
    ("room", "path"), [(r, p) for r, p in modules() if r in TORCH_FREE], ids=lambda v: str(v)[-40:]
)
def test_a_call_imports_no_torch(room: str, path: Path) -> None:
    lazily = room in ("cli", "cli_groups")
    assert not {name for name in imports(path, top_level=lazily) if name.split(".")[0] == "torch"}


@pytest.mark.parametrize(("room", "path"), [(r, p) for r, p in modules() if r in OFFLINE], ids=lambda v: str(v)[-40:])
def test_training_knows_no_network(room: str, path: Path) -> None:
    for name in imports(path):
        assert not name.startswith(("streamgc.rtc", "streamgc.call")), f"{path.name} imports {name}"


@pytest.mark.parametrize(
    ("modules", "package"),
    [
        ("streamgc.call.demo, streamgc.call.run, streamgc.pipeline.call_codec", "torch"),
        ("streamgc.call.run, streamgc.pipeline.call_codec", "aiohttp"),  # a tenth of a second before the first picture
    ],
)
def test_importing_a_call_leaves_out_what_is_large(modules: str, package: str) -> None:
    code = f"import sys, {modules}; print({package!r} in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
