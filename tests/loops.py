"""Event loops in threads of their own."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from tests.managers import WITHIN

T = TypeVar("T")


class LoopThread:
    """An event loop that runs in a thread until it is stopped."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Starts the coroutine there."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs the coroutine there and waits for its result."""
        return self.submit(coroutine).result(WITHIN)

    def halt(self) -> None:
        """Stops the loop where it is; its tasks stay pending."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(WITHIN)

    def resume(self) -> None:
        """Lets a halted loop run on, in another thread."""
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def cancel(self) -> None:
        """Cancels what runs; a halted loop runs on for that."""
        if not self._thread.is_alive():
            self.resume()
        self.run(_cancel_others())

    def end(self) -> None:
        """Cancels what runs and closes the loop."""
        if self.loop.is_closed():
            return
        self.cancel()
        self.halt()
        self.loop.close()


async def _cancel_others() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def loop_threads(number: int) -> Iterator[list[LoopThread]]:
    """Several event loops, each in its own thread; they end with the block."""
    threads = [LoopThread() for _ in range(number)]
    try:
        yield threads
    finally:
        for thread in threads:
            thread.end()
