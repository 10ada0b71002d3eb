"""A file system that does not answer: FUSE whose server takes no request."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def hung_mount(point: Path) -> Iterator[Path]:
    """Mount it at `point`: every call that needs an answer waits, until this ends."""
    point.mkdir(exist_ok=True)
    server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0,allow_other"
    try:
        if _libc.mount(b"hung", os.fsencode(point), b"fuse", 0, options.encode()) < 0:
            raise OSError(ctypes.get_errno(), "cannot mount FUSE")
        try:
            yield point
        finally:
            subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
    finally:
        os.close(server)  # whoever waits gets an error now
