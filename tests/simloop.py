"""An asyncio event loop with virtual time and a seeded order, for simulation.

When every task waits, the clock jumps to the next timer: a simulated day costs milliseconds.
When every task waits and no timer is set, the system is stuck for good: `Stuck` says so.
Which of the ready callbacks runs next is drawn from the seed, so another seed is another
interleaving and the same seed the same run. Thread work runs inline: with a seed at a later moment
of virtual time, as if the thread had taken a while; without one at once. An object whose methods
take longer says so by its method `thread_seconds`.

`Halt` ends the run at that very point, as a crash would: no other task runs again.
"""

import asyncio
import contextlib
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

THREAD_SECONDS_MAX = 0.002
TIMER_RESOLUTION_SECONDS = 1e-9
STEPS_MAX = 5_000_000
CLOSE_ATTEMPTS = 10  # a coroutine may await again while it is closed, as task groups do


class Stuck(BaseException):
    """Every task waits for something that can no longer happen."""


class Halt(BaseException):
    """The simulated machine stops here. Raise it from anything that runs on the loop.

    Making one halts the loop: nobody who catches it on its way out gets to wait for anything.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        loop = asyncio._get_running_loop()
        if isinstance(loop, SimLoop):
            loop.halt(self)


class _NumberedTask(asyncio.Task[Any]):
    """A task hashed by creation order, so that sets of tasks iterate the same way each run."""

    def __init__(self, number: int, *args: Any, **kwargs: Any) -> None:
        self._number = number
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number


class SimLoop(asyncio.BaseEventLoop):
    """The loop. `steps` counts callbacks; `now` is the virtual time in seconds, from 0."""

    # asyncio's own names, which typeshed does not show
    _ready: deque[Any]
    _scheduled: list[Any]

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        self._rng = None if seed is None else random.Random(seed)
        self._queues: dict[int, deque[Any]] = {}  # what waits for a single thread
        self._halted: BaseException | None = None
        self.now = 0.0
        self.steps = 0
        numbers = itertools.count()
        self.set_task_factory(
            lambda loop, coro, **kw: _NumberedTask(next(numbers), coro, loop=loop, **kw)
        )

    def time(self) -> float:
        return self.now

    def halt(self, reason: BaseException) -> None:
        """Stop after the callback at hand: `reason` comes out of the run."""
        self._halted = self._halted or reason

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self.create_future()
        if self._rng is None:
            self._work(future, func, args)
            return future
        delay = self._rng.choice((0.0, self._rng.random() * THREAD_SECONDS_MAX))
        seconds = getattr(getattr(func, "__self__", None), "thread_seconds", None)
        delay += 0.0 if seconds is None else seconds()
        if getattr(executor, "_max_workers", 0) == 1:  # one thread: first come, first served
            queue = self._queues.setdefault(id(executor), deque())
            queue.append((future, func, args))
            self.call_later(delay, lambda: self._work(*queue.popleft()))
        else:
            self.call_later(delay, self._work, future, func, args)
        return future

    def call_soon_threadsafe(self, callback: Any, *args: Any, **options: Any) -> Any:
        return self.call_soon(callback, *args, **options)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self._halted is None:  # whatever nobody retrieves after a crash is no news
            super().call_exception_handler(context)

    def abandon(self) -> None:
        """Forget everything that was going to run, as the machine's memory is gone.

        Python runs `finally` blocks of coroutines even so: a simulated disk must not listen to
        anything that happens after its crash.
        """
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False
            _close(task.get_coro())
        self._ready.clear()
        self._scheduled.clear()

    def _work(
        self, future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        # a cancelled call may have begun already, and then runs to its end all the same
        if future.cancelled() and self._rng is not None and self._rng.random() < 0.5:
            return
        try:
            result = func(*args)
        except BaseException as error:
            if not future.cancelled():
                future.set_exception(error)
        else:
            if not future.cancelled():
                future.set_result(result)

    def _run_once(self) -> None:
        self._advance()
        if self._rng is not None and len(self._ready) > 1:
            self._ready.rotate(self._rng.randrange(len(self._ready)))
        self.steps += 1
        assert self.steps < STEPS_MAX, "the simulation does not come to an end"
        handle = self._ready.popleft()
        if not handle._cancelled:
            handle._run()
        if self._halted is not None:
            raise self._halted

    def _advance(self) -> None:
        """Make everything ready that is due; jump to the next timer when nothing is ready."""
        timers = self._scheduled
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
        if not self._ready:
            if not timers:
                raise Stuck
            self.now = max(self.now, timers[0]._when)
        while timers and timers[0]._when <= self.now + TIMER_RESOLUTION_SECONDS:
            handle = heapq.heappop(timers)
            handle._scheduled = False
            self._ready.append(handle)

    def _process_events(self, event_list: Any) -> None:
        """There is nothing outside of the simulation."""

    def _write_to_self(self) -> None:
        """There are no threads to wake us."""


def simulate(scenario: Coroutine[Any, Any, T], *, seed: int | None = None) -> T:
    """Run `scenario` to its end in virtual time. Raises Halt or Stuck if it stops before."""
    loop = SimLoop(seed)
    asyncio.set_event_loop(loop)
    try:
        result = loop.run_until_complete(scenario)
        _cancel_rest(loop)
        loop.run_until_complete(loop.shutdown_asyncgens())
        return result
    finally:
        loop.abandon()
        asyncio.set_event_loop(None)
        loop.close()


def _cancel_rest(loop: SimLoop) -> None:
    rest = asyncio.all_tasks(loop)
    for task in rest:
        task.cancel()
    if rest:
        loop.run_until_complete(_ended(rest))


def _close(coroutine: Any) -> None:
    """Close a coroutine and what it awaits, however often each of them awaits again meanwhile."""
    chain: list[Any] = []
    while hasattr(coroutine, "close"):
        chain.append(coroutine)
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
    for each in chain:
        for _ in range(CLOSE_ATTEMPTS):
            with contextlib.suppress(BaseException):
                each.close()
                break


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.wait(tasks)
