from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

from streamd.sources.port import ReadRequest

_Row: TypeAlias = tuple[Any, ...]
_T = TypeVar("_T", bound=tuple[int, ...])
_I = TypeVar("_I", bound=tuple[int, ...])

def read_batch(
    flags: int,
    groups: list[tuple[bytes, int, list[ReadRequest]]],
    arena: memoryview,
    start: int,
    quiet_ns: int,
    can_probe: bool,
    sides: tuple[bytes, ...],
    /,
) -> list[list[tuple[int, Any] | None]]: ...
def stat_entries(
    fd: int, names: Sequence[bytes] | None, host_stat: type[_T]
) -> tuple[dict[bytes, _T], dict[bytes, int]]: ...
def stat_unlike(
    fd: int, rows: list[_Row], host_stat: type[_T], suffix: bytes
) -> tuple[dict[bytes, _T], dict[bytes, int], list[_Row], dict[bytes, _Row]]: ...
def identify(fd: int, names: list[bytes], births: bool, identity: type[_T]) -> dict[bytes, _T]: ...
def look(
    path: bytes,
    names: Sequence[bytes] | None,
    host_stat: type[_T],
    identity: type[_I],
    size_max: int,
    identities_max: int,
    /,
) -> tuple[_T, dict[bytes, _T], dict[bytes, int], list[bytes], dict[bytes, _I] | None] | None: ...
def look_unlike(
    path: bytes,
    known: Callable[[], list[_Row]],
    host_stat: type[_T],
    suffix: bytes,
    size_max: int,
    /,
) -> tuple[_T, dict[bytes, _T], dict[bytes, int], list[_Row], dict[bytes, _Row]] | None: ...
def write_files(
    dir_fd: int, files: list[tuple[bytes, bytes, memoryview, int, int, int, int]]
) -> list[bool]: ...
def set_types(types: list[int]) -> None: ...
