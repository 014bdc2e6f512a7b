"""Rooms that many instances of the server share, in Redis.

A room is a hash: one field a seat, `<instance> <connection>` by peer, and the field `made` that keeps an empty room
alive until it expires. Every instance says that it lives by a key that runs out, and listens on a channel of its own;
whoever has something for a peer publishes it on the channel of the instance that holds the peer's connection. A
publication that nobody hears, or a seat of an instance whose key has run out, means that the instance has died: the
seat counts as free, and its peer takes it back by joining through another instance.

What Redis publishes while an instance does not listen is gone. So whoever looks after a room's seats also looks who
sits there, and tells a peer of a newcomer it was not told of.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from streamgc.call.messages import Describe, FromServer, Joined, PeerJoined, PeerLeft, Refusal, Refused, Reveal
from streamgc.errors import InputError

from .hub import PEERS_MAX, Deliver, HubError, Place
from .tickets import make_room

ALIVE_S = 15
"""An instance that has not spoken for so long is dead."""
BEAT_S = 5.0
CONNECTIONS_MAX = 32
"""To Redis, of one instance; whoever finds them all in use waits."""

_RETRY_S = 0.5

_ROOM, _INSTANCE, _CHANNEL, _ROOMS = "streamgc:room:", "streamgc:instance:", "streamgc:to:", "streamgc:rooms"

_JOIN = f"""
local fields = redis.call('HGETALL', KEYS[1])
if #fields == 0 then return {{'none'}} end
local peer, newcomer, seat, expiry = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local old, others = '', {{}}
for i = 1, #fields, 2 do
  local name, value = fields[i], fields[i + 1]
  if name == peer then old = value
  elseif name ~= 'made' then
    if redis.call('EXISTS', '{_INSTANCE}' .. string.match(value, '^%S+')) == 1 then others[#others + 1] = value
    else redis.call('HDEL', KEYS[1], name) end
  end
end
if #others >= {PEERS_MAX} then return {{'full'}} end
local name = newcomer
if old ~= '' then name = peer end
redis.call('HSET', KEYS[1], name, seat)
redis.call('EXPIRE', KEYS[1], expiry)
return {{'in', name, old, unpack(others)}}
"""
_LEAVE = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return {} end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return redis.call('HVALS', KEYS[1])
"""
_HOLD = """
local now = redis.call('HGET', KEYS[1], ARGV[1])
if now and now ~= ARGV[2] then return {} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2], 'made', '1')
redis.call('EXPIRE', KEYS[1], ARGV[3])
return redis.call('HVALS', KEYS[1])
"""

_log = logging.getLogger("streamgc.signaling")
_Reply = TypeVar("_Reply")


class _Letter(msgspec.Struct, frozen=True):
    """What one instance tells another; of a newcomer also the seat, so that nobody hears of it twice."""

    connection: str
    message: FromServer
    seat: str = ""


@dataclass(slots=True)
class _Local:
    """A peer whose connection this instance holds."""

    deliver: Deliver
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Messages to one peer keep their order."""
    place: Place | None = None
    """None until the peer is in the room."""
    known: set[str] = field(default_factory=set)
    """The seats of others whom the peer was told of."""


_LETTER: msgspec.json.Decoder[_Letter] = msgspec.json.Decoder(_Letter)


class RedisHub:
    """Satisfies `Hub`. Everything it does raises `HubError(UNAVAILABLE)` while Redis cannot be reached."""

    def __init__(self, url: str, rooms_max: int, expiry_s: float) -> None:
        """Raises `InputError` when the package redis is missing or `url` is no Redis URL; connects when first used."""
        try:
            from redis import asyncio as redis
            from redis.exceptions import RedisError
        except ImportError as error:
            raise InputError("--redis needs the package redis: pip install 'streamgc[redis]'") from error
        try:
            self._pool: Any = redis.BlockingConnectionPool.from_url(
                url, max_connections=CONNECTIONS_MAX, timeout=5.0, decode_responses=True, socket_connect_timeout=2.0
            )
        except ValueError as error:
            raise InputError(f"not the URL of a Redis server: {url}") from error
        self._redis: Any = redis.Redis(connection_pool=self._pool)
        self._errors = (RedisError, OSError)
        self._rooms_max, self._expiry_s = rooms_max, max(1, round(expiry_s))
        self._instance = secrets.token_hex(8)
        self._locals: dict[str, _Local] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening = asyncio.Event()
        self._started = False
        self._join, self._leave, self._hold = (self._redis.register_script(text) for text in (_JOIN, _LEAVE, _HOLD))

    async def create(self) -> str:
        """As `Hub.create`; refuses when there are too many rooms on all instances together."""
        await self._start()
        rooms, _ = await self.counts()
        if rooms >= self._rooms_max:
            raise HubError(Refusal.TOO_MANY, "this server has no room left; try again later")
        room = make_room()
        pipe = self._redis.pipeline()
        pipe.hset(_ROOM + room, "made", "1")
        pipe.expire(_ROOM + room, self._expiry_s)
        pipe.zadd(_ROOMS, {room: time.time() + self._expiry_s})
        await self._ask(pipe.execute())
        return room

    async def join(self, room: str, peer: str, deliver: Deliver) -> Place:
        """As `Hub.join`."""
        await self._start()
        connection = secrets.token_hex(8)
        seat = f"{self._instance} {connection}"
        newcomer = secrets.token_urlsafe(12)
        # in the table before the room knows of it, so that whatever is sent to the seat finds the peer – who hears
        # that it is in before all that
        local = self._locals[connection] = _Local(deliver)
        async with local.turn:
            try:
                said, *rest = await self._ask(self._join([_ROOM + room], [peer, newcomer, seat, self._expiry_s]))
                if said == "none":
                    raise HubError(Refusal.NO_SUCH_ROOM, "there is no such room, or it has expired")
                if said == "full":
                    raise HubError(Refusal.ROOM_FULL, "two people are in this room already")
            except HubError:
                del self._locals[connection]
                raise
            name, old, *others = rest
            place = local.place = Place(room, name, connection)
            local.known.update(others)
            await deliver(Joined(bool(others), name))
        if old:
            await self._post(old, Refused(Refusal.REPLACED, "you have joined from elsewhere"))
        for other in others:
            await self._post(other, PeerJoined(), seat)
        return place

    async def pass_on(self, place: Place, message: Describe | Reveal) -> None:
        """As `Hub.pass_on`."""
        seats: dict[str, str] = await self._ask(self._redis.hgetall(_ROOM + place.room))
        heard = False
        for name, seat in seats.items():
            if name not in ("made", place.peer):
                heard = await self._post(seat, message) or heard
        if not heard:
            raise HubError(Refusal.NO_PEER, "nobody else is in the room")

    async def leave(self, place: Place, deliberate: bool) -> None:
        """As `Hub.leave`; while Redis is away the seat is only forgotten here, and counts as long as this instance."""
        self._locals.pop(place.connection, None)
        seat = f"{self._instance} {place.connection}"
        with contextlib.suppress(HubError):
            others = await self._ask(self._leave([_ROOM + place.room], [place.peer, seat, self._expiry_s]))
            for other in others:
                if " " in other:  # not the mark of an empty room
                    await self._post(other, PeerLeft(deliberate))

    async def counts(self) -> tuple[int, int]:
        """Rooms of all instances, peers of this one."""
        await self._start()
        pipe = self._redis.pipeline()
        pipe.zremrangebyscore(_ROOMS, 0, time.time())
        pipe.zcard(_ROOMS)
        rooms: int = (await self._ask(pipe.execute()))[1]
        return rooms, len(self._locals)

    async def close(self) -> None:
        """As `Hub.close`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(*self._errors):
            await self._redis.delete(_INSTANCE + self._instance)
        await self._redis.aclose()
        await self._pool.aclose()

    async def _start(self) -> None:
        """Say that this instance lives, and listen, before the first peer depends on it."""
        if not self._started:
            self._started = True
            self._spawn(self._beat())
            self._spawn(self._listen())
        if not self._listening.is_set():
            try:
                async with asyncio.timeout(3.0):
                    await self._listening.wait()
            except TimeoutError as error:
                raise _unavailable() from error

    async def _beat(self) -> None:
        """Say again and again that this instance lives, and hold the rooms of its peers – also those that Redis has
        forgotten by a restart."""
        while True:
            with contextlib.suppress(*self._errors):
                await self._redis.set(_INSTANCE + self._instance, "1", ex=ALIVE_S)
                await self._look_after_seats()
            await asyncio.sleep(BEAT_S)

    async def _look_after_seats(self) -> None:
        for local in list(self._locals.values()):
            place = local.place
            if place is not None:
                seat = f"{self._instance} {place.connection}"
                for other in await self._hold([_ROOM + place.room], [place.peer, seat, self._expiry_s]):
                    if " " in other and other != seat:
                        self._tell(local, PeerJoined(), other)
                await self._redis.zadd(_ROOMS, {place.room: time.time() + self._expiry_s})

    async def _listen(self) -> None:
        """Deliver what comes for our peers; after an outage of Redis listen again."""
        while True:
            try:
                async with self._redis.pubsub() as channel:
                    await channel.subscribe(_CHANNEL + self._instance)
                    await self._redis.set(_INSTANCE + self._instance, "1", ex=ALIVE_S)
                    async for event in channel.listen():
                        if event["type"] == "subscribe":
                            self._listening.set()
                            await self._look_after_seats()  # what was said meanwhile, nobody here has heard
                        elif event["type"] == "message":
                            self._hand_over(event["data"])
            except self._errors as error:
                _log.warning("no connection to Redis", extra={"kind": f"redis {type(error).__name__}"})
            self._listening.clear()
            await asyncio.sleep(_RETRY_S)

    def _hand_over(self, data: str) -> None:
        letter = _LETTER.decode(data)
        local = self._locals.get(letter.connection)
        if local is not None:
            self._tell(local, letter.message, letter.seat)

    def _tell(self, local: _Local, message: FromServer, seat: str) -> None:
        """Deliver in the background, but nobody's arrival (in ``seat``) twice."""
        if seat in local.known:
            return
        if seat:
            local.known.add(seat)
        self._spawn(_deliver(local, message))

    async def _post(self, to: str, message: FromServer, seat: str = "") -> bool:
        """Send to the peer in a seat, with that of a newcomer; whether there is somebody to hear it."""
        instance, _, connection = to.partition(" ")
        if instance == self._instance:  # no need to go through Redis
            local = self._locals.get(connection)
            if local is not None:
                self._tell(local, message, seat)
            return local is not None
        letter = msgspec.json.encode(_Letter(connection, message, seat))
        heard: int = await self._ask(self._redis.publish(_CHANNEL + instance, letter))
        return heard > 0

    async def _ask(self, question: Awaitable[_Reply]) -> Any:
        try:
            return await question
        except self._errors as error:
            _log.warning("no connection to Redis", extra={"kind": f"redis {type(error).__name__}"})
            raise _unavailable() from error

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _deliver(local: _Local, message: FromServer) -> None:
    async with local.turn:
        await local.deliver(message)


def _unavailable() -> HubError:
    return HubError(Refusal.UNAVAILABLE, "the server's store does not answer; try again in a moment")
