"""How the way to the container is doing, as metrics and log lines."""

from typing import TYPE_CHECKING, Final

from streamd.effects import MICROSECONDS
from streamd.errors import StreamdError
from streamd.observe.logging import get_logger
from streamd.observe.unheard import unheard
from streamd.policy.circuit import CAUSES, STATES, Circuit

if TYPE_CHECKING:
    from streamd.observe.metrics import Metrics
    from streamd.storage.azure_access import AzureAccess

_LOG: Final = get_logger("uplink")


class UplinkMeters:
    """Implements the observers of `storage.governor`, `storage.azure` and `storage.uplink`."""

    metrics: "Metrics"

    def observed(
        self,
        operation: str,  # noqa: ARG002 - its requests were told to `requested`
        code: str,  # noqa: ARG002 - as before
        seconds: float,  # noqa: ARG002 - as before
        bytes_sent: int,
        bytes_received: int,
    ) -> None:
        """An operation on the container ended."""
        self.metrics.uploaded_bytes_total.inc(bytes_sent)
        self.metrics.downloaded_bytes_total.inc(bytes_received)

    def requested(self, operation: str, code: str, seconds: float) -> None:
        """A request to the container ended."""
        self.metrics.azure_requests_total.labels(operation, code).inc()
        self.metrics.azure_request_duration_seconds.labels(operation).observe(seconds)

    def retried(self, operation: str, error: StreamdError) -> None:
        """An operation on the container is tried again."""
        self.metrics.azure_retries_total.labels(operation, error.code).inc()

    def circuit_changed(self, circuit: Circuit, error: StreamdError | None) -> None:
        """Requests pause, are probed, or go on."""
        for state in STATES:
            self.metrics.azure_circuit_state.labels(state).set(state == circuit.state)
        for cause in CAUSES:
            self.metrics.azure_paused.labels(cause).set(cause == circuit.cause)
        if circuit.state == "open" and circuit.waits == 1 and error is not None:
            _LOG.warning(
                "uplink-paused",
                cause=circuit.cause,
                reason=error.code,
                what=str(error),
                remedy=error.advice(),
            )
        elif circuit.state == "closed":
            _LOG.info("uplink-resumed")

    def window_changed(self, size: int) -> None:
        """Another number of large requests may be under way."""
        self.metrics.azure_concurrency_limit.set(size)

    def slowed_down(self, seconds: float) -> None:
        """Everybody waits, because the service asks for it."""
        self.metrics.azure_throttled_seconds_total.inc(seconds)

    def token_renewed(self, expires_us: int) -> None:
        """Entra ID gave a new token."""
        self._expiry("token", expires_us)

    def credential_read(self, access: "AzureAccess") -> None:
        """A credential is in use from now on."""
        if access.expires_us is not None:
            self._expiry("sas", access.expires_us)
        if access.certificate_expires_us is not None:
            self._expiry("certificate", access.certificate_expires_us)
        _LOG.info("credential-read", auth=access.auth, place=access.place)

    def credential_unreadable(self, error: StreamdError) -> None:
        """A new credential could not be read."""
        _LOG.error("credential-unreadable", what=str(error), remedy=error.advice())

    def _expiry(self, kind: str, expires_us: int) -> None:
        gauge = self.metrics.credential_expiry_timestamp_seconds
        gauge.labels(kind).set(expires_us / MICROSECONDS)


def silent() -> UplinkMeters:
    """Return one whose metrics nobody asks for: for commands that end soon."""
    meters = UplinkMeters()
    meters.metrics = unheard()
    return meters
