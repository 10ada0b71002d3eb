"""One governor for all requests to one service: whether to ask, and how many at once.

Everybody in the process shares it. When the service asks to slow down, all slow down; when it is
away or refuses us, one probe asks for all. Urgent requests, such as segments, never wait behind
bulk: they have a place of their own.
"""

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

from streamd.effects import Clock, Entropy
from streamd.errors import (
    ContainerMissing,
    CredentialRejected,
    IdentityUnavailable,
    ProxyRefused,
    SecretUnreadable,
    StorageRefused,
    StorageThrottled,
    StreamdError,
    TlsFailed,
    VaultUnreachable,
)
from streamd.policy.backoff import fraction_of
from streamd.policy.circuit import Cause, Circuit
from streamd.policy.window import SMALLEST_BYTES, Window

_TOKEN_BYTES: Final = 8
_ROUND_TRIP_SHARE: Final = 0.2  # of a new measurement
_WRITES: Final = "put"
_CAUSES: Final[tuple[tuple[type[StreamdError], Cause], ...]] = (
    (StorageThrottled, "throttled"),
    (IdentityUnavailable, "credential"),
    (CredentialRejected, "credential"),
    (SecretUnreadable, "credential"),
    (TlsFailed, "tls"),
    (ProxyRefused, "proxy"),
    (ContainerMissing, "container"),
    (VaultUnreachable, "unreachable"),
    (StorageRefused, "right"),
)


class GovernorObserver(Protocol):
    """Told how the way to the service is. Must not block and not raise."""

    def circuit_changed(self, circuit: Circuit, error: StreamdError | None) -> None:
        """The circuit is in another state; `error` is what opened it."""

    def window_changed(self, size: int) -> None:
        """Another number of large requests may be under way."""

    def slowed_down(self, seconds: float) -> None:
        """Everybody waits so long, because the service asks for it."""


def cause_of(error: StreamdError, operation: str) -> Cause | None:
    """Return why `error` speaks against asking again; None if the service works all the same.

    A right that is missing stops only what is put: a host that may not delete goes on writing.
    """
    for kind, cause in _CAUSES:
        if isinstance(error, kind):
            return cause if cause != "right" or operation == _WRITES else None
    return None


class Governor:
    """Admits requests; see the module. Used on one event loop."""

    def __init__(
        self,
        clock: Clock,
        entropy: Entropy,
        observer: GovernorObserver | None = None,
        *,
        limit_max: int = 32,
    ) -> None:
        self._clock = clock
        self._entropy = entropy
        self._observer = observer
        self._circuit = Circuit()
        self._window = Window(limit_max=limit_max, limit=min(4, limit_max))
        self._error: StreamdError | None = None
        self._in_flight = 0
        self.round_trip_seconds = 0.0  # of small requests lately; 0: there were none
        self._changed = asyncio.Event()

    @property
    def circuit(self) -> Circuit:
        """How the service is doing."""
        return self._circuit

    @property
    def window(self) -> int:
        """How many large requests may be under way."""
        return self._window.size

    @property
    def error(self) -> StreamdError | None:
        """What opened the circuit."""
        return self._error

    def may_ask(self, operation: str = _WRITES) -> bool:
        """Return whether a request would be let through now, without asking for anything."""
        if self._circuit.cause == "right" and operation != _WRITES:
            return True
        return self._circuit.may_ask(self._clock.monotonic())

    async def opened(self) -> None:
        """Return when a put may be tried: at once, or when it is time for a probe."""
        while not self.may_ask():
            self._changed.clear()
            left = self._circuit.retry_at - self._clock.monotonic()
            wait = left if self._circuit.state == "open" else None
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def hurry(self) -> None:
        """Say that what was wrong may have been mended, such as by a new credential."""
        self._set(self._circuit.hurried(self._clock.monotonic()))

    @asynccontextmanager
    async def request(
        self, operation: str, size_bytes: int, *, is_urgent: bool
    ) -> AsyncIterator[None]:
        """Hold a place for one request. Raises what opened the circuit if nobody may ask now."""
        await self._place(is_urgent=is_urgent)
        probes = False
        began = self._clock.monotonic()
        try:
            probes = self._admit(operation)
            held_up = not is_urgent and self._in_flight >= self._window.size
            try:
                yield
            except StreamdError as error:
                self._failed(error, operation, probes=probes)
                raise
            except BaseException:
                if probes:
                    self._set(self._circuit.given_back())
                raise
            self._went_well(probes=probes)
            now = self._clock.monotonic()
            if size_bytes < SMALLEST_BYTES:
                known = self.round_trip_seconds or now - began
                self.round_trip_seconds = known + (now - began - known) * _ROUND_TRIP_SHARE
            self._steer(
                self._window.after(
                    size_bytes=size_bytes, seconds=now - began, now=now, held_up=held_up
                )
            )
        finally:
            if not is_urgent:
                self._in_flight -= 1
            self._wake()

    async def _place(self, *, is_urgent: bool) -> None:
        if is_urgent:
            return
        while self._in_flight >= self._window.size:
            self._changed.clear()
            await self._changed.wait()
        self._in_flight += 1

    def _admit(self, operation: str) -> bool:
        """Return whether this request is the probe; raise if it must not be sent."""
        if self._circuit.state == "closed":
            return False
        if self._circuit.cause == "right" and operation != _WRITES:
            return False
        now = self._clock.monotonic()
        if self._circuit.may_ask(now):
            self._set(self._circuit.probing())
            return True
        assert self._error is not None
        error = copy.copy(self._error)
        error.retry_after_seconds = max(self._circuit.retry_at - now, 0.1)
        raise error

    def _went_well(self, *, probes: bool) -> None:
        if probes or (self._circuit.state == "closed" and self._circuit.failures):
            self._error = None
            self._set(self._circuit.closed())

    def _failed(self, error: StreamdError, operation: str, *, probes: bool) -> None:
        cause = cause_of(error, operation)
        if cause is None:
            self._went_well(probes=probes)
            return
        if self._circuit.state != "closed" and not probes:
            return  # begun before it opened: says nothing new
        self._error = error
        now = self._clock.monotonic()
        circuit = self._circuit.failed(
            cause,
            now=now,
            fraction=fraction_of(self._entropy.token(_TOKEN_BYTES)),
            retry_after_seconds=error.retry_after_seconds,
        )
        self._set(circuit)
        if cause == "throttled":  # a line that was cut is as wide afterwards as before
            self._steer(self._window.congested())
            if self._observer is not None:
                self._observer.slowed_down(circuit.retry_at - now)

    def _set(self, circuit: Circuit) -> None:
        before, self._circuit = self._circuit, circuit
        is_news = (before.state, before.cause) != (circuit.state, circuit.cause)
        if is_news and self._observer is not None:
            self._observer.circuit_changed(circuit, self._error)
        self._wake()

    def _steer(self, window: Window) -> None:
        before, self._window = self._window, window
        if before.size != window.size and self._observer is not None:
            self._observer.window_changed(window.size)

    def _wake(self) -> None:
        self._changed.set()
