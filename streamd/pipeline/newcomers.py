"""New files of one name each, together in a directory: nearly all that a first capture finds."""

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Final

from streamd.model.entry import EntryType
from streamd.model.host import HostStat, Identity
from streamd.pipeline.findings import Found

_DIRECTORY: Final = int(EntryType.DIRECTORY)
_REGULAR: Final = int(EntryType.REGULAR)


def plain_files(  # noqa: PLR0917 - private to the survey; named where it is called
    parent: int,
    parent_ino: int,
    prefix: bytes,
    names: Sequence[bytes],
    entries: Mapping[bytes, HostStat],
    seen: Mapping[bytes, Identity],
    in_flight: Container[tuple[int, bytes]],
    since_us: Mapping[bytes, int],
    visit_us: int,
    new_fid: Callable[[], int],
    room: int,
    room_bytes: int,
    size_max: int,
) -> tuple[list[Found], list[bytes], int]:
    """Return what is to be recorded of those `names` that are plain, the others, and bytes to read.

    Of none of the names, nor of their inodes, anything is known. Not plain is what needs a closer
    look: a directory, a file with several names or larger than `size_max`, what is in flight, and
    what is not (`seen`) or not any more the file that was listed. The file that takes the last of
    `room` or `room_bytes` is the last that is taken. `prefix` before a name makes a path.
    """
    found: list[Found] = []
    left: list[bytes] = []
    size_sum = 0
    for at, name in enumerate(names):
        now, identity = entries[name], seen.get(name)
        kind, _, _, _, size, _, _, dev, ino, nlink, _ = now
        if nlink != 1 or kind == _DIRECTORY or identity is None or (parent, name) in in_flight:
            left.append(name)
            continue
        seen_dev, seen_ino, generation, _ = identity
        is_file = kind == _REGULAR
        if ino != seen_ino or dev != seen_dev or (is_file and size > size_max):
            left.append(name)
            continue
        path = prefix + name
        since = since_us.get(path, visit_us)
        fid = new_fid()
        found.append(Found(parent, name, path, fid, now, since, parent_ino, True, True, generation))
        if is_file:
            size_sum += size
        if len(found) >= room or size_sum >= room_bytes:
            left += names[at + 1 :]
            break
    return found, left, size_sum
