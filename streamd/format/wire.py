"""Strict decoding of stored bytes: whatever they are, there is one way to fail.

The decoders are typed and bounded by their input. Three things can go wrong inside them: the bytes
do not parse or do not fit the type, a string is not UTF-8, or the nesting is absurd.
"""

from typing import Final, Protocol, TypeVar

import msgspec

from streamd.errors import VaultDamaged
from streamd.format.crypto import Buffer

MALFORMED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
T_co = TypeVar("T_co", covariant=True)


class Decoder(Protocol[T_co]):
    """A msgspec decoder of one type, msgpack or JSON."""

    def decode(self, buf: Buffer, /) -> T_co:
        """Return the value, or raise one of `MALFORMED`."""


def decode(decoder: Decoder[T_co], data: Buffer, what: str) -> T_co:
    """Return what `data` says; `what` names it in the message. Raises VaultDamaged."""
    try:
        return decoder.decode(data)
    except MALFORMED as error:
        raise VaultDamaged(f"{what} does not parse: {error}") from error
