"""`python -m signaling`: the server by itself."""

import argparse
import asyncio
import contextlib
import os
import sys

from streamgc.errors import StreamGCError

from .relay import Relay
from .server import log_to_stderr, serve
from .settings import Settings


def main() -> int:
    """Parse the command line and serve until interrupted; exit code 2 for what cannot be served."""
    parser = argparse.ArgumentParser(prog="signaling", description="Rendezvous server for StreamGC calls.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (0.0.0.0: all)")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--origin", action="append", default=[], help="allowed Origin of web pages; repeatable")
    parser.add_argument("--behind-proxy", action="store_true", help="trust X-Forwarded-For")
    parser.add_argument("--certificate", default="", help="PEM file, for TLS")
    parser.add_argument("--private-key", default="", help="PEM file, for TLS")
    parser.add_argument("--stun", action="append", default=[], help="stun:host:port that peers are told; repeatable")
    parser.add_argument("--turn", action="append", default=[], help="turn:host:port that peers are told; repeatable")
    parser.add_argument("--redis", default="", help="redis://host:port, shared by several instances of this server")
    parser.add_argument("--connections-per-minute", type=float, default=120.0, help="allowed to one address")
    given = parser.parse_args()
    try:
        settings = Settings(
            host=given.host,
            port=given.port,
            secret=os.environ.get("STREAMGC_SIGNALING_SECRET", ""),
            origins=tuple(given.origin),
            behind_proxy=given.behind_proxy,
            certificate=given.certificate,
            private_key=given.private_key,
            connections_per_minute=given.connections_per_minute,
            relay=Relay(tuple(given.stun), tuple(given.turn), os.environ.get("STREAMGC_TURN_SECRET", "")),
            redis=given.redis or os.environ.get("STREAMGC_REDIS", ""),
        )
        log_to_stderr()
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(settings, lambda url: print(f"signalling on {url}", flush=True)))
    except StreamGCError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
