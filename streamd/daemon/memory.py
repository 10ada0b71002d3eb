"""Settings of the C library's allocator that the byte path wants, whoever starts the process.

Buffers of megabytes come and go a hundred times a second. By default each is mapped anew and given
back, so that the kernel clears its pages every time: a tenth of the processor time of a capture.
The unit file says the same in its environment; this is for `capture` and `restore` by hand.
"""

import ctypes
import os
from typing import Final

_MMAP_THRESHOLD: Final = (-3, 1 << 30)
_TRIM_THRESHOLD: Final = (-1, 128 << 20)  # so much may lie free at the top of the heap
_TOP_PAD: Final = (-2, 16 << 20)
_ARENA_MAX: Final = (-8, 1)  # what one thread gives back, another one takes


def keep_buffers() -> None:
    """Have large buffers kept for the next use; where the C library is another one, do nothing."""
    if any(name.startswith("MALLOC_") for name in os.environ):
        return  # somebody has decided
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for setting in (_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD, _ARENA_MAX):
        mallopt(*setting)
