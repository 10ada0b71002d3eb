"""Write below one directory, and nowhere else, whatever names and links say.

Every directory on the way is opened from its parent's descriptor with O_NOFOLLOW, so that neither a
symbolic link in the vault nor one planted by another user meanwhile can lead outside. Files
are written under temporary names and renamed when they are complete, owner, mode, attributes and
times included; a name that was free when we looked is never overwritten.
"""

import ctypes
import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec import field

from streamd.errors import DiskFull
from streamd.model.entry import EntryType, FileVersion
from streamd.restore.plan import TEMPORARY_PREFIX, PlannedFile, PlannedLink, RestorePlan
from streamd.sources.filesystem import bulk

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_REOPEN: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_OPEN_MAX: Final = 96  # descriptors of directories kept by one writer
_NOREPLACE: Final = 1
_VECTOR_MAX: Final = 1024  # pieces in one call: IOV_MAX
SET_IDS: Final = 0o6000
_UNPRIVILEGED_XATTRS: Final = (b"user.", b"system.posix_acl_")
KINDS: Final = {
    EntryType.SYMLINK: stat.S_IFLNK,
    EntryType.FIFO: stat.S_IFIFO,
    EntryType.SOCKET: stat.S_IFSOCK,
    EntryType.CHARACTER: stat.S_IFCHR,
    EntryType.BLOCK: stat.S_IFBLK,
}
_libc = ctypes.CDLL(None, use_errno=True)


class Notes(msgspec.Struct):
    """What could not be restored of things that were: reason -> count, and the first path."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, bytes] = field(default_factory=dict)

    def add(self, reason: str, path: bytes) -> None:
        """Count one more."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.first.setdefault(reason, path)

    def merge(self, other: "Notes") -> None:
        """Count those of another writer too."""
        for reason, count in other.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
            self.first.setdefault(reason, other.first[reason])


