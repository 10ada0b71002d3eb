"""Calls that may never return: they get a thread of their own, which may be lost.

A call into a file system whose server is gone ends when that comes back, or with the process. So it
must not keep a thread of a pool, and the end of the process must not wait for it.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

from streamd.observe.logging import get_logger

CALL_SECONDS: Final = 5.0
END_SECONDS: Final = 2.0
_LOG: Final = get_logger("daemon")

T = TypeVar("T")


async def call_or_lose(work: Callable[[], T], seconds: float = CALL_SECONDS) -> T:
    """Return what `work` returns. Raises TimeoutError, and leaves it to itself, when it hangs."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except OSError as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="may-hang", daemon=True).start()
    ended = asyncio.wrap_future(outcome)
    await asyncio.wait({ended}, timeout=seconds)
    if not ended.done():
        raise TimeoutError
    return ended.result()


def end_soon(code: int, seconds: float = END_SECONDS) -> None:
    """End the process in a while, if it has not ended by itself: some thread may never do.

    For when everything is written and closed.
    """

    def end() -> None:
        threading.Event().wait(seconds)
        _LOG.warning("threads-left", threads=sorted(each.name for each in threading.enumerate()))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    threading.Thread(target=end, name="end", daemon=True).start()
