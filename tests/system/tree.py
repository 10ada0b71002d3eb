"""A full listing of a directory tree, and a readable difference of two of them.

The listing is what "restored identical" means: everything a restore has to bring back, nothing
that it cannot (inode numbers, ctime, atime). Names are bytes; the root itself is `b"."`.
"""

import os
import stat
from collections.abc import Container, Iterator
from dataclasses import dataclass, fields

from blake3 import blake3

ROOT = b"."
READ_BYTES = 1 << 20
SPARSE_BYTES = 64 << 10  # file systems round: fewer missing bytes are no hole on purpose
NOT_COMPARED: frozenset[str] = frozenset()

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFSOCK: "socket",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a tree. Fields that make no sense for the kind hold their default."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    content: str = ""  # BLAKE3 of the content, hexadecimal
    target: bytes = b""
    rdev: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    linked: tuple[bytes, ...] = ()  # all names of this inode in the tree, when it has several
    sparse: bool = False


def listing(root: str | bytes, *, contents: bool = True) -> dict[bytes, Entry]:
    """Return path → entry for the root and everything below it, without following symlinks.

    Without `contents` no file is read. The tree must stand still: a name that disappears
    meanwhile raises FileNotFoundError.
    """
    top = os.fsencode(root)
    found: dict[bytes, tuple[bytes, os.stat_result]] = {}
    names: dict[tuple[int, int], list[bytes]] = {}
    for path, full, status in _walk(top):
        found[path] = full, status
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            names.setdefault((status.st_dev, status.st_ino), []).append(path)
    groups = {key: tuple(sorted(paths)) for key, paths in names.items() if len(paths) > 1}
    digests: dict[tuple[int, int], str] = {}
    entries = {}
    for path, (full, status) in found.items():
        key = (status.st_dev, status.st_ino)
        content = ""
        if contents and stat.S_ISREG(status.st_mode):
            content = digests.get(key) or _digest(full)
            if key in groups:
                digests[key] = content
        entries[path] = _entry(full, status, content, groups.get(key, ()))
    return entries


def difference(
    expected: dict[bytes, Entry],
    actual: dict[bytes, Entry],
    *,
    ignore: Container[str] = NOT_COMPARED,
    at_most: int = 40,
) -> list[str]:
    """Return one line for each path that differs, at most `at_most` and a count; [] if none.

    `ignore` holds names of fields of Entry that are not compared. A file that became sparse is no
    difference, one that no longer is, is.
    """
    if expected == actual:
        return []
    compared = [field.name for field in fields(Entry) if field.name not in ignore]
    lines = []
    for path in sorted(expected.keys() | actual.keys()):
        wanted, got = expected.get(path), actual.get(path)
        if wanted is None or got is None:
            kind = (wanted or got).kind
            lines.append(f"{'extra' if wanted is None else 'missing'} {kind}: {path!r}")
        elif wanted != got:
            facts = [
                f"{name} {_show(name, getattr(wanted, name))} → {_show(name, getattr(got, name))}"
                for name in compared
                if getattr(wanted, name) != getattr(got, name)
                and (name != "sparse" or wanted.sparse)
            ]
            if facts:
                lines.append(f"differs: {path!r}: {'; '.join(facts)}")
    if len(lines) > at_most:
        return [*lines[:at_most], f"… and {len(lines) - at_most} more"]
    return lines


def total_bytes(tree: dict[bytes, Entry]) -> int:
    """Return the size of all file contents, each inode counted once."""
    return sum(
        entry.size
        for path, entry in tree.items()
        if entry.kind == "file" and (not entry.linked or entry.linked[0] == path)
    )


def directory_bytes(root: str | bytes) -> int:
    """Return the bytes of all regular files below `root`; names that vanish do not count."""
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                continue
    return total


def _walk(top: bytes) -> Iterator[tuple[bytes, bytes, os.stat_result]]:
    yield ROOT, top, os.lstat(top)
    pending = [(b"", top)]
    while pending:
        prefix, folder = pending.pop()
        with os.scandir(folder) as items:
            for item in items:
                path = prefix + item.name
                yield path, item.path, item.stat(follow_symlinks=False)
                if item.is_dir(follow_symlinks=False):
                    pending.append((path + b"/", item.path))


def _entry(full: bytes, status: os.stat_result, content: str, linked: tuple[bytes, ...]) -> Entry:
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    is_file = kind == "file"
    attributes = os.listxattr(full, follow_symlinks=False)
    return Entry(
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        size=status.st_size if is_file else 0,
        content=content,
        target=os.readlink(full) if kind == "symlink" else b"",
        rdev=status.st_rdev if kind.endswith("device") else 0,
        xattrs=tuple(
            (name, os.getxattr(full, name, follow_symlinks=False)) for name in sorted(attributes)
        )
        if attributes
        else (),
        linked=linked,
        sparse=is_file and status.st_size - status.st_blocks * 512 >= SPARSE_BYTES,
    )


def _digest(full: bytes) -> str:
    descriptor = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, READ_BYTES)
        if len(data) < READ_BYTES:
            return blake3(data).hexdigest()
        hasher = blake3(data)
        while data := os.read(descriptor, READ_BYTES):
            hasher.update(data)
        return hasher.hexdigest()
    finally:
        os.close(descriptor)


def _show(name: str, value: object) -> str:
    if name == "mode":
        return f"{value:o}"
    if name == "content":
        return str(value)[:12]
    return repr(value) if len(repr(value)) <= 120 else repr(value)[:119] + "…"
