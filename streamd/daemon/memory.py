"""What the C library's allocator keeps, and when it gives it back, whoever starts the process.

Buffers of megabytes come and go a hundred times a second. By default each is mapped anew and given
back, so that the kernel clears its pages every time: a tenth of the processor time of a capture.
The unit file says the same in its environment; `keep_buffers` is for `capture` and `restore` by
hand.

What is kept so is the most that was ever in use at once, and what lies between pieces still in use:
packs that waited for a slow line, a job of upkeep. A daemon that only kept would be as large for
ever as in its worst minute, so four times a minute what lies free is given back: half a minute of
work at 20 changes a second touches a third more than is in use at any time.
"""

import asyncio
import ctypes
import gc
import itertools
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from streamd.vault.parallel import in_thread

_MMAP_THRESHOLD: Final = (-3, 1 << 30)
_TRIM_THRESHOLD: Final = (-1, 128 << 20)  # so much may lie free at the top of the heap
_TOP_PAD: Final = (-2, 16 << 20)
GIVE_BACK_SECONDS: Final = 15.0
_THOROUGH_EACH: Final = 4  # times: looking for cycles costs more, and caches are emptied
_ARENA_MAX: Final = (-8, 1)  # what one thread gives back, another one takes


def keep_buffers() -> None:
    """Have large buffers kept for the next use; where the C library is another one, do nothing.

    Before any thread is started: one that runs already has an arena of its own, which others get
    when it ends. What they keep there nobody else can use: 18 MiB after some minutes.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return  # somebody has decided
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for setting in (_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD, _ARENA_MAX):
        mallopt(*setting)


def give_back(*, collects: bool = True) -> None:
    """Give free memory back to the kernel, also from the midst of the heap; cycles first.

    Blocking: some milliseconds, in which other threads wait when they want memory. Where the C
    library is another one, its part is left out.
    """
    if collects:
        gc.collect()  # cheap after `settle`; what requests leave behind scatters what is in use
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def settle() -> None:
    """Take what is there after the start out of what the collector of cycles looks at.

    Modules, classes and functions are four in five of all objects, and stay. Each full collection
    went through them, while everybody else waited.
    """
    gc.collect()
    gc.freeze()


async def keep_giving_back(let_go: Callable[[], Awaitable[None]] | None = None) -> None:
    """Give free memory back again and again, until cancelled; at times have others free theirs."""
    for turn in itertools.count(1):
        await asyncio.sleep(GIVE_BACK_SECONDS)
        is_thorough = turn % _THOROUGH_EACH == 0
        if let_go is not None and is_thorough:
            await let_go()
        await in_thread(partial(give_back, collects=is_thorough))
