"""How an entry of a past tree is shown, and what makes two versions of it different."""

import stat
from typing import Final

import msgspec

from streamd.cli import render
from streamd.cli.times import format_rfc3339
from streamd.daemon.status import path_texts
from streamd.model.entry import EntryType, FileVersion, VersionFlag
from streamd.vault.tree_state import TreeEntry

_TYPE_BITS: Final = {
    EntryType.REGULAR: stat.S_IFREG,
    EntryType.DIRECTORY: stat.S_IFDIR,
    EntryType.SYMLINK: stat.S_IFLNK,
    EntryType.FIFO: stat.S_IFIFO,
    EntryType.CHARACTER: stat.S_IFCHR,
    EntryType.BLOCK: stat.S_IFBLK,
    EntryType.SOCKET: stat.S_IFSOCK,
}
# what a version says of a directory only because something in it came or went
_DIRECTORY_NOISE: Final = frozenset({"content", "mtime", "links"})


class EntryLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry as JSON; `path` is lossy text where `path_b64` is there. Sizes in bytes."""

    path: str
    type: str
    size: int
    mode: str  # octal, permission bits
    mtime: str
    mtime_ns: int
    uid: int
    gid: int
    user: str
    group: str
    nlink: int
    path_b64: str = ""
    target: str = ""  # of a symbolic link
    target_b64: str = ""
    flags: tuple[str, ...] = ()


class AsOf(msgspec.Struct, frozen=True, kw_only=True):
    """Of which instant a listing is; `note` says why it is not the one asked for."""

    at: str
    is_exact: bool
    note: str


def line_of(entry: TreeEntry) -> EntryLine:
    """Return an entry as JSON has it; one whose version is missing has a mode of `?`."""
    path, path_b64 = path_texts(entry.path)
    version = entry.version
    if version is None:
        return EntryLine(
            path=path,
            path_b64=path_b64,
            type=type_name(entry.dirent.type),
            size=0,
            mode="?",
            mtime="",
            mtime_ns=0,
            uid=0,
            gid=0,
            user="",
            group="",
            nlink=0,
        )
    target, target_b64 = path_texts(version.target)
    return EntryLine(
        path=path,
        path_b64=path_b64,
        type=type_name(entry.dirent.type),
        size=version.size,
        mode=f"{version.mode:04o}",
        mtime=format_rfc3339(version.mtime_ns // 1000),
        mtime_ns=version.mtime_ns,
        uid=version.uid,
        gid=version.gid,
        user=version.user.decode("utf-8", "replace"),
        group=version.group.decode("utf-8", "replace"),
        nlink=version.nlink,
        target=target,
        target_b64=target_b64,
        flags=flag_names(version),
    )


def type_name(kind: int) -> str:
    """Return for example `directory`."""
    try:
        return EntryType(kind).name.lower()
    except ValueError:
        return f"type-{kind}"


def mode_text(version: FileVersion) -> str:
    """Return for example `-rw-r--r--`."""
    try:
        return render.mode(_TYPE_BITS[EntryType(version.type)] | version.mode)
    except ValueError:
        return f"?{version.mode:04o}"


def owner_text(version: FileVersion) -> str:
    """Return user and group by name, or by number where they have none."""
    user = render.name(version.user) or str(version.uid)
    return f"{user} {render.name(version.group) or version.gid}"


def flag_names(version: FileVersion) -> tuple[str, ...]:
    """Return for example ("fuzzy",)."""
    names = (flag.name for flag in VersionFlag if version.flags & flag)
    return tuple(name.lower() for name in names if name)


def differences(old: FileVersion, new: FileVersion) -> tuple[str, ...]:
    """Return what differs between two versions of a path, in words; () if nothing that matters.

    Of a directory, what changes whenever an entry comes or goes does not matter.
    """
    parts = {
        "type": old.type != new.type,
        "content": (old.size, old.levels, old.content, old.rdev)
        != (new.size, new.levels, new.content, new.rdev),
        "target": old.target != new.target,
        "mode": old.mode != new.mode,
        "owner": (old.uid, old.gid) != (new.uid, new.gid),
        "xattrs": old.xattrs != new.xattrs,
        "mtime": old.mtime_ns != new.mtime_ns,
        "links": old.nlink != new.nlink,
        "flags": old.flags != new.flags,
    }
    found = tuple(name for name, differs in parts.items() if differs)
    if old.type == new.type == EntryType.DIRECTORY:
        return tuple(name for name in found if name not in _DIRECTORY_NOISE)
    return found
