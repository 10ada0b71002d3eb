"""Which compression the next frame gets.

`auto` reads the backpressure. zstd 1 is the balance: smaller than lz4 and, with writing and sending
counted in, as fast. While sealed bytes pile up in front of a slow destination, processor time is
free and stronger levels pay; they step down again as soon as the pile is gone.
"""

from collections.abc import Callable
from typing import Final

from streamd.errors import ConfigInvalid
from streamd.format.codec import Codec
from streamd.pipeline.seal import Compression

FAST: Final = Compression(Codec.LZ4, 0)
BALANCED: Final = Compression(Codec.ZSTD, 1)
STRONG: Final = Compression(Codec.ZSTD, 3)
STRONGEST: Final = Compression(Codec.ZSTD, 6)
PILE_STRONG: Final = 256 * 1024 * 1024  # bytes waiting for the destination
PILE_STRONGEST: Final = 2 * 1024 * 1024 * 1024
_ZSTD_LEVEL_MAX: Final = 19


class CompressionChoice:
    """Answers `now()`; `pile_bytes` tells how much waits for the destination."""

    def __init__(self, setting: str, pile_bytes: Callable[[], int] = lambda: 0) -> None:
        self.pile_bytes = pile_bytes
        self._fixed = _parse(setting)

    def now(self) -> Compression:
        """Return what to use for the next frame."""
        if self._fixed is not None:
            return self._fixed
        pile = self.pile_bytes()
        if pile >= PILE_STRONGEST:
            return STRONGEST
        return STRONG if pile >= PILE_STRONG else BALANCED


def _parse(setting: str) -> Compression | None:
    if setting == "auto":
        return None
    if setting == "none":
        return Compression(Codec.RAW, 0)
    if setting == "lz4":
        return FAST
    level = setting.removeprefix("zstd:")
    if setting.startswith("zstd:") and level.isdigit() and 1 <= int(level) <= _ZSTD_LEVEL_MAX:
        return Compression(Codec.ZSTD, int(level))
    raise ConfigInvalid(f"pipeline.compression {setting!r} is none of auto, lz4, zstd:N, none")
