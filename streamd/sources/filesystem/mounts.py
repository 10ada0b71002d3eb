"""What is mounted where, and noticing that it changed."""

import os
import select
from typing import Final, NamedTuple

_MOUNTINFO: Final = "/proc/self/mountinfo"
# Kernel views that look like files; there is nothing in them to bring back.
PSEUDO_TYPES: Final = frozenset(
    b"proc sysfs devtmpfs devpts cgroup cgroup2 pstore efivarfs bpf debugfs tracefs securityfs "
    b"configfs fusectl mqueue hugetlbfs binfmt_misc autofs rpc_pipefs nsfs selinuxfs".split()
)
# Others change these too, and the kernel here is told nothing of that.
NETWORK_TYPES: Final = frozenset(
    b"nfs nfs4 cifs smb3 9p ceph afs gfs2 ocfs2 glusterfs fuse.sshfs fuse.glusterfs "
    b"fuse.s3fs fuse.rclone fuse.davfs".split()
)
# A call into these returns when somebody else answers.
_REMOTE_TYPES: Final = NETWORK_TYPES | {b"fuse", b"fuseblk"}


def may_hang(kind: bytes) -> bool:
    """Say whether a file system of this type needs somebody else's answer to every call."""
    return kind in _REMOTE_TYPES or kind.startswith(b"fuse.")


class Mount(NamedTuple):
    """One line of mountinfo."""

    id: int
    device: int
    point: bytes
    type: bytes
    root: bytes = b"/"  # which part of the file system is mounted


def _unescape(text: bytes) -> bytes:
    """Undo the octal escapes of blanks and backslashes in mountinfo."""
    if b"\\" not in text:
        return text
    first, *rest = text.split(b"\\")
    return first + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in rest)


def parse_mountinfo(text: bytes) -> list[Mount]:
    """Return the mounts in the order of the kernel: later ones lie on top."""
    mounts = []
    for line in text.splitlines():
        fields = line.split(b" ")
        dash = fields.index(b"-")
        major, minor = fields[2].split(b":")
        device = os.makedev(int(major), int(minor))
        point, root = _unescape(fields[4]), _unescape(fields[3])
        mounts.append(Mount(int(fields[0]), device, point, fields[dash + 1], root))
    return mounts


def read_mounts() -> list[Mount]:
    """Return what is mounted now; nothing when there is no /proc."""
    try:
        with open(_MOUNTINFO, "rb") as file:
            return parse_mountinfo(file.read())
    except FileNotFoundError:
        return []


def pseudo_devices() -> frozenset[int]:
    """Return the device numbers of mounted file systems that hold no data."""
    return frozenset(mount.device for mount in read_mounts() if mount.type in PSEUDO_TYPES)


class MountTable:
    """The mounts as last seen; asking for changes costs one poll(2) when there are none."""

    def __init__(self) -> None:
        self._poll = select.poll()
        try:
            self._fd = os.open(_MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
            self._poll.register(self._fd, select.POLLERR | select.POLLPRI)
        except FileNotFoundError:
            self._fd = -1
        self.mounts = read_mounts()

    def changes(self) -> set[Mount]:
        """Return what was mounted or unmounted since last time."""
        if self._fd < 0 or not self._poll.poll(0):
            return set()
        before, self.mounts = self.mounts, read_mounts()
        return set(before).symmetric_difference(self.mounts)

    def close(self) -> None:
        """Stop looking."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
