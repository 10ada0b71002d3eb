"""Which compression the next frames get, and what compressing has cost lately.

`auto` measures what limits the capture and lets `policy.effort` decide, for each batch anew (4 MiB
at most). The threads that seal tell what its frames took; the rest is looked up when it is asked
for.
"""

import os
import threading
from collections import Counter
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from streamd.errors import ConfigInvalid
from streamd.format.codec import Codec
from streamd.pipeline.seal import Compression, Effect
from streamd.policy.effort import COST, Effort, Signals, choose

SETTINGS: Final = {
    Effort.FAST: Compression(Codec.LZ4, 0),
    Effort.BALANCED: Compression(Codec.ZSTD, 1),
    Effort.STRONG: Compression(Codec.ZSTD, 3),
    Effort.STRONGER: Compression(Codec.ZSTD, 6),
    Effort.STRONGEST: Compression(Codec.ZSTD, 9),
}
_EFFORTS: Final = {how: effort for effort, how in SETTINGS.items()}
_ZSTD_LEVEL_MAX: Final = 19
_MEMORY: Final = 0.9  # of what was measured before counts after another frame of this size:
_FRAME_BYTES: Final = 256 * 1024


class CompressionChoice:
    """Answers `now()`; `queues` tells how full they are. Threads may share one."""

    def __init__(
        self, setting: str, queues: Callable[[], Signals] = Signals, *, threads: int = 1
    ) -> None:
        self.queues = queues
        self.bytes_by_setting: Counter[str] = Counter()  # plain bytes compressed so far
        self._fixed = _parse(setting)
        self._lock = threading.Lock()
        processors = len(os.sched_getaffinity(0))
        self._measured = Signals(
            processors=min(threads, processors), fair=min(1.0, processors / threads)
        )

    @property
    def measured(self) -> Signals:
        """Return what compressing has cost lately; the queues are not in it."""
        return self._measured

    def now(self) -> Compression:
        """Return what to use for the next frames."""
        if self._fixed is not None:
            return self._fixed
        seen = self._measured
        signals = replace(
            self.queues(),
            granted=seen.granted,
            fair=seen.fair,
            processors=seen.processors,
            seconds_per_byte=seen.seconds_per_byte,
            ratio=seen.ratio,
        )
        return SETTINGS[choose(signals)]

    def sealed(self, effect: Effect) -> None:
        """Learn from what sealing frames has taken."""
        size, how = effect.plain_bytes, effect.how
        with self._lock:
            self.bytes_by_setting[name_of(how)] += size
            if self._fixed is not None or size == 0:
                return
            seen = self._measured
            granted = min(1.0, effect.cpu_seconds / max(effect.seconds, 1e-9))
            cost = effect.cpu_seconds / size / COST[_EFFORTS[how]]
            kept = _MEMORY ** (size / _FRAME_BYTES) if seen.seconds_per_byte else 0.0
            self._measured = replace(
                seen,
                granted=_mixed(seen.granted, granted, kept),
                seconds_per_byte=_mixed(seen.seconds_per_byte, cost, kept),
                ratio=_mixed(seen.ratio, effect.stored_bytes / size, kept),
            )


def name_of(how: Compression) -> str:
    """Return the name of a setting as the configuration has it."""
    if how.codec is Codec.ZSTD:
        return f"zstd:{how.level}"
    return "lz4" if how.codec is Codec.LZ4 else "none"


def _mixed(old: float, new: float, kept: float) -> float:
    return old * kept + new * (1 - kept)


def _parse(setting: str) -> Compression | None:
    if setting == "auto":
        return None
    if setting == "none":
        return Compression(Codec.RAW, 0)
    if setting == "lz4":
        return SETTINGS[Effort.FAST]
    level = setting.removeprefix("zstd:")
    if setting.startswith("zstd:") and level.isdigit() and 1 <= int(level) <= _ZSTD_LEVEL_MAX:
        return Compression(Codec.ZSTD, int(level))
    raise ConfigInvalid(f"pipeline.compression {setting!r} is none of auto, lz4, zstd:N, none")
