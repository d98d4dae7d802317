"""Work done in advance, in a thread."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TypeVar

__all__ = ["prefetch"]

T = TypeVar("T")

# Seconds that closing waits for the item being made; a thread that hangs is abandoned.
PATIENCE = 5.0


class _End:
    """The end of the items, with the error that stopped them, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetch(items: Iterator[T], most: int) -> Generator[T]:
    """Yield what `items` yields, made by a thread that buffers at most `most` items.

    The thread starts with the first item that is asked for. Errors of `items` are raised here, in
    their turn. Closing stops the thread after the item it is making, and closes `items`.
    """
    made: SimpleQueue[T | _End] = SimpleQueue()
    free, stop = Semaphore(most), Event()

    def work() -> None:
        error: BaseException | None = None
        try:
            while free.acquire() and not stop.is_set():
                made.put(next(items))
        except StopIteration:
            pass
        except BaseException as caught:
            error = caught
        finally:
            if isinstance(items, Generator):
                items.close()
            made.put(_End(error))

    thread = Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := made.get(), _End):
            free.release()
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        free.release()
        thread.join(PATIENCE)
