"""A call that hangs loses its own thread and nothing else."""

import subprocess
import sys
import threading

import pytest

from streamd.daemon.lost_threads import call_or_lose

STUCK = """
import asyncio, threading
from streamd.daemon.lost_threads import end_soon
threading.Thread(target=threading.Event().wait).start()  # never ends, and Python waits for it
print("written", flush=True)
end_soon(0, 0.2)
"""


@pytest.mark.asyncio
async def test_what_a_call_returns_or_raises_comes_back() -> None:
    assert await call_or_lose(lambda: 7) == 7
    with pytest.raises(FileNotFoundError):
        await call_or_lose(lambda: open("/nowhere/to/be/found", "rb").close())


@pytest.mark.asyncio
async def test_a_call_that_hangs_is_given_up() -> None:
    hold = threading.Event()
    with pytest.raises(TimeoutError):
        await call_or_lose(hold.wait, 0.05)
    hold.set()


def test_the_process_ends_although_a_thread_never_does() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUCK], capture_output=True, timeout=30, check=True
    )
    assert done.stdout.startswith(b"written\n")
