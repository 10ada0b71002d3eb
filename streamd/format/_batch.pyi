from collections.abc import Callable, Sequence
from typing import TypeVar

from streamd.model.host import HostStat

_P = TypeVar("_P", bound=tuple[object, ...])

def cut(
    key: bytes,
    data: memoryview,
    starts: list[int],
    sizes: list[int],
    seed: int,
    min_size: int,
    avg_size: int,
    max_size: int,
    final: bool,
    piece: type[_P],
    /,
) -> list[list[_P]]: ...
def chunk_ids(key: bytes, data: memoryview, starts: list[int], sizes: list[int]) -> list[bytes]: ...
def sum_terms(records: list[tuple[int, bytes, bytes]] | list[tuple[bytes, bytes]], /) -> bytes: ...
def page_end(rows: list[tuple[bytes, bytes]], start: int, average: int, /) -> int: ...
def versions(
    stats: list[HostStat],
    births: list[int],
    pieces: list[Sequence[tuple[bytes | None, int, int]]],
    profile: int,
    user_name: Callable[[int], bytes],
    group_name: Callable[[int], bytes],
) -> list[bytes]: ...
def new_records(
    op: int, files: list[tuple[int, bytes, int, int, bytes]]
) -> list[tuple[int, bytes, bytes]]: ...
