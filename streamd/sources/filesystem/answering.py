"""Which mounted file systems do not answer, found out before somebody waits for them for ever.

A call into a network or FUSE file system whose server is gone does not return, and no timeout ends
it. So before one is touched a thread that may be lost asks it something; while that thread has no
answer the file system counts as hung, and whoever wants something of it gets ETIMEDOUT instead. One
that hangs in the midst of a call keeps that one caller: at most one at a time is let in.
"""

import errno
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from msgspec import field

from streamd.effects import Clock
from streamd.observe.logging import get_logger
from streamd.sources.filesystem.mounts import Mount, may_hang, read_mounts
from streamd.sources.filesystem.scope import below, split

PROBE_SECONDS: Final = 3.0  # without an answer for so long, it hangs
_FRESH_SECONDS: Final = 5.0  # an answer counts for so long
_TABLE_SECONDS: Final = 1.0  # what is mounted is looked up so often
_LOG: Final = get_logger("watch")


class _State(msgspec.Struct):
    """What is known of one mount that may hang."""

    mount: Mount
    turn: Any = field(default_factory=threading.RLock)  # an RLock, a type without a public name
    answered_at: float = float("-inf")
    error: int = 0  # what it answered, an errno
    is_hung: bool = False
    asked: threading.Event | None = None  # set when the question under way is answered


class Answering:
    """Knows which mounts hang. Threads share one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._states: dict[Mount, _State] = {}
        self._looked_at = float("-inf")

    @property
    def hung(self) -> frozenset[Mount]:
        """The mounts that do not answer, as far as is known. Does not wait."""
        with self._lock:
            return frozenset(mount for mount, state in self._states.items() if state.is_hung)

    def is_hung(self, path: bytes) -> bool:
        """Say whether what is at `path` is known not to answer. Does not wait."""
        with self._lock:
            state = self._state_of(path)
            return state is not None and state.is_hung

    def look(self, paths: tuple[bytes, ...]) -> None:
        """Ask every mount at, below and above `paths`. Blocking, for a few seconds at most."""
        self._read_table()
        with self._lock:
            states = [
                state
                for state in self._states.values()
                if any(below(state.mount.point, p) or below(p, state.mount.point) for p in paths)
            ]
        for state in states:
            self._answers(state)

    def hung_names(self, directory: bytes) -> set[bytes]:
        """Return the names in a directory at which something is mounted that does not answer.

        Blocking, for a few seconds at most.
        """
        self._read_table()
        with self._lock:
            states = [
                state for state in self._states.values() if split(state.mount.point)[0] == directory
            ]
        return {split(state.mount.point)[1] for state in states if not self._answers(state)}

    def may_hang(self) -> bool:
        """Say whether anything is mounted that may hang: only then a turn is to be waited for."""
        self._read_table()
        return bool(self._states)

    def may_hang_at(self, paths: Iterable[bytes]) -> bool:
        """Say whether any of them is where `turn` could have to wait. Does not wait itself."""
        self._read_table()
        with self._lock:
            return bool(self._states) and any(self._state_of(path) is not None for path in paths)

    @contextmanager
    def turn(self, path: bytes) -> Iterator[None]:
        """Touch what is at `path` inside. Blocking; raises OSError (ETIMEDOUT) if it hangs."""
        self._read_table()
        with self._lock:
            state = self._state_of(path)
        if state is None:
            yield
            return
        while not state.turn.acquire(timeout=PROBE_SECONDS):
            if not self._answers(state):
                raise _timed_out()
        try:
            if not self._answers(state):
                raise _timed_out()
            yield
        finally:
            state.turn.release()

    # -- what is mounted -------------------------------------------------------------------------

    def _read_table(self) -> None:
        now = self._clock.monotonic()
        with self._lock:
            if now - self._looked_at < _TABLE_SECONDS:
                return
            self._looked_at = now
            mounts = [mount for mount in read_mounts() if may_hang(mount.type)]
            if mounts or self._states:
                known = self._states
                self._states = {mount: known.get(mount) or _State(mount) for mount in mounts}

    def _state_of(self, path: bytes) -> _State | None:
        """Return the innermost mount that may hang and has this path."""
        best: _State | None = None
        for state in self._states.values():
            point = state.mount.point
            if below(path, point) and (best is None or len(point) >= len(best.mount.point)):
                best = state
        return best

    # -- asking ----------------------------------------------------------------------------------

    def _answers(self, state: _State) -> bool:
        with self._lock:
            if state.asked is None:
                if self._clock.monotonic() - state.answered_at < _FRESH_SECONDS:
                    return True
                state.asked = threading.Event()
                # Not of a pool: one that hangs is lost, and the process must be able to end.
                threading.Thread(
                    target=self._ask, args=(state, state.asked), name="probe", daemon=True
                ).start()
            asked = state.asked
            if state.is_hung:
                return False
        if asked.wait(PROBE_SECONDS):
            return True
        with self._lock:
            if asked.is_set():
                return True
            if not state.is_hung:
                state.is_hung = True
                _LOG.error("mount-hangs", mount=state.mount.point, type=state.mount.type)
        return False

    def _ask(self, state: _State, asked: threading.Event) -> None:
        state.error = 0
        try:
            os.statvfs(state.mount.point)
            os.close(os.open(state.mount.point, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            state.error = error.errno or errno.EIO  # an answer, and for others to report
        with self._lock:
            state.answered_at = self._clock.monotonic()
            if state.is_hung:
                _LOG.info("mount-answers", mount=state.mount.point)
            state.is_hung, state.asked = False, None
            asked.set()


def _timed_out() -> OSError:
    return OSError(errno.ETIMEDOUT, "the file system does not answer")
