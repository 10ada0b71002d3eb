"""Small readers of the host's tables."""

import os

from streamd.effects import SystemClock
from streamd.sources.filesystem.mounts import MountTable, parse_mountinfo
from streamd.sources.filesystem.names import OwnerNames


def test_owners_have_names_and_strangers_have_none():
    names = OwnerNames(SystemClock())
    assert names.user(0) == b"root"
    assert names.group(0) == b"root"
    assert names.user(2**31 + 7) == b""
    assert names.group(2**40) == b""


def test_mount_points_are_bytes_with_blanks():
    line = rb"36 35 98:5 /sub /mnt/a\040b\134c rw,noatime master:1 - ext3 /dev/root rw" + b"\n"
    (mount,) = parse_mountinfo(line)
    assert mount.point == rb"/mnt/a b\c"
    assert mount.type == b"ext3"
    assert mount.device == os.makedev(98, 5)


def test_a_table_without_changes_says_so():
    table = MountTable()
    assert table.mounts
    assert table.changes() == set()
    table.close()
