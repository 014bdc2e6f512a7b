"""The local leg between a browser's tab and its agent: one aiortc connection on this machine, at full quality.

The tab sends its camera and receives two pictures: the far side, and one that shows what happens to the tab's own. On
this leg only, packets never get lost and bandwidth is plenty, so two things of aiortc are changed: a frame is complete
with its marker bit (and not with the next frame's first packet), and the browser is told a fixed high rate.
"""

import asyncio
import contextlib
import fractions
import time
from collections.abc import Callable, Coroutine
from typing import Any

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.mediastreams import MediaStreamError

from streamgc.call.agent_sound import Loudspeaker, pump_microphone, without_waiting
from streamgc.errors import CallError
from streamgc.rtc.pictures import Captured, NewestSlot, Picture
from streamgc.rtc.sound import Sound

LEG_BPS = 4_000_000
"""What the browser is told it may send on the local leg."""
REMB_INTERVAL_MS = 250
_CLOCK = 90_000
_BUFFER = 512
"""Packets; a power of two."""


class MarkerJitterBuffer(JitterBuffer):
    """aiortc's video jitter buffer that gives a frame out with its last packet, known by the RTP marker bit."""

    def __init__(self) -> None:
        super().__init__(capacity=_BUFFER, is_video=True)

    def _remove_frame(self, sequence_number: int) -> JitterFrame | None:
        self._skip_padding()
        frame: JitterFrame | None = super()._remove_frame(sequence_number)
        if frame is not None:
            return frame
        assert self._origin is not None
        packets: list[Any] = []
        for count in range(self._capacity):
            packet: Any = self._packets[(self._origin + count) % self._capacity]
            if packet is None:
                return None
            packets.append(packet)
            if packet.marker:
                data = b"".join(one._data for one in packets)
                self.remove(count + 1)
                return JitterFrame(data, packet.timestamp)
        return None

    def _skip_padding(self) -> None:
        """Drop packets without data before the next frame: browsers probe with them, after a frame and under its time
        stamp, and they would come out as a frame that no decoder takes."""
        assert self._origin is not None
        while True:
            packet: Any = self._packets[self._origin % self._capacity]
            if packet is None or packet._data:
                return
            self.remove(1)


class FixedRate:
    """Stands where aiortc estimates the rate: always says the same."""

    def __init__(self, bps: int = LEG_BPS) -> None:
        self._bps, self._said_ms = bps, -REMB_INTERVAL_MS

    def add(
        self, abs_send_time: int, arrival_time_ms: int, payload_size: int, ssrc: int
    ) -> tuple[int, list[int]] | None:
        """For aiortc: the rate to report now, or None."""
        if arrival_time_ms - self._said_ms < REMB_INTERVAL_MS:
            return None
        self._said_ms = arrival_time_ms
        return self._bps, [ssrc]


class Screen(MediaStreamTrack):
    """A track of the newest pictures, RGB uint8 (H, W, 3)."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        self._slot: NewestSlot[Picture] = NewestSlot()

    def put(self, picture: Picture) -> None:
        """Show this next."""
        self._slot.put(picture)

    async def recv(self) -> av.VideoFrame:
        """For aiortc."""
        if self.readyState != "live":
            raise MediaStreamError
        picture = await self._slot.take()
        height, width = picture.shape[:2]
        even = np.ascontiguousarray(picture[: height - height % 2, : width - width % 2])
        frame = av.VideoFrame.from_ndarray(even, format="rgb24").reformat(format="yuv420p")
        frame.pts = time.monotonic_ns() * _CLOCK // 1_000_000_000
        frame.time_base = fractions.Fraction(1, _CLOCK)
        return frame


class BrowserLeg:
    """One tab's connection. `on_camera(captured)` is called on the event loop, at most `fps` times a second;
    `on_sound(sound)` with every packet of the microphone."""

    def __init__(
        self, fps: float, on_camera: Callable[[Captured], None], on_sound: Callable[[Sound], None] = lambda sound: None
    ) -> None:
        self._fps, self._on_camera, self._on_sound = fps, on_camera, on_sound
        self.remote, self.own = Screen(), Screen()
        self.loudspeaker = Loudspeaker()
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._pumps: set[asyncio.Task[None]] = set()
        self._count = 0

    async def answer(self, sdp: str) -> str:
        """Take the tab's offer of three video streams – camera, far side, own – and, if it has sound, one for both
        directions of it; return the answer. Raises `CallError`."""
        try:
            await self.pc.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        except Exception as error:  # aiortc's parser raises whatever it stumbles over
            raise CallError("not a tab's offer") from error
        streams = [one for one in self.pc.getTransceivers() if one.kind == "video"]
        if len(streams) != 3:
            raise CallError("a tab offers its camera and takes two pictures")
        sounds: list[Any] = [one for one in self.pc.getTransceivers() if one.kind == "audio"]
        if len(sounds) > 1:
            raise CallError("a tab has one stream of sound")
        camera: Any = streams[0]
        camera.receiver._RTCRtpReceiver__jitter_buffer = MarkerJitterBuffer()
        camera.receiver._RTCRtpReceiver__remote_bitrate_estimator = FixedRate()
        camera.direction = "recvonly"
        for stream, screen in zip(streams[1:], (self.remote, self.own), strict=True):
            stream.sender.replaceTrack(screen)
            stream.direction = "sendonly"
        for sound in sounds:
            without_waiting(sound.receiver)
            sound.sender.replaceTrack(self.loudspeaker)
            sound.direction = "sendrecv"
        try:
            await self.pc.setLocalDescription(await self.pc.createAnswer())
        except Exception as error:
            raise CallError("the tab has no codec in common with the agent") from error
        self._start(self._pump(camera.receiver.track))
        for sound in sounds:
            if sound.receiver.track is not None:
                self._start(pump_microphone(sound.receiver.track, self._on_sound))
        answer: str = self.pc.localDescription.sdp
        return answer

    async def close(self) -> None:
        """End the leg within about a second."""
        for pump in self._pumps:
            pump.cancel()
        self.remote.stop()
        self.own.stop()
        self.loudspeaker.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self.pc.close()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        pump = asyncio.create_task(work, name="tab")
        self._pumps.add(pump)
        pump.add_done_callback(self._pumps.discard)

    async def _pump(self, track: Any) -> None:
        """Hand over the newest picture, at most `fps` a second."""
        due = 0.0
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                while not track._queue.empty() and (newer := track._queue.get_nowait()) is not None:
                    frame = newer
                now = time.monotonic()
                if now < due - 0.25 / self._fps:
                    continue
                due = max(due + 1 / self._fps, now)
                self._on_camera(Captured(frame.to_ndarray(format="rgb24"), time.monotonic_ns(), self._count))
                self._count += 1
