"""BlobStore that does not give up: transient errors are waited out with backoff.

The adapters beneath never retry by themselves, so that there is one place that decides how often a
struggling service is asked. Repeating is safe because of the port: a put may be repeated with the
same bytes whatever became of the first, and a listing goes on after the last name it yielded.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

from streamd.effects import Clock, Entropy
from streamd.errors import TransientError
from streamd.policy.backoff import Backoff, fraction_of
from streamd.storage.port import BlobInfo, BlobName, BlobStore, Bytes

_T = TypeVar("_T")
_TOKEN_BYTES: Final = 8


class RetryingBlobStore:
    """Forward to `store` and repeat what fails with a TransientError.

    After `give_up_after_seconds` of failures the last error is raised; without it, never. A
    cancellation ends a wait at once.
    """

    def __init__(
        self,
        store: BlobStore,
        backoff: Backoff,
        clock: Clock,
        entropy: Entropy,
        *,
        give_up_after_seconds: float | None = None,
        on_retry: Callable[[str, TransientError], None] = lambda _, __: None,
    ) -> None:
        self._store = store
        self._backoff = backoff
        self._clock = clock
        self._entropy = entropy
        self._give_up_after_seconds = give_up_after_seconds
        self._on_retry = on_retry

    async def put(self, name: BlobName, data: Bytes) -> None:
        """Create `name`; see the port."""
        await self._persist("put", lambda: self._store.put(name, data))

    async def get(self, name: BlobName, *, offset: int = 0, size: int | None = None) -> bytes:
        """Return exactly the requested range; see the port."""
        return await self._persist("get", lambda: self._store.get(name, offset=offset, size=size))

    async def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        """Yield what begins with `prefix`; begun anew after an error, without repetitions."""
        last = ""
        failures = _Failures(self, "scan")
        while True:
            try:
                async for info in self._store.scan(prefix):
                    if info.name > last:
                        last = info.name
                        failures = _Failures(self, "scan")  # progress: patience starts afresh
                        yield info
            except TransientError as error:
                await failures.wait(error)
            else:
                return

    async def delete(self, name: BlobName) -> None:
        """Delete `name`; see the port."""
        await self._persist("delete", lambda: self._store.delete(name))

    async def aclose(self) -> None:
        """Close the store beneath."""
        await self._store.aclose()

    async def _persist(self, operation: str, attempt: Callable[[], Awaitable[_T]]) -> _T:
        failures = _Failures(self, operation)
        while True:
            try:
                return await attempt()
            except TransientError as error:
                await failures.wait(error)

    def next_delay(
        self, operation: str, error: TransientError, attempt: int, began: float
    ) -> float:
        """Return how many seconds to wait after failure number `attempt`, or raise `error`."""
        delay = self._backoff.delay_seconds(
            attempt,
            fraction=fraction_of(self._entropy.token(_TOKEN_BYTES)),
            retry_after_seconds=error.retry_after_seconds,
        )
        limit = self._give_up_after_seconds
        if limit is not None and self._clock.monotonic() + delay - began > limit:
            raise error
        self._on_retry(operation, error)
        return delay

    def monotonic(self) -> float:
        """Return the clock's seconds."""
        return self._clock.monotonic()


class _Failures:
    """The failures of one operation in a row, and the waits between them."""

    def __init__(self, store: RetryingBlobStore, operation: str) -> None:
        self._store = store
        self._operation = operation
        self._began = store.monotonic()
        self._attempt = 0

    async def wait(self, error: TransientError) -> None:
        delay = self._store.next_delay(self._operation, error, self._attempt, self._began)
        self._attempt += 1
        await asyncio.sleep(delay)
