"""What the handles in events lead to, asked in a thread of its own.

The kernel may have to read the disk to answer, and waits with everybody who reads it, or for a
server that is gone: seconds, at times for ever. So the event loop does not ask, and a thread that
hangs is lost to one file system alone.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Final, NamedTuple

import msgspec
from msgspec import field

from streamd.observe.logging import get_logger
from streamd.sources.filesystem import fanotify
from streamd.sources.filesystem.mounts import Mount

# Where a path is too long to be said: levels to go up at once, as many as one call can be told …
_LEAP: Final = 1364
_LEAPS_MAX: Final = 100  # … and how often
_ABOVE: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_LOG: Final = get_logger("watch")


class FileState(NamedTuple):
    """What is to be known of a file."""

    device: int
    inode: int
    link_count: int


class Question(msgspec.Struct):
    """Handles to be looked up through mounts of one file system: each with a path that is on it."""

    mounts: Sequence[tuple[Mount, bytes]]
    directories: list[bytes] = field(default_factory=list)
    files: list[bytes] = field(default_factory=list)


class Answer(msgspec.Struct):
    """What they led to, later than whatever the events tell that they are from."""

    paths: dict[bytes, dict[Mount, bytes]] = field(default_factory=dict)  # {}: gone
    files: dict[bytes, FileState | None] = field(default_factory=dict)  # None: gone
    # Where a path is longer than the kernel can say: the nearest directory above that can be said.
    too_long: list[tuple[bytes, Mount, bytes]] = field(default_factory=list)


LookUp = Callable[[Question], Answer]


class Asker:
    """The thread that asks for one file system: one question at a time, in order."""

    def __init__(self, look_up: LookUp) -> None:
        self._look_up = look_up
        self._questions: SimpleQueue[_Asked | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def ask(self, question: Question, answered: Callable[[Answer | None], None]) -> None:
        """Have `answered` called on this event loop, in a while or never; None: it went wrong."""
        if self._thread is None:
            # Not of a pool: one that hangs is lost, and the process must be able to end.
            self._thread = threading.Thread(target=self._run, name="handles", daemon=True)
            self._thread.start()
        self._questions.put(_Asked(question, asyncio.get_running_loop(), answered))

    def close(self) -> None:
        """Let the thread end, when it can. Does not wait."""
        self._questions.put(None)

    def _run(self) -> None:
        while (asked := self._questions.get()) is not None:
            answer: Answer | None = None
            try:
                answer = self._look_up(asked.question)
            except Exception as error:  # noqa: BLE001 - whoever asked takes it as lost, as a gap
                _LOG.error("handles-not-understood", error=repr(error))
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know
                asked.loop.call_soon_threadsafe(asked.answered, answer)


class _Asked(NamedTuple):
    question: Question
    loop: asyncio.AbstractEventLoop
    answered: Callable[[Answer | None], None]


def answer_to(question: Question) -> Answer:
    """Look everything up. Blocking; a mount that is gone has no answers."""
    mounts = dict[Mount, int]()
    for mount, path in question.mounts:
        if mount not in mounts:
            with contextlib.suppress(OSError):
                mounts[mount] = _open_on(mount, path)
    try:
        answer = Answer()
        for handle in question.directories:
            answer.paths[handle] = _paths_of(handle, mounts, answer)
        for handle in question.files:
            answer.files[handle] = _state_of(handle, mounts)
        return answer
    finally:
        for fd in mounts.values():  # an open one would make umount fail
            os.close(fd)


def _paths_of(handle: bytes, mounts: dict[Mount, int], answer: Answer) -> dict[Mount, bytes]:
    """Return the path of a directory as seen through each mount."""
    paths: dict[Mount, bytes] = {}
    for mount, mount_fd in mounts.items():
        try:
            fd = fanotify.open_handle(mount_fd, handle)
        except OSError:
            continue
        try:
            paths[mount] = fanotify.path_of(fd)
        except OSError:  # longer than the kernel can say
            above = _nearest_above(fd)
            if above is not None:
                answer.too_long.append((handle, mount, above))
        finally:
            os.close(fd)
    return paths


def _state_of(handle: bytes, mounts: dict[Mount, int]) -> FileState | None:
    for mount_fd in mounts.values():
        try:
            fd = fanotify.open_handle(mount_fd, handle)
        except OSError:
            continue
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        return FileState(status.st_dev, status.st_ino, status.st_nlink)
    return None


def _nearest_above(fd: int) -> bytes | None:
    """Return the path of the nearest directory above that the kernel can say; None: it is gone.

    One call goes up many levels for what one level costs.
    """
    at = os.dup(fd)
    try:
        for _ in range(_LEAPS_MAX):
            best = _path_above(at, _LEAP)
            if best is not None:
                return _nearer(at, best)
            above = os.open(b"../" * _LEAP, _ABOVE, dir_fd=at)
            os.close(at)
            at = above
    except OSError:
        pass  # gone meanwhile; its own removal tells
    finally:
        os.close(at)
    return None


def _nearer(fd: int, best: bytes) -> bytes:
    """Return the path of the nearest directory that can be said; that one leap up is `best`."""
    low, high = 0, _LEAP
    while high - low > 1:
        middle = (low + high) // 2
        path = _path_above(fd, middle)
        if path is None:
            low = middle
        else:
            best, high = path, middle
    return best


def _path_above(fd: int, levels: int) -> bytes | None:
    """Return the path so many levels up (at the top: its own); None: it cannot be said."""
    try:
        at = os.open(b"../" * levels, _ABOVE, dir_fd=fd)
    except OSError:
        return None
    try:
        return fanotify.path_of(at)
    except OSError:
        return None
    finally:
        os.close(at)


def _open_on(mount: Mount, path: bytes) -> int:
    """Return a descriptor of something on this very mount. Raises OSError."""
    for each in (mount.point, path):
        try:
            fd = os.open(each, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            if each == path:
                raise
            continue
        if fanotify.mount_id(fd) == mount.id:
            return fd
        os.close(fd)  # something else was mounted over it
    raise OSError("the file system is no longer mounted here")
