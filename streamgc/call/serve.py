"""The rendezvous server from inside the package, wherever it lies.

In a checkout it is the top-level folder `signaling`, in a wheel `streamgc/_signaling`. Both are loaded under the name
`streamgc._signaling`, so that no generic name is imported.
"""

import asyncio
import contextlib
import importlib.util
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from streamgc.errors import StreamGCError

_NAME = "streamgc._signaling"


@dataclass(frozen=True)
class SignalingOptions:
    """What `streamgc signaling` takes; see `signaling/settings.py` for the meaning."""

    host: str = "127.0.0.1"
    port: int = 8765
    secret: str = ""
    origins: tuple[str, ...] = ()
    behind_proxy: bool = False
    certificate: str = ""
    private_key: str = ""
    redis: str = ""
    connections_per_minute: float = 120.0
    stun: tuple[str, ...] = ()
    turn: tuple[str, ...] = ()
    turn_secret: str = ""


def signaling_package() -> ModuleType:
    """The server's package; raises `StreamGCError` when this installation has none."""
    if _NAME in sys.modules:
        return sys.modules[_NAME]
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_signaling", package.parent / "signaling"):
        found = folder / "__init__.py"
        if not found.is_file():
            continue
        spec = importlib.util.spec_from_file_location(_NAME, found, submodule_search_locations=[str(folder)])
        if spec is not None and spec.loader is not None:
            module = sys.modules[_NAME] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise StreamGCError("this installation lacks the signalling server")


def local_server(options: SignalingOptions) -> AbstractAsyncContextManager[str]:
    """A server that runs inside an `async with` block, which gets its URL; raises `InputError` for a busy port."""
    package = signaling_package()
    running: AbstractAsyncContextManager[str] = package.running(_settings(package, options))
    return running


def run_signaling(options: SignalingOptions, on_ready: Callable[[str], None] = print) -> None:
    """`streamgc signaling`: serve until interrupted; `on_ready` gets the URL. Raises `InputError` for a busy port."""
    package = signaling_package()
    settings = _settings(package, options)
    package.log_to_stderr()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(package.serve(settings, on_ready))


def _settings(package: ModuleType, options: SignalingOptions) -> Any:
    values = asdict(options)
    relay = package.Relay(values.pop("stun"), values.pop("turn"), values.pop("turn_secret"))
    return package.Settings(relay=relay, **values)
