"""Who is told of every single request, without the Azure SDK."""

from typing import Protocol


class RequestObserver(Protocol):
    """Told of every request that left, repetitions too. Must not block and not raise."""

    def requested(self, operation: str, code: str, seconds: float) -> None:
        """A request ended: `code` is the status, such as `403` or `5xx`, or what came instead."""

    def token_renewed(self, expires_us: int) -> None:
        """Entra ID gave a new token, good until then."""


class Deaf:
    """An observer that does not listen."""

    def requested(self, operation: str, code: str, seconds: float) -> None:
        """Ignore it."""

    def token_renewed(self, expires_us: int) -> None:
        """Ignore it."""
