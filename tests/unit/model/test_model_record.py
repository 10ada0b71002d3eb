"""Keys of the record log: typed, ordered, and parsed back only by their own parser."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamd.model.entry import ContentRun, Dirent, EntryType, FileVersion, SourceInfo
from streamd.model.ids import ROOT_FID, Fid
from streamd.model.record import (
    SOURCE_KEY,
    Gap,
    Mark,
    Op,
    Record,
    dirent_key,
    dirent_prefix,
    is_version_key,
    parse_dirent_key,
    parse_version_key,
    version_key,
    version_keys,
    version_values,
)

fids = st.integers(0, 2**64 - 1).map(Fid)
names = st.binary(min_size=1, max_size=255)
VERSION = FileVersion(
    type=EntryType.REGULAR,
    mode=0o640,
    uid=1,
    gid=2,
    user=b"u",
    group=b"g",
    mtime_ns=-5,
    ctime_ns=6,
    btime_ns=0,
    size=12,
    nlink=1,
    rdev=0,
    target=b"",
    xattrs=((b"user.a", b"\x00"),),
    profile=1,
    levels=0,
    content=(ContentRun(bytes(32), 4), ContentRun(None, 8)),
    fhash=b"",
    flags=4,
)


@given(fids, names)
def test_an_entrys_key_comes_back(parent: Fid, name: bytes) -> None:
    key = dirent_key(parent, name)
    assert parse_dirent_key(key) == (parent, name)
    assert parse_version_key(key) is None
    assert key.startswith(dirent_prefix(parent))


@given(fids)
def test_a_versions_key_comes_back(fid: Fid) -> None:
    assert parse_version_key(version_key(fid)) == fid
    assert parse_dirent_key(version_key(fid)) is None


@given(st.lists(fids), st.lists(names))
def test_many_keys_and_values_are_those_of_each(some: list[Fid], others: list[bytes]) -> None:
    keys = version_keys(some)
    assert keys == [version_key(fid) for fid in some]
    rows = [(key, b"%d" % number) for number, key in enumerate([*keys, *others, SOURCE_KEY])]
    assert version_values(rows) == [value for key, value in rows if is_version_key(key)]


@pytest.mark.parametrize(
    "key", [b"", b"d", b"f", SOURCE_KEY, dirent_prefix(ROOT_FID), b"f" + bytes(9), b"f" + bytes(7)]
)
def test_other_keys_are_neither(key: bytes) -> None:
    assert parse_dirent_key(key) is None
    assert parse_version_key(key) is None


@given(fids, fids, names, names)
def test_keys_sort_by_directory_then_name(a: Fid, b: Fid, x: bytes, y: bytes) -> None:
    assert (dirent_key(a, x) < dirent_key(b, y)) == ((a, x) < (b, y))


@pytest.mark.parametrize(
    "value",
    [
        VERSION,
        Dirent(7, EntryType.DIRECTORY),
        SourceInfo("home", (b"/home", b"/\xff")),
        Record(Op.SET, 5, 0, b"k", b"v"),
        Gap(1, 2, "overflow", b"/x"),
        Mark("before upgrade"),
        ContentRun(None, 9),
    ],
)
def test_a_field_added_by_a_later_version_is_ignored(value: msgspec.Struct) -> None:
    stored = msgspec.msgpack.encode(value)
    row = msgspec.msgpack.decode(stored)
    assert msgspec.msgpack.decode(stored, type=type(value)) == value
    later = msgspec.msgpack.encode([*row, {"new": [1, None, b"x"]}, 0.5])
    assert msgspec.msgpack.decode(later, type=type(value)) == value


def test_optional_trailing_fields_may_be_absent() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode([1, 2, "start"]), type=Gap) == Gap(
        1, 2, "start"
    )
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(["m"]), type=Mark) == Mark("m")