def stop_if_full(error: OSError) -> None:
    """Raise DiskFull if `error` says that no further write can succeed."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        raise DiskFull("the target is full", path="the restore target") from error


def rename_free(old: bytes, new: bytes, directory: int) -> None:
    """Rename within a directory; FileExistsError if `new` is taken."""
    result = _libc.renameat2(directory, old, directory, new, _NOREPLACE)
    if result == 0:
        return
    number = ctypes.get_errno()
    if number not in {errno.EINVAL, errno.ENOSYS}:
        raise OSError(number, os.strerror(number), new)
    os.link(old, new, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    os.unlink(old, dir_fd=directory)  # a file system without the flag, such as NFS


class Target:
    """One writer's view of the target. Blocking; one thread at a time; several may exist."""

    def __init__(self, root: int, plan: RestorePlan, *, privileged: bool) -> None:
        self.root = root
        self._plan = plan
        self._privileged = privileged
        self._open: OrderedDict[int, int] = OrderedDict()
        self.notes = Notes()

    def close(self) -> None:
        """Give the descriptors back (the root's belongs to the caller)."""
        for handle in self._open.values():
            os.close(handle)
        self._open.clear()

    # -- directories -----------------------------------------------------------------------------

    def directory(self, number: int) -> int:
        """Return a descriptor of a planned directory, good until the next call. OSError."""
        if number == 0:
            return self.root
        handle = self._open.get(number)
        if handle is not None:
            self._open.move_to_end(number)
            return handle
        directories, missing = self._plan.directories, []
        while number and number not in self._open:
            missing.append(number)
            number = directories[number].parent
        handle = self._open[number] if number else self.root
        if number:
            self._open.move_to_end(number)
        for each in reversed(missing):
            handle = os.open(directories[each].name, _DIRECTORY, dir_fd=handle)
            self._open[each] = handle
            if len(self._open) > _OPEN_MAX:
                os.close(self._open.popitem(last=False)[1])
        return handle

    def make_directory(self, number: int, *, replace: bool) -> bool:
        """Make a planned directory; return whether it is new. OSError if something else is there.

        With `replace`, a file or symbolic link in its place is removed.
        """
        planned = self._plan.directories[number]
        parent = self.directory(planned.parent)
        # A directory only on the way to what is restored never gets metadata of its own.
        mode = 0o700 if planned.version is not None else 0o755
        try:
            os.mkdir(planned.name, mode, dir_fd=parent)
        except FileExistsError:
            status = os.lstat(planned.name, dir_fd=parent)
            if stat.S_ISDIR(status.st_mode):
                return False
            if not replace:
                raise
            os.unlink(planned.name, dir_fd=parent)
            os.mkdir(planned.name, mode, dir_fd=parent)
        return True

    def describe_existing(self, file: PlannedFile) -> None:
        """Give a file whose content is right already its metadata. OSError."""
        if file.version.type != EntryType.REGULAR:
            parent = self.directory(file.directory)
            self._describe_node(file.name, parent, file)
            return
        handle = self.open_existing(file.directory, file.name)
        try:
            self._describe_file(handle, file)
        finally:
            os.close(handle)

    def finish_directory(self, number: int) -> None:
        """Give a directory its metadata, when everything in it is done. OSError."""
        version = self._plan.directories[number].version
        if version is not None:
            path = self._plan.directories[number].source_path
            self._describe(self.directory(number), version, path)

    # -- files -----------------------------------------------------------------------------------

    def write_file(self, file: PlannedFile, pieces: Sequence[tuple[int, memoryview]]) -> None:
        """Write a whole file from (offset, bytes) and give it its name. OSError."""
        parent = self.directory(file.directory)
        name = temporary_name(file)
        handle = self._create(name, parent)
        try:
            if sum(len(piece) for _, piece in pieces) != file.version.size:
                # before writing: what extends a file makes XFS allocate ahead, into the holes
                os.ftruncate(handle, file.version.size)
            self._fill(handle, pieces)
            self._describe_file(handle, file)
        except BaseException:
            os.unlink(name, dir_fd=parent)
            raise
        finally:
            os.close(handle)
        self._publish(name, file, parent)

    def write_ordinary(
        self, directory: int, files: Sequence[tuple[PlannedFile, memoryview]]
    ) -> list[bool]:
        """Write whole files of one directory in one go; say which are done.

        Of the others nothing is there: write them singly, and see why it cannot be. OSError.
        """
        assert bulk.write_files is not None
        writing = []
        for file, data in files:
            version = file.version
            uid = version.uid if self._privileged else -1
            owner = (uid, version.gid, version.mode, version.mtime_ns)
            writing.append((temporary_name(file), file.name, data, *owner))
        return bulk.write_files(self.directory(directory), writing)

    def is_ordinary(self, file: PlannedFile) -> bool:
        """Say whether `write_ordinary` can write this: nothing to replace, and nothing special."""
        version = file.version
        return (
            bulk.write_files is not None
            and not file.replaces
            and not version.xattrs
            and (self._privileged or (version.uid, version.gid) == (os.geteuid(), os.getegid()))
        )

    def begin(self, file: PlannedFile) -> None:
        """Create the temporary file of a file that is written in several steps. OSError."""
        handle = self._create(temporary_name(file), self.directory(file.directory))
        try:
            os.ftruncate(handle, file.version.size)
        finally:
            os.close(handle)

    def write_part(self, file: PlannedFile, pieces: Sequence[tuple[int, memoryview]]) -> None:
        """Write parts of a file that was begun. OSError."""
        parent = self.directory(file.directory)
        handle = os.open(temporary_name(file), _REOPEN, dir_fd=parent)
        try:
            self._fill(handle, pieces)
        finally:
            os.close(handle)

    def finish(self, file: PlannedFile) -> None:
        """Give a file that was begun its metadata and its name. OSError."""
        parent, name = self.directory(file.directory), temporary_name(file)
        handle = os.open(name, _REOPEN, dir_fd=parent)
        try:
            self._describe_file(handle, file)
        finally:
            os.close(handle)
        self._publish(name, file, parent)

    def abandon(self, file: PlannedFile) -> None:
        """Remove what there is of a file that was begun."""
        try:
            os.unlink(temporary_name(file), dir_fd=self.directory(file.directory))
        except OSError:
            return

    def write_node(self, file: PlannedFile) -> None:
        """Make a symbolic link, fifo, socket or device. OSError."""
        parent, name = self.directory(file.directory), temporary_name(file)
        version = file.version
        if version.type == EntryType.SYMLINK:
            _again(name, parent, lambda: os.symlink(version.target, name, dir_fd=parent))
        else:
            mode = KINDS[EntryType(version.type)] | 0o600
            _again(name, parent, lambda: os.mknod(name, mode, version.rdev, dir_fd=parent))
        try:
            self._describe_node(name, parent, file)
        except BaseException:
            os.unlink(name, dir_fd=parent)
            raise
        self._publish(name, file, parent)

    def link(self, file: PlannedFile, link: PlannedLink) -> None:
        """Give a restored file a further name. OSError."""
        old = os.dup(self.directory(file.directory))
        try:
            parent = self.directory(link.directory)
            temporary = TEMPORARY_PREFIX + b"link-%x" % file.fid
            places = {"src_dir_fd": old, "dst_dir_fd": parent}
            _again(
                temporary,
                parent,
                lambda: os.link(file.name, temporary, follow_symlinks=False, **places),
            )
            self._rename(temporary, link.name, parent, replaces=link.replaces)
        finally:
            os.close(old)

    def _create(self, name: bytes, parent: int) -> int:
        try:
            return os.open(name, _CREATE, 0o600, dir_fd=parent)
        except FileExistsError:  # of a restore that was killed
            os.unlink(name, dir_fd=parent)
            return os.open(name, _CREATE, 0o600, dir_fd=parent)

    def _fill(self, handle: int, pieces: Sequence[tuple[int, memoryview]]) -> None:
        """Write pieces that are in order; those that follow each other in one call."""
        run: list[memoryview] = []
        start = end = 0
        for offset, piece in pieces:
            if run and (offset != end or len(run) == _VECTOR_MAX):
                _write_all(handle, run, start)
                run = []
            if not run:
                start = offset
            run.append(piece)
            end = offset + len(piece)
        if run:
            _write_all(handle, run, start)

    def _publish(self, name: bytes, file: PlannedFile, parent: int) -> None:
        self._rename(name, file.name, parent, replaces=file.replaces)

    def _rename(self, old: bytes, new: bytes, parent: int, *, replaces: bool) -> None:
        try:
            if replaces:
                os.rename(old, new, src_dir_fd=parent, dst_dir_fd=parent)
                # Renaming onto another name of the same file does nothing at all.
                _forget(old, parent)
            else:
                rename_free(old, new, parent)
        except BaseException:
            _forget(old, parent)
            raise

    # -- metadata --------------------------------------------------------------------------------

    def _describe_file(self, handle: int, file: PlannedFile) -> None:
        version = file.version
        path = b"" if self._is_plain(version) else self._plan.source_path(file.directory, file.name)
        self._describe(handle, version, path)

    def _is_plain(self, version: FileVersion) -> bool:
        return self._privileged and not version.xattrs

    def _describe(self, handle: int, version: FileVersion, path: bytes) -> None:
        """Owner first: changing it clears mode bits and capabilities. Times last."""
        mode = self._own(handle, version, path)
        os.fchmod(handle, mode)
        for name, value in version.xattrs:
            self._set_xattr(handle, name, value, path)
        os.utime(handle, ns=(version.mtime_ns, version.mtime_ns))

    def _own(self, handle: int, version: FileVersion, path: bytes) -> int:
        """Set the owner; return the mode to set after it."""
        if self._privileged:
            os.fchown(handle, version.uid, version.gid)
            return version.mode
        if (version.uid, version.gid) == (os.geteuid(), os.getegid()):
            return version.mode
        self.notes.add("owner not restored, since only root may do that", path)
        return version.mode & ~SET_IDS

    def _describe_node(self, name: bytes, parent: int, file: PlannedFile) -> None:
        """Through a descriptor: the name may be somebody else's by now, the node is ours."""
        version = file.version
        path = self._plan.source_path(file.directory, file.name)
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            kind = stat.S_IFMT(os.fstat(handle).st_mode)
            if kind != KINDS[EntryType(version.type)]:
                raise FileExistsError(errno.EEXIST, "somebody else writes to the target")
            node = b"/proc/self/fd/%d" % handle
            if self._privileged:
                os.chown(node, version.uid, version.gid)
            elif (version.uid, version.gid) != (os.geteuid(), os.getegid()):
                self.notes.add("owner not restored, since only root may do that", path)
            if version.type != EntryType.SYMLINK:
                os.chmod(node, version.mode)
            for key, value in version.xattrs:
                self._set_xattr(node, key, value, path)
            os.utime(node, ns=(version.mtime_ns, version.mtime_ns))
        finally:
            os.close(handle)

    def _set_xattr(self, where: int | bytes, name: bytes, value: bytes, path: bytes) -> None:
        if not self._privileged and not name.startswith(_UNPRIVILEGED_XATTRS):
            self.notes.add("extended attributes that only root may set", path)
            return
        try:
            os.setxattr(where, name, value)
        except (OSError, ValueError) as error:
            what = error.strerror if isinstance(error, OSError) else "an impossible name"
            self.notes.add(f"extended attribute not restored: {what}", path)

    # -- looking ---------------------------------------------------------------------------------

    def status(self, directory: int, name: bytes) -> os.stat_result | None:
        """Return what stands at a place, links not followed. OSError."""
        try:
            return os.lstat(name, dir_fd=self.directory(directory))
        except FileNotFoundError:
            return None

    def names(self, directory: int) -> set[bytes]:
        """Return the names in an existing directory. OSError."""
        return {os.fsencode(name) for name in os.listdir(self.directory(directory))}

    def open_unfinished(self, file: PlannedFile) -> int | None:
        """Open what a killed restore of ours left of a file, if that is certain. OSError."""
        handle = self.open_existing(file.directory, temporary_name(file))
        status = os.fstat(handle)
        mine = (stat.S_IFREG | 0o600, os.geteuid(), 1, file.version.size)
        if (status.st_mode, status.st_uid, status.st_nlink, status.st_size) == mine:
            return handle
        os.close(handle)
        return None

    def open_existing(self, directory: int, name: bytes) -> int:
        """Open a regular file for reading; the caller closes. OSError."""
        return os.open(name, _READ, dir_fd=self.directory(directory))

    def link_target(self, directory: int, name: bytes) -> bytes:
        """Return where a symbolic link points. OSError."""
        return os.readlink(name, dir_fd=self.directory(directory))

    def remove_temporary(self, directory: int, name: bytes) -> None:
        """Remove what a killed restore left. OSError."""
        assert name.startswith(TEMPORARY_PREFIX)
        os.unlink(name, dir_fd=self.directory(directory))


def _write_all(handle: int, pieces: list[memoryview], offset: int) -> None:
    """Write pieces side by side. OSError."""
    written = os.pwritev(handle, pieces, offset)
    for piece in pieces:
        rest = piece[written:] if written < len(piece) else piece[:0]
        offset += len(piece)
        written = max(0, written - len(piece))
        while rest:  # the call was cut short: the rest piece by piece
            rest = rest[os.pwrite(handle, rest, offset - len(rest)) :]


def temporary_name(file: PlannedFile) -> bytes:
    """Return the name of a file while it is incomplete: the same when a restore is repeated."""
    return TEMPORARY_PREFIX + b"%x" % file.fid


def _forget(name: bytes, parent: int) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return


def _again(name: bytes, parent: int, make: Callable[[], None]) -> None:
    """Make `name`, in place of what a killed restore left under it."""
    try:
        make()
    except FileExistsError:
        os.unlink(name, dir_fd=parent)
        make()


def open_target(path: bytes, mode: int) -> int:
    """Open the target directory, made with `mode` if need be; the caller closes. OSError."""
    os.makedirs(path, mode=mode, exist_ok=True)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
