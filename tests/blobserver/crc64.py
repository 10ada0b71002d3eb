"""The CRC-64 of Azure Storage (polynomial 0x9A6C9329AC4BC9B5, reflected), as 8 bytes."""

_POLYNOMIAL = 0x9A6C9329AC4BC9B5


def _table() -> tuple[int, ...]:
    rows = []
    for value in range(256):
        row = value
        for _ in range(8):
            row = (row >> 1) ^ (_POLYNOMIAL if row & 1 else 0)
        rows.append(row)
    return tuple(rows)


_TABLE = _table()


def crc64(content: bytes) -> bytes:
    """Return the checksum as the service sends it, little endian. About 10 MB/s: for tests."""
    value = 0xFFFFFFFFFFFFFFFF
    for byte in content:
        value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return (value ^ 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little")
