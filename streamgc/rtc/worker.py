"""A thread of our own for work that would hold up the event loop; ends for certain when told to.

The event loop's default executor would do, but its threads outlive the call.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


class Worker:
    """Runs functions one after the other on one thread."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, function: Callable[[], Result]) -> Result:
        """Run `function` on the thread and return what it returns, or raise what it raises."""
        if self._closed:
            raise RuntimeError("the worker is closed")
        done: asyncio.Future[Result] = self._loop.create_future()

        def job() -> None:
            try:
                result = function()
            except BaseException as error:  # handed to whoever waits, whatever it is
                self._tell(_fail, done, error)
            else:
                self._tell(_succeed, done, result)

        self._jobs.put(job)
        return await done

    async def close(self, seconds: float = 1.0) -> bool:
        """Let the job at hand finish and end the thread; False when it is still busy after `seconds`."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            return False
        self._thread.join()
        return True

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            return  # the loop has gone, and with it whoever waited

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None or self._closed:
                self._tell(self._ended.set)
                return
            job()


def _succeed(done: "asyncio.Future[Result]", result: Result) -> None:
    if not done.done():
        done.set_result(result)


def _fail(done: "asyncio.Future[Result]", error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)
