"""The rendezvous server: rooms of two in which peers exchange session descriptions, and nothing else."""

from .relay import Relay
from .server import create_app, log_to_stderr, running, serve
from .settings import Settings

__all__ = ["Relay", "Settings", "create_app", "log_to_stderr", "running", "serve"]
