"""A process that compares a part of a source with the catalog, run by `daemon.comparer`.

Comparing a million entries takes ten seconds of a processor. In a process of its own it takes none
of the daemon's: neither the interpreter lock nor memory that would not be given back.

On standard input comes one `Task`; on standard output go frames, each four bytes of length and
msgpack: lists of differences, and in the end the number of entries. Whoever reads a stream without
that end knows that the work was not done.
"""

import contextlib
import ctypes
import functools
import gc
import os
import platform
import sqlite3
import struct
import sys
from collections.abc import Callable
from typing import BinaryIO, Final

import msgspec

from streamd.catalog.walk import RawRow, WalkLookup
from streamd.effects import SystemClock
from streamd.pipeline.comparing import DIFFERENCES_MAX, Comparison, Difference, Examine
from streamd.sources.filesystem.answering import Answering
from streamd.sources.filesystem.listing import Examiner
from streamd.sources.filesystem.rules import ExcludeRules
from streamd.sources.filesystem.scope import TreeScope
from streamd.sources.filesystem.sqlite import examine_joined
from streamd.sources.port import Listing

FRAME_HEAD: Final = struct.Struct(">I")
_FRAME_DIFFERENCES: Final = 1000
_CACHE_KIB: Final = 8 * 1024
_IOPRIO_SET: Final = {"x86_64": 251, "aarch64": 30}  # system call numbers; not in libc
_IDLE_CLASS: Final = 3 << 13


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What to compare."""

    catalog: str  # its file
    source: int  # number in the catalog
    roots: tuple[bytes, ...]
    exclude: tuple[str, ...]
    tags: tuple[bytes, ...]
    ignored: tuple[bytes, ...]
    one_file_system: bool
    max_file_size: int | None
    scopes: tuple[bytes, ...]
    part: int
    parts: int
    joins_wals: bool  # as `sources.filesystem.sqlite` says
    is_gentle: bool  # give way to everybody else at the disk


class End(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The last frame."""

    entry_count: int
    seen: dict[str, int]  # by class


class Differences(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Some of what differs: (path, kind, whether all below it is meant)."""

    found: list[tuple[bytes, int, bool]]


Frame = End | Differences


def work(task: Task, out: BinaryIO) -> None:
    """Do it. Raises OSError when nobody reads, sqlite3.Error when the catalog cannot be read."""
    if task.is_gentle:
        give_way()
    connection = sqlite3.connect(f"file:{task.catalog}?mode=ro", uri=True, isolation_level=None)
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    connection.execute("PRAGMA busy_timeout = 30000")
    scope = TreeScope(
        task.roots, rules=ExcludeRules(task.exclude), tags=task.tags, ignored=task.ignored
    )
    examiner = Examiner(
        scope,
        one_file_system=task.one_file_system,
        max_file_size=task.max_file_size,
        answering=Answering(SystemClock()),
    )
    examine: Examine = examiner.examine

    def examine_known(directory: bytes, known: Callable[[], list[RawRow]]) -> Listing:
        look = functools.partial(examiner.examine, known=known)
        return examine_joined(look, directory, None) if task.joins_wals else look(directory, None)

    if task.joins_wals:
        examine = functools.partial(examine_joined, examine)
    comparison = Comparison(
        examine,
        WalkLookup(connection, task.source),
        task.roots,
        part=task.part,
        parts=task.parts,
        examine_known=examine_known,
    )
    pending: list[Difference] = []
    count = 0
    for found in comparison.differences(task.scopes):
        pending += found
        count += len(found)
        if len(pending) >= _FRAME_DIFFERENCES:
            _send(out, Differences([(each.path, int(each.kind), each.is_deep) for each in pending]))
            pending.clear()
        if count > DIFFERENCES_MAX:
            break
    _send(out, Differences([(each.path, int(each.kind), each.is_deep) for each in pending]))
    _send(out, End(comparison.entry_count, dict(comparison.seen)))
    connection.close()


def _send(out: BinaryIO, frame: Frame) -> None:
    data = msgspec.msgpack.encode(frame)
    out.write(FRAME_HEAD.pack(len(data)) + data)
    out.flush()


def give_way() -> None:
    """Let others go first at the disk and the processor, as far as that is permitted."""
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None)["syscall"](ctypes.c_long(number), 1, 0, _IDLE_CLASS)
    with contextlib.suppress(OSError):
        os.nice(5)


def main() -> None:
    """Read the task and do it; nobody reading any more is a reason to end, not an error."""
    gc.disable()  # a tenth of the time, and there are no cycles
    task = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Task)
    with contextlib.suppress(BrokenPipeError):
        work(task, sys.stdout.buffer)


if __name__ == "__main__":
    main()
