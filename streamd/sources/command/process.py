"""One run of a program: no shell, a clean environment, a time limit, a bounded memory of its words.

Blocking; for a thread of its own. `kill` may be called by another thread.
"""

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from streamd.config.programs import SEARCH_PATH, ProgramUnusable, find_program
from streamd.effects import Clock

TAIL_BYTES_MAX: Final = 4096  # of standard error: the last words say what went wrong
_TAIL_LINES_MAX: Final = 8
GRACE_SECONDS: Final = 2.0
_WAKE_SECONDS: Final = 0.5  # how soon a `kill` is noticed
_PASSED_ON: Final = ("HOME", "USER", "LOGNAME", "TZ", "CREDENTIALS_DIRECTORY")


class ProgramFailed(Exception):
    """A program did not do what it should; the text says why, with its last words."""


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return what a program finds in its environment: little, and documented."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {"PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", **kept, **extra}


class Process:
    """A started program. Raises ProgramFailed when it cannot be started."""

    def __init__(
        self,
        argv: Sequence[str],
        extra: Mapping[str, str],
        *,
        seconds: float,
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._seconds = seconds
        self._deadline = clock.monotonic() + seconds
        self._tail = b""
        self._is_killed = False
        try:
            program = find_program(argv[0])
            self._process = subprocess.Popen(  # noqa: S603 - what the administrator configured
                [argv[0], *argv[1:]],
                executable=program,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(extra),
                cwd="/",
                start_new_session=True,
            )
        except ProgramUnusable as error:
            raise ProgramFailed(str(error)) from error
        except OSError as error:
            raise ProgramFailed(f"{argv[0]}: {error.strerror}") from error
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._out, self._err = self._process.stdout.fileno(), self._process.stderr.fileno()
        os.set_blocking(self._err, False)
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN)
        self._poll.register(self._err, select.POLLIN)

    def read_into(self, view: memoryview) -> int:
        """Fill `view` with output; return less only at its end. Raises ProgramFailed."""
        done = 0
        while done < len(view):
            count = self._read_some(view[done:])
            if count == 0:
                break
            done += count
        return done

    def _read_some(self, view: memoryview) -> int:
        while True:
            ready = self._wait()
            if self._err in ready:
                self._listen()
            if self._out in ready:
                return os.readv(self._out, [view])

    def _wait(self) -> set[int]:
        left = self._deadline - self._clock.monotonic()
        if self._is_killed or left <= 0:
            self.kill()
            raise ProgramFailed(
                "stopped" if left > 0 else f"not done within {self._seconds:g} s{self._said()}"
            )
        return {fd for fd, _ in self._poll.poll(min(left, _WAKE_SECONDS) * 1000)}

    def _listen(self) -> None:
        """Remember the end of what it says on standard error."""
        try:
            said = os.read(self._err, 65536)
        except BlockingIOError:
            return
        if not said:
            with contextlib.suppress(KeyError):
                self._poll.unregister(self._err)
        self._tail = (self._tail + said)[-TAIL_BYTES_MAX:]

    def finish(self) -> None:
        """Wait for its end, after its output ended. Raises ProgramFailed unless status 0."""
        with contextlib.suppress(KeyError):
            self._poll.unregister(self._out)
        while self._process.poll() is None:
            if self._err in self._wait():
                self._listen()
        self._listen()
        status = self._process.returncode
        if status:
            how = f"status {status}" if status > 0 else f"signal {signal.Signals(-status).name}"
            raise ProgramFailed(f"ended with {how}{self._said()}")

    def _said(self) -> str:
        lines = self._tail.decode(errors="replace").strip().splitlines()[-_TAIL_LINES_MAX:]
        return "".join(f"\n{line}" for line in lines)

    def kill(self) -> None:
        """End it, and all it started, soon: TERM now, KILL when `close` is called."""
        self._is_killed = True
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def close(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """End it if it still runs, and let go of its pipes; blocks for the grace it is given."""
        if self._process.poll() is None:
            self.kill()
            try:
                self._process.wait(grace_seconds)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self._process.wait()
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdout.close()
        self._process.stderr.close()


def run_to_end(
    argv: Sequence[str],
    extra: Mapping[str, str],
    *,
    seconds: float,
    clock: Clock,
    started: Callable[[Process], None] = lambda _: None,
) -> None:
    """Run a program and drop its output; `started` gets the process. Raises ProgramFailed."""
    process = Process(argv, extra, seconds=seconds, clock=clock)
    started(process)
    try:
        room = memoryview(bytearray(65536))
        while process.read_into(room):
            pass
        process.finish()
    finally:
        process.close()
