"""Do the same to many things, several at a time, and hand over the results in order.

The results come wave by wave: no task outlives the call that yields, so that whoever stops
iterating half-way leaves nothing running.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from typing import TypeVar

from streamd.errors import BlobNotFound, FormatUnsupported, VaultDamaged

T = TypeVar("T")
R = TypeVar("R")

_POOL: ContextVar[Executor | None] = ContextVar("pool", default=None)
OBJECT_FAULTS = (VaultDamaged, BlobNotFound, FormatUnsupported)  # of one object alone


async def one_wave(items: Sequence[T], work: Callable[[T], Awaitable[R]]) -> list[R | Exception]:
    """Return the results of `work` in the order of `items`, all started at once.

    What is wrong with one object stands in its place; any other error ends all and is raised.
    """
    results: list[R | Exception] = [VaultDamaged("not read")] * len(items)

    async def run(index: int, item: T) -> None:
        try:
            results[index] = await work(item)
        except OBJECT_FAULTS as error:
            results[index] = error

    if len(items) == 1:
        await run(0, items[0])
        return results
    try:
        async with asyncio.TaskGroup() as group:
            for index, item in enumerate(items):
                group.create_task(run(index, item), name=f"wave:{index}")
    except BaseExceptionGroup as errors:
        raise first_error(errors) from errors
    return results


def first_error(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of a task group."""
    inner = errors.exceptions[0]
    return first_error(inner) if isinstance(inner, BaseExceptionGroup) else inner


@contextmanager
def in_this_pool(pool: Executor) -> Iterator[None]:
    """Let this task, and those that it starts, use the threads of `pool` in `in_thread`."""
    token = _POOL.set(pool)
    try:
        yield
    finally:
        _POOL.reset(token)


async def in_thread(work: Callable[[], R]) -> R:
    """Return what `work` returns, run in a thread; outlive it even when cancelled.

    A thread cannot be cancelled: were we to return before it ends, the descriptors and databases
    that it uses would be closed under it.
    """
    future = asyncio.get_running_loop().run_in_executor(_POOL.get(), work)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError as cancellation:
            cancelled = cancellation
    if cancelled is None:
        return future.result()
    future.exception()  # looked at, or asyncio complains about an error nobody saw
    raise cancelled


async def in_waves(
    items: Iterable[T],
    work: Callable[[T], Awaitable[R]],
    *,
    width: int,
    size_of: Callable[[T], int] = lambda _: 0,
    bytes_max: int = 0,
) -> AsyncIterator[tuple[T, R | Exception]]:
    """Yield (item, result or what is wrong with it) in order.

    A wave has at most `width` items and, beyond the first, at most `bytes_max` bytes (0: any).
    """
    rest = iter(items)
    held: list[T] = []
    while True:
        held.extend(islice(rest, width - len(held)))
        if not held:
            return
        count, total = 1, size_of(held[0])
        while count < len(held):
            total += size_of(held[count])
            if bytes_max and total > bytes_max:
                break
            count += 1
        wave, held = held[:count], held[count:]
        for item, result in zip(wave, await one_wave(wave, work), strict=True):
            yield item, result
