"""Backoff: how long to wait before the next try.

Full jitter: a random share of an exponentially growing bound. Many hosts that lost the same service
together do not come back together. Pure: the random share is handed in.
"""

import msgspec

_DOUBLINGS_MAX = 60  # beyond that the cap has long been reached; keeps the power a small number
_FRACTION_BITS = 53  # what a float between 0 and 1 can hold


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule of waits."""

    base_seconds: float = 0.5
    cap_seconds: float = 60.0

    def bound_seconds(self, attempt: int) -> float:
        """Return the longest wait after failed try number `attempt`, counted from 0."""
        doublings = min(attempt, _DOUBLINGS_MAX)
        return min(self.cap_seconds, self.base_seconds * float(2**doublings))

    def delay_seconds(
        self, attempt: int, *, fraction: float, retry_after_seconds: float | None = None
    ) -> float:
        """Return the wait after failed try number `attempt`, for a random `fraction` in [0, 1).

        If the service said how long to wait, never less than that, and spread a little beyond it.
        """
        if retry_after_seconds is not None:
            return retry_after_seconds + fraction * self.base_seconds
        return fraction * self.bound_seconds(attempt)


def fraction_of(token: bytes) -> float:
    """Return a number in [0, 1) from at least 7 random bytes, such as `Entropy.token(8)`."""
    bits = len(token) * 8
    return (int.from_bytes(token, "big") >> (bits - _FRACTION_BITS)) / float(1 << _FRACTION_BITS)
