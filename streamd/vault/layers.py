"""When an object of the local copy turns out to be bad, the container's is read instead, and when
that is bad, too, an earlier version of it.

A store says that an object is there and gives its bytes; only who decodes them sees that they are
wrong. So it is the reader that says so, and from then on the store reads that object from its next
layer.
"""

from collections.abc import Awaitable
from typing import Protocol, TypeVar

from streamd.storage.port import BlobName
from streamd.vault.parallel import OBJECT_FAULTS
from streamd.vault.vault import Vault

T = TypeVar("T", covariant=True)  # noqa: PLC0105 - in a protocol of one method


class Reading(Protocol[T]):
    """Reads and decodes an object; `is_again`: another layer's, after the nearer one's was bad."""

    def __call__(self, *, is_again: bool) -> Awaitable[T]:
        """Return what the object says."""


async def from_either(vault: Vault, name: BlobName, read: Reading[T]) -> T:
    """Return what `read` makes of the object; if it cannot, of that in the next layer, and so on.

    Raises what `read` raises for the last layer there is.
    """
    is_again = False
    while True:
        try:
            return await read(is_again=is_again)
        except OBJECT_FAULTS:
            if not vault.distrust(name):
                raise
        is_again = True
