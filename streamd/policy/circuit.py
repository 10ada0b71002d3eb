"""When to leave a service alone: a circuit that opens on failures and is closed by a probe.

Pure values. While the circuit is open nobody asks, except one probe each time its wait is over; the
waits grow with full jitter, and what the service itself asks for is honoured. So an outage of a day
costs a few thousand requests of the whole process, not of every worker.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from streamd.policy.backoff import Backoff

State = Literal["closed", "open", "probing"]
Cause = Literal["unreachable", "throttled", "credential", "tls", "proxy", "container", "right"]
STATES: Final[tuple[State, ...]] = ("closed", "open", "probing")
CAUSES: Final[tuple[Cause, ...]] = (
    "unreachable",
    "throttled",
    "credential",
    "tls",
    "proxy",
    "container",
    "right",
)
# One lost connection says little. Every other cause is the service's own word.
FAILURES_BEFORE_OPEN: Final = 4
_WAITS: Final[Mapping[Cause, Backoff]] = MappingProxyType(
    {
        "unreachable": Backoff(base_seconds=1.0, cap_seconds=20.0),
        "throttled": Backoff(base_seconds=2.0, cap_seconds=60.0),
    }
)
_OPERATOR: Final = Backoff(base_seconds=5.0, cap_seconds=60.0)  # somebody has to change something


class Circuit(msgspec.Struct, frozen=True):
    """How a service is doing, as far as it matters for the next request."""

    state: State = "closed"
    cause: Cause | None = None  # why it is not closed
    failures: int = 0  # in a row, while closed
    waits: int = 0  # since it was closed
    retry_at: float = 0.0  # seconds of a monotonic clock

    def may_ask(self, now: float) -> bool:
        """Return whether a request may be sent: always, as a probe, or not now."""
        return self.state == "closed" or (self.state == "open" and now >= self.retry_at)

    def probing(self) -> "Circuit":
        """Return the circuit with the probe under way."""
        return replace(self, state="probing")

    def given_back(self) -> "Circuit":
        """Return the circuit after a probe that ended without an answer: another may go."""
        return replace(self, state="open")

    def closed(self) -> "Circuit":
        """Return the circuit after an answer that shows that the service works."""
        return Circuit()

    def hurried(self, now: float) -> "Circuit":
        """Return the circuit after something changed that may have mended it."""
        return replace(self, retry_at=now, waits=0) if self.state == "open" else self

    def failed(
        self, cause: Cause, *, now: float, fraction: float, retry_after_seconds: float | None = None
    ) -> "Circuit":
        """Return the circuit after a failure: of a request while closed, or of the probe."""
        failures = self.failures + 1
        if self.state == "closed" and cause == "unreachable" and failures < FAILURES_BEFORE_OPEN:
            return replace(self, failures=failures)
        backoff = _WAITS.get(cause, _OPERATOR)
        delay = backoff.delay_seconds(
            self.waits, fraction=fraction, retry_after_seconds=retry_after_seconds
        )
        return Circuit("open", cause, failures, self.waits + 1, now + delay)
