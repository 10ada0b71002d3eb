"""What the fuzzer found in the recovery kit's parser."""

import pytest

from streamd.errors import KitInvalid
from streamd.format.kit import decode_kit


def test_a_block_with_letters_outside_of_ascii_is_no_kit() -> None:
    """What decodes base64 has two ways to fail."""
    text = (
        "format: 1\nvault: uqd2rqfegpd3pshsfofkyqdr4u\nurl: file:///v\n"
        "-----BEGIN STREAMD SLOT-----\nAAAä\n-----END STREAMD SLOT-----\n"
    )
    with pytest.raises(KitInvalid):
        decode_kit(text.encode())
