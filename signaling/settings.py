"""What a server is started with."""

from dataclasses import dataclass, field

from streamgc.errors import InputError

from .relay import Relay


@dataclass(frozen=True)
class Settings:
    """Frozen; read once."""

    host: str = "127.0.0.1"
    port: int = 8765  # 0 = any free one
    secret: str = ""  # shared with the clients; empty = everyone may come
    origins: tuple[str, ...] = ()  # allowed Origin headers; empty = any, and none at all is always allowed
    behind_proxy: bool = False  # take the client's address from X-Forwarded-For
    certificate: str = ""  # PEM files; empty = no TLS
    private_key: str = ""
    relay: Relay = field(default_factory=Relay)  # what peers are told to reach each other by
    redis: str = ""  # URL of the Redis server that several instances share; empty = rooms in this process
    rooms_max: int = 10_000
    room_expiry_s: float = 3600.0  # a room without any peer is forgotten after so long
    heartbeat_s: float = 10.0
    connections_per_minute: float = 120.0  # of one address
    messages_per_second: float = 20.0  # of one peer

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InputError(f"no port: {self.port}")
        if bool(self.certificate) != bool(self.private_key):
            raise InputError("TLS needs both a certificate and its private key")
        if min(self.rooms_max, self.room_expiry_s, self.heartbeat_s, self.connections_per_minute) <= 0:
            raise InputError("limits must be positive")
